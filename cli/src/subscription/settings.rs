//! Settings of a subscription on the command line: order, start, filter and `KEY=VALUE`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use riverrun_client::{
    HeaderTest, Mode, Offset, StartAt, SubscriptionFilter, SubscriptionSettings,
};
use serde_json::{Map, Value, json};

use super::webhook::{self, WebhookArgs};
use crate::{
    escape,
    failure::{Failure, Stop},
    position::Position,
    time, units,
};

/// Every key, in the order shown.
const KEYS: [&str; 9] = [
    "ack_wait_ms",
    "max_lease_ms",
    "max_failures",
    "backoff_min_ms",
    "backoff_max_ms",
    "max_open",
    "max_ack_state_bytes",
    "dead_letter_topic",
    "key_pipeline",
];

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// In the log's order as far as possible; a retry holds up no other record
    Unordered,
    /// Records of one key one after another, also under retry
    KeyFifo,
    /// Records of one partition one after another
    PartitionFifo,
    /// One consumer gets everything in order, the others stand by
    Exclusive,
}

impl From<ModeArg> for Mode {
    fn from(arg: ModeArg) -> Mode {
        super::mode(arg)
    }
}

/// Where a new subscription begins.
#[derive(Debug, Args)]
pub(crate) struct FromArgs {
    /// Where a new subscription begins: earliest, latest, offset:N, time:T or group:NAME (a group without members)
    #[arg(long, value_name = "POSITION", default_value = "earliest")]
    from: String,
}

impl FromArgs {
    /// The start that was named.
    pub(crate) fn start(&self) -> Result<StartAt, Stop> {
        if let Some(group) = self.from.strip_prefix("group:") {
            return Ok(StartAt::Group(group.to_owned()));
        }
        let position: Position = self
            .from
            .parse()
            .map_err(|why: String| Failure::usage(format!("`--from`: {why}, or group:NAME")))?;
        Ok(match position {
            Position::Earliest => StartAt::Earliest,
            Position::Latest => StartAt::Latest,
            Position::Offset(offset) => StartAt::Offset(Offset(offset)),
            Position::TimeMs(ms) => {
                let moment = time::parse_moment(&ms.to_string());
                StartAt::Time(moment.map_err(Failure::usage)?)
            }
        })
    }
}

/// Settings to give to a subscription.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Order of delivery
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Setting as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[arg(help = format!("Setting as KEY=VALUE; may be repeated: {}", KEYS.join(", ")))]
    settings: Vec<String>,
    /// Deliver only records with this key; escapes as in a format
    #[arg(long, value_name = "KEY", value_parser = parse_bytes)]
    filter_key: Option<Escaped>,
    /// Deliver only records whose key begins with this
    #[arg(long, value_name = "PREFIX", value_parser = parse_bytes)]
    filter_key_prefix: Option<Escaped>,
    /// Deliver only records with this header: NAME, NAME=VALUE or NAME^=PREFIX; may be repeated
    #[arg(long, value_name = "TEST", value_parser = parse_header)]
    filter_header: Vec<(String, HeaderTest)>,
    /// Deliver all records again: takes the filter away
    #[arg(long)]
    #[arg(conflicts_with_all = ["filter_key", "filter_key_prefix", "filter_header"])]
    no_filter: bool,
    #[command(flatten)]
    webhook: WebhookArgs,
}

/// Bytes with their escapes replaced.
#[derive(Clone, Debug)]
pub(crate) struct Escaped(pub(crate) Vec<u8>);

pub(crate) fn parse_bytes(text: &str) -> Result<Escaped, String> {
    escape::bytes(text).map(Escaped)
}

fn parse_header(text: &str) -> Result<(String, HeaderTest), String> {
    let value = |value: &str| escape::bytes(value).map(bytes::Bytes::from);
    let (name, test) = match text.split_once('=') {
        None => (text, HeaderTest::Present),
        Some((name, prefix)) if name.ends_with('^') => {
            (name.trim_end_matches('^'), HeaderTest::Prefix(value(prefix)?))
        }
        Some((name, equals)) => (name, HeaderTest::Equals(value(equals)?)),
    };
    match name.is_empty() {
        true => Err("the name of the header is missing".to_owned()),
        false => Ok((name.to_owned(), test)),
    }
}

impl SettingsArgs {
    /// The settings given; a key given twice is refused.
    pub(crate) fn parse(&self) -> Result<SubscriptionSettings, String> {
        let mut settings = SubscriptionSettings {
            mode: self.mode.map(Mode::from),
            filter: self.filter(),
            webhook: self.webhook.parse()?,
            ..SubscriptionSettings::default()
        };
        let mut seen = Vec::new();
        for pair in &self.settings {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                format!("`{pair}` is not a setting; write KEY=VALUE, for instance ack_wait_ms=30s")
            })?;
            let key = check_key(key.trim())?;
            if seen.contains(&key) {
                return Err(format!("`{key}` is set twice"));
            }
            seen.push(key);
            set(&mut settings, key, value.trim()).map_err(|why| format!("`{key}`: {why}"))?;
        }
        Ok(settings)
    }

    /// The filter given; an empty one takes it away.
    fn filter(&self) -> Option<SubscriptionFilter> {
        let bytes = |escaped: &Escaped| escaped.0.clone().into();
        let filter = SubscriptionFilter {
            key_equals: self.filter_key.as_ref().map(bytes),
            key_prefix: self.filter_key_prefix.as_ref().map(bytes),
            headers: self.filter_header.clone(),
        };
        (self.no_filter || filter != SubscriptionFilter::default()).then_some(filter)
    }
}

/// The key as listed, or a message with the nearest one.
fn check_key(key: &str) -> Result<&'static str, String> {
    if let Some(known) = KEYS.iter().find(|known| **known == key) {
        return Ok(known);
    }
    let hint = match units::nearest(key, KEYS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", KEYS.join(", ")),
    };
    Err(format!("a subscription has no setting `{key}`; {hint}"))
}

fn set(settings: &mut SubscriptionSettings, key: &str, value: &str) -> Result<(), String> {
    let millis = |value: &str| units::parse_millis(value).map(Duration::from_millis);
    let number = |value: &str| {
        value.parse::<u32>().map_err(|_| format!("`{value}` is not a number up to 4,294,967,295"))
    };
    match key {
        "ack_wait_ms" => settings.ack_wait = Some(millis(value)?),
        "max_lease_ms" => settings.max_lease = Some(millis(value)?),
        "max_failures" => {
            settings.max_failures = Some(if value == "unlimited" { 0 } else { number(value)? });
        }
        "backoff_min_ms" => settings.backoff_min = Some(millis(value)?),
        "backoff_max_ms" => settings.backoff_max = Some(millis(value)?),
        "max_open" => settings.max_open = Some(number(value)?),
        "max_ack_state_bytes" => settings.max_ack_state_bytes = Some(units::parse_bytes(value)?),
        "dead_letter_topic" => settings.dead_letter = Some(value.to_owned()),
        "key_pipeline" => settings.key_pipeline = Some(number(value)?),
        _ => return Err("is not a setting".to_owned()),
    }
    Ok(())
}

/// Settings in force as rows of key and value.
pub(super) fn rows(settings: &SubscriptionSettings) -> Vec<(&'static str, String)> {
    let millis = |time: Option<Duration>| time.map(|time| units::millis(as_ms(time)));
    let failures = settings.max_failures.map(|count| match count {
        0 => "unlimited".to_owned(),
        count => units::count(count.into()),
    });
    let values = [
        millis(settings.ack_wait),
        millis(settings.max_lease),
        failures,
        millis(settings.backoff_min),
        millis(settings.backoff_max),
        settings.max_open.map(|count| units::count(count.into())),
        settings.max_ack_state_bytes.map(units::bytes),
        settings.dead_letter.clone(),
        settings.key_pipeline.map(|count| units::count(count.into())),
    ];
    let mut rows: Vec<_> =
        KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect();
    if let Some(filter) = settings.filter.as_ref().filter(|filter| **filter != Default::default()) {
        rows.push(("filter", filter_text(filter)));
    }
    rows.extend(settings.webhook.iter().flat_map(webhook::rows));
    rows
}

/// Settings in force as JSON, numbers as the protocol has them.
pub(super) fn to_json(settings: &SubscriptionSettings) -> Value {
    let millis = |time: Option<Duration>| time.map(as_ms);
    let mut object = Map::new();
    object.insert("mode".into(), json!(settings.mode.map(Mode::name)));
    let values = [
        json!(millis(settings.ack_wait)),
        json!(millis(settings.max_lease)),
        json!(settings.max_failures),
        json!(millis(settings.backoff_min)),
        json!(millis(settings.backoff_max)),
        json!(settings.max_open),
        json!(settings.max_ack_state_bytes),
        json!(settings.dead_letter),
        json!(settings.key_pipeline),
    ];
    object.extend(KEYS.into_iter().map(str::to_owned).zip(values));
    let filter = settings.filter.as_ref().filter(|filter| **filter != Default::default());
    object.insert("filter".into(), json!(filter.map(filter_text)));
    object.insert("webhook".into(), json!(settings.webhook.as_ref().map(webhook::to_json)));
    Value::Object(object)
}

/// `key=k key^=p header type=paid`.
fn filter_text(filter: &SubscriptionFilter) -> String {
    let mut parts = Vec::new();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    parts.extend(filter.key_equals.as_ref().map(|key| format!("key={}", lossy(key))));
    parts.extend(filter.key_prefix.as_ref().map(|key| format!("key^={}", lossy(key))));
    parts.extend(filter.headers.iter().map(|(name, test)| match test {
        HeaderTest::Present => format!("header {name}"),
        HeaderTest::Equals(value) => format!("header {name}={}", lossy(value)),
        HeaderTest::Prefix(value) => format!("header {name}^={}", lossy(value)),
    }));
    parts.join(" ")
}

pub(super) fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[&str]) -> Result<SubscriptionSettings, String> {
        let settings = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        SettingsArgs { settings, ..SettingsArgs::default() }.parse()
    }

    #[test]
    fn settings_are_read_and_shown() {
        let pairs = ["ack_wait_ms=30s", "max_failures=unlimited", "dead_letter_topic=graves"];
        let settings = parse(&pairs).unwrap();
        let shown: Vec<String> =
            rows(&settings).into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(
            shown,
            ["ack_wait_ms 30 s", "max_failures unlimited", "dead_letter_topic graves"]
        );
        assert_eq!(to_json(&settings)["ack_wait_ms"], 30_000);
        assert_eq!(to_json(&settings)["max_failures"], 0);
    }

    #[test]
    fn wrong_settings_are_refused_with_advice() {
        let cases = [
            (
                "ackwait_ms=1s",
                "a subscription has no setting `ackwait_ms`; did you mean `ack_wait_ms`?",
            ),
            (
                "ack_wait_ms",
                "`ack_wait_ms` is not a setting; write KEY=VALUE, for instance ack_wait_ms=30s",
            ),
            ("max_open=-1", "`max_open`: `-1` is not a number up to 4,294,967,295"),
        ];
        for (pair, message) in cases {
            assert_eq!(parse(&[pair]).unwrap_err(), message);
        }
        assert_eq!(parse(&["max_open=1", "max_open=2"]).unwrap_err(), "`max_open` is set twice");
    }

    #[test]
    fn headers_are_read() {
        let equals = |value: &'static str| HeaderTest::Equals(value.into());
        assert_eq!(parse_header("a"), Ok(("a".into(), HeaderTest::Present)));
        assert_eq!(parse_header("a=b=c"), Ok(("a".into(), equals("b=c"))));
        assert_eq!(parse_header("a^=\\x41"), Ok(("a".into(), HeaderTest::Prefix("A".into()))));
        assert!(parse_header("=b").is_err());
    }
}
