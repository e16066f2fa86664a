//! A disk in memory that crashes, tears and fails on demand: the twin of the real disk for tests.
//!
//! It keeps for every file and directory what a process sees and what the medium holds, and forgets
//! at [`SimDisk::crash`] what the contract of [`Disk`] does not promise:
//! - written bytes that were not synced, sector by sector, with contents in between;
//! - lengths that were not synced, also half way;
//! - names created, renamed or removed whose directory was not synced.
//!
//! A failed `sync` behaves as on Linux (fsyncgate): the bytes read back, later syncs say `Ok`, and
//! after a crash the bytes may be gone, also when they were written again in between. A failed
//! `write_at` may have written a part.
//!
//! Everything is decided by the seeds given, so a failing run can be repeated. A crashed or killed
//! disk answers every call with an error; `crash` may be called on it again for another outcome.
//!
//! It simulates no delays but flushes held by [`SimDisk::hold_flushes`], and it is stricter than ext4 and XFS: syncing a file never makes a
//! name durable.

mod fate;
mod faults;
mod hold;
mod image;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

pub use self::{
    fate::{CrashPolicy, NameOrder, Survival},
    faults::{Call, Fault, FaultError},
    hold::FlushHold,
    image::SECTOR_BYTES,
};
use self::{
    fate::{Fate, Random},
    faults::{Faults, Verdict},
    hold::Gate,
    image::Image,
    tree::{Child, NodeId, Tree},
};
use super::{
    DirEntry, Disk, DiskFile, EntryKind, OpenMode,
    names::{names, parent_and_name},
};

/// Space is handed out in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;

/// A simulated disk. Clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    flushes: Arc<Gate>,
}

/// The state of one disk between two crashes. Guarded by `SimDisk::world`.
#[derive(Clone, Debug)]
struct World {
    tree: Tree,
    /// Files with a name, a pending name or an open handle.
    files: BTreeMap<NodeId, SimInode>,
    next_id: NodeId,
    faults: Faults,
    /// Files are looked through for unnamed ones once there are so many.
    forget_at: usize,
    /// Bytes of the whole disk; `None` is unlimited.
    capacity: Option<u64>,
    /// Decides how much of a failed write arrives.
    random: Random,
    /// The process died or the power went: every call fails.
    dead: bool,
}

#[derive(Clone, Debug, Default)]
struct SimInode {
    image: Image,
    /// Sectors that the device refuses to read.
    spoiled: BTreeSet<u64>,
    handles: u64,
    append_handles: u64,
}

/// One open file of a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    world: Arc<Mutex<World>>,
    flushes: Arc<Gate>,
    id: NodeId,
    mode: OpenMode,
}

impl SimDisk {
    /// An empty disk without a limit of space.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::of(World {
            tree: Tree::new(),
            files: BTreeMap::new(),
            next_id: tree::ROOT + 1,
            faults: Faults::default(),
            forget_at: 0,
            capacity: None,
            random: Random::new(seed),
            dead: false,
        })
    }

    /// The disk as the next start finds it after a power loss now. This disk is dead afterwards; the
    /// new one has fresh counters, no planned faults, and the same capacity.
    pub fn crash(&self, policy: CrashPolicy) -> SimDisk {
        let mut world = self.world.lock();
        world.dead = true;
        world.forget_unnamed();
        let tree = world.tree.after_power_loss(policy);
        let mut fate = Fate::new(policy.sectors);
        // Every file draws its fate, so that one file's survival does not shift another's.
        let left = |inode: &SimInode, fate: &mut Fate| SimInode {
            image: inode.image.after_power_loss(fate),
            spoiled: inode.spoiled.clone(),
            ..SimInode::default()
        };
        let inodes: Vec<(NodeId, SimInode)> =
            world.files.iter().map(|(id, inode)| (*id, left(inode, &mut fate))).collect();
        let named = tree.live_files();
        let files = inodes.into_iter().filter(|(id, _)| named.contains(id)).collect();
        SimDisk::of(World {
            tree,
            files,
            next_id: world.next_id,
            faults: Faults::default(),
            forget_at: 0,
            capacity: world.capacity,
            random: Random::new(world.random.next()),
            dead: false,
        })
    }

    /// The disk as the next process finds it after this one died: nothing is lost, and what was not
    /// durable still is not. This disk is dead afterwards.
    pub fn kill(&self) -> SimDisk {
        let next = self.copy();
        self.world.lock().dead = true;
        next
    }

    /// A second disk that holds what processes see on this one now, as a backup does. This one goes on.
    pub fn copy(&self) -> SimDisk {
        let mut next = self.world.lock().clone();
        next.faults = Faults::default();
        next.dead = false;
        for inode in next.files.values_mut() {
            inode.handles = 0;
            inode.append_handles = 0;
        }
        next.forget_unnamed();
        SimDisk::of(next)
    }

    /// All that processes see is durable from here on, as after a time in which the kernel wrote everything back. What a failed sync
    /// lost stays lost.
    pub fn write_back(&self) {
        let mut world = self.world.lock();
        world.files.values_mut().for_each(|inode| inode.image.sync());
        world.tree.sync_all();
    }

    /// Makes a call fail.
    pub fn inject(&self, fault: Fault) {
        self.world.lock().faults.plan(fault);
    }

    /// Forgets all planned faults.
    pub fn heal(&self) {
        self.world.lock().faults.clear();
    }

    /// Cuts the power at the `nth` call from now that could change the medium (1 is the next): it and
    /// all later calls fail without effect. [`SimDisk::crash`] then gives what is left.
    pub fn cut_power_at(&self, nth: u64) {
        self.world.lock().faults.cut_power_at(nth);
    }

    /// No flush of a file begins until what comes back is dropped. Callers of flushes wait meanwhile.
    pub fn hold_flushes(&self) -> FlushHold {
        FlushHold::new(self.flushes.clone())
    }

    /// Limits the disk to `bytes`, or lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().capacity = bytes;
    }

    /// Calls so far that could change the medium.
    pub fn step_count(&self) -> u64 {
        self.world.lock().faults.steps()
    }

    /// Calls of one kind so far.
    pub fn call_count(&self, call: Call) -> u64 {
        self.world.lock().faults.count(call)
    }

    /// How many sectors and lengths, and how many names, a crash now would decide over.
    pub fn dirty_units(&self) -> (u64, u64) {
        let mut world = self.world.lock();
        world.forget_unnamed();
        let sectors = world.files.values().map(|inode| inode.image.dirty_units()).sum();
        (sectors, world.tree.dirty_units())
    }

    /// Flips one bit of a file on the medium.
    ///
    /// # Panics
    /// When there is no such file or `pos` is past its end.
    pub fn flip_bit(&self, path: &Path, pos: u64, bit: u8) {
        let within = usize::try_from(pos % SECTOR_BYTES).expect("below 512");
        self.with_image(path, pos, |image| {
            image.damage(pos / SECTOR_BYTES, |sector| sector[within] ^= 1 << (bit % 8));
        });
    }

    /// Zeroes the sector that holds byte `pos` of a file on the medium.
    ///
    /// # Panics
    /// As [`SimDisk::flip_bit`].
    pub fn zero_sector(&self, path: &Path, pos: u64) {
        self.with_image(path, pos, |image| {
            image.damage(pos / SECTOR_BYTES, |sector| sector.fill(0));
        });
    }

    /// Makes the sector that holds byte `pos` of a file unreadable: the device answers `EIO` from now on.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn spoil_sector(&self, path: &Path, pos: u64) {
        let mut world = self.world.lock();
        let id = world.file_id(path).expect("the file to spoil exists");
        world.inode(id).spoiled.insert(pos / SECTOR_BYTES);
    }

    /// Exchanges the sectors that hold bytes `a` and `b` of a file: two misdirected writes.
    ///
    /// # Panics
    /// As [`SimDisk::flip_bit`].
    pub fn swap_sectors(&self, path: &Path, a: u64, b: u64) {
        self.with_image(path, a.max(b), |image| {
            let (a, b) = (a / SECTOR_BYTES, b / SECTOR_BYTES);
            let (old_a, old_b) = (image.sector(a), image.sector(b));
            image.damage(a, |sector| *sector = old_b);
            image.damage(b, |sector| *sector = old_a);
        });
    }

    fn of(world: World) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(world)), flushes: Arc::default() }
    }

    fn enter(&self, call: Call) -> io::Result<MutexGuard<'_, World>> {
        enter(&self.world, call)
    }

    fn with_image(&self, path: &Path, pos: u64, change: impl FnOnce(&mut Image)) {
        let mut world = self.world.lock();
        let id = world.file_id(path).expect("the file to damage exists");
        let image = &mut world.files.get_mut(&id).expect("a named file").image;
        assert!(pos < image.len(), "position {pos} is past the end {} of `{path:?}`", image.len());
        change(image);
    }
}

/// Counts a call and locks the world, or says why the call fails.
fn enter(world: &Mutex<World>, call: Call) -> io::Result<MutexGuard<'_, World>> {
    let mut world = world.lock();
    match world.admit(call)? {
        None => Ok(world),
        Some(error) => Err(error.into()),
    }
}

impl World {
    /// Counts a call: `Err` when the disk is dead, the planned fault otherwise.
    fn admit(&mut self, call: Call) -> io::Result<Option<FaultError>> {
        if self.dead {
            return Err(io::Error::other("the simulated machine is down"));
        }
        match self.faults.enter(call) {
            Verdict::Go => Ok(None),
            Verdict::Fail(error) => Ok(Some(error)),
            Verdict::PowerCut => {
                self.dead = true;
                Err(io::Error::other("the simulated machine went down"))
            }
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<(NodeId, Option<Child>)> {
        let (parent, name) = parent_and_name(path)?;
        let dir = self.tree.dir(&parent)?;
        Ok((dir, self.tree.child(dir, name)))
    }

    fn file_id(&self, path: &Path) -> io::Result<NodeId> {
        match self.lookup(path)?.1 {
            Some(Child::File(id)) => Ok(id),
            Some(Child::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn new_id(&mut self) -> NodeId {
        self.next_id += 1;
        self.next_id - 1
    }

    fn inode(&mut self, id: NodeId) -> &mut SimInode {
        self.files.get_mut(&id).expect("an open file is kept")
    }

    /// Bytes left, with the blocks of files that have a name or a handle counted as used.
    fn free_bytes(&self) -> u64 {
        let named = self.tree.live_files();
        let blocks = |inode: &SimInode| inode.image.len().div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let held = self.files.iter().filter(|(id, file)| file.handles > 0 || named.contains(id));
        let used: u64 = held.map(|(_, inode)| blocks(inode)).sum();
        self.capacity.unwrap_or(u64::MAX).saturating_sub(used)
    }

    /// Lengthens a file when the space is there.
    fn grow(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        let old = self.inode(id).image.len();
        let more = (len.div_ceil(BLOCK_BYTES) - old.div_ceil(BLOCK_BYTES)) * BLOCK_BYTES;
        // Counting what is used costs as much as there are files.
        if self.capacity.is_some() && more > self.free_bytes() {
            return Err(FaultError::NoSpace.into());
        }
        self.inode(id).image.set_len(len);
        Ok(())
    }

    fn forget_unnamed(&mut self) {
        let named = self.tree.files();
        self.files.retain(|id, inode| inode.handles > 0 || named.contains(id));
    }

    /// As [`World::forget_unnamed`], once in a while: looking through all files costs as much as there are.
    fn forget_unnamed_now_and_then(&mut self) {
        if self.files.len() >= self.forget_at {
            self.forget_unnamed();
            self.forget_at = 2 * self.files.len() + 64;
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let create = mode == OpenMode::CreateNew;
        let mut world = self.enter(if create { Call::Create } else { Call::Open })?;
        let (dir, child) = world.lookup(path)?;
        let id = match (child, create) {
            (Some(_), true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Child::Dir(_)), false) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Child::File(id)), false) => id,
            (None, false) => return Err(io::ErrorKind::NotFound.into()),
            (None, true) => {
                let id = world.new_id();
                world.files.insert(id, SimInode::default());
                world.tree.link(dir, parent_and_name(path)?.1, Child::File(id));
                id
            }
        };
        let inode = world.inode(id);
        if let OpenMode::Append { bytes_max } = mode {
            super::check_append_limit(inode.image.len(), bytes_max)?;
            inode.append_handles += 1;
        }
        inode.handles += 1;
        let (world, flushes) = (self.world.clone(), self.flushes.clone());
        Ok(Arc::new(SimFile { world, flushes, id, mode }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let world = self.enter(Call::List)?;
        let dir = world.tree.dir(&names(dir)?)?;
        let entry = |(name, child): (&String, &Child)| match child {
            Child::Dir(_) => DirEntry { name: name.clone(), kind: EntryKind::Directory, len: 0 },
            Child::File(id) => {
                let len = world.files[id].image.len();
                DirEntry { name: name.clone(), kind: EntryKind::File, len }
            }
        };
        Ok(world.tree.names(dir).iter().map(entry).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.enter(Call::CreateDir)?;
        let (parent, child) = world.lookup(dir)?;
        if child.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.new_id();
        world.tree.link(parent, parent_and_name(dir)?.1, Child::Dir(id));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.enter(Call::Rename)?;
        let (from_dir, to_dir) = (world.lookup(from)?.0, world.lookup(to)?.0);
        let (from_name, to_name) = (parent_and_name(from)?.1, parent_and_name(to)?.1);
        world.tree.rename((from_dir, from_name), (to_dir, to_name))?;
        world.forget_unnamed_now_and_then();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter(Call::Remove)?;
        world.file_id(path)?;
        let dir = world.lookup(path)?.0;
        world.tree.unlink(dir, parent_and_name(path)?.1);
        world.forget_unnamed_now_and_then();
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.enter(Call::Remove)?;
        let id = world.tree.dir(&names(dir)?)?;
        if !world.tree.names(id).is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = parent_and_name(dir)?;
        let parent = world.tree.dir(&parent)?;
        world.tree.unlink(parent, name);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        let fault = world.admit(Call::SyncDir)?;
        let id = world.tree.dir(&names(dir)?)?;
        if let Some(error) = fault {
            world.tree.fail_sync(id);
            return Err(error.into());
        }
        world.tree.sync(id);
        world.forget_unnamed_now_and_then();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let world = self.world.lock();
        if world.dead {
            return Err(io::Error::other("the simulated machine is down"));
        }
        Ok(world.free_bytes())
    }
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read | OpenMode::ReadUncached => Err(io::ErrorKind::PermissionDenied.into()),
            OpenMode::Write | OpenMode::CreateNew | OpenMode::Append { .. } => Ok(()),
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> u64 {
        self.world.lock().inode(self.id).image.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut world = enter(&self.world, Call::Allocate)?;
        if let OpenMode::Append { bytes_max } = self.mode {
            super::check_append_limit(len, bytes_max)?;
        }
        if len <= world.inode(self.id).image.len() {
            return Ok(());
        }
        world.grow(self.id, len)
    }

    fn write_at(&self, pos: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.check_writable()?;
        let mut world = self.world.lock();
        let fault = world.admit(Call::Write)?;
        super::check_range(pos, parts, world.inode(self.id).image.len())?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut left = if fault.is_some() { world.random.index(total + 1) } else { total };
        let mut at = pos;
        for part in parts {
            let arrives = &part[..part.len().min(left)];
            world.inode(self.id).image.write(at, arrives);
            at += arrives.len() as u64;
            left -= arrives.len();
        }
        fault.map_or(Ok(()), |error| Err(error.into()))
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut world = enter(&self.world, Call::Read)?;
        let inode = world.inode(self.id);
        let end = pos.saturating_add(buf.len() as u64).div_ceil(SECTOR_BYTES);
        let sectors = pos / SECTOR_BYTES..end.max(pos / SECTOR_BYTES);
        if inode.spoiled.range(sectors).next().is_some() {
            return Err(FaultError::Io.into());
        }
        inode.image.read(pos, buf)
    }

    fn sync(&self) -> io::Result<()> {
        self.flushes.pass();
        let mut world = self.world.lock();
        let fault = world.admit(Call::Sync)?;
        let image = &mut world.inode(self.id).image;
        match fault {
            None => image.sync(),
            Some(_) => image.fail_sync(),
        }
        fault.map_or(Ok(()), |error| Err(error.into()))
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.world.lock().tree.live_files().contains(&self.id))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut world = enter(&self.world, Call::SetLen)?;
        let inode = world.inode(self.id);
        if inode.append_handles > 0 {
            return Err(super::open_for_append());
        }
        if len <= inode.image.len() {
            inode.image.set_len(len);
            return Ok(());
        }
        world.grow(self.id, len)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let inode = world.inode(self.id);
        inode.handles -= 1;
        inode.append_handles -= u64::from(matches!(self.mode, OpenMode::Append { .. }));
        if inode.handles == 0 {
            world.forget_unnamed();
        }
    }
}

#[cfg(test)]
mod tests;
