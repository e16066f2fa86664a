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
        let test = std::env::current_exe().unwrap();
        // target/PROFILE/deps/main-HASH
        let profile = test.parent().unwrap().parent().unwrap();
        let target = profile.parent().unwrap();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "--package", "riverrun-cli", "--target-dir"]);
        build.arg(target);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().unwrap();
        assert!(status.success(), "cannot build the binary");
        profile.join(format!("riverrun{}", std::env::consts::EXE_SUFFIX))
    })
}
