//! What this kernel and its file systems do at a power cut, asked before the broker is. A kernel that behaves in another way shows up
//! here, and not as a riddle.
//!
//! | Name | What is asked | What is expected |
//! | --- | --- | --- |
//! | cut | synced bytes, and bytes that were not synced | there, gone |
//! | map | stores through a map, made durable by `fdatasync` alone, as the broker's disk does | there |
//! | order | of two pages that were not synced the second was sent | the first gone, the second there |
//! | name | a rename without a sync of its directory | the old name is back |

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::Duration,
};

use riverrun_storage::disk::{Disk, OpenMode, RealDisk, RealDiskOptions};

use super::{disorder::send, volume::Volume};

const PAGE: usize = 4096;
/// Far more than the kernel keeps in one piece.
const SIZE: u64 = 8 << 20;
/// Where the page lies that is sent before its neighbours.
const SECOND: u64 = 6 << 20;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Synced bytes are there.
    kept: bool,
    /// Bytes that were not synced are gone: without it, nothing here shows anything.
    lost: bool,
    /// `fdatasync` covers a map.
    mapped: bool,
    /// Pages reach the device out of order.
    disordered: bool,
    /// A rename is gone without a sync of its directory.
    unnamed: bool,
}

impl Probe {
    /// Whether a power cut is one.
    pub(super) fn cuts(&self) -> bool {
        self.lost
    }

    /// What the broker rests on and this machine does not do.
    pub(super) fn broken(&self) -> Option<&'static str> {
        match (self.kept, self.mapped) {
            (false, _) => Some("synced bytes are gone after a power cut"),
            (_, false) => Some("`fdatasync` does not cover stores through a map"),
            _ => None,
        }
    }

    /// For a person.
    pub(super) fn line(&self) -> String {
        let word = |as_expected: bool| if as_expected { "as expected" } else { "DIFFERENT" };
        let (cut, map) = (word(self.kept && self.lost), word(self.mapped));
        let (order, name) = (word(self.disordered), word(self.unnamed));
        format!("cut {cut}, map {map}, order {order}, name {name}")
    }
}

/// Asks the file system of `volume`.
pub(super) fn probe(volume: &Volume) -> Result<Probe, String> {
    let folder = volume.path().join("probe");
    let mapped = write(&folder).map_err(|error| format!("the probe: {error}"))?;
    volume.cut()?;
    drop(mapped);
    volume.mount_again()?;
    look(&folder).map_err(|error| format!("the probe: {error}"))
}

/// A file of `SIZE` zeros that is on the device.
fn zeros(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.write_all_at(&vec![0; 8 << 20], 0)?;
    file.sync_all()?;
    Ok(file)
}

/// First everything that is synced, then what is not: a sync makes names of before it durable as well.
fn write(folder: &Path) -> io::Result<impl Sized + use<>> {
    fs::create_dir_all(folder)?;
    let lost = zeros(&folder.join("lost"))?;
    let order = zeros(&folder.join("order"))?;
    let kept = zeros(&folder.join("kept"))?;
    kept.write_all_at(&[7; PAGE], 0)?;
    kept.sync_data()?;
    zeros(&folder.join("old"))?;
    zeros(&folder.join("map"))?;
    File::open(folder)?.sync_all()?;
    let disk = RealDisk::open(folder, RealDiskOptions::default())?;
    let map = disk.open(Path::new("map"), OpenMode::Append { bytes_max: SIZE })?;
    map.write_at(8, &[&[7; 100]])?;
    map.sync()?;

    lost.write_all_at(&[7; PAGE], 0)?;
    order.write_all_at(&[7; PAGE], 0)?;
    order.write_all_at(&[7; PAGE], SECOND)?;
    send(&order, SECOND, PAGE as u64);
    // The sent page is on its way, without a call that would wait for it and for it alone.
    thread::sleep(Duration::from_millis(100));
    fs::rename(folder.join("old"), folder.join("new"))?;
    Ok((lost, order, map))
}

fn look(folder: &Path) -> io::Result<Probe> {
    let byte = |name: &str, at: u64| {
        let mut byte = [0];
        File::open(folder.join(name))?.read_exact_at(&mut byte, at)?;
        io::Result::Ok(byte[0])
    };
    Ok(Probe {
        kept: byte("kept", 0)? == 7,
        lost: byte("lost", 0)? == 0,
        mapped: byte("map", 8)? == 7 && byte("map", 107)? == 7,
        disordered: byte("order", 0)? == 0 && byte("order", SECOND)? == 7,
        unnamed: folder.join("old").exists() && !folder.join("new").exists(),
    })
}
