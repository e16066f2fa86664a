//! A file system of 32 MB, and the file of somebody else that fills it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::power::volume::{call, unmount};

/// Folders of this harness begin with it; the process id follows.
pub(super) const PREFIX: &str = "riverrun-full-";
/// Bytes of a file system.
const BYTES: u64 = 32 << 20;
/// Bytes written at a time.
const STEP: usize = 64 << 10;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In an image; files of logs are mapped.
    Ext4,
    /// In memory; files of logs are written by calls.
    Tmpfs,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Tmpfs => "tmpfs",
        }
    }
}

/// A mounted file system. Unmounted when it is dropped.
#[derive(Debug)]
pub(super) struct Volume {
    mount: PathBuf,
}

impl Volume {
    /// Makes and mounts one below `folder`.
    pub(super) fn make(kind: Kind, folder: &Path) -> Result<Volume, String> {
        let mount = folder.join("mount");
        fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let at = mount.to_string_lossy().into_owned();
        match kind {
            Kind::Ext4 => {
                let image = folder.join("image");
                let file = File::create(&image).map_err(|error| error.to_string())?;
                file.set_len(BYTES).map_err(|error| error.to_string())?;
                let image = image.to_string_lossy().into_owned();
                // No blocks are kept for root: full is full. The smallest journal leaves the most for records.
                call("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", "size=1", &image])?;
                call("mount", &["-t", "ext4", "-o", "loop", &image, &at])?;
            }
            Kind::Tmpfs => {
                let size = format!("size={BYTES}");
                call("mount", &["-t", "tmpfs", "-o", &size, "riverrun", &at])?;
            }
        }
        Ok(Volume { mount })
    }

    /// Where the broker's data lies.
    pub(super) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Somebody else's file grows by so many bytes, or as far as there is room. The bytes that it got.
    pub(super) fn fill(&self, bytes: u64) -> Result<u64, String> {
        let path = self.filler();
        let file = File::options().append(true).create(true).open(&path);
        let mut file = file.map_err(|error| error.to_string())?;
        let mut got = 0;
        while got < bytes {
            let step = STEP.min(usize::try_from(bytes - got).unwrap_or(STEP));
            match file.write(&vec![7; step]) {
                Ok(count) => got += count as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(format!("the filler: {error}")),
            }
        }
        // Blocks that ext4 promised are taken now, not later.
        match file.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => {
                Err(format!("the filler: {error}"))
            }
            Ok(()) | Err(_) => Ok(got),
        }
    }

    /// Bytes that a writer without privileges could take.
    pub(super) fn free_bytes(&self) -> Result<u64, String> {
        let found = rustix::fs::statvfs(&self.mount).map_err(|error| error.to_string())?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Somebody else's file goes.
    pub(super) fn clear(&self) -> Result<(), String> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("the filler: {error}"))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What fails here is found and removed by the next run.
        let _unmounted = unmount(&self.mount);
    }
}
