//! A directory that cannot be written to. Root may write whatever its mode says, so it is mounted over itself.

use std::{path::PathBuf, process::Command};

/// Mounted for reading only until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadOnlyMount {
    path: PathBuf,
}

impl ReadOnlyMount {
    /// Mounts `path` over itself for reading only; `None`, and a line that says why, where that is not possible.
    #[expect(clippy::print_stdout, reason = "a check that did not run says so")]
    pub(crate) fn over(path: PathBuf) -> Option<ReadOnlyMount> {
        let text = path.to_str().expect("a temporary directory has a plain name").to_owned();
        if let Err(reason) = mount(&["--bind", &text, &text]) {
            println!("SKIPPED: nothing can be mounted for reading only here: {reason}");
            return None;
        }
        let mounted = ReadOnlyMount { path };
        mount(&["-o", "remount,bind,ro", &text]).expect("what was mounted can be mounted anew");
        Some(mounted)
    }
}

impl Drop for ReadOnlyMount {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.path).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn mount(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("mount").args(arguments).output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(errors) }
}
