//! Batches written by another implementation (kafka-python 3.0.12), kept as bytes.
//!
//! A change that makes one of these fail changes the format that producers and disks already hold.

use bytes::Bytes;

use super::super::*;
use super::build::{batch_of, records_of};
use crate::{Header, Record, limits::INFLATED_BYTES_MAX};

const PLAIN: &str = "\
0000000000000000000000b80000000002623a8ac00000000000030000018bcfe568000000018bcfe67970ffffffffff\
ffffffffffffffffff0000000454000000046b301666697273742076616c7565060a7472616365066162630a74726163\
6500086e6f6e65010e00cf0f020100001000e0c508040001009201000206046b33800161616161616161616161616161\
616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
61616100";

const GZIP: &str = "\
00000000000000000000008b0000000002b26e7e6a0001000000030000018bcfe568000000018bcfe679700000000000\
001b59000300000028000000041f8b0800894f006b02ff0b61606060c936104bcb2c2a2e51284bcc294d65e32a294a4c\
4e654b4c4a86b01838f2f2f35219f918cef33331323008303c38cac1c2c0c830899181898d25dbb881319142c0000055\
92531f87000000";

const SNAPPY: &str = "\
0000000000000000000000940000000002c84f788f0002000000030000018bcfe568000000018bcfe679700000000000\
001b590003000000280000000482534e415050590000000001000000010000004f87017854000000046b301666697273\
742076616c7565060a7472616365066162630a050a9000086e6f6e65010e00cf0f020100001000e0c508040001009201\
000206046b338001616161f202000000";

const LZ4: &str = "\
000000000000000000000098000000000260b7138e0003000000030000018bcfe568000000018bcfe679700000000000\
001b590003000000280000000404224d18684087000000000000000350000000f20f54000000046b3016666972737420\
76616c7565060a7472616365066162630a00ff1400086e6f6e65010e00cf0f020100001000e0c5080400010092010002\
06046b3380016101002850616161610000000000";

const ZSTD: &str = "\
000000000000000000000086000000000287b5ea7a0004000000030000018bcfe568000000018bcfe679700000000000\
001b590003000000280000000428b52ffd2087650200240454000000046b301666697273742076616c7565060a747261\
63650661626300086e6f6e65010e00cf0f020100001000e0c508040001009201000206046b33800161000200234e3e3b\
1427";

/// The records in every fixture.
fn expected() -> Vec<Record> {
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let header =
        |key: &'static str, value| Header { key: Bytes::from_static(key.as_bytes()), value };
    let plain = |timestamp_ms, key, value| Record { timestamp_ms, key, value, headers: vec![] };
    let headers =
        vec![header("trace", bytes("abc")), header("trace", bytes("")), header("none", None)];
    vec![
        Record { headers, ..plain(1_700_000_000_000, bytes("k0"), bytes("first value")) },
        plain(1_699_999_999_000, None, bytes("")),
        plain(1_700_000_070_000, bytes(""), None),
        plain(1_700_000_000_001, bytes("k3"), Some(Bytes::from(vec![b'a'; 64]))),
    ]
}

/// Bytes spelled in hexadecimal.
fn unhex(text: &str) -> Bytes {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn batches_of_another_implementation_are_read() {
    for (compression, hex) in Compression::ALL.into_iter().zip([PLAIN, GZIP, SNAPPY, LZ4, ZSTD]) {
        let batch = RecordBatch::decode(unhex(hex)).unwrap();
        let header = batch.header();
        assert_eq!(header.compression(), Ok(compression));
        assert_eq!(header.base_timestamp_ms, 1_700_000_000_000);
        let producer = (header.producer_id.0, header.producer_epoch.0, header.base_sequence);
        let plain = compression == Compression::None;
        assert_eq!(producer, if plain { (-1, -1, -1) } else { (7001, 3, 40) });
        assert_eq!(records_of(&batch), expected(), "{compression}");
        assert_eq!(batch.check_produced(ProducedLimits::default()), Ok(()));
        let short = batch.records(100).map(|_| ());
        let too_large = InflateError::TooLarge { codec: compression, limit: 100 };
        assert_eq!(short, if plain { Ok(()) } else { Err(too_large.into()) });
        assert_eq!(batch.records(INFLATED_BYTES_MAX).unwrap().inflated_bytes(), 135);
    }
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let batch = batch_of(Compression::None, &expected());
    let batch = batch.stamped(Offset::ZERO, LeaderEpoch(0));
    assert_eq!(batch.as_bytes(), &unhex(PLAIN));
}

#[test]
fn the_example_of_the_format_page_holds() {
    let page = include_str!("../../../../docs/record-batch.md");
    let example = page.split("```").nth(3).unwrap();
    // Each line: bytes in hexadecimal, three spaces, what they mean.
    let hex: String =
        example.trim().lines().map(|line| line.split("   ").next().unwrap()).collect();
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let record = Record { timestamp_ms: 1000, key: bytes("k"), value: bytes("v"), headers: vec![] };
    let batch = batch_of(Compression::None, &[record]);
    assert_eq!(batch.as_bytes(), &unhex(&hex.replace(' ', "")));
}
