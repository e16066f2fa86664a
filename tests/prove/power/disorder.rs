//! A thread that sends random pages of the segments to the device, so that what a power cut leaves is not in the order in which it
//! was written.

use std::{
    fs::{self, File},
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_tests::random::Random;
use rustix::fs::{Advice, fadvise};

const PAGE: u64 = 4096;
/// Most pages sent at once.
const PAGES_MAX: u64 = 16;
const PAUSE: Duration = Duration::from_millis(1);

/// The thread. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Disorder {
    stop: Arc<AtomicBool>,
    /// Held while files are open: whoever unmounts holds it meanwhile.
    pub(super) gate: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Disorder {
    /// Begins with the segments below `folder`.
    pub(super) fn start(folder: PathBuf, seed: u64) -> Disorder {
        let (stop, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
        let thread = thread::spawn({
            let (stop, gate) = (stop.clone(), gate.clone());
            move || {
                let mut random = Random::new(seed);
                while !stop.load(Relaxed) {
                    send_some(&gate, &folder, &mut random);
                    thread::sleep(PAUSE);
                }
            }
        });
        Disorder { stop, gate, thread: Some(thread) }
    }
}

/// Sends pages of every segment, unless somebody unmounts.
fn send_some(gate: &Mutex<()>, folder: &Path, random: &mut Random) {
    let _no_unmount = gate.lock();
    for segment in segments(folder) {
        send_pages(&segment, random);
    }
}

impl Drop for Disorder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The last segment of every log below `folder`.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut last: Option<PathBuf> = None;
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "log") {
                last = last.max(Some(path));
            }
        }
        found.extend(last);
    }
    found
}

/// Sends a few pages, and does not wait for them.
pub(super) fn send_pages(path: &Path, random: &mut Random) {
    let Ok(file) = File::open(path) else { return };
    let length = file.metadata().map_or(0, |data| data.len());
    let pages = length.div_ceil(PAGE).max(1);
    send(&file, random.below(pages) * PAGE, (1 + random.below(PAGES_MAX)) * PAGE);
}

/// Sends a range: the advice that its pages are not needed begins to write those that are dirty.
pub(super) fn send(file: &File, from: u64, length: u64) {
    // Advice: a device that is gone takes none.
    let _taken = fadvise(file, from, NonZeroU64::new(length), Advice::DontNeed);
}
