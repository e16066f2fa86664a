//! How much room the disk has, as last looked at, and whether that is enough for records.
//!
//! Only produce asks here. Offset commits, deletes and metadata go on when the disk is full.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::error::DiskFull;

/// Free room of the disk.
#[derive(Debug)]
pub struct DiskGauge {
    free_bytes: AtomicU64,
    free_bytes_min: u64,
    full: AtomicBool,
}

impl DiskGauge {
    /// A gauge that has not been read yet and refuses nothing.
    pub fn new(free_bytes_min: u64) -> DiskGauge {
        DiskGauge {
            free_bytes: AtomicU64::new(u64::MAX),
            free_bytes_min,
            full: AtomicBool::new(false),
        }
    }

    /// Enters what the disk says. True when the answer to [`DiskGauge::check`] changed.
    pub fn set(&self, full: bool, free_bytes: u64) -> bool {
        self.free_bytes.store(free_bytes, Relaxed);
        self.full.swap(full, Relaxed) != full
    }

    /// Refuses when there is too little room for records.
    ///
    /// # Errors
    /// Names what is free and what must be.
    pub fn check(&self) -> Result<(), DiskFull> {
        if self.full.load(Relaxed) { Err(self.state()) } else { Ok(()) }
    }

    /// What is free and what must be.
    pub fn state(&self) -> DiskFull {
        DiskFull { free_bytes: self.free_bytes.load(Relaxed), free_bytes_min: self.free_bytes_min }
    }
}
