//! Copies in and out of a map without a file, so that Miri can watch them too.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use memmap2::MmapMut;

use super::*;

fn map(bytes: usize) -> Map {
    Map::watched(MmapRaw::from(MmapMut::map_anon(bytes).unwrap())).unwrap()
}

#[test]
fn parts_are_written_one_after_another_and_read_anywhere() {
    let map = map(8_192);
    map.write(4_090, &[b"abcd", b"", b"efghij"]).unwrap();
    let mut buf = [0; 6];
    map.read(4_093, &mut buf).unwrap();
    assert_eq!(&buf, b"defghi");
    map.write(8_191, &[b"z"]).unwrap();
    map.read(8_187, &mut buf[..5]).unwrap();
    assert_eq!(&buf[..5], b"\0\0\0\0z");
    map.read(8_192, &mut []).unwrap();
}

#[test]
fn a_range_past_the_map_stops_before_it_is_touched() {
    let map = map(4_096);
    let past = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        map.write(4_095, &[b"ab"]).ok();
    }));
    assert!(past.is_err());
    let wrapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        map.read(u64::MAX, &mut [0; 2]).ok();
    }));
    assert!(wrapped.is_err());
}

/// The eight bytes at `pos` are the number of their entry.
fn check(map: &Map, pos: u64) {
    let mut bytes = [0; 8];
    map.read(pos, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), pos / 8);
}

#[test]
fn readers_below_the_published_end_see_what_the_writer_wrote() {
    const ENTRIES: u64 = 12;
    let map = map(4_096);
    let end = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for entry in 0..ENTRIES {
                let bytes = entry.to_le_bytes();
                map.write(entry * 8, &[&bytes[..3], &bytes[3..]]).unwrap();
                end.store((entry + 1) * 8, Ordering::Release);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut pos = 0;
                while pos < ENTRIES * 8 {
                    let published = end.load(Ordering::Acquire);
                    (pos..published).step_by(8).for_each(|pos| check(&map, pos));
                    pos = published;
                    thread::yield_now();
                }
            });
        }
    });
}
