//! The disk: appends to the page cache, and appends with `fdatasync`, one at a time.
//!
//! "Recycled" means blocks that were written before; such a sync changes no metadata and is much cheaper.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use super::percentiles;
use crate::{clock, drive::Figures, error::Result, files};

/// Bytes of a small append.
const SMALL: usize = 4 << 10;
/// Bytes of a large append.
const LARGE: usize = 1 << 20;

pub(super) fn measure(dir: &Path, quick: bool) -> Result<Figures> {
    let (small, large) = if quick { (50, 16) } else { (2000, 512) };
    let path = dir.join("disk");
    let file = files::create(&path)?;
    let mut figures = Figures::new();
    figures.extend(percentiles("sync_4k_fresh", &syncs(&file, SMALL, small)?)?);
    figures.extend(percentiles("sync_4k_recycled", &syncs(&file, SMALL, small)?)?);
    let rate = |bytes: usize, times: &[u64]| {
        (bytes * times.len()) as f64 * 1e3 / times.iter().sum::<u64>() as f64
    };
    let times = appends(&file, LARGE, large)?;
    figures.insert("append_1m_page_cache_mb_per_second".into(), rate(LARGE, &times));
    file.sync_data()?;
    let times = syncs(&file, LARGE, large)?;
    figures.insert("append_1m_sync_recycled_mb_per_second".into(), rate(LARGE, &times));
    Ok(figures)
}

/// Appends and syncs from the start of the file on. Gives the time of each, in nanoseconds.
fn syncs(file: &File, bytes: usize, count: usize) -> Result<Vec<u64>> {
    let block = vec![0x5a; bytes];
    let one = |index: usize| {
        let start = clock::nanos();
        file.write_all_at(&block, (index * bytes) as u64)?;
        file.sync_data()?;
        Ok(clock::nanos() - start)
    };
    (0..count).map(one).collect()
}

/// The same without the sync.
fn appends(file: &File, bytes: usize, count: usize) -> Result<Vec<u64>> {
    let block = vec![0xa5; bytes];
    let one = |index: usize| {
        let start = clock::nanos();
        file.write_all_at(&block, (index * bytes) as u64)?;
        Ok(clock::nanos() - start)
    };
    (0..count).map(one).collect()
}
