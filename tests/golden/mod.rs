//! Data directories as released formats left them: today's broker reads them as they were written.
//!
//! `format-N/` was written by a broker of data format N. It holds the same story twice, as a stop in order left it
//! (`stopped`) and as a kill did (`killed`), and in `seen.json` what clients saw before. What a change of a format
//! has to do with these folders stands in `docs/storage-format.md`.
//!
//! `GOLDEN=write cargo test -p riverrun-tests --test main golden` writes the folder of today's format anew.

mod kept;
mod story;

use std::{
    fs,
    path::{Path, PathBuf},
};

use riverrun_broker::clock::{Clock, ClockHand};
use serde_json::Value;
use tempfile::TempDir;

use crate::{it::data_dir::copy_tree, support::broker::TestBroker};

/// The data format that a broker writes today.
const FORMAT: u32 = 1;
/// When the story begins, in milliseconds since 1970-01-01 UTC.
const BEGINNING_MS: i64 = 1_790_000_000_000;
/// When it is read: late enough for everything that waited, early enough for everything that is kept for a while.
const LATER_MS: i64 = BEGINNING_MS + 6 * 3_600_000;

/// The folder with all formats.
fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The folders of all formats.
fn formats() -> Vec<PathBuf> {
    let entries = fs::read_dir(home()).unwrap().map(|entry| entry.unwrap());
    let is_format = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("format-");
    let mut found: Vec<_> =
        entries.filter(|entry| is_format(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// A broker on the data directory in `dir`, whose clock stands at `wall_ms`.
async fn start(dir: TempDir, wall_ms: i64) -> (TestBroker, ClockHand) {
    let (clock, hand) = Clock::manual(wall_ms);
    let broker = TestBroker::start_in_at((dir, clock), |config| {
        config.disk.housekeeping_interval = std::time::Duration::from_millis(10);
    });
    (broker.await, hand)
}

/// Both ends of the story, and what clients saw.
struct Written {
    stopped: TempDir,
    killed: TempDir,
    seen: Value,
}

async fn write() -> Written {
    let (broker, hand) = start(tempfile::tempdir().unwrap(), BEGINNING_MS).await;
    let producer = story::tell(&broker, &hand).await;
    let seen = story::look(&broker, &producer).await;
    let killed = tempfile::tempdir().unwrap();
    copy_tree(&broker.data_dir(), &killed.path().join("data"));
    let stopped = broker.stop().await.unwrap();
    Written { stopped, killed, seen }
}

/// Checks that a broker on `dir` shows what was `seen`, and goes on where it ended.
async fn check(dir: TempDir, seen: &Value, what: &str) {
    let (broker, _hand) = start(dir, LATER_MS).await;
    let producer = story::producer_in(seen);
    assert_eq!(&story::look(&broker, &producer).await, seen, "{what}");
    story::go_on(&broker, &producer, what).await;
    broker.stop().await;
}

#[tokio::test]
async fn directories_of_every_format_are_read_as_they_were_written() {
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        let Written { stopped, killed, seen } = write().await;
        let folder = home().join(format!("format-{FORMAT}"));
        let _absent = fs::remove_dir_all(&folder);
        kept::keep(&stopped.path().join("data"), &folder.join("stopped"));
        kept::keep(&killed.path().join("data"), &folder.join("killed"));
        let text = serde_json::to_string_pretty(&seen).unwrap();
        fs::write(folder.join("seen.json"), text + "\n").unwrap();
    }
    let formats = formats();
    assert!(formats.len() >= FORMAT as usize, "{formats:?}");
    for folder in formats {
        let seen = fs::read_to_string(folder.join("seen.json")).unwrap();
        let seen: Value = serde_json::from_str(&seen).unwrap();
        for end in ["stopped", "killed"] {
            let dir = tempfile::tempdir().unwrap();
            kept::bring_back(&folder.join(end), &dir.path().join("data"));
            check(dir, &seen, &format!("{} {end}", folder.display())).await;
        }
    }
}

#[tokio::test]
async fn what_is_written_today_is_read_back() {
    let Written { stopped, killed, seen } = write().await;
    check(stopped, &seen, "stopped").await;
    check(killed, &seen, "killed").await;
}
