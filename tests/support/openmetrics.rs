//! A strict reader of OpenMetrics text: whatever it does not know it refuses.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    /// Kinds of families by name.
    pub(crate) families: BTreeMap<String, String>,
    /// Values by series: name and labels, sorted.
    series: BTreeMap<(String, Labels), f64>,
}

/// Names and values of labels.
pub(crate) type Labels = BTreeMap<String, String>;

impl Scrape {
    /// Reads a text; panics on what OpenMetrics 1.0 does not allow.
    pub(crate) fn parse(text: &str) -> Scrape {
        let body = text.strip_suffix("# EOF\n").expect("ends with `# EOF`");
        assert!(body.is_empty() || body.ends_with('\n'));
        let mut scrape = Scrape::default();
        let mut lines = body.lines().peekable();
        while let Some(line) = lines.next() {
            let declared =
                line.strip_prefix("# TYPE ").unwrap_or_else(|| panic!("no head: {line}"));
            let (name, kind) = declared.split_once(' ').expect("a kind");
            assert!(is_name(name), "{name}");
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            let known = scrape.families.insert(name.to_owned(), kind.to_owned());
            assert_eq!(known, None, "{name} stands twice");
            if let Some(unit) = lines.next_if(|line| line.starts_with("# UNIT ")) {
                let unit = unit.strip_prefix(&format!("# UNIT {name} ")).expect("its own unit");
                assert!(name.ends_with(&format!("_{unit}")), "{name} is not in {unit}");
            }
            let help = lines.next().unwrap_or_default();
            assert!(help.starts_with(&format!("# HELP {name} ")), "{help}");
            let mut own = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let sample = Sample::parse(line);
                let suffix = sample.name.strip_prefix(name).unwrap_or_else(|| panic!("{line}"));
                check_sample(kind, suffix, &sample, line);
                own.push(sample);
            }
            if kind == "histogram" {
                check_histograms(name, &own);
            }
            for Sample { name, labels, value } in own {
                let series = (name, labels);
                let known = scrape.series.insert(series.clone(), value);
                assert_eq!(known, None, "{series:?} stands twice");
            }
        }
        scrape
    }

    /// The value of a series, if it is there.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: Labels = labels.iter().map(own).collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }

    /// The value of a series that must be there.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no series {name} {labels:?}"))
    }

    /// Every series of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        let named = self.series.iter().filter(move |((known, _), _)| known == name);
        named.map(|((_, labels), value)| (labels, *value))
    }

    /// True when some series has this label.
    pub(crate) fn names_label(&self, label: &str) -> bool {
        self.series.keys().any(|(_, labels)| labels.contains_key(label))
    }

    /// Checks that no counter of `earlier` went back or away.
    #[track_caller]
    pub(crate) fn check_follows(&self, earlier: &Scrape) {
        let is_counted = |name: &str| {
            ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
        };
        for (series, before) in earlier.series.iter().filter(|((name, _), _)| is_counted(name)) {
            let now = self.series.get(series).unwrap_or_else(|| panic!("{series:?} is gone"));
            assert!(now >= before, "{series:?} went from {before} to {now}");
        }
    }
}

struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

impl Sample {
    fn parse(line: &str) -> Sample {
        let at = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
        let (name, mut rest) = line.split_at(at);
        assert!(is_name(name), "{line}");
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(label) && !label.contains(':'), "{line}");
                let (value, after) = quoted(after, line);
                assert_eq!(labels.insert(label.to_owned(), value), None, "twice: {line}");
                if let Some(next) = after.strip_prefix(',') {
                    rest = next;
                    continue;
                }
                rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                break;
            }
        }
        let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        Sample { name: name.to_owned(), labels, value }
    }
}

/// Reads up to the closing quotation mark; gives the rest after it.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, same @ ('\\' | '"'))) => same,
                other => panic!("unknown escape {other:?}: {line}"),
            }),
            plain => value.push(plain),
        }
    }
    panic!("not closed: {line}")
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
}

fn check_sample(kind: &str, suffix: &str, sample: &Sample, line: &str) {
    let allowed: &[&str] = match kind {
        "counter" => &["_total"],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    assert!(allowed.contains(&suffix), "not of a {kind}: {line}");
    assert_eq!(sample.labels.contains_key("le"), suffix == "_bucket", "{line}");
    assert!(sample.value.is_finite(), "{line}");
    assert!(kind == "gauge" || sample.value >= 0.0, "negative: {line}");
    assert!(kind != "info" || sample.value == 1.0, "{line}");
}

/// Buckets rise, the last holds everything.
fn check_histograms(name: &str, samples: &[Sample]) {
    let without_bound = |sample: &Sample| {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        labels
    };
    let series: BTreeSet<Labels> = samples.iter().map(without_bound).collect();
    for labels in series {
        let own: Vec<&Sample> =
            samples.iter().filter(|sample| without_bound(sample) == labels).collect();
        let named = |suffix: &str| {
            let wanted = format!("{name}{suffix}");
            own.iter()
                .filter(|sample| sample.name == wanted)
                .map(|one| one.value)
                .collect::<Vec<_>>()
        };
        let buckets: Vec<(f64, f64)> = own
            .iter()
            .filter_map(|one| Some((one.labels.get("le")?, one.value)))
            .map(|(bound, value)| (bound.replace("+Inf", "inf").parse().expect("a bound"), value))
            .collect();
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
        let (bound, all) = *buckets.last().expect("has buckets");
        assert_eq!((bound, vec![all]), (f64::INFINITY, named("_count")), "{name}");
        assert_eq!(named("_sum").len(), 1, "{name}");
    }
}

#[test]
fn the_reader_refuses_what_openmetrics_does_not_allow() {
    let good = "# TYPE a counter\n# HELP a It.\na_total{x=\"1\\\"\\n\"} 1\n# EOF\n";
    assert_eq!(Scrape::parse(good).value("a_total", &[("x", "1\"\n")]), 1.0);
    let bad = [
        "# TYPE a counter\n# HELP a It.\na_total 1\n",
        "# TYPE a counter\n# HELP a It.\na 1\n# EOF\n",
        "# TYPE a counter\n# HELP a It.\na_total -1\n# EOF\n",
        "# TYPE a counter\n# HELP a It.\na_total{x=\"\\x\"} 1\n# EOF\n",
        "# TYPE a counter\n# HELP a It.\na_total{x=\"1} 1\n# EOF\n",
        "# TYPE a counter\n# HELP a It.\na_total 1\na_total 2\n# EOF\n",
        "# TYPE a counter\n# UNIT a bytes\n# HELP a It.\n# EOF\n",
        "# TYPE a gauge\n# HELP a It.\na NaN\n# EOF\n",
        "a 1\n# EOF\n",
        "# TYPE a histogram\n# HELP a It.\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 1\n# EOF\n",
        "# TYPE a gauge\n# HELP a It.\n# TYPE a gauge\n# HELP a It.\n# EOF\n",
    ];
    for text in bad {
        let read = std::panic::catch_unwind(|| Scrape::parse(text));
        assert!(read.is_err(), "taken:\n{text}");
    }
}
