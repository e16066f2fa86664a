//! The disk as partitions need to know it: how much room it has, as last looked at, whether that is enough for
//! records, and whether it failed.
//!
//! Only records of topics, and segments made for them ahead, ask for room. Offset commits, deletes and metadata go on when the disk is full.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{device::Device, error::DiskFull, files::OpenFiles};

/// Free room of the disk.
#[derive(Debug)]
pub struct DiskGauge {
    free_bytes: AtomicU64,
    free_bytes_min: u64,
    /// What must be free for records to be taken.
    needed_bytes: AtomicU64,
    full: AtomicBool,
    /// Logs that are only read because there was no room to recover them, and the most that was free then.
    waiting: Mutex<Option<u64>>,
    /// Whether it still does what it says.
    device: Device,
    /// The open files that partitions on it may take.
    files: OpenFiles,
}

impl DiskGauge {
    /// A gauge that has not been read yet and refuses nothing.
    pub fn new(free_bytes_min: u64) -> DiskGauge {
        DiskGauge {
            free_bytes: AtomicU64::new(u64::MAX),
            free_bytes_min,
            needed_bytes: AtomicU64::new(free_bytes_min),
            full: AtomicBool::new(false),
            waiting: Mutex::new(None),
            device: Device::new("the data directory".into()),
            files: OpenFiles::unbounded(),
        }
    }

    /// The same, of a disk with a name.
    pub fn named(self, name: String) -> DiskGauge {
        DiskGauge { device: Device::new(name), ..self }
    }

    /// The same, of a disk whose partitions take open files.
    pub fn with_files(self, files: OpenFiles) -> DiskGauge {
        DiskGauge { files, ..self }
    }

    /// The open files that partitions may take.
    pub fn files(&self) -> OpenFiles {
        self.files
    }

    /// Whether the disk failed.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Enters what the disk says: whether records are refused, what is free, and what must be for them to be taken. True when the
    /// answer to [`DiskGauge::check`] changed.
    pub fn set(&self, full: bool, free_bytes: u64, needed_bytes: u64) -> bool {
        self.free_bytes.store(free_bytes, Relaxed);
        self.needed_bytes.store(needed_bytes, Relaxed);
        self.full.swap(full, Relaxed) != full
    }

    /// Refuses when there is too little room for records.
    ///
    /// # Errors
    /// Names what is free and what must be.
    pub fn check(&self) -> Result<(), DiskFull> {
        if self.full.load(Relaxed) { Err(self.state()) } else { Ok(()) }
    }

    /// Notes that a log waits for room: `free_bytes` were not enough to recover it.
    pub fn wait_for_room(&self, free_bytes: u64) {
        let mut waiting = self.waiting.lock();
        *waiting = Some(waiting.map_or(free_bytes, |most| most.max(free_bytes)));
    }

    /// True when a log waits for room.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// True when a log waits for room, and there is so much more now that another try is worth it.
    pub fn is_worth_a_try(&self) -> bool {
        let waiting = *self.waiting.lock();
        let free_bytes = self.free_bytes.load(Relaxed);
        let needed = waiting.map(|had| had.saturating_add(self.free_bytes_min));
        !self.full.load(Relaxed) && needed.is_some_and(|needed| free_bytes >= needed)
    }

    /// Free bytes, once the disk was looked at.
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Relaxed)).filter(|bytes| *bytes < u64::MAX)
    }

    /// What is free and what must be.
    pub fn state(&self) -> DiskFull {
        DiskFull {
            free_bytes: self.free_bytes.load(Relaxed),
            needed_bytes: self.needed_bytes.load(Relaxed),
            free_bytes_min: self.free_bytes_min,
        }
    }
}
