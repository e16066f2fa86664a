//! Programs and libraries of the system that harnesses need, installed where they are missing and can be.
//!
//! Only as root, and only by the package manager of Debian and Ubuntu. Whoever needs one looks for it again and says `SKIPPED` when it
//! is not there: what fails here is told and stops nothing.

use std::{path::Path, process::Command};

/// What is needed, and where it lies when it is there.
struct Need {
    package: &'static str,
    found_at: &'static [&'static str],
}

const NEEDS: [Need; 4] = [
    Need { package: "strace", found_at: &["/usr/bin/strace"] },
    Need { package: "valgrind", found_at: &["/usr/bin/valgrind"] },
    Need { package: "xfsprogs", found_at: &["/sbin/mkfs.xfs", "/usr/sbin/mkfs.xfs"] },
    Need {
        package: "libfaketime",
        found_at: &[
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        ],
    },
];

/// Installs what is missing of `packages`.
pub(crate) fn install(packages: &[&str]) {
    let is_missing = |need: &&Need| {
        let is_asked_for = packages.contains(&need.package);
        is_asked_for && !need.found_at.iter().any(|path| Path::new(path).exists())
    };
    let missing: Vec<&str> = NEEDS.iter().filter(is_missing).map(|need| need.package).collect();
    if missing.is_empty() || !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        return;
    }
    println!("installing {}", missing.join(", "));
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    let install: Vec<&str> = install.into_iter().chain(missing.iter().copied()).collect();
    for words in [&["update", "--quiet"][..], &install] {
        let mut call = Command::new("timeout");
        call.arg("300").arg("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive");
        match call.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => println!("{}", String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => println!("cannot start apt-get: {error}"),
        }
    }
}

/// Whether this runs as root.
fn is_root() -> bool {
    let told = Command::new("id").arg("-u").output();
    told.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
