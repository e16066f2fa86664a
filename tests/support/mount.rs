//! Directories on file systems of their own: one that cannot be written to (root may write whatever a mode says, so it
//! is mounted over itself), and one that is small enough to be filled up.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct TestMount {
    path: PathBuf,
}

impl TestMount {
    /// Mounts `path` over itself for reading only; `None`, and a line that says why, where that is not possible.
    pub(crate) fn read_only(path: PathBuf) -> Option<TestMount> {
        let text = text_of(&path).to_owned();
        let mounted = TestMount::mount(path, &["--bind", &text, &text])?;
        mount(&["-o", "remount,bind,ro", &text]).expect("what was mounted can be mounted anew");
        Some(mounted)
    }

    /// Mounts an empty file system of this many MiB at `path`; as [`TestMount::read_only`] otherwise.
    pub(crate) fn small(path: PathBuf, mib: u32) -> Option<TestMount> {
        let text = text_of(&path).to_owned();
        let size = format!("size={mib}m,mode=0700");
        TestMount::mount(path, &["-t", "tmpfs", "-o", &size, "tmpfs", &text])
    }

    #[expect(clippy::print_stdout, reason = "a check that did not run says so")]
    fn mount(path: PathBuf, arguments: &[&str]) -> Option<TestMount> {
        match mount(arguments) {
            Ok(()) => Some(TestMount { path }),
            Err(reason) => {
                println!("SKIPPED: nothing can be mounted here: {reason}");
                None
            }
        }
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.path).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a temporary directory has a plain name")
}

fn mount(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("mount").args(arguments).output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(errors) }
}
