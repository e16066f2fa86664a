//! The one call that cuts the power of a mounted file system: what is not on its device yet stays away, the journal included.

#![expect(unsafe_code, reason = "the call has no safe wrapper")]

use std::{fs::File, io, path::Path};

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `EXT4_IOC_SHUTDOWN`, which is `XFS_IOC_GOINGDOWN` too: `_IOR('X', 125, u32)`.
const SHUTDOWN: Opcode = 0x8004_587d;
/// The log is not flushed first.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts down the file system that is mounted at `mount`.
pub(super) fn shut_down(mount: &Path) -> io::Result<()> {
    let root = File::open(mount)?;
    // SAFETY: the operation reads one u32, which is what it is given, and writes to no memory of this process.
    unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH))? };
    Ok(())
}
