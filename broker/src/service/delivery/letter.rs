//! A dead letter: the record as it was, and headers that tell why it died and where it came from.
//!
//! The id names subscription, topic id, partition and offset, so that a letter written before a crash is known again.

use bytes::Bytes;
use riverrun_proto::{Header, Record};
use serde_json::json;

use crate::delivery::{Attempt, DeadCause, DeadLetter, FailureCause};

/// Headers of this prefix are the broker's.
const PREFIX: &[u8] = b"riverrun-dead-";
/// Which record of which subscription.
const ID: &[u8] = b"riverrun-dead-id";
/// Name of the subscription.
pub(super) const SUBSCRIPTION: &[u8] = b"riverrun-dead-subscription";
/// Name of the topic it came from.
pub(super) const TOPIC: &[u8] = b"riverrun-dead-topic";
/// Partition it came from.
pub(super) const PARTITION: &[u8] = b"riverrun-dead-partition";
/// Its offset there.
const OFFSET: &[u8] = b"riverrun-dead-offset";
/// Why it died: it wore out or was rejected.
const REASON: &[u8] = b"riverrun-dead-reason";
/// The reason of its last failure.
const DETAIL: &[u8] = b"riverrun-dead-detail";
/// How often it failed.
const FAILURES: &[u8] = b"riverrun-dead-failures";
/// Its latest failures, as JSON.
const HISTORY: &[u8] = b"riverrun-dead-history";
/// When it died, in milliseconds since 1970-01-01 UTC.
pub(super) const TIME: &[u8] = b"riverrun-dead-time-ms";
/// How often it was brought back.
const REDRIVEN: &[u8] = b"riverrun-redriven";
/// As what letter it was brought back last.
const LETTER: &[u8] = b"riverrun-redriven-letter";

/// Where a letter comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin<'a> {
    /// Name of the subscription.
    pub(super) subscription: &'a str,
    /// Its number.
    pub(super) number: u64,
    /// Name of the topic.
    pub(super) topic: &'a str,
}

impl Origin<'_> {
    /// The id of the letter of a record.
    pub(super) fn id(&self, letter: &DeadLetter) -> String {
        format!("{}/{}/{}", self.number, letter.lane, letter.offset)
    }

    /// The record to be written.
    pub(super) fn letter(&self, letter: &DeadLetter, record: &Record, now_ms: i64) -> Record {
        let DeadLetter { lane, offset, cause, failures, history } = letter;
        let reason = match cause {
            DeadCause::FailuresMax => "max-failures",
            DeadCause::Rejected => "rejected",
        };
        let detail = history.last().map_or("", |attempt| &attempt.reason);
        let history: Vec<_> = history.iter().map(attempt).collect();
        let mut headers = without_dead(&record.headers);
        for (name, value) in [
            (REASON, reason.to_owned()),
            (DETAIL, detail.to_owned()),
            (SUBSCRIPTION, self.subscription.to_owned()),
            (TOPIC, self.topic.to_owned()),
            (PARTITION, lane.partition.to_string()),
            (OFFSET, offset.to_string()),
            (TIME, now_ms.to_string()),
            (FAILURES, failures.to_string()),
            (HISTORY, json!(history).to_string()),
            (ID, self.id(letter)),
        ] {
            headers.push(header(name, value));
        }
        Record { headers, ..record.clone() }
    }
}

fn attempt(attempt: &Attempt) -> serde_json::Value {
    let cause = match attempt.cause {
        FailureCause::Nack => "nack",
        FailureCause::Expired => "expired",
        FailureCause::Crashed => "crashed",
        FailureCause::Rejected => "rejected",
    };
    let Attempt { time_ms, session, reason, .. } = attempt;
    json!({ "time_ms": time_ms, "cause": cause, "session": **session, "reason": **reason })
}

/// The id of a letter; `None` for any other record.
pub(super) fn id_of(record: &Record) -> Option<&Bytes> {
    value_of(record, ID)
}

/// The value of a header.
pub(super) fn value_of<'a>(record: &'a Record, name: &[u8]) -> Option<&'a Bytes> {
    record.headers.iter().find(|header| header.key == name)?.value.as_ref()
}

/// The number in a header.
pub(super) fn number_of<T: std::str::FromStr>(record: &Record, name: &[u8]) -> Option<T> {
    std::str::from_utf8(value_of(record, name)?).ok()?.parse().ok()
}

/// The record as it was before it died, marked as brought back once more, and by `place`, where its letter stands: so it is known again.
pub(super) fn revived(letter: &Record, place: String) -> Record {
    let before: u32 = number_of(letter, REDRIVEN).unwrap_or(0);
    let mut headers = without_dead(&letter.headers);
    headers.retain(|header| header.key != REDRIVEN && header.key != LETTER);
    headers.push(header(REDRIVEN, before.saturating_add(1).to_string()));
    headers.push(header(LETTER, place));
    Record { headers, ..letter.clone() }
}

/// The record is the one that was brought back from the letter at `place`.
pub(super) fn is_from(record: &Record, place: &str) -> bool {
    value_of(record, LETTER).is_some_and(|known| known == place.as_bytes())
}

fn without_dead(headers: &[Header]) -> Vec<Header> {
    headers.iter().filter(|header| !header.key.starts_with(PREFIX)).cloned().collect()
}

fn header(name: &[u8], value: String) -> Header {
    Header { key: Bytes::copy_from_slice(name), value: Some(value.into()) }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::delivery::LaneKey;

    #[test]
    fn a_letter_tells_its_origin_and_comes_back_as_it_was() {
        let record = Record {
            timestamp_ms: 5,
            key: Some(Bytes::from_static(b"k")),
            value: None,
            headers: vec![header(b"h", "1".into()), header(PARTITION, "a lie".into())],
        };
        let history = [Attempt {
            time_ms: 9,
            cause: FailureCause::Nack,
            session: "w\"1".into(),
            reason: "no\n".into(),
        }];
        let dead = DeadLetter {
            lane: LaneKey::new(TopicId(Uuid::from_u128(7)), 3),
            offset: 11,
            cause: DeadCause::FailuresMax,
            failures: 2,
            history: history.into(),
        };
        let origin = Origin { subscription: "s", number: 4, topic: "t" };
        let letter = origin.letter(&dead, &record, 1_000);
        assert_eq!((letter.timestamp_ms, &letter.key, &letter.value), (5, &record.key, &None));
        assert_eq!(number_of::<u32>(&letter, PARTITION), Some(3));
        assert_eq!(number_of::<i64>(&letter, TIME), Some(1_000));
        assert_eq!(id_of(&letter).map(|id| &id[..]), Some(origin.id(&dead).as_bytes()));
        let history = value_of(&letter, b"riverrun-dead-history").unwrap();
        let history: serde_json::Value = serde_json::from_slice(history).unwrap();
        let expected =
            json!([{ "time_ms": 9, "cause": "nack", "session": "w\"1", "reason": "no\n" }]);
        assert_eq!(history, expected);
        let back = revived(&letter, "d/0/5".into());
        let marks = |count: &str, place: &str| {
            [header(REDRIVEN, count.into()), header(LETTER, place.into())]
        };
        assert_eq!(back.headers[..1], [header(b"h", "1".into())]);
        assert_eq!(back.headers[1..], marks("1", "d/0/5"));
        assert!(is_from(&back, "d/0/5") && !is_from(&back, "d/0/6") && !is_from(&letter, "d/0/5"));
        let again = revived(&back, "d/0/6".into());
        assert_eq!(again.headers[1..], marks("2", "d/0/6"));
    }
}
