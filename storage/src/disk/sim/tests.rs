use super::*;

const A: &str = "a";

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A durable file `a` of `sectors` sectors, all filled with `fill`.
fn durable(disk: &SimDisk, sectors: u64, fill: u8) -> Arc<dyn DiskFile> {
    let file = disk.open(path(A), OpenMode::CreateNew).unwrap();
    let len = sectors * SECTOR_BYTES;
    file.allocate(len).unwrap();
    file.write_at(0, &[&vec![fill; usize::try_from(len).unwrap()]]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("")).unwrap();
    file
}

/// The first byte of each sector of `a`.
fn sectors(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(path(A), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    for sector in bytes.chunks(512) {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never a mix");
    }
    bytes.chunks(512).map(|sector| sector[0]).collect()
}

fn listed(disk: &SimDisk, dir: &str) -> Vec<String> {
    disk.list(path(dir)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn create(disk: &SimDisk, name: &str) {
    disk.open(path(name), OpenMode::CreateNew).unwrap();
}

fn chosen(sectors: u64, names: u64) -> CrashPolicy {
    CrashPolicy {
        sectors: Survival::Chosen(sectors),
        names: Survival::Chosen(names),
        name_order: NameOrder::Any,
    }
}

#[test]
fn a_crash_keeps_what_was_synced_and_chooses_among_the_rest() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 4, 1);
    file.write_at(512, &[&[2; 1024]]).unwrap();
    assert_eq!(disk.dirty_units(), (2, 0));
    assert_eq!(sectors(&disk.crash(CrashPolicy::lose_all())), [1, 1, 1, 1]);
    assert_eq!(sectors(&disk.crash(CrashPolicy::keep_all())), [1, 2, 2, 1]);
    assert_eq!(sectors(&disk.crash(chosen(0b01, 0))), [1, 2, 1, 1]);
    assert_eq!(sectors(&disk.crash(chosen(0b10, 0))), [1, 1, 2, 1]);
}

#[test]
fn a_random_crash_reaches_every_subset_and_repeats_by_its_seed() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 4, 1);
    file.write_at(512, &[&[2; 1024]]).unwrap();
    let outcome = |seed| sectors(&disk.crash(CrashPolicy::random(seed)));
    let reached: std::collections::BTreeSet<_> = (0..64).map(outcome).collect();
    assert_eq!(reached.len(), 4);
    assert!((0..64).all(|seed| outcome(seed) == outcome(seed)));
}

#[test]
fn a_sector_written_twice_may_hold_the_first_content() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 1, 1);
    for fill in 2..=4 {
        file.write_at(0, &[&[fill; 512]]).unwrap();
    }
    let outcome = |seed| sectors(&disk.crash(CrashPolicy::random(seed)));
    let reached: std::collections::BTreeSet<_> = (0..100).map(outcome).collect();
    assert_eq!(reached, [vec![1], vec![2], vec![3], vec![4]].into());
}

#[test]
fn a_length_not_synced_may_be_old_new_or_between() {
    let disk = SimDisk::new(1);
    durable(&disk, 1, 1).allocate(3 * 4096 + 512).unwrap();
    let outcome = |seed| sectors(&disk.crash(CrashPolicy::random(seed))).len();
    let reached: std::collections::BTreeSet<_> = (0..200).map(outcome).collect();
    assert_eq!(reached, [1, 9, 17, 25].into());
}

#[test]
fn killing_the_process_loses_nothing_and_makes_nothing_durable() {
    let disk = SimDisk::new(1);
    durable(&disk, 2, 1).write_at(0, &[&[2; 512]]).unwrap();
    create(&disk, "b");
    let next = disk.kill();
    assert_eq!(sectors(&next), [2, 1]);
    assert_eq!(listed(&next, ""), ["a", "b"]);
    let after = next.crash(CrashPolicy::lose_all());
    assert_eq!(sectors(&after), [1, 1]);
    assert_eq!(listed(&after, ""), ["a"]);
}

#[test]
fn a_dead_disk_answers_only_with_errors() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 1, 1);
    let next = disk.crash(CrashPolicy::keep_all());
    assert!(file.write_at(0, &[b"x"]).is_err());
    assert!(file.read_at(0, &mut [0]).is_err());
    assert!(file.sync().is_err());
    assert!(disk.list(path("")).is_err());
    assert_eq!(sectors(&next), [1]);
}

#[test]
fn after_a_failed_sync_data_reads_back_and_no_later_sync_saves_it() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 16, 1);
    file.write_at(0, &[&[2; 512]]).unwrap();
    disk.inject(Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: false });
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    file.sync().unwrap();
    file.write_at(512, &[&[3; 512]]).unwrap();
    file.write_at(4096, &[&[4; 512]]).unwrap();
    file.sync().unwrap();
    assert_eq!(sectors(&disk)[..9], [2, 3, 1, 1, 1, 1, 1, 1, 4]);
    let after = disk.crash(CrashPolicy::keep_all());
    assert_eq!(sectors(&after)[..9], [1, 1, 1, 1, 1, 1, 1, 1, 4]);
}

#[test]
fn names_survive_in_the_order_of_a_journal_or_in_any_subset() {
    let disk = SimDisk::new(1);
    create(&disk, "x");
    disk.sync_dir(path("")).unwrap();
    create(&disk, "tmp");
    disk.rename(path("tmp"), path("x")).unwrap();
    create(&disk, "y");
    let names = |policy| listed(&disk.crash(policy), "");
    let journal: std::collections::BTreeSet<_> =
        (0..64).map(|seed| names(CrashPolicy::random(seed))).collect();
    let expected: [&[&str]; 3] = [&["x"], &["tmp", "x"], &["x", "y"]];
    assert_eq!(journal, expected.map(|names| names.iter().map(|n| n.to_string()).collect()).into());
    assert_eq!(names(chosen(0, 0b100)), ["x", "y"]);
    assert_eq!(names(chosen(0, 0b001)), ["tmp", "x"]);
}

#[test]
fn a_rename_between_directories_is_durable_once_both_are_synced() {
    let start = || {
        let disk = SimDisk::new(1);
        disk.create_dir(path("d")).unwrap();
        create(&disk, "x");
        disk.sync_dir(path("")).unwrap();
        disk.rename(path("x"), path("d/x")).unwrap();
        disk
    };
    let disk = start();
    disk.sync_dir(path("d")).unwrap();
    assert_eq!(listed(&disk.crash(CrashPolicy::lose_all()), ""), ["d", "x"]);
    assert_eq!(listed(&disk.crash(CrashPolicy::keep_all()), ""), ["d"]);
    let disk = start();
    disk.sync_dir(path("d")).unwrap();
    disk.sync_dir(path("")).unwrap();
    let after = disk.crash(CrashPolicy::lose_all());
    assert_eq!((listed(&after, ""), listed(&after, "d")), (vec!["d".into()], vec!["x".into()]));
}

#[test]
fn a_file_in_a_directory_whose_name_was_never_synced_is_gone() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("d")).unwrap();
    create(&disk, "d/x");
    disk.sync_dir(path("d")).unwrap();
    assert!(listed(&disk.crash(CrashPolicy::lose_all()), "").is_empty());
}

#[test]
fn syncing_a_file_makes_no_name_durable() {
    let disk = SimDisk::new(1);
    disk.open(path("x"), OpenMode::CreateNew).unwrap().sync().unwrap();
    assert!(listed(&disk.crash(CrashPolicy::lose_all()), "").is_empty());
}

#[test]
fn a_failed_directory_sync_leaves_names_in_doubt_for_ever() {
    let disk = SimDisk::new(1);
    create(&disk, "x");
    disk.inject(Fault { call: Call::SyncDir, nth: 1, error: FaultError::Io, lasting: false });
    disk.sync_dir(path("")).unwrap_err();
    disk.sync_dir(path("")).unwrap();
    assert!(listed(&disk.crash(CrashPolicy::lose_all()), "").is_empty());
}

#[test]
fn the_nth_call_fails_once_or_for_ever() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 1, 1);
    disk.inject(Fault { call: Call::Read, nth: 2, error: FaultError::NoSpace, lasting: false });
    disk.inject(Fault { call: Call::Write, nth: 2, error: FaultError::Io, lasting: true });
    let reads: Vec<bool> = (0..4).map(|_| file.read_at(0, &mut [0]).is_ok()).collect();
    assert_eq!(reads, [true, false, true, true]);
    let writes: Vec<bool> = (0..4).map(|_| file.write_at(0, &[b"x"]).is_ok()).collect();
    assert_eq!(writes, [true, false, false, false]);
    disk.heal();
    file.write_at(0, &[b"x"]).unwrap();
}

#[test]
fn a_failed_write_may_have_written_a_part() {
    let arrived = |seed| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, 2, 1);
        disk.inject(Fault { call: Call::Write, nth: 1, error: FaultError::Io, lasting: false });
        file.write_at(0, &[&[2; 600], &[2; 424]]).unwrap_err();
        let mut bytes = [0; 1024];
        file.read_at(0, &mut bytes).unwrap();
        bytes.iter().take_while(|byte| **byte == 2).count()
    };
    let reached: std::collections::BTreeSet<_> = (0..50).map(arrived).collect();
    assert!(reached.iter().any(|count| *count < 600) && reached.iter().any(|count| *count > 600));
}

#[test]
fn the_power_goes_at_the_chosen_call() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 1, 1);
    let before = disk.step_count();
    disk.cut_power_at(2);
    file.read_at(0, &mut [0]).unwrap();
    file.write_at(0, &[&[2; 512]]).unwrap();
    file.sync().unwrap_err();
    file.read_at(0, &mut [0]).unwrap_err();
    assert_eq!(disk.step_count(), before + 2);
    assert_eq!(sectors(&disk.crash(CrashPolicy::lose_all())), [1]);
    assert_eq!(sectors(&disk.crash(CrashPolicy::keep_all())), [2]);
}

#[test]
fn a_full_disk_refuses_blocks_and_takes_them_again_when_freed() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(3 * 4096));
    let file = durable(&disk, 8, 1);
    assert_eq!(disk.free_bytes().unwrap(), 2 * 4096);
    assert_eq!(file.allocate(4 * 4096).unwrap_err().raw_os_error(), Some(28));
    assert_eq!(file.len(), 4096);
    file.allocate(3 * 4096).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0);
    disk.remove_file(path(A)).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0, "an open handle keeps the blocks");
    drop(file);
    assert_eq!(disk.free_bytes().unwrap(), 3 * 4096);
}

#[test]
fn damage_reaches_reads_and_survives_a_crash() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, 4, 1);
    file.write_at(512, &[&[2; 512]]).unwrap();
    file.sync().unwrap();
    disk.swap_sectors(path(A), 600, 0);
    disk.zero_sector(path(A), 1025);
    assert_eq!(sectors(&disk), [2, 1, 0, 1]);
    disk.flip_bit(path(A), 1540, 3);
    let after = disk.crash(CrashPolicy::lose_all());
    let mut bytes = [0; 6];
    after.open(path(A), OpenMode::Read).unwrap().read_at(1536, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 9, 1]);
}
