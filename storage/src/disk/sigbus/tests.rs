use std::{fs::File, process::Command};

use memmap2::MmapOptions;

use super::*;

/// Set in the child process of the test below.
const CHILD: &str = "RIVERRUN_TEST_SIGBUS_CHILD";

/// In the child: touches a page of a map that no one registered and whose file was cut.
#[test]
fn child_touches_an_unwatched_map() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let map = MmapOptions::new().len(4096).map_raw(&file).unwrap();
    let watched = MmapOptions::new().len(4096).map_raw(&file).unwrap();
    let _registration = watch(watched.as_ptr().addr(), 4096).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: the byte lies in the map; the page behind it is gone, which is what is tested.
    let byte = unsafe { map.as_ptr().read_volatile() };
    unreachable!("read {byte} from a page that is gone");
}

#[test]
fn a_fault_outside_every_watched_map_says_one_line_and_ends_the_process() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "disk::sigbus::tests::child_touches_an_unwatched_map", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(EXIT_STATUS), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "riverrun: bus error outside every mapped segment\n");
}

#[test]
fn a_freed_slot_is_watched_again_without_its_poison() {
    let file: File = tempfile::tempfile().unwrap();
    let map = MmapOptions::new().len(8192).map_raw(&file).unwrap();
    for _ in 0..3 {
        let registration = watch(map.as_ptr().addr(), 8192).unwrap();
        assert!(!registration.is_poisoned());
        // SAFETY: the byte lies in the map; the file has no page there, so the guard replaces it.
        let byte = unsafe { map.as_ptr().add(5000).read_volatile() };
        assert_eq!(byte, 0);
        // The replaced page is an ordinary one from now on, so only the first round faults.
        drop(registration);
    }
    let registration = watch(map.as_ptr().addr(), 8192).unwrap();
    // SAFETY: as above; the first page was not touched yet.
    let byte = unsafe { map.as_ptr().read_volatile() };
    assert_eq!(byte, 0);
    assert!(registration.is_poisoned());
}

#[test]
fn many_threads_fault_at_once_and_each_sees_its_own_poison() {
    let run = |poisons: bool| {
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(if poisons { 0 } else { 1 << 16 }).unwrap();
        let map = MmapOptions::new().len(1 << 16).map_raw(&file).unwrap();
        let registration = watch(map.as_ptr().addr(), 1 << 16).unwrap();
        for page in 0..16 {
            // SAFETY: the byte lies in the map.
            unsafe { map.as_ptr().add(page * 4096).read_volatile() };
        }
        assert_eq!(registration.is_poisoned(), poisons);
    };
    std::thread::scope(|scope| {
        for thread in 0..16 {
            scope.spawn(move || (0..50).for_each(|_| run(thread % 2 == 0)));
        }
    });
}

#[test]
fn a_range_made_of_two_is_none() {
    let (first, second) = (10 << 12..11 << 12, 30 << 12..31 << 12);
    assert_eq!(seen(first.start, first.end, first.start), first);
    for start_again in [0, CLAIMED, second.start] {
        assert!(seen(first.start, second.end, start_again).is_empty(), "{start_again}");
    }
    assert!(seen(0, first.end, 0).is_empty(), "free");
    assert!(seen(CLAIMED, first.end, CLAIMED).is_empty(), "being filled in");
}
