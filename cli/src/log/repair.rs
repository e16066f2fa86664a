//! `riverrun log repair`: gives up what is damaged in stored logs, so that they take records again.
//!
//! Without `--accept-loss` it opens the data directory for reading only and says what would be lost. With it the directory is held as a broker
//! holds it; damaged files go to `quarantine/<topic>/<partition>` in it first. The broker's own logs are never repaired: what is gone from
//! them cannot be told from what was never there.

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
    let mut damaged = look(&data_dir, only)?;
    let own: Vec<_> = damaged.iter().filter_map(|it| own_log(&it.log)).collect();
    if !own.is_empty() {
        let message = format!(
            "damaged are logs of the broker itself ({}), from which nothing may be given up; put back a copy of the data directory, or repair other \
             partitions one by one; nothing was changed",
            own.join(", ")
        );
        return Err(Failure::new(Class::Corrupt, message).into());
    }
    if args.accept_loss {
        for it in &mut damaged {
            it.repair = it.log.accept_loss().map_err(|error| unreadable(&error))?;
        }
    }
    match args.output.output {
        Output::Json => output::print_json(&all_json(&data_dir, args, &damaged))?,
        Output::Table => output::print(&text(args, &damaged))?,
    }
    if damaged.is_empty() || args.accept_loss {
        return Ok(());
    }
    let offsets: u64 = damaged.iter().map(|it| it.repair.lost_count()).sum();
    let message = format!(
        "{} damaged, nothing was changed; `--accept-loss` gives up {} and repairs",
        if damaged.len() == 1 {
            "1 log is".to_owned()
        } else {
            format!("{} logs are", damaged.len())
        },
        offsets_text(offsets),
    );
    Err(Failure::new(Class::Corrupt, message).into())
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

/// The damaged logs: `only` that one, or all.
fn look(data_dir: &DataDir, only: Option<PathBuf>) -> Result<Vec<Repaired>, Failure> {
    let now = Timestamp(clock::now_ms());
    let is_one = only.is_some();
    let dirs = match only {
        Some(dir) => vec![dir],
        None => Inspector::new(data_dir.disk()).logs().map_err(|error| unreadable(&error))?,
    };
    let mut damaged = Vec::new();
    for dir in dirs {
        let Some(log) = LogRepair::in_data_dir(data_dir, &dir, now) else {
            if is_one {
                return Err(no_logs(&dir));
            }
            continue;
        };
        match log.look() {
            Ok(repair) if repair.is_needed() => damaged.push(Repaired { log, repair }),
            Ok(_) => {}
            // Nothing of a log is there: one that was not finished, which the broker begins again, or one that is gone.
            Err(StorageError::Missing { .. }) if !is_one => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(damaged)
}

/// What a log of the broker itself holds, and where it is.
fn own_log(log: &LogRepair) -> Option<String> {
    let holds = own_logs::name_of(log.options.topic_id)?;
    Some(format!("{holds} in `{}`", log.dir.display()))
}

fn offsets_text(count: u64) -> String {
    format!("{} offset{}", units::count(count), if count == 1 { "" } else { "s" })
}

fn text(args: &RepairArgs, damaged: &[Repaired]) -> String {
    if damaged.is_empty() {
        return "nothing is damaged\n".to_owned();
    }
    let (state, files) = if args.accept_loss {
        ("repaired", "in quarantine")
    } else {
        ("damaged", "goes to quarantine")
    };
    let mut text = String::new();
    for Repaired { log, repair } in damaged {
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
    text
}

fn all_json(data_dir: &DataDir, args: &RepairArgs, damaged: &[Repaired]) -> Value {
    json!({
        "data_dir": data_dir.path().display().to_string(),
        "changed": args.accept_loss && !damaged.is_empty(),
        "damaged_logs": damaged.iter().map(log_json).collect::<Vec<_>>(),
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
    json!({
        "log": log.dir.display().to_string(),
        "topic_id": log.options.topic_id.to_string(),
        "partition": log.options.partition.0,
        "log_start_offset": repair.log_start.0,
        "log_end_offset": repair.log_end.0,
        "lost_count": repair.lost_count(),
        "kept_count": repair.kept_count(),
        "lost": losses.collect::<Vec<_>>(),
        "state_made_anew": repair.state_anew,
        "epoch": repair.epoch.map(|epoch| epoch.0),
        "quarantine": log.quarantine.display().to_string(),
        "quarantined": repair.set_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}
