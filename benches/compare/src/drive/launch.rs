//! Starts a driver, waits for it, and reads its outcome.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{Figures, Job};
use crate::{
    clock,
    error::{Error, Result},
    files,
};

/// How much of what a failed driver said is shown.
const CHARACTERS_SHOWN: usize = 400;

/// A driver at work; killed when dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    child: std::process::Child,
    name: String,
    outcome: std::path::PathBuf,
    said: std::path::PathBuf,
}

/// Starts a driver, with `dir` for what it says.
pub(crate) fn launch(driver: &Command, job: &Job, dir: &Path) -> Result<Driver> {
    let (outcome, said) = (dir.join("driver.json"), dir.join("driver.log"));
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(driver.get_program())
        .args(driver.get_args())
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::null())
        .stdout(files::create(&outcome)?)
        .stderr(files::create(&said)?)
        .spawn()?;
    Ok(Driver { child, name: format!("driver of {}", job.peer.name()), outcome, said })
}

impl Driver {
    /// Waits until it has ended. Gives its outcome.
    pub(crate) fn wait(mut self, timeout_seconds: f64) -> Result<Figures> {
        let start = clock::nanos();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if clock::seconds_since(start) > timeout_seconds {
                return Err(self.failed(&format!("did not end within {timeout_seconds} s")));
            }
            clock::pause(std::time::Duration::from_millis(5));
        };
        if status.success() {
            Ok(serde_json::from_str(&files::read_text(&self.outcome)?)?)
        } else {
            Err(self.failed("failed"))
        }
    }

    fn failed(&self, how: &str) -> Error {
        let said = files::read_text(&self.said).unwrap_or_default();
        // What it said last says most.
        let said = said.trim();
        let skipped = said.chars().count().saturating_sub(CHARACTERS_SHOWN);
        let said: String = said.chars().skip(skipped).collect();
        Error::Program { program: self.name.clone(), how: format!("{how}: {said}") }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It has ended, or is to be ended; either way nobody waits for it any more.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
