//! What one metric is: its name, kind and labels, and what it means.

/// A metric and all its series.
#[derive(Debug)]
pub struct Family {
    /// Name of the family. A counter's samples end in `_total` and an info's in `_info` beside it.
    pub name: &'static str,
    /// What its numbers do.
    pub kind: Kind,
    /// Names of its labels, in order. Those at the end may be absent.
    pub labels: &'static [&'static str],
    /// What it means, in one sentence.
    pub help: &'static str,
}

/// What the numbers of a metric do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are counts by bucket.
    Histogram,
    /// They are 1, and the labels say it.
    Info,
}

impl Family {
    /// The base unit that ends its name, if it has one.
    pub fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| self.name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
    }

    /// The name that its samples have, and that queries use; of a histogram, what its samples begin with.
    pub fn sample_name(&self) -> String {
        format!("{}{}", self.name, self.kind.suffix())
    }
}

impl Kind {
    /// As the text names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }

    /// What is added to the family's name in its samples.
    pub fn suffix(self) -> &'static str {
        match self {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}
