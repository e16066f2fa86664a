//! `riverrun log repair`: gives up what is damaged in stored logs, so that they take records again.
//!
//! Without `--accept-loss` it opens the data directory for reading only and says what would be lost. With it the directory is held as a broker
//! holds it; damaged files go to `quarantine/<topic>/<partition>` in it first. The broker's own logs are never repaired: what is gone from
//! them cannot be told from what was never there. A log that cannot be looked at or repaired keeps nothing from the others: it is told
//! behind them.

use std::path::{Path, PathBuf};

use clap::Args;
use riverrun_storage::{
    LogRepair, Repair, StorageError, Timestamp,
    data_dir::{DataDir, OpenDataDirError},
    disk::RealDiskOptions,
    inspect::Inspector,
    own_logs,
};
use serde_json::{Value, json};

use super::{no_logs, unreadable};
use crate::{
    clock,
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs},
    units,
};

/// File that makes a directory a data directory.
const META_FILE: &str = "meta.properties";

/// What `log repair` takes.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Data directory, or the directory of one partition in it
    dir: PathBuf,
    /// Give up the records that are named without this flag; damaged files are kept in `quarantine`
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// One log, and what a repair does to it.
struct Repaired {
    log: LogRepair,
    repair: Repair,
}

/// What was found in the logs.
#[derive(Default)]
struct Seen {
    /// Logs that are damaged, or were.
    damaged: Vec<Repaired>,
    /// Directories of logs whose records are gone.
    gone: Vec<PathBuf>,
    /// Directories that hold nothing: a log that was not finished, or one whose files are gone.
    empty: Vec<PathBuf>,
    /// Directories of logs that could not be looked at or repaired, and why.
    failed: Vec<(PathBuf, String)>,
}

/// Runs the command.
pub(super) fn run(args: &RepairArgs) -> Result<(), Stop> {
    let (path, only) = locate(&args.dir)?;
    let options = RealDiskOptions::default();
    let opened = if args.accept_loss {
        DataDir::open_existing(&path, options)
    } else {
        DataDir::open_read_only(&path, options)
    };
    let data_dir = opened.map_err(|error| refused(&error))?;
    let mut seen = look(&data_dir, only)?;
    let own: Vec<_> = seen.damaged.iter().filter_map(|it| own_log(&it.log)).collect();
    if !own.is_empty() {
        let message = format!(
            "damaged are logs of the broker itself ({}), from which nothing may be given up; put back a copy of the data directory, or repair other \
             partitions one by one; nothing was changed",
            own.join(", ")
        );
        return Err(Failure::new(Class::Corrupt, message).into());
    }
    if args.accept_loss {
        seen.accept_loss();
    }
    match args.output.output {
        Output::Json => output::print_json(&all_json(&data_dir, args, &seen))?,
        Output::Table => output::print(&text(args, &seen))?,
    }
    seen.end(args).map_err(Stop::from)
}

impl Seen {
    /// Repairs what is damaged, each log for itself.
    fn accept_loss(&mut self) {
        for mut it in std::mem::take(&mut self.damaged) {
            match it.log.accept_loss() {
                Ok(repair) => {
                    it.repair = repair;
                    self.damaged.push(it);
                }
                Err(error) => self.failed.push((it.log.dir, reason(&error))),
            }
        }
    }

    /// What is left to be done, as the end of the command.
    fn end(&self, args: &RepairArgs) -> Result<(), Failure> {
        let mut left = Vec::new();
        if !self.damaged.is_empty() && !args.accept_loss {
            let offsets: u64 = self.damaged.iter().map(|it| it.repair.lost_count()).sum();
            left.push(format!(
                "{} damaged, nothing was changed; `--accept-loss` gives up {} and repairs",
                logs_are(self.damaged.len()),
                offsets_text(offsets),
            ));
        }
        if !self.gone.is_empty() {
            let verb = logs_are(self.gone.len());
            left.push(format!(
                "{verb} gone, and cannot be repaired; put back a copy, or delete the topic"
            ));
        }
        if !self.failed.is_empty() {
            let each = self.failed.iter().map(|(dir, why)| format!("`{}`: {why}", dir.display()));
            let each = each.collect::<Vec<_>>().join("; ");
            left.push(format!("{} not repaired: {each}", logs_are(self.failed.len())));
        }
        if left.is_empty() {
            return Ok(());
        }
        let is_damage = !self.gone.is_empty() || (!self.damaged.is_empty() && !args.accept_loss);
        let class = if is_damage { Class::Corrupt } else { Class::Other };
        Err(Failure::new(class, left.join(". ")))
    }
}

fn logs_are(count: usize) -> String {
    if count == 1 { "1 log is".to_owned() } else { format!("{count} logs are") }
}

/// The data directory, and the log in it that is meant when it is one.
fn locate(dir: &Path) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    if dir.join(META_FILE).is_file() {
        return Ok((dir.to_owned(), None));
    }
    let failed = |error| Failure::other(format!("could not open `{}`: {error}", dir.display()));
    let full = dir.canonicalize().map_err(failed)?;
    let root = full.ancestors().nth(3).filter(|root| root.join(META_FILE).is_file());
    let log =
        root.and_then(|root| Some((root.to_owned(), full.strip_prefix(root).ok()?.to_owned())));
    let Some((root, log)) = log else {
        let advice = "name a data directory (with its `meta.properties`), or the directory of one partition in it";
        return Err(Failure::other(format!("`{}` is neither; {advice}", dir.display())));
    };
    Ok((root, Some(log)))
}

fn refused(error: &OpenDataDirError) -> Failure {
    Failure::other(error.to_string())
}

/// Looks at all logs, or `only` that one.
fn look(data_dir: &DataDir, only: Option<PathBuf>) -> Result<Seen, Failure> {
    let now = Timestamp(clock::now_ms());
    let is_one = only.is_some();
    let dirs = match only {
        Some(dir) => vec![dir],
        None => Inspector::new(data_dir.disk()).logs().map_err(|error| unreadable(&error))?,
    };
    let mut seen = Seen::default();
    for dir in dirs {
        let Some(log) = LogRepair::in_data_dir(data_dir, &dir, now) else {
            if is_one {
                return Err(no_logs(&dir));
            }
            continue;
        };
        match log.look() {
            Ok(repair) if repair.is_needed() => seen.damaged.push(Repaired { log, repair }),
            Ok(_) => {}
            Err(StorageError::Missing { .. }) => match log.was_begun() {
                Ok(true) => seen.gone.push(dir),
                Ok(false) if is_one => return Err(no_logs(&dir)),
                Ok(false) => seen.empty.push(dir),
                Err(error) => seen.failed.push((dir, reason(&error))),
            },
            Err(error) => seen.failed.push((dir, reason(&error))),
        }
    }
    Ok(seen)
}

/// The error in one line. It names the file itself.
fn reason(error: &StorageError) -> String {
    unreadable(error).message
}

/// What a log of the broker itself holds, and where it is.
fn own_log(log: &LogRepair) -> Option<String> {
    let holds = own_logs::name_of(log.options.topic_id)?;
    Some(format!("{holds} in `{}`", log.dir.display()))
}

fn offsets_text(count: u64) -> String {
    format!("{} offset{}", units::count(count), if count == 1 { "" } else { "s" })
}

fn text(args: &RepairArgs, seen: &Seen) -> String {
    let (state, files) = if args.accept_loss {
        ("repaired", "in quarantine")
    } else {
        ("damaged", "goes to quarantine")
    };
    let mut text = String::new();
    for Repaired { log, repair } in &seen.damaged {
        let name = log.dir.display();
        text.push_str(&format!(
            "{name}: {state}; {} lost, {} stay, the next record gets offset {}\n",
            offsets_text(repair.lost_count()),
            units::count(repair.kept_count()),
            units::count(repair.log_end.0),
        ));
        for loss in &repair.losses {
            text.push_str(&format!("  lost {loss}\n"));
        }
        for (path, bytes) in &repair.unreadable {
            text.push_str(&format!(
                "  the disk refuses to read bytes `{}..{}` of `{}`\n",
                bytes.start,
                bytes.end,
                path.display()
            ));
        }
        if repair.state_anew {
            let start = units::count(repair.log_start.0);
            text.push_str(&format!(
                "  lost the state file; the log starts at {start}, the first record there is\n"
            ));
        }
        for path in &repair.set_aside {
            text.push_str(&format!(
                "  {files} `{}`: `{}`\n",
                log.quarantine.display(),
                path.display()
            ));
        }
    }
    for dir in &seen.gone {
        text.push_str(&format!("{}: gone; no file tells of its records\n", dir.display()));
    }
    for (dir, why) in &seen.failed {
        text.push_str(&format!("{}: not repaired; {why}\n", dir.display()));
    }
    if text.is_empty() {
        text.push_str("nothing is damaged\n");
    }
    for dir in &seen.empty {
        let dir = dir.display();
        text.push_str(&format!("{dir}: holds nothing; if records were in it they are gone\n"));
    }
    text
}

fn all_json(data_dir: &DataDir, args: &RepairArgs, seen: &Seen) -> Value {
    let failed = seen.failed.iter();
    let failed = failed.map(|(dir, why)| json!({ "log": dir.display().to_string(), "error": why }));
    json!({
        "data_dir": data_dir.path().display().to_string(),
        "changed": args.accept_loss && !seen.damaged.is_empty(),
        "damaged_logs": seen.damaged.iter().map(log_json).collect::<Vec<_>>(),
        "missing_logs": seen.gone.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>(),
        "empty_logs": seen.empty.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>(),
        "failed_logs": failed.collect::<Vec<_>>(),
    })
}

fn log_json(Repaired { log, repair }: &Repaired) -> Value {
    let losses = repair.losses.iter().map(|loss| {
        json!({
            "start_offset": loss.offsets.start.0,
            "end_offset": loss.offsets.end.0,
            "path": loss.path.display().to_string(),
            "start_position": loss.bytes.start,
            "end_position": loss.bytes.end,
        })
    });
    let unreadable = repair.unreadable.iter().map(|(path, bytes)| {
        json!({
            "path": path.display().to_string(),
            "start_position": bytes.start,
            "end_position": bytes.end,
        })
    });
    json!({
        "log": log.dir.display().to_string(),
        "topic_id": log.options.topic_id.to_string(),
        "partition": log.options.partition.0,
        "log_start_offset": repair.log_start.0,
        "log_end_offset": repair.log_end.0,
        "lost_count": repair.lost_count(),
        "kept_count": repair.kept_count(),
        "lost": losses.collect::<Vec<_>>(),
        "unreadable": unreadable.collect::<Vec<_>>(),
        "state_made_anew": repair.state_anew,
        "epoch": repair.epoch.map(|epoch| epoch.0),
        "quarantine": log.quarantine.display().to_string(),
        "quarantined": repair.set_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}
