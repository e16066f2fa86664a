//! Every kept input goes through its target, without a fuzzer.

#![expect(clippy::disallowed_methods, reason = "the inputs lie in files of the source")]

use std::{collections::BTreeMap, fs, path::Path};

use crate::{TARGETS, Taken, Target, layout, log, seeds, target::INPUT_BYTES_MAX};

/// Kept inputs of a target, by file name.
fn kept(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |path: &Path| fs::read(path).unwrap();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), read(&entry.path()))).collect()
}

#[test]
fn every_kept_input_is_looked_at() {
    for target in &TARGETS {
        let kept = kept(target);
        assert!(!kept.is_empty(), "{}", target.name);
        let mut accepted = 0;
        for (name, input) in &kept {
            assert!(input.len() <= INPUT_BYTES_MAX, "{}/{name}: {}", target.name, input.len());
            println!("{}/{name}", target.name);
            accepted += usize::from(target.look_at(input) == Taken::Accepted);
        }
        println!("{}: {accepted} of {} were accepted", target.name, kept.len());
        assert!(3 * accepted >= seeds::of(target.name).len(), "{}: {accepted}", target.name);
    }
}

#[test]
fn seeds_are_what_a_broker_writes_today() {
    for target in &TARGETS {
        let kept = kept(target);
        for (number, seed) in seeds::of(target.name).iter().enumerate() {
            let found = kept.get(&format!("seed-{number:02}"));
            let as_today = found.is_some_and(|found| found == seed);
            assert!(as_today, "{}: `cargo run -p riverrun-fuzz --bin seeds`", target.name);
        }
    }
}

#[test]
fn what_is_right_stays_as_it_is_when_it_is_mended() {
    let files = log::made(true);
    let mut before = None;
    for (name, file) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
        let mut mended = file.clone();
        before = layout::mend_segment(&mut mended, before.as_ref());
        assert!(mended == *file, "{name}");
    }
    let mut mark = files["mark"].clone();
    layout::mend_mark(&mut mark, None);
    assert_eq!(mark, files["mark"]);
}

#[test]
fn nothing_at_all_is_an_input() {
    for target in &TARGETS {
        target.look_at(&[]);
        target.look_at(&[0]);
        target.look_at(&vec![0xff; INPUT_BYTES_MAX]);
    }
}
