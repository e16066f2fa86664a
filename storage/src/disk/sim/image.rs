//! One simulated file: the bytes a reader sees and the bytes a power loss leaves.
//!
//! Both are kept by sectors of 512 bytes; a sector that is missing reads as zeros. A sector changed
//! since the last good sync is *dirty* and remembers some of the contents it had in between, because
//! the kernel may write any of them back at any time.
//!
//! Invariants:
//! - A sector that is not dirty is equal in both images.
//! - No sector lies at or past the length of its image, and bytes past the length are zero.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use super::fate::Fate;

/// The unit in which a write is torn: a sector is old or new, never a mix.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors of one page-cache page, the unit in which a failed sync loses data.
const PAGE_SECTORS: u64 = 8;
/// Most in-between contents remembered for one dirty sector.
const VERSIONS_MAX: usize = 3;
const SECTOR: usize = 512;

type Sector = [u8; SECTOR];
type Sectors = BTreeMap<u64, Arc<Sector>>;

/// Live and durable bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What reads return.
    live: Sectors,
    live_len: u64,
    /// What the last good sync left on the medium.
    durable: Sectors,
    durable_len: u64,
    /// Dirty sectors, each with older contents that may have been written back (`None`: zeros).
    dirty: BTreeMap<u64, Vec<Option<Arc<Sector>>>>,
    /// Pages that were dirty when a sync failed: they read back, and no later sync makes them durable.
    lost_pages: BTreeSet<u64>,
}

impl Image {
    /// Length that readers see.
    pub(super) fn len(&self) -> u64 {
        self.live_len
    }

    /// Sectors and lengths whose fate a power loss would decide.
    pub(super) fn dirty_units(&self) -> u64 {
        self.dirty.len() as u64 + u64::from(self.live_len != self.durable_len)
    }

    /// Changes the live length; bytes that come new read as zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        let kept = len.div_ceil(SECTOR_BYTES);
        let gone: Vec<u64> = self.live.range(kept..).map(|(sector, _)| *sector).collect();
        for sector in gone {
            self.put(sector, None);
        }
        let within = tail_bytes(len);
        if within > 0
            && let Some(old) = self.live.get(&(kept - 1))
        {
            let mut cut = **old;
            cut[within..].fill(0);
            self.put(kept - 1, Some(Arc::new(cut)));
        }
        self.live_len = len;
    }

    /// Copies `bytes` to `pos` of the live image; the caller has checked the range.
    pub(super) fn write(&mut self, pos: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = pos;
        while !rest.is_empty() {
            let within = tail_bytes(at);
            let (part, later) = rest.split_at(rest.len().min(SECTOR - within));
            let sector = at / SECTOR_BYTES;
            let mut new = self.live.get(&sector).map_or([0; SECTOR], |old| **old);
            new[within..within + part.len()].copy_from_slice(part);
            self.put(sector, Some(Arc::new(new)));
            at += part.len() as u64;
            rest = later;
        }
    }

    /// Fills `buf` from `pos` of the live image.
    pub(super) fn read(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = pos.checked_add(buf.len() as u64).filter(|end| *end <= self.live_len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buf;
        let mut at = pos;
        while !rest.is_empty() {
            let within = tail_bytes(at);
            let mid = rest.len().min(SECTOR - within);
            let (part, later) = rest.split_at_mut(mid);
            match self.live.get(&(at / SECTOR_BYTES)) {
                Some(sector) => part.copy_from_slice(&sector[within..within + part.len()]),
                None => part.fill(0),
            }
            at += part.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// A sync that succeeded: everything dirty is durable, except pages an earlier sync lost.
    pub(super) fn sync(&mut self) {
        let lost = &self.lost_pages;
        let (kept, done): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.dirty)
            .into_iter()
            .partition(|(sector, _)| lost.contains(&(sector / PAGE_SECTORS)));
        self.dirty = kept;
        for sector in done.into_keys() {
            let live = self.live.get(&sector).cloned();
            store(&mut self.durable, sector, live);
        }
        self.durable_len = self.live_len;
        self.durable.retain(|sector, _| sector * SECTOR_BYTES < self.live_len);
    }

    /// A sync that failed: the kernel marks the pages clean and forgets them.
    pub(super) fn fail_sync(&mut self) {
        self.lost_pages.extend(self.dirty.keys().map(|sector| sector / PAGE_SECTORS));
    }

    /// The file as it lies on the medium after a power loss that `fate` decides.
    pub(super) fn after_power_loss(&self, fate: &mut Fate) -> Image {
        let mut sectors = self.durable.clone();
        let len = fate.length(self.durable_len, self.live_len);
        for (sector, versions) in &self.dirty {
            let lost = self.lost_pages.contains(&(sector / PAGE_SECTORS));
            let live = self.live.get(sector).cloned();
            match fate.version(versions.len(), lost) {
                None => {}
                Some(index) if index < versions.len() => {
                    store(&mut sectors, *sector, versions[index].clone());
                }
                Some(_) => store(&mut sectors, *sector, live),
            }
        }
        sectors.retain(|sector, _| sector * SECTOR_BYTES < len);
        let within = tail_bytes(len);
        if within > 0
            && let Some(last) = sectors.get_mut(&(len / SECTOR_BYTES))
        {
            Arc::make_mut(last)[within..].fill(0);
        }
        Image {
            live: sectors.clone(),
            live_len: len,
            durable: sectors,
            durable_len: len,
            ..Image::default()
        }
    }

    /// Damages the medium: applies `change` to one sector of both images.
    pub(super) fn damage(&mut self, sector: u64, change: impl Fn(&mut Sector)) {
        for image in [&mut self.live, &mut self.durable] {
            let mut bytes = image.get(&sector).map_or([0; SECTOR], |old| **old);
            change(&mut bytes);
            image.insert(sector, Arc::new(bytes));
        }
    }

    /// The live bytes of one sector.
    pub(super) fn sector(&self, sector: u64) -> Sector {
        self.live.get(&sector).map_or([0; SECTOR], |old| **old)
    }

    /// Gives a live sector its new content and remembers what it held since the last sync.
    fn put(&mut self, sector: u64, content: Option<Arc<Sector>>) {
        let old = self.live.get(&sector).cloned();
        match self.dirty.get_mut(&sector) {
            None => {
                self.dirty.insert(sector, Vec::new());
            }
            Some(versions) => {
                if versions.len() == VERSIONS_MAX {
                    versions.remove(1);
                }
                versions.push(old);
            }
        }
        store(&mut self.live, sector, content);
    }
}

/// Offset of `pos` in its sector.
fn tail_bytes(pos: u64) -> usize {
    usize::try_from(pos % SECTOR_BYTES).expect("below 512")
}

fn store(sectors: &mut Sectors, sector: u64, content: Option<Arc<Sector>>) {
    match content {
        Some(content) => sectors.insert(sector, content),
        None => sectors.remove(&sector),
    };
}
