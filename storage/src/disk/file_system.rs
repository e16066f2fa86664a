//! The file systems whose behaviour is known: under a map, and over a power cut.

use std::os::fd::AsFd;

/// What holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2 to ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Memory that can be swapped out.
    Tmpfs,
    /// Memory.
    Ramfs,
    /// btrfs.
    Btrfs,
    /// ZFS.
    Zfs,
    /// Layers over other file systems, as in containers.
    Overlay,
    /// A server's, over the network.
    Nfs,
    /// A program's.
    Fuse,
    /// Any other one.
    Unknown,
}

/// What becomes of flushed bytes when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterPowerCut {
    /// They are there, when the disk below keeps what it says it has.
    Kept,
    /// That is up to others than this machine's kernel.
    NotPromised,
    /// They are gone.
    Gone,
}

impl FileSystem {
    /// The one that holds an open file or directory.
    pub(super) fn of(file: impl AsFd) -> std::io::Result<FileSystem> {
        // The field's type differs between architectures; the magic numbers have 32 bits.
        let magic = rustix::fs::fstatfs(file)?.f_type & 0xffff_ffff;
        Ok(match magic {
            0xef53 => FileSystem::Ext4,
            0x5846_5342 => FileSystem::Xfs,
            0x0102_1994 => FileSystem::Tmpfs,
            0x8584_58f6 => FileSystem::Ramfs,
            0x9123_683e => FileSystem::Btrfs,
            0x2fc1_2fc1 => FileSystem::Zfs,
            0x794c_7630 => FileSystem::Overlay,
            0x6969 => FileSystem::Nfs,
            0x6573_5546 => FileSystem::Fuse,
            _ => FileSystem::Unknown,
        })
    }

    /// Whether a map of its files does what the log needs.
    pub(super) fn is_mapped(self, map_on_tmpfs: bool) -> bool {
        match self {
            FileSystem::Ext4 | FileSystem::Xfs => true,
            FileSystem::Tmpfs => map_on_tmpfs,
            FileSystem::Ramfs
            | FileSystem::Btrfs
            | FileSystem::Zfs
            | FileSystem::Overlay
            | FileSystem::Nfs
            | FileSystem::Fuse
            | FileSystem::Unknown => false,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Ramfs => "ramfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Zfs => "zfs",
            FileSystem::Overlay => "overlay",
            FileSystem::Nfs => "nfs",
            FileSystem::Fuse => "fuse",
            FileSystem::Unknown => "unknown",
        }
    }

    fn after_power_cut(self) -> AfterPowerCut {
        match self {
            FileSystem::Ext4 | FileSystem::Xfs | FileSystem::Btrfs | FileSystem::Zfs => {
                AfterPowerCut::Kept
            }
            FileSystem::Tmpfs | FileSystem::Ramfs => AfterPowerCut::Gone,
            FileSystem::Overlay | FileSystem::Nfs | FileSystem::Fuse | FileSystem::Unknown => {
                AfterPowerCut::NotPromised
            }
        }
    }

    /// What it does not keep of flushed bytes, as a sentence; `None` when it keeps them.
    pub fn caveat(self) -> Option<String> {
        let name = self.name();
        match self.after_power_cut() {
            AfterPowerCut::Kept => None,
            AfterPowerCut::NotPromised => Some(format!(
                "on this file system ({name}) it is not promised that what is acknowledged survives a power cut"
            )),
            AfterPowerCut::Gone => Some(format!(
                "{name} is memory: nothing survives a power cut or a restart of the machine"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_flushed_bytes_has_no_caveat() {
        use FileSystem::{Btrfs, Ext4, Fuse, Nfs, Overlay, Ramfs, Tmpfs, Unknown, Xfs, Zfs};
        for kept in [Ext4, Xfs, Btrfs, Zfs] {
            assert_eq!(kept.caveat(), None);
        }
        for (systems, part) in [
            (vec![Tmpfs, Ramfs], "nothing survives a power cut"),
            (vec![Nfs, Fuse, Overlay, Unknown], "not promised"),
        ] {
            for system in systems {
                let caveat = system.caveat().expect("it keeps less");
                assert!(caveat.contains(part) && caveat.contains(system.name()), "{caveat}");
            }
        }
    }
}
