//! What came out: a few lines for people, one document for programs.
//!
//! Rates are per second, MB and GB are millions and thousands of millions of bytes of values, times are in
//! microseconds. What was not measured is `null` in the document, with the reason beside it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{meter::Usage, stage::Stage, times::Times};
use crate::{
    failure::Stop,
    output::{self, Output, Table},
    units,
};

/// Width of the names of facts.
const NAME_WIDTH: usize = 10;

/// What a workload measured.
#[derive(Debug)]
pub(super) struct Report {
    facts: Vec<(&'static str, String)>,
    times: Vec<(&'static str, Times)>,
    document: Map<String, Value>,
}

/// How much was done in which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

impl Report {
    /// An empty one; `what` says in a few words what was done.
    pub(super) fn new(workload: &'static str, what: String, stage: &Stage<'_>) -> Report {
        let mut report = Report { facts: Vec::new(), times: Vec::new(), document: Map::new() };
        report.put("workload", json!(workload));
        report.put("version", json!(env!("CARGO_PKG_VERSION")));
        report.put(
            "broker",
            json!({
                "address": stage.address(), "version": stage.version,
                "pid": stage.broker.as_ref().ok(), "not_measured": stage.broker.as_ref().err(),
            }),
        );
        report.put("interrupted", json!(stage.halt.is_asked()));
        let early = if stage.halt.is_asked() { ", ended early" } else { "" };
        report.fact("WORKLOAD", format!("{workload}: {what}{early}"));
        report
    }

    /// A line for people.
    pub(super) fn fact(&mut self, name: &'static str, text: String) {
        self.facts.push((name, text));
    }

    /// A field for programs.
    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.document.insert(name.to_owned(), value);
    }

    /// How fast it went: a line that begins with `what`, and fields.
    pub(super) fn rate(&mut self, what: &str, work: Work) {
        let Work { records, bytes, seconds } = work;
        let per_second = records as f64 / seconds.max(1e-9);
        let megabytes = bytes as f64 / 1e6 / seconds.max(1e-9);
        let text = format!(
            "{} {what}/s, {megabytes:.1} MB/s: {} {what} in {seconds:.3} s",
            units::count(whole_per_second(records, seconds)),
            units::count(records)
        );
        self.fact("RATE", text);
        self.put("seconds", json!(rounded(seconds, 1e6)));
        self.put("bytes", json!(bytes));
        self.put(&format!("{what}_per_second"), json!(rounded(per_second, 10.0)));
        self.put("megabytes_per_second", json!(rounded(megabytes, 1000.0)));
    }

    /// A distribution of times.
    pub(super) fn times(&mut self, name: &'static str, times: Times) {
        self.times.push((name, times));
    }

    /// What both sides used for the work.
    pub(super) fn usage(&mut self, usage: &Usage, work: Work, stage: &Stage<'_>) {
        let gigabytes = work.bytes as f64 / 1e9;
        let per_gb = |seconds: f64| (gigabytes > 0.0).then(|| rounded(seconds / gigabytes, 1e4));
        let per_record = |seconds: f64| {
            (work.records > 0).then(|| rounded(seconds * 1e6 / work.records as f64, 1e3))
        };
        let told = |seconds: f64| match (per_gb(seconds), per_record(seconds)) {
            (Some(gb), Some(record)) => {
                format!("{seconds:.2} s = {gb:.2} s/GB = {record:.2} µs/record")
            }
            _ => format!("{seconds:.2} s"),
        };
        let (client, broker) = (usage.client_seconds, usage.broker);
        self.fact("CLIENT", format!("{}, peak {}", told(client), units::bytes(usage.client_peak)));
        let text = match (&broker, &stage.broker) {
            (Some(broker), _) => format!(
                "{}, peak {} resident, {} heap",
                told(broker.seconds),
                units::bytes(broker.peak.resident),
                units::bytes(broker.peak.heap)
            ),
            (None, Ok(pid)) => format!("not measured: process {pid} went away"),
            (None, Err(why)) => format!("not measured: {why}"),
        };
        self.fact("BROKER", text);
        let busy = broker.map(|broker| rounded(broker.seconds, 100.0));
        self.put(
            "cpu",
            json!({
                "client_seconds": rounded(client, 1e6),
                "client_seconds_per_gb": per_gb(client),
                "client_us_per_record": per_record(client),
                "broker_seconds": busy,
                "broker_seconds_per_gb": busy.and_then(per_gb),
                "broker_us_per_record": busy.and_then(per_record),
            }),
        );
        self.put(
            "memory",
            json!({
                "client_peak_bytes": usage.client_peak,
                "broker_peak_resident_bytes": broker.map(|broker| broker.peak.resident),
                "broker_peak_heap_bytes": broker.map(|broker| broker.peak.heap),
            }),
        );
    }

    /// Prints it to standard output.
    pub(super) fn print(mut self, form: Output) -> Result<(), Stop> {
        if form == Output::Json {
            let times: Map<String, Value> = self
                .times
                .iter()
                .map(|(name, times)| (name.replace(' ', "_"), times.to_json()))
                .collect();
            self.put("latency_us", Value::Object(times));
            return output::print_json(&Value::Object(self.document));
        }
        output::print(&self.text())
    }

    fn text(&self) -> String {
        let line = |(name, text): &(&str, String)| format!("{name:NAME_WIDTH$}  {text}\n");
        let mut text: String = self.facts.iter().map(line).collect();
        if !self.times.is_empty() {
            let heading = ["LATENCY, µs", "COUNT", "P50", "P90", "P99", "P99.9", "MAX"];
            let mut table = Table::new(&heading);
            for (name, times) in &self.times {
                let cells = times.cells().map(units::count);
                table.row(std::iter::once((*name).to_owned()).chain(cells).collect());
            }
            text += "\n";
            text += &table.render();
        }
        text
    }
}

/// So many in so many seconds, per second, rounded down.
fn whole_per_second(count: u64, seconds: f64) -> u64 {
    let micros = Duration::from_secs_f64(seconds.max(1e-6)).as_micros();
    u64::try_from(u128::from(count) * 1_000_000 / micros.max(1)).unwrap_or(u64::MAX)
}

/// A number with a few decimals: as many as `scale` has zeros.
pub(super) fn rounded(number: f64, scale: f64) -> f64 {
    (number * scale).round() / scale
}
