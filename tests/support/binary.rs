//! The real binary, built once per test run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Path of `riverrun`, in the same target folder as this test binary.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let name = format!("riverrun{}", std::env::consts::EXE_SUFFIX);
        build(&["--package", "riverrun-cli"]).join(name)
    })
}

/// Path of an example of the client, in the same target folder.
pub(crate) fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let build = || build(&["--package", "riverrun-client", "--examples"]).join("examples");
    FOLDER.get_or_init(build).join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Builds what the arguments say in the profile of this test binary; the folder it comes to.
fn build(arguments: &[&str]) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/main-HASH
    let profile = test.parent().unwrap().parent().unwrap();
    let target = profile.parent().unwrap();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--locked"]).args(arguments).arg("--target-dir").arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // What cargo tells a test of its package is not for the build: scripts that look at it would run again, and all
    // that hangs on them would be built again, each time.
    let is_ours =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
        build.env_remove(name);
    }
    let status = build.status().unwrap();
    assert!(status.success(), "cannot build {arguments:?}");
    profile.to_path_buf()
}
