//! `meta.properties`: whose data directory this is and in which format it is written.
//!
//! ```text
//! # Riverrun data directory. Do not edit.
//! format.version=1
//! cluster.id=67e55044-10b1-426f-9247-bb680e5fe0c8
//! node.id=0
//! checksum=1c291ca3        crc32 of all bytes before this line
//! ```
//!
//! It is replaced as a whole: temporary file, sync, rename, directory sync. A newer format version is
//! told before anything else is read, so a later format may change all other lines.

use std::{io, path::Path};

use uuid::Uuid;

use crate::disk::{Disk, OpenMode};

/// Format version of everything below a data directory written by this program.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const META_FILE: &str = "meta.properties";
pub(super) const META_TEMPORARY: &str = "meta.properties.tmp";
const COMMENT: &str = "# Riverrun data directory. Do not edit.\n";
/// Larger than any file this program writes there.
const META_BYTES_MAX: u64 = 4096;

/// Identity of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// The node in that cluster.
    pub node_id: u32,
}

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredMeta {
    /// There is no file.
    Missing,
    /// Written in a format this program does not know.
    Newer(u32),
    /// Not what this program writes.
    Invalid(&'static str),
    Valid(Meta),
}

impl Meta {
    fn encode(&self) -> String {
        let body = format!(
            "{COMMENT}format.version={FORMAT_VERSION}\ncluster.id={}\nnode.id={}\n",
            self.cluster_id, self.node_id
        );
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}checksum={crc:08x}\n")
    }

    fn decode(bytes: &[u8]) -> StoredMeta {
        let Ok(text) = std::str::from_utf8(bytes) else { return StoredMeta::Invalid("not text") };
        match value(text, "format.version").map(str::parse::<u32>) {
            Some(Ok(version)) if version > FORMAT_VERSION => return StoredMeta::Newer(version),
            Some(Ok(FORMAT_VERSION)) => {}
            _ => return StoredMeta::Invalid("no known format version"),
        }
        let cluster_id = value(text, "cluster.id").and_then(|id| id.parse().ok());
        let node_id = value(text, "node.id").and_then(|id| id.parse().ok());
        let (Some(cluster_id), Some(node_id)) = (cluster_id, node_id) else {
            return StoredMeta::Invalid("no valid cluster id or node id");
        };
        let meta = Meta { cluster_id, node_id };
        if meta.encode() == text {
            StoredMeta::Valid(meta)
        } else {
            StoredMeta::Invalid("the checksum does not match")
        }
    }
}

/// Reads the file.
pub(super) fn load(disk: &dyn Disk) -> io::Result<StoredMeta> {
    let file = match disk.open(Path::new(META_FILE), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(StoredMeta::Missing),
        opened => opened?,
    };
    if file.len() > META_BYTES_MAX {
        return Ok(StoredMeta::Invalid("it is too long"));
    }
    let mut bytes = vec![0; usize::try_from(file.len()).expect("a small length")];
    file.read_at(0, &mut bytes)?;
    Ok(Meta::decode(&bytes))
}

/// Makes `meta` the directory's identity; it is durable when this returns.
pub(super) fn store(disk: &dyn Disk, meta: Meta) -> io::Result<()> {
    let temporary = Path::new(META_TEMPORARY);
    match disk.remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let text = meta.encode();
    let file = disk.open(temporary, OpenMode::CreateNew)?;
    file.allocate(text.len() as u64)?;
    file.write_at(0, &[text.as_bytes()])?;
    file.sync()?;
    disk.rename(temporary, Path::new(META_FILE))?;
    disk.sync_dir(Path::new(""))
}

/// The value of the first line `key=value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        Meta { cluster_id: Uuid::from_u128(0x1234_5678_9abc), node_id: 7 }
    }

    #[test]
    fn a_file_is_read_back_only_as_it_was_written() {
        let text = sample().encode();
        assert_eq!(Meta::decode(text.as_bytes()), StoredMeta::Valid(sample()));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bad = text.clone().into_bytes();
                bad[at] ^= 1 << bit;
                let read = Meta::decode(&bad);
                let refused = matches!(read, StoredMeta::Invalid(_) | StoredMeta::Newer(_));
                assert!(refused, "bit {bit} of byte {at}: {read:?}");
            }
            let cut = Meta::decode(&text.as_bytes()[..at]);
            assert!(matches!(cut, StoredMeta::Invalid(_)), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_whatever_else_it_holds() {
        let read = Meta::decode(b"format.version=2\nsomething=else\n");
        assert_eq!(read, StoredMeta::Newer(2));
    }
}
