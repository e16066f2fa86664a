//! The files of the load generator: input made for a run, results kept after it, facts of the kernel.

#![expect(clippy::disallowed_methods, reason = "the files of the load generator, not of the log")]

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{Advice, fadvise};

use crate::error::{Error, Result};

/// A file of the kernel as text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

/// Writes a result, and the folders above it.
pub(crate) fn write_result(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, text)
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// A new file for what a process says.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// A new, empty file, open for reading and for setting its length.
pub(crate) fn create_to_read(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Has the kernel forget what it holds in memory of the files below `folder`, as far as it is on disk.
pub(crate) fn evict(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            evict(&entry.path())?;
        } else {
            fadvise(File::open(entry.path())?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Bytes that the files below `folder` take on the disk.
pub(crate) fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let of = match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => Ok(found.blocks() * 512),
            Err(error) => Err(error),
        };
        match of {
            Ok(more) => bytes += more,
            // A segment that retention dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Writes a text file of `bytes` or a little more: lines of 20 to 180 letters, no two the same.
pub(crate) fn write_text_lines(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut written, mut lines) = (0, 0u64);
    let mut line = Vec::new();
    while written < bytes {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        line.clear();
        write!(line, "{lines} ")?;
        let words = 2 + random % 18;
        for word in 0..words {
            write!(line, "{:08x} ", (random >> word) & 0xffff_ffff)?;
        }
        line.push(b'\n');
        out.write_all(&line)?;
        written += line.len() as u64;
        lines += 1;
    }
    out.flush()?;
    Ok(written)
}

/// Reads `input` to its end and compares it with the file, byte by byte.
pub(crate) fn compare(mut input: impl Read, path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let (mut got, mut wanted) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut position = 0;
    loop {
        let bytes = input.read(&mut got)?;
        if bytes == 0 {
            break;
        }
        let wanted = &mut wanted[..bytes];
        let same = file.read_exact(wanted).is_ok() && *wanted == got[..bytes];
        if !same {
            return Err(Error::Wrong(format!(
                "output differs from the input near byte {position}"
            )));
        }
        position += bytes as u64;
    }
    let size = file.metadata()?.len();
    if position == size {
        Ok(size)
    } else {
        Err(Error::Wrong(format!("output has {position} bytes, the input has {size}")))
    }
}
