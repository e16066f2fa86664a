//! OpenMetrics text 1.0.
//!
//! ```text
//! # TYPE riverrun_produce_bytes counter
//! # UNIT riverrun_produce_bytes bytes
//! # HELP riverrun_produce_bytes Bytes of ...
//! riverrun_produce_bytes_total{topic="orders",partition="0"} 4096
//! # EOF
//! ```
//!
//! Each family is written once, all its samples together. Label values are escaped, so that no name can end a
//! line or add a label.

use std::fmt::{self, Display, Write as _};

use super::{Family, Kind, histogram::Snapshot};

/// The text as far as it is written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// Writes the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

/// The number of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other.
    Fraction(f64),
}

impl Exposition {
    /// Writes a family: its head, and the samples that `write` adds.
    pub fn family(&mut self, family: &'static Family, write: impl FnOnce(&mut Samples<'_>)) {
        let Family { name, kind, help, .. } = family;
        self.line(format_args!("# TYPE {name} {}", kind.name()));
        if let Some(unit) = family.unit() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name} {}", Escaped(help)));
        write(&mut Samples { text: &mut self.text, family });
    }

    /// A family with one series and no labels.
    pub fn single(&mut self, family: &'static Family, value: impl Into<Value>) {
        self.family(family, |samples| samples.add(&[], value));
    }

    /// Ends the text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing into a string never fails.
        let _ = writeln!(self.text, "{line}");
    }
}

impl Samples<'_> {
    /// A series: values of the first labels of the family, and a number.
    pub fn add(&mut self, labels: &[&dyn Display], value: impl Into<Value>) {
        self.sample(self.family.kind.suffix(), labels, None, value.into());
    }

    /// The series of a histogram.
    pub fn add_histogram(&mut self, labels: &[&dyn Display], seen: &Snapshot) {
        debug_assert_eq!(self.family.kind, Kind::Histogram);
        for (bound, count) in &seen.cumulated {
            // With a point also where the bound is a whole number.
            let bound = format!("{bound:?}");
            self.sample("_bucket", labels, Some(&bound), Value::Whole(*count));
        }
        self.sample("_bucket", labels, Some("+Inf"), Value::Whole(seen.count));
        self.sample("_sum", labels, None, Value::Fraction(seen.sum));
        self.sample("_count", labels, None, Value::Whole(seen.count));
    }

    fn sample(&mut self, suffix: &str, labels: &[&dyn Display], bound: Option<&str>, value: Value) {
        let Family { name, labels: names, .. } = self.family;
        assert!(labels.len() <= names.len(), "`{name}` has the labels {names:?}");
        let _ = write!(self.text, "{name}{suffix}");
        let bound = bound.as_ref().map(|bound| ("le", bound as &dyn Display));
        let labels = names.iter().copied().zip(labels.iter().copied()).chain(bound);
        let mut before = '{';
        for (label, text) in labels {
            let _ = write!(self.text, "{before}{label}=\"{}\"", Escaped(text));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Whole(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Value {
        Value::Whole(u64::from(count))
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Value {
        Value::Whole(count as u64)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Value {
        Value::Whole(u64::from(is_so))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Fraction(number)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Whole(count) => count.fmt(f),
            Value::Fraction(number) => number.fmt(f),
        }
    }
}

/// Text between quotation marks or up to the end of a line.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            self.0.write_str(plain)?;
            match part[plain.len()..].chars().next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some(special) => write!(self.0, "\\{special}")?,
                None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::{Histogram, RECORDS};

    static COUNTED: Family = Family {
        name: "x_bytes",
        kind: Kind::Counter,
        labels: &["one", "two"],
        help: "Some \"bytes\".",
    };
    static SIZES: Family =
        Family { name: "sizes", kind: Kind::Histogram, labels: &["one"], help: "Sizes." };

    #[test]
    fn a_family_is_written_with_head_labels_and_end() {
        let mut text = Exposition::default();
        text.family(&COUNTED, |samples| {
            samples.add(&[&"a", &7], 5_u64);
            samples.add(&[&"b"], 0.25);
            samples.add(&[], true);
        });
        assert_eq!(
            text.finish(),
            "# TYPE x_bytes counter\n# UNIT x_bytes bytes\n# HELP x_bytes Some \\\"bytes\\\".\n\
             x_bytes_total{one=\"a\",two=\"7\"} 5\nx_bytes_total{one=\"b\"} 0.25\n\
             x_bytes_total 1\n# EOF\n"
        );
    }

    #[test]
    fn no_label_ends_its_line_or_its_quotation() {
        let mut text = Exposition::default();
        text.family(&COUNTED, |samples| samples.add(&[&"a\"}\n\\n\\", &"\u{e9}\""], 1_u64));
        let text = text.finish();
        let line = text.lines().nth(3).unwrap();
        assert_eq!(line, "x_bytes_total{one=\"a\\\"}\\n\\\\n\\\\\",two=\"\u{e9}\\\"\"} 1");
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn a_histogram_has_rising_buckets_sum_and_count() {
        let sizes = Histogram::new(&RECORDS);
        [2, 200, 2_000_000].into_iter().for_each(|size| sizes.observe(size));
        let mut text = Exposition::default();
        text.family(&SIZES, |samples| samples.add_histogram(&[&"a"], &sizes.snapshot()));
        let text = text.finish();
        for line in [
            "sizes_bucket{one=\"a\",le=\"1.0\"} 0",
            "sizes_bucket{one=\"a\",le=\"3.0\"} 1",
            "sizes_bucket{one=\"a\",le=\"1000000.0\"} 2",
            "sizes_bucket{one=\"a\",le=\"+Inf\"} 3",
            "sizes_sum{one=\"a\"} 2000202",
            "sizes_count{one=\"a\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
