//! The run folder: `result.json` with every raw number, `summary.md` with tables for people, and a chart in SVG for each workload.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    case::Workload,
    clock,
    drive::Figures,
    error::Result,
    files,
    run::{Plan, Results},
};

mod chart;
mod column;
mod spread;
mod summary;

/// When and why a run is made.
#[derive(Debug)]
pub(crate) struct Setup {
    date: String,
    time: String,
    command: String,
    quick: bool,
    folder: PathBuf,
}

impl Setup {
    /// Of a run that begins now. Only one that is not quick and has a name is kept with the source.
    pub(crate) fn now(quick: bool, record: Option<String>) -> Result<Setup> {
        let (date, time) = clock::date_and_time();
        let folder = match record {
            Some(_) if quick => {
                return Err(crate::error::Error::Wrong(
                    "a quick run is no result: leave out --quick or --record".into(),
                ));
            }
            Some(name) => {
                let folder = Path::new("benches/runs").join(format!("{date}-{name}"));
                if folder.exists() {
                    let why =
                        format!("`{}` is there already: choose another name", folder.display());
                    return Err(crate::error::Error::Wrong(why));
                }
                folder
            }
            None => {
                Path::new("target/compare-runs").join(format!("{date}-{}", time.replace(':', "")))
            }
        };
        let words: Vec<String> = std::env::args().skip(1).map(|word| public(&word)).collect();
        let command = format!("cargo xtask compare {}", words.join(" ")).trim().to_owned();
        Ok(Setup { date, time, command, quick, folder })
    }
}

/// An argument as it may be kept: of an absolute path, which says something of one machine only, the last part.
fn public(word: &str) -> String {
    match word.split_once('/') {
        Some((before, _)) if before.is_empty() || before.ends_with('=') => {
            format!("{before}…/{}", word.rsplit('/').next().unwrap_or_default())
        }
        Some(_) | None => word.to_owned(),
    }
}

/// Writes the run folder, over what an earlier round left there. Gives its path.
pub(crate) fn write(
    setup: &Setup,
    plan: &Plan,
    machine: &Value,
    results: &Results,
) -> Result<PathBuf> {
    let all = json!({
        "date": setup.date,
        "time": setup.time,
        "command": setup.command,
        "quick": setup.quick,
        "machine": machine,
        "results": results,
    });
    let text = serde_json::to_string_pretty(&all)? + "\n";
    files::write_text(&setup.folder.join("result.json"), &text)?;
    let text = summary::write(setup, plan, machine, results);
    files::write_text(&setup.folder.join("summary.md"), &text)?;
    for case in &plan.cases {
        if let Some(text) = chart::draw(*case, results) {
            files::write_text(&setup.folder.join(format!("{}.svg", case.key())), &text)?;
        }
    }
    Ok(setup.folder.clone())
}

/// The figures of a case in one line, for a terminal.
pub(crate) fn short(workload: Option<Workload>, figures: &Figures) -> String {
    let columns = workload.map(column::of).unwrap_or_default().iter();
    let known = columns.filter_map(|column| Some((column.heading, *figures.get(column.key)?)));
    let mut shown: Vec<String> =
        known.map(|(name, value)| format!("{} {name}", column::number(value))).collect();
    if shown.is_empty() {
        let all = figures.iter();
        shown = all
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), column::number(*value)))
            .collect();
    }
    shown.join(", ")
}
