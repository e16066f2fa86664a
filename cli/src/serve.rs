//! `riverrun serve`: the broker in the foreground.
//!
//! Settings come from the file, then from the flags; all are checked before anything is made. Log lines go
//! to standard error, what a person needs to know goes to standard output once the broker listens.

#[cfg(feature = "otlp")]
mod otlp;
pub(crate) mod traces;

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf};

use riverrun_broker::{Broker, Config, StartError, shutdown::SignalWatch};
use riverrun_storage::data_dir::OpenDataDirError;
use tracing_subscriber::EnvFilter;

use self::traces::Exporting;
use crate::{
    config,
    failure::{Class, Failure, Stop},
    output,
};

/// The filter of log lines when `RUST_LOG` is not set. The HTTP/2 library (`h2`) warns of each connection that breaks its bounds: an attacker
/// could fill the log.
const LOGGED: &str = "info,h2=error";

/// What `serve` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Settings file, TOML; flags win over it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory that holds everything the broker keeps [default: ./riverrun-data]
    #[arg(long, short, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the gRPC door; port 0 takes a free one, and one that others can reach needs --insecure [default: 127.0.0.1:7070]
    #[arg(long, short, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the web door; port 0 takes a free one, and one that others can reach needs --insecure [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// Allow an address that others can reach, without encryption and without authentication
    #[arg(long)]
    insecure: bool,
}

/// Runs the broker until it is told to end; where logs wait for room to be recovered, another one takes its
/// place once there is some.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Stop> {
    let mut settings = settings(args)?;
    start_logging();
    raise_file_limit();
    let exporting = Exporting::start(&settings)?;
    let program = std::env::args().next().unwrap_or_else(|| "riverrun".to_owned());
    let mut signals: Option<SignalWatch> = None;
    loop {
        let broker = Broker::start_traced(settings.clone(), exporting.traces());
        let broker = broker.map_err(|error| not_started(&error))?;
        // Whoever started it may have closed the pipe; the broker runs on.
        output::print(&greeting(&settings, &broker, &program)).ok();
        let heard = match &mut signals {
            Some(signals) => signals,
            None => signals
                .insert(SignalWatch::new().map_err(|error| {
                    Failure::other(format!("cannot wait for signals: {error}"))
                })?),
        };
        settings.grpc.listen = broker.address();
        if let Some(address) = broker.web_address() {
            settings.http.listen = address;
        }
        let is_told_to_end = heard.wait_or(|| broker.has_room_to_recover());
        broker.stop();
        if is_told_to_end {
            exporting.end();
            return Ok(());
        }
        tracing::warn!(
            "there is room on the disk again: starting anew to recover what waits for it"
        );
    }
}

fn not_started(error: &StartError) -> Failure {
    let class = match error {
        StartError::Config(_) => Class::Usage,
        StartError::DataDir(OpenDataDirError::Corrupt { .. })
        | StartError::Metadata(_)
        | StartError::Groups(_)
        | StartError::Subscriptions(_)
        | StartError::Registry(_) => Class::Corrupt,
        StartError::DataDir(_)
        | StartError::Listen { .. }
        | StartError::Io { .. }
        | StartError::OpenFiles(_) => Class::Other,
    };
    let message = error.to_string();
    let message = message.split(" (os error").next().unwrap_or(&message);
    let mut advice = String::new();
    if let StartError::Listen { key, source, .. } = error
        && source.kind() == ErrorKind::AddrInUse
    {
        let flag = if *key == "http.listen" { "--http-listen" } else { "--listen" };
        advice = format!("; end the other broker, or choose another address with {flag}");
    }
    Failure::new(class, format!("{message}{advice}"))
}

/// Settings from file and flags, checked.
fn settings(args: &ServeArgs) -> Result<Config, Failure> {
    let mut settings = match &args.config {
        Some(file) => config::read(file)?,
        None => Config::default(),
    };
    if let Some(data_dir) = &args.data_dir {
        settings.data_dir.clone_from(data_dir);
    }
    if let Some(listen) = args.listen {
        settings.grpc.listen = listen;
        settings.origins.forget("grpc.listen");
    }
    if let Some(listen) = args.http_listen {
        settings.http.listen = listen;
        settings.origins.forget("http.listen");
    }
    settings.insecure |= args.insecure;
    config::checked(settings)
}

/// Log lines to standard error, chosen with `RUST_LOG`.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
}

/// As many open files as the system lets this process have: each partition holds several.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the number of open files");
    }
}

/// The lines printed once the broker listens.
fn greeting(settings: &Config, broker: &Broker, program: &str) -> String {
    let address = broker.address();
    let web = broker.web_address();
    let web_line = web.map(|web| format!("  web         http://{web}\n")).unwrap_or_default();
    let kept = || "what is acknowledged survives a power cut".to_owned();
    let durability = broker.durability_caveat().unwrap_or_else(kept);
    let mut text = format!(
        "riverrun {}\n  data        {}\n  listening   {address} (gRPC)\n{web_line}  durability  fsync: {durability}\n",
        env!("CARGO_PKG_VERSION"),
        settings.data_dir.display(),
    );
    if [Some(address), web].into_iter().flatten().any(|open| !open.ip().is_loopback()) {
        text.push_str(
            "  INSECURE    whoever reaches such an address may read, write and delete everything\n",
        );
    }
    if let Some(read_only) = broker.read_only() {
        text.push_str(&format!("  READ-ONLY   {read_only}\n"));
        return text;
    }
    if broker.waits_for_room() {
        text.push_str(
            "  DISK FULL   what was not closed cleanly is only read until there is room to recover it\n",
        );
    }
    if !broker.registry().topics().is_empty() {
        // Who has topics knows what to type, and the first command would be refused.
        return text;
    }
    let default: SocketAddr = Config::default().grpc.listen;
    let server = if address == default { String::new() } else { format!(" --server {address}") };
    text.push_str(&format!(
        "\nTry it in a second terminal:\n  {program} topic create orders --partitions 4{server}\n  \
         {program} produce orders LICENSE{server}\n  {program} consume orders --group billing{server}\n"
    ));
    text
}
