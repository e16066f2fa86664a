//! Relative paths, checked the same way by the real and the simulated disk.

use std::{
    io,
    path::{Component, Path},
};

/// The plain names `path` consists of; none for the root itself.
///
/// # Errors
/// `InvalidInput` when the path is absolute, has `..`, or a name is not UTF-8.
pub(super) fn names(path: &Path) -> io::Result<Vec<&str>> {
    path.components().map(|part| plain_name(part).ok_or_else(|| refused(path))).collect()
}

/// The names of the parent directory and the last name.
///
/// # Errors
/// As [`names`], and `InvalidInput` for the root.
pub(super) fn parent_and_name(path: &Path) -> io::Result<(Vec<&str>, &str)> {
    let mut parent = names(path)?;
    let name = parent.pop().ok_or_else(|| refused(path))?;
    Ok((parent, name))
}

fn plain_name(part: Component<'_>) -> Option<&str> {
    match part {
        Component::Normal(name) => name.to_str(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    }
}

fn refused(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("path `{}` is not a plain path below the data directory", path.display()),
    )
}
