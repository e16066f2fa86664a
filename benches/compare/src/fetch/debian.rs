//! Packages of Debian, fetched by `apt-get` as the machine is set up, and unpacked without installing them. No rights are needed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    files,
    process::output,
    say,
};

/// A package with what it needs, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// The folder that stands for `/`.
    pub(crate) root: PathBuf,
    /// Version of the package.
    pub(crate) version: String,
}

/// Fetches a package and everything it needs that this machine lacks, unless the cache has it.
///
/// # Errors
/// `Skipped` when it cannot be had.
pub(crate) fn unpack(package: &str, cache: &Path) -> Result<Unpacked> {
    fetch(package, cache)
        .map_err(|error| Error::Skipped(format!("no package `{package}` to be had: {error}")))
}

fn fetch(package: &str, cache: &Path) -> Result<Unpacked> {
    let folder = cache.join("debian").join(package);
    let (root, done) = (folder.join("root"), folder.join("version"));
    if let Ok(version) = files::read_text(&done) {
        return Ok(Unpacked { root, version });
    }
    say::fetching(&format!("`{package}` from Debian's packages"));
    files::remove_folder(&folder)?;
    files::make_folder(&root)?;
    let mut plan = Command::new("apt-get");
    plan.args(["--simulate", "--reinstall", "--no-install-recommends", "install", package]);
    let plan = output(&mut plan)?;
    let names: Vec<&str> =
        plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect();
    output(Command::new("apt-get").arg("download").args(names).current_dir(&folder))?;
    let mut version = None;
    for path in files::list(&folder)? {
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("--extract").args([&path, &root]))?;
            let fields = output(Command::new("dpkg-deb").arg("--field").arg(&path))?;
            if field(&fields, "Package") == Some(package) {
                version = field(&fields, "Version").map(str::to_owned);
            }
        }
    }
    let version = version.ok_or_else(|| Error::Wrong("it did not come".into()))?;
    // Written last, so that half a package is never taken for a whole one.
    files::write_text(&done, &version)?;
    Ok(Unpacked { root, version })
}

/// The value of a field of a control file.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim()).next()
}

impl Unpacked {
    /// Where its shared libraries are, as the loader wants them.
    pub(crate) fn libraries(&self) -> String {
        let folders = files::list(&self.root.join("usr/lib")).unwrap_or_default();
        let named = folders.into_iter().filter(|path| path.to_string_lossy().contains("linux-gnu"));
        named.map(|path| path.display().to_string()).collect::<Vec<String>>().join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_a_control_file_are_found() {
        let text = "Package: redis-server\nVersion: 5:7.0.15-1\nDescription: a\n Version: no\n";
        assert_eq!(field(text, "Package"), Some("redis-server"));
        assert_eq!(field(text, "Version"), Some("5:7.0.15-1"));
        assert_eq!(field(text, "Homepage"), None);
    }
}
