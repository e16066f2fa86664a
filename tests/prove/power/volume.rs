//! A file system in a sparse image file, whose power can be cut. All of it lies below one folder with a name that says whose
//! it is.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::fs::{Mode, OFlags};

use super::shutdown::shut_down;

/// Folders of this harness begin with it; the process id follows.
pub(super) const PREFIX: &str = "riverrun-powercut-";
/// Where `mount` and its like are when the search path of the user leaves them out.
const SYSTEM_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// Times that an unmount is tried: the kernel may be about to let go of a process that was just killed.
const UNMOUNT_TRIES: u32 = 100;

/// Times that is asked whether a file system is gone after its unmount.
const RELEASE_TRIES: u32 = 500;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// XFS cannot be made smaller.
    const fn bytes(self) -> u64 {
        match self {
            Kind::Ext4 => 256 << 20,
            Kind::Xfs => 384 << 20,
        }
    }
}

/// A mounted file system. Unmounted and let go when it is dropped.
#[derive(Debug)]
pub(super) struct Volume {
    kind: Kind,
    /// The loop device; empty until there is one.
    device: String,
    mount: PathBuf,
}

impl Volume {
    /// Makes and mounts one below `folder`.
    pub(super) fn make(kind: Kind, folder: &Path) -> Result<Volume, String> {
        let image = folder.join("image");
        let mount = folder.join("mount");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(kind.bytes()).map_err(|error| error.to_string())?;
        fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let image = image.to_string_lossy().into_owned();
        match kind {
            Kind::Ext4 => call("mkfs.ext4", &["-q", "-F", &image])?,
            Kind::Xfs => call("mkfs.xfs", &["-q", "-f", &image])?,
        };
        let device = call("losetup", &["--find", "--show", &image])?;
        let volume = Volume { kind, device, mount };
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power.
    pub(super) fn cut(&self) -> Result<(), String> {
        shut_down(&self.mount).map_err(|error| format!("the power cannot be cut: {error}"))
    }

    /// What a machine does after power loss: the mount replays the journal. Nobody may have a file open.
    pub(super) fn mount_again(&self) -> Result<(), String> {
        unmount(&self.mount)?;
        self.wait_until_released()?;
        self.mount()
    }

    /// Waits until the kernel has let go of the file system. Mounted before that, it would be the old one, without power.
    fn wait_until_released(&self) -> Result<(), String> {
        for _ in 0..RELEASE_TRIES {
            let alone = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            if rustix::fs::open(&self.device, alone, Mode::empty()).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("`{}` is still in use after it was unmounted", self.device))
    }

    fn mount(&self) -> Result<(), String> {
        let at = self.mount.to_string_lossy();
        call("mount", &["-t", self.kind.name(), &self.device, &at]).map(drop)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What fails here is found and removed by the next run.
        let _unmounted = unmount(&self.mount);
        let _released = call("losetup", &["--detach", &self.device]);
    }
}

/// Unmounts, and waits for a process that is about to go.
pub(crate) fn unmount(at: &Path) -> Result<(), String> {
    let at = at.to_string_lossy();
    let mut said = String::new();
    for _ in 0..UNMOUNT_TRIES {
        match call("umount", &[&at]) {
            Ok(_) => return Ok(()),
            Err(error) => said = error,
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(said)
}

/// Runs a program of the system and gives what it printed.
pub(crate) fn call(program: &str, arguments: &[&str]) -> Result<String, String> {
    let paths = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{paths}:{SYSTEM_PATHS}"))
        .output()
        .map_err(|error| format!("`{program}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("`{program}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
