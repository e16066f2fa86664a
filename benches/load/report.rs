//! What came out: a table for people, a file for later.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of a program for people"
)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    clock,
    error::{Error, Result},
    files,
};

/// What a measurement is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Only to be known.
    None,
    /// Should not be less.
    AtLeast(f64),
    /// Should not be more.
    AtMost(f64),
}

/// One number.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    name: String,
    value: f64,
    unit: &'static str,
    target: Target,
}

impl Measurement {
    /// A number to be known.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Measurement {
        Measurement { name: name.into(), value, unit, target: Target::None }
    }

    /// With what it is held to.
    pub(crate) fn target(mut self, target: Target) -> Measurement {
        self.target = target;
        self
    }

    fn verdict(&self) -> String {
        match self.target {
            Target::None => String::new(),
            Target::AtLeast(bound) if self.value >= bound => format!(">= {} met", number(bound)),
            Target::AtLeast(bound) => format!(">= {} MISSED", number(bound)),
            Target::AtMost(bound) if self.value <= bound => format!("<= {} met", number(bound)),
            Target::AtMost(bound) => format!("<= {} MISSED", number(bound)),
        }
    }

    fn to_json(&self) -> Value {
        let (at_least, at_most) = match self.target {
            Target::None => (None, None),
            Target::AtLeast(bound) => (Some(bound), None),
            Target::AtMost(bound) => (None, Some(bound)),
        };
        json!({
            "name": self.name, "value": self.value, "unit": self.unit,
            "at_least": at_least, "at_most": at_most,
        })
    }

    fn to_line(&self) -> String {
        let Measurement { name, value, unit, .. } = self;
        format!("  {name:<48} {:>12} {unit:<10} {}\n", number(*value), self.verdict())
    }
}

/// The measurements of a run.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Value,
    workloads: Vec<(&'static str, Vec<Measurement>)>,
    /// Pictures in SVG, by the name of their file.
    charts: Vec<(String, String)>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(machine: Value) -> Report {
        Report { machine, workloads: Vec::new(), charts: Vec::new() }
    }

    /// Adds and prints what a workload measured.
    pub(crate) fn add(&mut self, workload: &'static str, measurements: Vec<Measurement>) {
        print!("{}", table(workload, &measurements));
        self.workloads.push((workload, measurements));
    }

    /// Adds a picture, which is kept with a recorded run.
    pub(crate) fn chart(&mut self, name: impl Into<String>, svg: String) {
        self.charts.push((name.into(), svg));
    }

    /// Where a run of today with this name is kept, `benches/runs/DATE-NAME`.
    ///
    /// # Errors
    /// When the name is none, or there is such a run.
    pub(crate) fn folder(name: &str) -> Result<PathBuf> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        if !name.chars().all(plain) {
            return Err(Error::Wrong(format!(
                "`--record {name}`: letters, digits and dashes only"
            )));
        }
        let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs");
        let folder = runs.join(format!("{}-{name}", clock::date()));
        if folder.exists() {
            let why = format!("`{}` is there already: choose another name", folder.display());
            return Err(Error::Wrong(why));
        }
        Ok(folder)
    }

    /// Keeps the run in `folder`.
    pub(crate) fn record(&self, folder: &Path) -> Result<()> {
        let workloads: Vec<_> = self
            .workloads
            .iter()
            .map(|(name, measurements)| {
                let measurements: Vec<_> = measurements.iter().map(Measurement::to_json).collect();
                json!({ "workload": name, "measurements": measurements })
            })
            .collect();
        let all = json!({ "machine": self.machine, "workloads": workloads });
        let text = serde_json::to_string_pretty(&all).map_err(std::io::Error::from)?;
        files::write_result(&folder.join("result.json"), &(text + "\n"))?;
        files::write_result(&folder.join("summary.txt"), &self.summary())?;
        for (name, svg) in &self.charts {
            files::write_result(&folder.join(format!("{name}.svg")), svg)?;
        }
        println!("kept in {}", folder.display());
        Ok(())
    }

    fn summary(&self) -> String {
        let facts = self.machine.as_object().into_iter().flatten();
        let mut text: String =
            facts.map(|(name, value)| format!("{name:<12} {}\n", plain(value))).collect();
        for (workload, measurements) in &self.workloads {
            text += "\n";
            text += &table(workload, measurements);
        }
        text
    }
}

/// Tells on standard error why there is no result.
pub(crate) fn complain(error: &Error) {
    eprintln!("load: {error}");
}

/// Tells on standard error what is going on.
pub(crate) fn progress(text: &str) {
    eprintln!("load: {text}");
}

fn table(workload: &str, measurements: &[Measurement]) -> String {
    let lines: String = measurements.iter().map(Measurement::to_line).collect();
    format!("{workload}\n{lines}")
}

/// A text without its quotes, anything else as it is.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number with as many digits as one wants to read.
pub(crate) fn number(value: f64) -> String {
    let whole = value.abs();
    if whole >= 1000.0 {
        let digits = format!("{whole:.0}");
        let groups: Vec<_> =
            digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        return groups.join(",");
    }
    if whole >= 10.0 { format!("{value:.1}") } else { format!("{value:.3}") }
}
