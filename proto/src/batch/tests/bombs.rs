//! Little input that inflates to very much: refused at the bound, without holding more than about the bound.

use super::super::{
    compression::{Compressor, InflateError},
    *,
};

/// Bound for the bombs.
const INFLATED_MAX: usize = 1 << 20;
/// What the bombs would inflate to.
const BOMB_BYTES: usize = 512 << 20;
/// One piece of a bomb, before compression.
const PIECE_BYTES: usize = 1 << 20;

/// Zeros compressed by our own compressor.
fn compressed_zeros(codec: Compression, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Compressor::new(codec, None).unwrap().compress(&vec![0; bytes], &mut out).unwrap();
    out
}

/// A stream that inflates to `bytes`, made by repeating the part of a small one that may be repeated.
fn bomb(codec: Compression, bytes: usize) -> Vec<u8> {
    let repeat = bytes / PIECE_BYTES;
    let piece = compressed_zeros(codec, PIECE_BYTES);
    match codec {
        Compression::None => vec![0; INFLATED_MAX + 1],
        // Members and frames may follow each other.
        Compression::Gzip | Compression::Zstd => piece.repeat(repeat),
        Compression::Snappy => {
            let (head, blocks) = piece.split_at(16);
            [head, &blocks.repeat(repeat)].concat()
        }
        // Magic, descriptor and its checksum take 7 bytes, the end mark 4.
        Compression::Lz4 => {
            let (head, rest) = piece.split_at(7);
            let (blocks, end) = rest.split_at(rest.len() - 4);
            [head, &blocks.repeat(repeat), end].concat()
        }
    }
}

#[test]
fn bombs_stop_at_the_bound() {
    for codec in Compression::ALL {
        let bomb = bomb(codec, BOMB_BYTES);
        assert!(bomb.len() < 64 << 20, "{codec}");
        let before = peak_resident_bytes();
        // Only the length: a failure must not print half a gigabyte.
        let outcome = codec.inflate(&bomb, INFLATED_MAX).map(|out| out.len());
        // The kernel counts pages in batches, so a later reading may be lower.
        let grown = peak_resident_bytes().saturating_sub(before);
        assert_eq!(outcome, Err(InflateError::TooLarge { codec, limit: INFLATED_MAX }));
        assert!(grown < 128 << 20, "{codec} took {grown} bytes");
    }
}

#[test]
fn bombs_are_whole_streams() {
    // Otherwise the test above would pass on damage.
    for codec in Compression::ALL {
        let piece = compressed_zeros(codec, PIECE_BYTES);
        assert!(codec.inflate(&piece, PIECE_BYTES) == Ok(vec![0; PIECE_BYTES]), "{codec}");
        let too_large = InflateError::TooLarge { codec, limit: PIECE_BYTES - 1 };
        let short = codec.inflate(&piece, PIECE_BYTES - 1).map(|out| out.len());
        assert_eq!(short, Err(too_large));
    }
    for codec in Compression::ALL.into_iter().skip(1) {
        let bytes = 4 * PIECE_BYTES;
        assert!(codec.inflate(&bomb(codec, bytes), bytes) == Ok(vec![0; bytes]), "{codec}");
    }
}

#[test]
fn streams_that_lie_about_their_size_are_damaged() {
    // Raw snappy of 3 bytes that claims 4 GiB.
    let claims = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    let damaged = |codec| Err(InflateError::Damaged { codec });
    assert_eq!(Compression::Snappy.inflate(&claims, usize::MAX), damaged(Compression::Snappy));
    // A block longer than what is left.
    let mut framed = compressed_zeros(Compression::Snappy, 100);
    framed[16..20].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(Compression::Snappy.inflate(&framed, 1000), damaged(Compression::Snappy));
    // A second lz4 frame, which Kafka's readers do not look at, and bytes that are none.
    let twice = compressed_zeros(Compression::Lz4, 100).repeat(2);
    assert_eq!(Compression::Lz4.inflate(&twice, 1000), damaged(Compression::Lz4));
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let mut trailing = compressed_zeros(codec, 100);
        trailing.extend_from_slice(b"trailing");
        assert_eq!(codec.inflate(&trailing, 1000), damaged(codec));
        let cut = compressed_zeros(codec, 100);
        let cut = codec.inflate(&cut[..cut.len() / 2], 1000);
        assert_eq!(cut, damaged(codec));
    }
}

#[test]
fn raw_snappy_is_read() {
    let raw =
        snap::raw::Encoder::new().compress_vec(b"raw snappy, as some clients write it").unwrap();
    let inflated = Compression::Snappy.inflate(&raw, 1000).unwrap();
    assert_eq!(inflated, b"raw snappy, as some clients write it");
}

#[test]
fn names_of_codecs() {
    for codec in Compression::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
        assert_eq!(Compression::from_attributes(codec.id()), Some(codec));
    }
    let unknown = "LZ4".parse::<Compression>().unwrap_err().to_string();
    let expected = "`compression` is `LZ4`, known are `none`, `gzip`, `snappy`, `lz4` and `zstd`";
    assert_eq!(unknown, expected);
    assert_eq!(Compression::from_attributes(5), None);
}

/// Most memory the process ever held.
#[expect(clippy::disallowed_methods, reason = "the kernel tells it in a file")]
fn peak_resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() << 10
}
