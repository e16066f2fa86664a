//! `riverrun log`: looks at stored files without a broker, and repairs them.
//!
//! A directory is a data directory or that of one partition. `verify` and `dump` change nothing and take no lock; in a
//! directory that a broker uses, what it is working on is not judged.

mod repair;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use riverrun_proto::{RecordBatch, limits::INFLATED_BYTES_MAX};
use riverrun_storage::{
    StorageError,
    inspect::{Finding, InspectedEntry, InspectedKind, InspectedLog, Inspector},
};
use serde_json::{Value, json};

use crate::{
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    printer::{Form, Printer},
    template::{Row, Template},
    time, units,
};

/// What to do with stored files.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every stored byte against its checksums; ends with 5 when something durable is damaged
    Verify {
        /// Data directory, or the directory of one partition
        dir: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print what is stored: entries, or records with --format
    Dump(DumpArgs),
    /// Say what of a damaged log is lost and, with --accept-loss, give that up: the log then takes records again
    Repair(repair::RepairArgs),
}

/// What `log dump` takes.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Data directory, or the directory of one partition
    dir: PathBuf,
    /// Print records instead of entries, as `consume --format` does; %t is the topic's id
    #[arg(long, short, value_name = "FORMAT", value_parser = Template::parse)]
    format: Option<Template>,
    /// Begin with the entry or record that holds this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// End after this many entries or records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) fn run(command: &LogCommand) -> Result<(), Stop> {
    match command {
        LogCommand::Verify { dir, output } => verify(dir, output.output),
        LogCommand::Dump(args) => dump(args),
        LogCommand::Repair(args) => repair::run(args),
    }
}

/// Opens `dir` and finds the logs in it.
fn open(dir: &Path) -> Result<(Inspector, Vec<PathBuf>), Failure> {
    let failed = |error: StorageError| unreadable(&error);
    let inspector = Inspector::open(dir).map_err(failed)?;
    let logs = inspector.logs().map_err(failed)?;
    if logs.is_empty() {
        return Err(no_logs(dir));
    }
    Ok((inspector, logs))
}

fn no_logs(dir: &Path) -> Failure {
    let advice = "name a data directory, or the directory of one partition in it";
    Failure::other(format!("`{}` holds no logs; {advice}", dir.display()))
}

/// Whether a directory that could be a log has nothing of one: a folder of somebody else.
fn is_nothing(log: &InspectedLog) -> bool {
    log.segments.is_empty()
        && log.log_start.is_none()
        && log.findings.iter().all(|finding| matches!(finding, Finding::Foreign { .. }))
}

/// The error names the file itself.
fn unreadable(error: &StorageError) -> Failure {
    let error = error.to_string();
    Failure::other(error.split(" (os error").next().unwrap_or(&error))
}

fn verify(dir: &Path, form: Output) -> Result<(), Stop> {
    let (inspector, dirs) = open(dir)?;
    let mut logs = Vec::with_capacity(dirs.len());
    for log in &dirs {
        logs.push(inspector.verify(log).map_err(|error| unreadable(&error))?);
    }
    if logs.iter().all(is_nothing) {
        return Err(no_logs(dir).into());
    }
    match form {
        Output::Json => {
            output::print_json(&json!({ "logs": logs.iter().map(log_json).collect::<Vec<_>>() }))?
        }
        Output::Table => output::print(&verify_text(&logs))?,
    }
    let damaged = logs.iter().filter(|log| !log.is_sound()).count();
    if damaged > 0 {
        let message =
            format!("{damaged} of {} logs in `{}` are damaged", logs.len(), dir.display());
        return Err(Failure::new(Class::Corrupt, message).into());
    }
    Ok(())
}

fn verify_text(logs: &[InspectedLog]) -> String {
    let heading = ["LOG", "OFFSETS", "DURABLE", "SEGMENTS", "SIZE", "STOP", "STATE"];
    let mut table = Table::new(&heading);
    for log in logs {
        let size: u64 = log.segments.iter().map(|segment| segment.end_pos).sum();
        let start = log.log_start.unwrap_or_default();
        table.row(vec![
            name(log),
            format!("{}..{}", units::count(start.0), units::count(log.log_end.0)),
            units::count(log.known_durable.0),
            log.segments.len().to_string(),
            units::bytes(size),
            stop(log).to_owned(),
            if log.is_sound() { "sound" } else { "DAMAGED" }.to_owned(),
        ]);
    }
    let mut text = table.render();
    if let Some(holder) = logs.iter().find_map(|log| log.holder) {
        text.push_str(&format!(
            "in use by process {}: what it is working on is not judged\n",
            holder.pid
        ));
    }
    for (log, finding) in
        logs.iter().flat_map(|log| log.findings.iter().map(move |finding| (log, finding)))
    {
        text.push_str(&format!("{}: {finding}\n", name(log)));
    }
    text
}

/// How the log was left, if it was.
fn stop(log: &InspectedLog) -> &'static str {
    match log.holder {
        Some(_) => "in use",
        None if log.is_clean => "clean",
        None => "unclean",
    }
}

/// The directory of a log, or a dot for the one named on the command line.
fn name(log: &InspectedLog) -> String {
    let path = log.dir.display().to_string();
    if path.is_empty() { ".".to_owned() } else { path }
}

fn log_json(log: &InspectedLog) -> Value {
    let segments: Vec<Value> = log
        .segments
        .iter()
        .map(|segment| {
            json!({
                "path": segment.path.display().to_string(),
                "base_offset": segment.base_offset.0,
                "end_offset": segment.end_offset.0,
                "end_position": segment.end_pos,
                "sealed": segment.is_sealed,
                "compacted": segment.is_compacted,
                "entry_count": segment.entry_count,
                "record_count": segment.record_count,
            })
        })
        .collect();
    json!({
        "log": name(log),
        "topic_id": log.topic_id.map(|id| id.to_string()),
        "partition": log.partition.map(|partition| partition.0),
        "log_start_offset": log.log_start.map(|offset| offset.0),
        "log_end_offset": log.log_end.0,
        "durable_offset": log.known_durable.0,
        "clean": log.is_clean,
        "in_use_by": log.holder.map(|holder| holder.pid),
        "sound": log.is_sound(),
        "segments": segments,
        "findings": log.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    let kind = match finding {
        Finding::Damage(_) => "damage",
        Finding::Torn { .. } => "torn",
        Finding::Leftover { .. } => "leftover",
        Finding::Foreign { .. } => "foreign",
        Finding::Lost { .. } => "lost",
    };
    let mut value = json!({ "kind": kind, "message": finding.to_string() });
    if let Finding::Damage(damage) = finding {
        value["path"] = damage.path.display().to_string().into();
        value["position"] = damage.pos.into();
        value["start_offset"] = damage.offsets.start.0.into();
        value["end_offset"] = damage.offsets.end.0.into();
    }
    value
}

fn dump(args: &DumpArgs) -> Result<(), Stop> {
    let (inspector, dirs) = open(&args.dir)?;
    let form = match (&args.output.output, &args.format) {
        (Output::Table, Some(template)) => Form::Template(template.clone()),
        (Output::Json, _) | (_, None) => Form::Json,
    };
    let mut dumper = Dumper {
        printer: Printer::stdout(form)?,
        records: args.format.is_some(),
        output: args.output.output,
        from: args.from,
        left: args.max.unwrap_or(u64::MAX),
        stopped: None,
    };
    let mut damaged = 0;
    for dir in &dirs {
        let topic = topic_of(&args.dir.join(dir));
        let log = inspector
            .dump(dir, &mut |entry| dumper.visit(&topic, dir, &entry))
            .map_err(|error| unreadable(&error))?;
        if let Some(stop) = dumper.stopped.take() {
            return Err(stop);
        }
        damaged += usize::from(!log.is_sound());
    }
    dumper.printer.flush()?;
    if damaged > 0 {
        let advice = format!("`riverrun log verify {}` names the places", args.dir.display());
        return Err(
            Failure::new(Class::Corrupt, format!("{damaged} logs are damaged; {advice}")).into()
        );
    }
    Ok(())
}

/// The topic's id and the partition, which are the last two folders of a log.
fn topic_of(dir: &Path) -> (String, u32) {
    let mut parts =
        dir.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let partition = parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
    (parts.next().unwrap_or_default(), partition)
}

/// Prints entries or records as they are met.
struct Dumper {
    printer: Printer,
    records: bool,
    output: Output,
    from: u64,
    /// How many may still be printed.
    left: u64,
    stopped: Option<Stop>,
}

impl Dumper {
    fn visit(
        &mut self,
        topic: &(String, u32),
        dir: &Path,
        entry: &InspectedEntry<'_>,
    ) -> ControlFlow<()> {
        if entry.end_offset.0 <= self.from && entry.end_offset > entry.base_offset {
            return ControlFlow::Continue(());
        }
        let printed =
            if self.records { self.records(topic, entry) } else { self.entry(dir, entry) };
        match printed {
            Ok(()) if self.left > 0 => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(stop) => {
                self.stopped = Some(stop);
                ControlFlow::Break(())
            }
        }
    }

    fn entry(&mut self, dir: &Path, entry: &InspectedEntry<'_>) -> Result<(), Stop> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        output::print(&match self.output {
            Output::Json => format!("{}\n", entry_json(dir, entry)),
            Output::Table => entry_line(entry),
        })
    }

    fn records(
        &mut self,
        (topic, partition): &(String, u32),
        entry: &InspectedEntry<'_>,
    ) -> Result<(), Stop> {
        if entry.kind != InspectedKind::Records {
            return Ok(());
        }
        let corrupt = |error| {
            Stop::from(Failure::new(
                Class::Corrupt,
                format!("offset {}: {error}", entry.base_offset),
            ))
        };
        let batch = RecordBatch::decode(Bytes::copy_from_slice(entry.payload)).map_err(corrupt)?;
        let records = batch.records(INFLATED_BYTES_MAX).map_err(corrupt)?;
        for record in records.views() {
            let record = record.map_err(corrupt)?;
            if record.offset.0 < self.from || self.left == 0 {
                continue;
            }
            self.left -= 1;
            if self.printer.push(&Row::of_view(topic, *partition, record)) {
                self.printer.flush()?;
            }
        }
        Ok(())
    }
}

fn kind(kind: InspectedKind) -> &'static str {
    match kind {
        InspectedKind::Records => "records",
        InspectedKind::Seal => "seal",
        InspectedKind::Control => "control",
        InspectedKind::Gap => "gap",
        InspectedKind::Lost => "lost",
    }
}

fn entry_line(entry: &InspectedEntry<'_>) -> String {
    format!(
        "{}:{}  {}  {}..{}  epoch {}  durable {}  {}  {}  crc {:08x}\n",
        entry.path.display(),
        entry.pos,
        kind(entry.kind),
        entry.base_offset,
        entry.end_offset,
        entry.leader_epoch.0,
        entry.durable_upto,
        time::format(entry.append_time.0),
        units::bytes(entry.payload.len() as u64),
        entry.payload_crc,
    )
}

fn entry_json(dir: &Path, entry: &InspectedEntry<'_>) -> Value {
    json!({
        "log": dir.display().to_string(),
        "path": entry.path.display().to_string(),
        "position": entry.pos,
        "kind": kind(entry.kind),
        "base_offset": entry.base_offset.0,
        "end_offset": entry.end_offset.0,
        "leader_epoch": entry.leader_epoch.0,
        "durable_upto": entry.durable_upto.0,
        "append_time_ms": entry.append_time.0,
        "max_timestamp_ms": entry.max_timestamp.0,
        "payload_bytes": entry.payload.len(),
        "payload_crc": entry.payload_crc,
    })
}
