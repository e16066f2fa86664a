//! Real text: what the machine has of documentation and crate sources, and the house's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Hands over one file after another, always in the same sequence, until `take` has enough.
pub(crate) fn each_file(mut take: impl FnMut(&[u8]) -> bool) {
    let mut folders = sources();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if is_text(&path) && !take(&fs::read(path).unwrap()) {
                return;
            }
        }
    }
}

/// The first `count` lines that are not empty.
pub(crate) fn lines(count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    each_file(|text| {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let fit = text.lines().filter(|line| !line.is_empty() && !line.contains(char::is_control));
        lines.extend(fit.map(str::to_owned));
        lines.len() < count
    });
    lines.truncate(count);
    lines
}

/// Sources of the house, of the crates it was built with, then documentation: what is taken first comes last.
fn sources() -> Vec<PathBuf> {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let registry = cargo.or(home).map(|cargo| cargo.join("registry").join("src"));
    let found = registry.into_iter().filter(|registry| registry.is_dir());
    let own = ["storage", "broker", "client", "cli", "docs"].map(|room| house.join(room));
    documentation().into_iter().chain(found).chain(own).collect()
}

/// Documentation of the machine and of the compiler, where there is any.
fn documentation() -> Vec<PathBuf> {
    let asked = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let compiler = sysroot.map(|sysroot| Path::new(&sysroot).join("share").join("doc"));
    let machine = Path::new("/usr/share/doc").to_owned();
    [Some(machine), compiler.ok()].into_iter().flatten().filter(|folder| folder.is_dir()).collect()
}

fn is_text(path: &Path) -> bool {
    let known = ["rs", "md", "txt", "toml", "c", "h", "proto", "html"];
    path.extension().is_some_and(|extension| known.iter().any(|known| extension == *known))
}
