//! The files of the comparison: data directories of the servers, what was downloaded, results kept.

#![expect(clippy::disallowed_methods, reason = "the files of the comparison, not of the log")]

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A file as text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

/// Writes a text, and the folders above it.
pub(crate) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, text)
}

/// Writes a script that can be run, and the folders above it.
pub(crate) fn write_script(path: &Path, text: &str) -> io::Result<()> {
    write_text(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Removes a folder with all that is in it; one that is not there is no fault.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A new, empty file, open for writing.
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

/// Names of what is in a folder, sorted.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}
