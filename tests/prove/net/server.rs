//! The broker in a process of its own, in its namespace when there is one.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use riverrun_tests::ports::lasting_address;
use rustix::process::{Pid, Signal, kill_process};

use super::town::{PREFIX, Place, Town, is_leftover};

/// Longest time a start may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Where it listens in a namespace; nobody else is there.
const PORT: u16 = 7070;

/// A broker on a data directory of its own.
#[derive(Debug)]
pub(crate) struct Server {
    child: Option<Child>,
    folder: tempfile::TempDir,
    namespace: Option<String>,
    environment: Vec<(String, String)>,
    listen: SocketAddr,
}

impl Server {
    /// Starts one with settings, as TOML.
    pub(crate) fn start(town: Option<&Town>, settings: &str) -> Result<Server, String> {
        Server::start_with(town, settings, &[])
    }

    /// Starts one with settings and an environment.
    pub(crate) fn start_with(
        town: Option<&Town>,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Result<Server, String> {
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(text)?;
        fs::write(folder.path().join("riverrun.toml"), settings).map_err(text)?;
        let namespace = town.map(|town| town.name(Place::Broker));
        let listen = match town {
            // Every address of the namespace: its clients are on two lines.
            Some(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            None => lasting_address(),
        };
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(own).collect();
        let mut server = Server { child: None, folder, namespace, environment, listen };
        server.launch()?;
        Ok(server)
    }

    /// Where clients at `host` reach it.
    pub(crate) fn address(&self, host: Option<IpAddr>) -> SocketAddr {
        SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), self.listen.port())
    }

    /// Its data and what else belongs to it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn launch(&mut self) -> Result<(), String> {
        let errors = self.folder.path().join("stderr");
        let mut command = self.command()?;
        let file = fs::File::create(&errors).map_err(text)?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().map_err(text)?;
        let stdout = child.stdout.take().ok_or("no output")?;
        self.child = Some(child);
        let (found, listening) = mpsc::channel();
        // Reads on to the end, so that the broker is never held up by a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix("listening") {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    found.send(address.parse::<SocketAddr>()).ok();
                }
            }
        });
        let told = || fs::read_to_string(&errors).unwrap_or_default();
        match listening.recv_timeout(DEADLINE) {
            Ok(address) => self.listen = address.map_err(text)?,
            Err(_) => return Err(format!("the broker did not start: {}", told().trim())),
        }
        Ok(())
    }

    fn command(&self) -> Result<Command, String> {
        let program = beside("riverrun")?;
        let mut command = match &self.namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen", &self.listen.to_string(), "--http-listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(self.folder.path().join("riverrun.toml"));
        Ok(command)
    }

    /// Kills it and starts it again on the same data.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.launch()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Its process: `ip netns exec` becomes what it starts.
    pub(crate) fn pid(&self) -> Result<Pid, String> {
        self.child.as_ref().map(Pid::from_child).ok_or_else(|| "it is not running".to_owned())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        kill_process(self.pid()?, signal).map_err(text)
    }

    /// Memory of its own, in bytes: without files that are mapped.
    pub(crate) fn memory(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid()?.as_raw_nonzero());
        let status = fs::read_to_string(path).map_err(text)?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| "no RssAnon".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that lies beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(text)?;
    let path = own.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("`{}` is missing", path.display())) }
}

/// Ends brokers of runs that are over, and removes their folders.
pub(crate) fn remove_leftovers() {
    let base = std::env::temp_dir();
    for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_leftover(&name) {
            continue;
        }
        for pid in users_of(&entry.path()) {
            kill_process(pid, Signal::KILL).ok();
        }
        fs::remove_dir_all(entry.path()).ok();
    }
}

/// Processes that were started with a path below `folder`.
fn users_of(folder: &Path) -> Vec<Pid> {
    let below = format!("{}/", folder.display());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        let is_user = words.split(|byte| *byte == 0).any(|word| word.starts_with(below.as_bytes()));
        if is_user { Pid::from_raw(pid) } else { None }
    });
    named.collect()
}

/// An error in words.
pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
