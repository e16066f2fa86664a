//! The broker under load: the real binary in a process of its own.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use riverrun_client::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clock,
    error::{Error, Result},
    files, machine,
    memory::Memory,
};

/// Longest time a broker may take to get ready; recovery of many GiB needs some.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// Where brokers come from.
#[derive(Debug)]
pub(crate) struct Setup {
    binary: PathBuf,
    config: Option<PathBuf>,
    /// Filled before a broker starts.
    memory: Memory,
    /// Removed with everything in it at the end.
    work: tempfile::TempDir,
}

impl Setup {
    /// Makes a directory to work in. That the binary is there is looked at when it is first started.
    pub(crate) fn new(
        binary: Option<PathBuf>,
        dir: Option<PathBuf>,
        config: Option<PathBuf>,
    ) -> Result<Setup> {
        let own = std::env::current_exe()?;
        let binary = binary.unwrap_or_else(|| own.with_file_name("riverrun"));
        let target = own.ancestors().nth(2).unwrap_or(Path::new("."));
        let dir = dir.unwrap_or_else(|| target.join("load-work"));
        files::make_folder(&dir)?;
        let dir = dir.canonicalize()?;
        let kind = machine::file_system(&dir)?;
        if kind == "tmpfs" || kind == "ramfs" {
            return Err(Error::NotADisk { dir, kind });
        }
        let memory = Memory::new(&dir.join("memory"))?;
        Ok(Setup { binary, config, memory, work: tempfile::tempdir_in(dir)? })
    }

    /// The directory to work in.
    pub(crate) fn dir(&self) -> &Path {
        self.work.path()
    }

    /// A command line of the binary.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.binary)
    }

    /// Starts a broker on a directory of this name, and waits until it answers.
    pub(crate) async fn start(&self, name: &str) -> Result<Broker> {
        self.start_with(name, self.config.clone(), &[]).await
    }

    /// The same, with these settings whatever the command line says, and these variables in its environment.
    pub(crate) async fn start_as(
        &self,
        name: &str,
        settings: &str,
        variables: &[(&str, &str)],
    ) -> Result<Broker> {
        let file = self.work.path().join(format!("{name}.toml"));
        files::create(&file)?.write_all(settings.as_bytes())?;
        self.start_with(name, Some(file), variables).await
    }

    async fn start_with(
        &self,
        name: &str,
        config: Option<PathBuf>,
        variables: &[(&str, &str)],
    ) -> Result<Broker> {
        let data_dir = self.work.path().join(name);
        let errors = self.work.path().join(format!("{name}.stderr"));
        if !self.binary.exists() {
            return Err(Error::NoBinary(self.binary.clone()));
        }
        let mut command = self.command();
        command.envs(variables.iter().copied());
        command.arg("serve").arg("--data-dir").arg(data_dir).args([
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(files::create(&errors)?);
        self.memory.fill()?;
        let start = clock::now();
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Error::NotReady("no output".into()))?;
        let (found, doors) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut found, mut grpc) = (Some(found), String::new());
            // Reads on to the end, so that the broker is never held up by a full pipe.
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                if let Some(address) = told(&line, "listening") {
                    grpc = address;
                } else if let Some(web) = told(&line, "web")
                    && let Some(found) = found.take()
                {
                    let web = web.trim_start_matches("http://").to_owned();
                    let _ = found.send(Doors { grpc: std::mem::take(&mut grpc), web });
                }
            }
        });
        let mut broker = Broker { child, doors: Doors::default(), ready_seconds: 0.0 };
        match tokio::time::timeout(READY_TIMEOUT, doors).await {
            Ok(Ok(doors)) => broker.doors = doors,
            Ok(Err(_)) | Err(_) => {
                let said = files::read_text(errors).unwrap_or_default();
                return Err(Error::NotReady(said.trim().to_owned()));
            }
        }
        let client = broker.client().await?;
        client.admin().cluster().await?;
        broker.ready_seconds = clock::seconds_since(start);
        Ok(broker)
    }
}

/// The address in the line that begins with `what`.
fn told(line: &str, what: &str) -> Option<String> {
    let rest = line.trim().strip_prefix(what)?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// Where a broker listens, host and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors {
    /// gRPC.
    pub(crate) grpc: String,
    /// HTTP.
    pub(crate) web: String,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    doors: Doors,
    /// Time from exec to the first answer.
    pub(crate) ready_seconds: f64,
}

impl Broker {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Where it listens for gRPC.
    pub(crate) fn address(&self) -> &str {
        &self.doors.grpc
    }

    /// A connection to it.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.address()).await?)
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits. Gives the time it took.
    pub(crate) fn stop(mut self) -> Result<f64> {
        let start = clock::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(std::io::Error::from)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(clock::seconds_since(start))
        } else {
            Err(Error::Wrong(format!("the broker ended with {status}")))
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // After `kill` and `stop` there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
