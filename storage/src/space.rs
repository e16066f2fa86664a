//! What is left on the disk, and what may still be done with it.
//!
//! Below a floor of free bytes produce is refused, while offset commits, acknowledgements and deletes
//! go on. When even those run out of room, the [`Ballast`] is given back; it is taken again when there
//! is room for it.
//!
//! ```text
//! free < floor            Ok  -> Low
//! free >= floor + gap     Low -> Ok      (a gap, so that the state does not flutter)
//! ```
//!
//! The gap is an eighth of the floor, and no less than what the ballast gave back: that room is for those who go on.
//!
//! The caller decides when to look; nothing here reads a clock.

use std::{io, sync::Arc};

use parking_lot::Mutex;

use crate::{ballast::Ballast, disk::Disk};

/// Whether new records may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceState {
    /// There is room.
    Ok,
    /// Produce is refused until space returns.
    Low,
}

impl SpaceState {
    /// The state that follows on this one when `free_bytes` are left, `lent_bytes` of them by the ballast. Pure.
    #[must_use]
    pub fn next(self, free_bytes: u64, floor_bytes: u64, lent_bytes: u64) -> SpaceState {
        let needed = self.needed_bytes(floor_bytes, lent_bytes);
        if free_bytes < needed { SpaceState::Low } else { SpaceState::Ok }
    }

    /// What must be free for produce to go on. Pure.
    fn needed_bytes(self, floor_bytes: u64, lent_bytes: u64) -> u64 {
        match self {
            SpaceState::Ok => floor_bytes,
            SpaceState::Low => floor_bytes.saturating_add((floor_bytes / 8).max(lent_bytes)),
        }
    }
}

/// Watches the free space of one data directory.
#[derive(Debug)]
pub struct Space {
    disk: Arc<dyn Disk>,
    /// Bytes that must stay free for produce to go on. Constant after `new`.
    floor_bytes: u64,
    inner: Mutex<Inner>,
}

/// Guarded by `Space::inner`.
#[derive(Debug)]
struct Inner {
    state: SpaceState,
    ballast: Ballast,
    /// What the ballast gave back and did not take again. 0 for one that there never was room for.
    lent_bytes: u64,
}

impl Inner {
    fn release(&mut self) -> io::Result<()> {
        let held = self.ballast.is_held();
        self.ballast.release()?;
        if held {
            self.lent_bytes = self.ballast.bytes();
        }
        Ok(())
    }

    fn restore(&mut self) -> io::Result<()> {
        self.ballast.restore()?;
        self.lent_bytes = 0;
        Ok(())
    }
}

impl Space {
    /// Watches `disk` with a floor of `floor_bytes`.
    pub fn new(disk: Arc<dyn Disk>, ballast: Ballast, floor_bytes: u64) -> Space {
        let inner = Inner { state: SpaceState::Ok, ballast, lent_bytes: 0 };
        Space { disk, floor_bytes, inner: Mutex::new(inner) }
    }

    /// What the last [`Space::refresh`] found.
    pub fn state(&self) -> SpaceState {
        self.inner.lock().state
    }

    /// Bytes that must be free for produce to go on, or to go on again.
    pub fn needed_bytes(&self) -> u64 {
        let inner = self.inner.lock();
        inner.state.needed_bytes(self.floor_bytes, inner.lent_bytes)
    }

    /// Looks at the free space, and gives back or takes again the ballast.
    ///
    /// # Errors
    /// When the disk can not be asked; the state then stays as it was. A ballast that can not be
    /// given back or taken is tried again next time.
    pub fn refresh(&self) -> io::Result<SpaceState> {
        let free_bytes = self.disk.free_bytes()?;
        let mut inner = self.inner.lock();
        inner.state = inner.state.next(free_bytes, self.floor_bytes, inner.lent_bytes);
        let ballast_bytes = inner.ballast.bytes();
        let moved = match inner.state {
            SpaceState::Low if free_bytes < ballast_bytes => inner.release(),
            SpaceState::Ok if free_bytes - self.floor_bytes >= ballast_bytes => inner.restore(),
            SpaceState::Low | SpaceState::Ok => Ok(()),
        };
        if let Err(error) = moved {
            tracing::warn!(%error, "the ballast file could not be changed");
        }
        Ok(inner.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ballast::BALLAST_BYTES, disk::sim::SimDisk};

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_state_changes_with_a_gap() {
        let mut state = SpaceState::Ok;
        let mut states = Vec::new();
        for free_bytes in [100, 80, 79, 80, 89, 90, 80, 0] {
            state = state.next(free_bytes, 80, 0);
            states.push(state == SpaceState::Ok);
        }
        assert_eq!(states, [true, true, false, false, false, true, true, false]);
        assert_eq!(SpaceState::Low.next(u64::MAX, u64::MAX, 0), SpaceState::Ok);
        assert_eq!(SpaceState::Low.next(95, 80, 16), SpaceState::Low);
        assert_eq!(SpaceState::Low.next(96, 80, 16), SpaceState::Ok);
        assert_eq!(SpaceState::Low.needed_bytes(80, 16), 96);
    }

    #[test]
    fn the_ballast_goes_when_the_disk_is_full_and_comes_back_with_space() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(100 * MIB));
        let seam: Arc<dyn Disk> = Arc::new(disk.clone());
        let space = Space::new(seam.clone(), Ballast::open(&*seam).unwrap(), 32 * MIB);
        assert_eq!(space.refresh().unwrap(), SpaceState::Ok);
        assert_eq!(disk.free_bytes().unwrap(), 84 * MIB);

        let path = std::path::Path::new("records");
        let records = disk.open(path, crate::disk::OpenMode::CreateNew).unwrap();
        records.allocate(60 * MIB).unwrap();
        assert_eq!(space.refresh().unwrap(), SpaceState::Low);
        assert_eq!(disk.free_bytes().unwrap(), 24 * MIB, "the ballast is kept at first");
        records.allocate(80 * MIB).unwrap();
        assert_eq!(space.refresh().unwrap(), SpaceState::Low);
        assert_eq!(disk.free_bytes().unwrap(), 4 * MIB + BALLAST_BYTES);

        records.set_len(40 * MIB).unwrap();
        assert_eq!(space.refresh().unwrap(), SpaceState::Ok);
        assert_eq!(disk.free_bytes().unwrap(), 60 * MIB - BALLAST_BYTES);
        assert_eq!(space.state(), SpaceState::Ok);
    }

    #[test]
    fn records_do_not_take_the_room_that_the_ballast_gave_back() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(32 * MIB));
        let seam: Arc<dyn Disk> = Arc::new(disk.clone());
        let space = Space::new(seam.clone(), Ballast::open(&*seam).unwrap(), 2 * MIB);
        let path = std::path::Path::new("records");
        let records = disk.open(path, crate::disk::OpenMode::CreateNew).unwrap();
        records.allocate(15 * MIB).unwrap();
        assert_eq!(space.refresh().unwrap(), SpaceState::Low);
        assert_eq!(disk.free_bytes().unwrap(), MIB + BALLAST_BYTES);
        for _ in 0..3 {
            assert_eq!(space.refresh().unwrap(), SpaceState::Low, "the room is for settlements");
        }
        records.set_len(13 * MIB).unwrap();
        assert_eq!(space.refresh().unwrap(), SpaceState::Ok);
        assert_eq!(disk.free_bytes().unwrap(), 3 * MIB, "the ballast is back");
    }
}
