//! The real binary as a process that can be killed and started again on the same data and port.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// Longest time a broker may take to listen.
const START: Duration = Duration::from_secs(60);

/// A broker in a process of its own.
#[derive(Debug)]
pub(crate) struct BrokerProcess {
    child: Child,
    dir: TempDir,
    /// Where it listens; the same after a restart.
    pub(crate) address: String,
}

impl BrokerProcess {
    /// Starts one on an empty directory and a free port.
    pub(crate) fn start() -> BrokerProcess {
        let dir = tempfile::tempdir().expect("a directory");
        let (child, address) = spawn(&dir, "127.0.0.1:0");
        BrokerProcess { child, dir, address }
    }

    /// Kills it as a crash would, and starts it again.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it ends");
        let (child, address) = spawn(&self.dir, &self.address);
        assert_eq!(address, self.address);
        self.child = child;
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

/// Starts the binary and waits for the line that says where it listens.
fn spawn(dir: &TempDir, listen: &str) -> (Child, String) {
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data-dir").arg(dir.path().join("data")).arg("--listen").arg(listen);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let stdout = child.stdout.take().expect("piped");
    let (found, listening) = mpsc::channel();
    // Reads to the end, so that a full pipe never holds the broker up.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(rest) = line.trim().strip_prefix("listening") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                let _nobody_asks_twice = found.send(address.to_owned());
            }
        }
    });
    match listening.recv_timeout(START) {
        Ok(address) => (child, address),
        Err(error) => {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
            panic!("the broker does not listen: {error}");
        }
    }
}

/// The binary, built once per run into the folder this test was built into.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a path");
        let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        let target = profile.parent().expect("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "riverrun-cli", "--target-dir"]).arg(target);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary builds");
        profile.join(format!("riverrun{}", std::env::consts::EXE_SUFFIX))
    })
}
