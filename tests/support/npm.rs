//! Packages of npm that a test works with: those of a lock file, installed below the target folder.
//!
//! They need `node` and `npm`. Where they cannot be had a test says so and checks nothing, unless `REQUIRE_NODE` is set.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::process::finish;

/// Longest time that the packages may take.
const INSTALL_MAX: Duration = Duration::from_secs(240);

/// A folder with the packages of the lock file in `tests/NAME`, and with `files` from there; the reason when there is none.
pub(crate) fn installed(name: &str, files: &[&str]) -> Result<PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    // target/PROFILE/deps/TEST-HASH
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(3).unwrap().join("npm").join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::read(from.join("package-lock.json")).unwrap();
    let stamp = folder.join("installed");
    let is_there = fs::read(&stamp).is_ok_and(|known| known == lock);
    finish(Command::new("node").arg("--version"), INSTALL_MAX)?;
    for file in ["package.json", "package-lock.json"].iter().chain(files) {
        fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    if is_there {
        return Ok(folder);
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
    let output = finish(&mut install, INSTALL_MAX)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        return Err(format!("`npm ci` failed: {line}"));
    }
    fs::write(&stamp, lock).unwrap();
    Ok(folder)
}

/// Says that nothing was checked; fails where that must not be.
#[expect(clippy::print_stdout, reason = "the reason stands in the test's output")]
pub(crate) fn skip(what: &str, reason: &str) {
    assert!(std::env::var_os("REQUIRE_NODE").is_none(), "{reason}");
    println!("SKIPPED: {what}: {reason}");
}
