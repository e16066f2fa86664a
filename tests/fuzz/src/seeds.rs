//! What the fuzzer begins with: inputs as a broker or a client writes them, so that a change of them is nearly right.
//!
//! They lie in `corpus/` as files, beside inputs that once broke something; `cargo run -p riverrun-fuzz --bin seeds` writes them anew
//! after a format has changed.

mod messages;
mod state;

use riverrun_broker::Config;
use riverrun_proto::{
    Header, Record,
    batch::{BatchBuilder, BuilderOptions, Compression},
};

use crate::{batch, index, log, mark, pieces, segment};

/// The seeds of the target of that name.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "batch" => batches(),
        "segment" => segments(),
        "index" => index::seeds(),
        "mark" => mark::seeds(),
        "metadata" => state::metadata(),
        "groups" => state::groups(),
        "subscriptions" => state::subscriptions(),
        "messages" => messages::all(),
        "config" => configs(),
        _ => Vec::new(),
    }
}

/// A batch of these records.
fn batch_of(compression: Compression, count: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression, BuilderOptions::default());
    for number in 0..count {
        let header = Header { key: "trace".into(), value: Some("4711".into()) };
        let record = Record {
            timestamp_ms: 1_700_000_000_000 + number,
            key: (number % 2 == 0).then(|| "key".into()),
            value: (number % 3 < 2).then(|| "value value value".into()),
            headers: (number % 2 == 1).then_some(header).into_iter().collect(),
        };
        builder.push(&record).expect("small");
    }
    builder.build().expect("it has records").into_bytes().into()
}

fn batches() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for compression in Compression::ALL {
        let one = batch_of(compression, 4);
        seeds.push([&[batch::MEND], &one[..]].concat());
        seeds.push([&[0], &one[..], &batch_of(compression, 1)].concat());
    }
    seeds
}

fn segments() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for closed in [true, false] {
        let files = log::made(closed);
        for flags in [0, segment::MEND, segment::MEND | segment::LINK] {
            let mut seed = Vec::new();
            pieces::push(&mut seed, segment::STATE | flags, &files["state"]);
            for (name, file) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
                pieces::push(&mut seed, segment::SEGMENT | flags, &segment::compact(file));
                if let Some(index) = files.get(&name.replace(".log", ".index")) {
                    pieces::push(&mut seed, segment::INDEX | flags, index);
                }
            }
            pieces::push(&mut seed, segment::MARK | flags, &files["mark"]);
            for (_, file) in files.iter().filter(|(name, _)| name.ends_with(".producers")) {
                pieces::push(&mut seed, segment::PRODUCERS | flags, file);
            }
            seeds.push(seed);
        }
    }
    // One segment, cut behind its last entry.
    let files = log::made(false);
    let first = files.get(&log::name(0, "log")).expect("the first segment");
    let mut seed = Vec::new();
    pieces::push(&mut seed, segment::STATE, &files["state"]);
    pieces::push(&mut seed, segment::CUT_SEGMENT | segment::MEND, &segment::compact(first));
    seeds.push(seed);
    seeds
}

fn configs() -> Vec<Vec<u8>> {
    let texts = [
        Config::default().to_toml(),
        "insecure = true\n[grpc]\nlisten = \"[::]:7070\"\nmessage_bytes_max = \"1MiB\"\n".into(),
        "limits.quota_wait = \"1500ms\" # wait\ndisk = { free_bytes_min = 0x10 }\n".into(),
        "[threads]\nio = 0\nio = 1\n".into(),
        "30s".into(),
        "64KiB".into(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
