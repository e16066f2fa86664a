use bytes::Bytes;
use riverrun_proto::{PartitionId, RecordBatch};

use super::*;
use crate::{
    CompactionOptions, Damage, Log, OpenedLog, Timestamp,
    disk::{
        OpenMode,
        sim::{CrashPolicy, SimDisk},
    },
    paths,
    testing::{DIR, batch, open, options},
};

/// Three sealed segments and an active one, flushed: offsets 0..2, 2..4, 4..6, 6..7.
fn filled(disk: &SimDisk) -> OpenedLog {
    let mut log = open(disk);
    for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
        log.writer.append(&batch(&values, 1_000), Timestamp(1_000)).unwrap();
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.writer.append(&batch(&["g"], 2_000), Timestamp(2_000)).unwrap();
    log.flusher.flush().unwrap();
    log
}

fn verify(disk: &SimDisk) -> InspectedLog {
    let steps = disk.step_count();
    let log = Inspector::new(Arc::new(disk.clone())).verify(Path::new(DIR)).unwrap();
    assert_eq!(disk.step_count(), steps, "inspection changes nothing");
    log
}

fn segment(base: u64) -> PathBuf {
    paths::segment(Path::new(DIR), Offset(base))
}

#[test]
fn a_whole_log_is_sound_and_every_record_is_dumped() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    let found = verify(&disk);
    assert_eq!(found.findings, []);
    assert!(found.is_sound() && !found.is_clean);
    let ends: Vec<_> = found.segments.iter().map(|it| (it.end_offset.0, it.is_sealed)).collect();
    assert_eq!(ends, [(2, true), (4, true), (6, true), (7, false)]);
    assert_eq!((found.log_end, found.known_durable), (Offset(7), Offset(7)));
    assert_eq!((found.topic_id, found.partition), (Some(options().topic_id), Some(PartitionId(0))));
    assert_eq!(found.segments[0].record_count, 2);
    assert_eq!(found.segments[3].max_timestamp, Some(Timestamp(2_000)));

    let inspector = Inspector::new(Arc::new(disk.clone()));
    let mut values = Vec::new();
    let dump = inspector.dump(Path::new(DIR), &mut |entry| {
        if entry.kind == InspectedKind::Records {
            let records = RecordBatch::decode(Bytes::copy_from_slice(entry.payload)).unwrap();
            let values_of = records.records(1 << 20).unwrap();
            values.extend(values_of.map(|record| record.unwrap().record.value.unwrap()));
        }
        if values.len() == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(dump.unwrap(), found, "what is found does not depend on the visitor");
    assert_eq!(values, ["a", "b", "c", "d", "e", "f"]);
    log.writer.close().unwrap();
    assert!(verify(&disk).is_clean);
}

/// The damage found after `harm` was done to a filled log, as text.
#[track_caller]
fn check_damage(harm: impl FnOnce(&SimDisk), expected: &[&str]) {
    let disk = SimDisk::new(1);
    drop(filled(&disk));
    harm(&disk);
    let found: Vec<_> = verify(&disk).damages().map(Damage::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn damage_is_named_with_file_position_and_offsets() {
    let file = |base: u64| format!("`{DIR}/{base:020}.log`");
    let text = |offsets: &str, reason: &str, pos: u64, base: u64| {
        format!("offsets `{offsets}` are damaged: {reason} at byte `{pos}` of {}", file(base))
    };
    let entry = text("2..4", "no valid entry", 4096, 2);
    check_damage(|disk| disk.flip_bit(&segment(2), 4096 + 20, 0), &[&entry]);
    let payload = text("2..4", "record batch does not match its checksum", 4096, 2);
    check_damage(|disk| disk.flip_bit(&segment(2), 4096 + 96 + 70, 0), &[&payload]);
    let header = text("2..4", "segment header is invalid", 0, 2);
    check_damage(|disk| disk.zero_sector(&segment(2), 0), &[&header]);
    let active = text("6..7", "no valid entry", 4096, 6);
    check_damage(|disk| disk.zero_sector(&segment(6), 4096), &[&active]);
    check_damage(
        |disk| disk.remove_file(&segment(2)).unwrap(),
        &[&text("2..4", "segment file is missing", 4416, 0)],
    );
    check_damage(
        |disk| disk.remove_file(&segment(0)).unwrap(),
        &[&text("0..2", "segment file is missing", 0, 2)],
    );
    let state = "offsets `0..7` are damaged: state file is missing or invalid at byte `0` of";
    let state = format!("{state} `{DIR}/state`");
    check_damage(|disk| disk.flip_bit(&Path::new(DIR).join("state"), 17, 0), &[&state]);
}

#[test]
fn every_flipped_bit_that_a_reader_could_meet_is_found() {
    let disk = SimDisk::new(1);
    drop(filled(&disk));
    let mut covered = Vec::new();
    let inspector = Inspector::new(Arc::new(disk.clone()));
    inspector
        .dump(Path::new(DIR), &mut |entry| {
            let end = entry.pos + 96 + entry.payload.len() as u64;
            covered.push((entry.path.to_owned(), entry.pos..end));
            ControlFlow::Continue(())
        })
        .unwrap();
    covered.extend([0, 2, 4, 6].map(|base| (segment(base), 0..260)));
    let bits = covered.iter().flat_map(|(path, bytes)| {
        bytes.clone().map(move |pos| (path, pos, u8::try_from(pos % 8).unwrap()))
    });
    let mut tried = 0;
    for (path, pos, bit) in bits {
        disk.flip_bit(path, pos, bit);
        let found = Inspector::new(Arc::new(disk.clone())).verify(Path::new(DIR));
        // A version that is not ours is refused by name, which only the checksum's owner can forge.
        let found = found.unwrap();
        assert!(
            found.damages().any(|damage| damage.path == *path),
            "bit {bit} of byte {pos} of {path:?}: {:?}",
            found.findings
        );
        disk.flip_bit(path, pos, bit);
        tried += 1;
    }
    assert!(tried > 2_000, "{tried}");
    assert!(verify(&disk).is_sound());
}

#[test]
fn what_a_crash_leaves_is_torn_and_not_damage() {
    let mut torn_count = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let mut log = filled(&disk);
        for value in ["x", "y", "z"] {
            let value = value.repeat(600);
            log.writer.append(&batch(&[&value], 3_000), Timestamp(3_000)).unwrap();
        }
        let after = disk.crash(CrashPolicy::random(seed));
        let found = verify(&after);
        assert!(found.is_sound(), "seed {seed}: {:?}", found.findings);
        assert!(found.known_durable <= Offset(7) && found.log_end >= Offset(7));
        torn_count += usize::from(!found.findings.is_empty());
        drop(open(&after));
        let found = verify(&after);
        assert!(found.is_sound(), "recovered, seed {seed}: {:?}", found.findings);
    }
    assert!(torn_count > 10, "{torn_count}");
}

#[test]
fn a_compacted_log_is_sound_and_says_so() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for value in ["1", "2", "3"] {
        let mut builder = riverrun_proto::BatchBuilder::new(
            riverrun_proto::Compression::None,
            riverrun_proto::BuilderOptions::default(),
        );
        builder.push_parts(1, Some(b"key"), Some(value.as_bytes()), &[]).unwrap();
        log.writer.append(&builder.build().unwrap(), Timestamp(1_000)).unwrap();
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.flusher.flush().unwrap();
    let options = CompactionOptions {
        lag: std::time::Duration::ZERO,
        map_bytes_max: 1 << 20,
        tombstone_retention: std::time::Duration::ZERO,
        producer_age_max: std::time::Duration::ZERO,
        dirty_percent_min: 0,
    };
    log.writer.compactor().compact(Timestamp(1_000), &options).unwrap();
    let found = verify(&disk);
    assert_eq!(found.findings, []);
    let gaps: Vec<_> = found.segments.iter().map(|it| (it.is_compacted, it.gap_count)).collect();
    assert_eq!(gaps, [(true, 1), (true, 1), (false, 0), (false, 0)]);
    disk.flip_bit(&segment(1), 4096 + 20, 3);
    assert!(!verify(&disk).is_sound());
}

#[test]
fn logs_are_found_in_a_data_directory_and_in_their_own() {
    let home = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> =
        Arc::new(RealDisk::open(home.path(), RealDiskOptions::default()).unwrap());
    for partition in [2, 10, 0] {
        let dir = format!("logs/topic/{partition}");
        Log::open(disk.clone(), dir, options(), Timestamp(1)).unwrap();
    }
    let found = Inspector::open(home.path()).unwrap();
    let logs = ["logs/topic/0", "logs/topic/2", "logs/topic/10"].map(PathBuf::from);
    assert_eq!(found.logs().unwrap(), logs);
    assert!(found.verify(&logs[2]).unwrap().is_sound());
    let own = Inspector::open(&home.path().join("logs/topic/2")).unwrap();
    assert_eq!(own.logs().unwrap(), [PathBuf::new()]);
    disk.open(Path::new("logs/topic/2/note.txt"), OpenMode::CreateNew).unwrap();
    let log = own.verify(Path::new("")).unwrap();
    assert_eq!(log.findings, [Finding::Foreign { path: "note.txt".into() }]);
    assert!(log.is_sound());
}
