//! The headers of a request: what the record is, where it lies, and the attributes of a CloudEvent if it is one.
//!
//! Bytes that a header cannot hold as they are stand percent-encoded, `%` among them. What makes the headers larger than
//! [`HEADER_BYTES_MAX`], or has a name that no header can have, is left out and counted in `riverrun-headers-omitted`.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use riverrun_proto::Record;

use super::post::Job;

/// Bytes of what records bring with them.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// What a record's own header is called behind.
const OWN_PREFIX: &str = "riverrun-header-";
/// What attributes of a CloudEvent are called in a record, and in a request.
const EVENT_PREFIXES: (&str, &str) = ("ce_", "ce-");
const USER_AGENT_TEXT: &str = concat!("riverrun/", env!("CARGO_PKG_VERSION"));

/// Headers as far as there is room for them.
#[derive(Debug, Default)]
struct Head {
    map: HeaderMap,
    bytes: usize,
    omitted: u32,
}

/// The headers of a record, without those that sign it.
pub(super) fn headers(job: &Job, subscription: &str) -> HeaderMap {
    let mut head = Head::default();
    head.broker("riverrun-subscription", subscription);
    head.broker("riverrun-topic", &job.topic);
    head.broker("riverrun-partition", &job.partition.to_string());
    head.broker("riverrun-offset", &job.record.offset.0.to_string());
    head.broker("riverrun-timestamp-ms", &job.record.record.timestamp_ms.to_string());
    head.broker("riverrun-attempts", &job.attempts.to_string());
    head.broker("riverrun-failures", &job.failures.to_string());
    head.map.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
    head.of_record(&job.record.record);
    if head.omitted > 0 {
        let omitted = head.omitted.to_string();
        head.broker("riverrun-headers-omitted", &omitted);
    }
    head.map
}

impl Head {
    /// One that the broker knows to be short and plain.
    fn broker(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.map.insert(HeaderName::from_static(name), value);
        }
    }

    fn of_record(&mut self, record: &Record) {
        if record.value.is_none() {
            self.broker("riverrun-tombstone", "true");
        }
        if let Some(key) = &record.key {
            self.add("riverrun-key", key);
        }
        let is_event = record.headers.iter().any(|header| &header.key[..] == b"ce_specversion");
        for header in &record.headers {
            let value = header.value.as_deref().unwrap_or_default();
            match std::str::from_utf8(&header.key) {
                Ok(name) if name.eq_ignore_ascii_case("content-type") => self.content_type(value),
                Ok(name) => {
                    let (from, to) = EVENT_PREFIXES;
                    let name = match name.strip_prefix(from).filter(|_| is_event) {
                        Some(attribute) => format!("{to}{attribute}"),
                        None => format!("{OWN_PREFIX}{name}"),
                    };
                    self.add(&name, value);
                }
                Err(_) => self.omitted += 1,
            }
        }
        let octets = HeaderValue::from_static("application/octet-stream");
        self.map.entry(CONTENT_TYPE).or_insert(octets);
    }

    fn content_type(&mut self, value: &[u8]) {
        match HeaderValue::from_bytes(value) {
            Ok(value) if (1..=256).contains(&value.len()) => {
                self.map.insert(CONTENT_TYPE, value);
            }
            Ok(_) | Err(_) => self.omitted += 1,
        }
    }

    /// Adds one of the record's, if it fits.
    fn add(&mut self, name: &str, value: &[u8]) {
        // Judged before it is encoded, so that a huge key costs nothing.
        let fits = self.bytes + name.len() + value.len() <= HEADER_BYTES_MAX;
        let named = fits.then(|| HeaderName::from_bytes(name.as_bytes()).ok()).flatten();
        let Some(name) = named else {
            self.omitted += 1;
            return;
        };
        let value = encoded(value);
        let bytes = self.bytes + name.as_str().len() + value.len();
        match HeaderValue::from_maybe_shared(Bytes::from(value)) {
            Ok(value) if bytes <= HEADER_BYTES_MAX => {
                self.map.append(name, value);
                self.bytes = bytes;
            }
            Ok(_) | Err(_) => self.omitted += 1,
        }
    }
}

/// Visible ASCII as it is, everything else as `%41`.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' => text.push_str("%25"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{Header, LeaderEpoch, Offset, TopicId, batch::OffsetRecord};
    use uuid::Uuid;

    use super::*;

    fn told(record: Record) -> HeaderMap {
        let record = OffsetRecord { offset: Offset(7), record };
        let (topic_id, epoch) = (TopicId(Uuid::from_u128(1)), LeaderEpoch(4));
        let job = Job {
            topic: "t".into(),
            topic_id,
            partition: 3,
            epoch,
            record,
            attempts: 2,
            failures: 1,
        };
        headers(&job, "s")
    }

    fn header(key: &'static str, value: &'static [u8]) -> Header {
        Header { key: key.into(), value: Some(value.into()) }
    }

    #[track_caller]
    fn check(map: &HeaderMap, rows: &[(&str, &str)]) {
        for (name, value) in rows {
            assert_eq!(map.get(*name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_record_is_told_by_its_headers() {
        let map = told(Record {
            timestamp_ms: 5,
            key: Some(Bytes::from_static("ä %".as_bytes())),
            value: None,
            headers: vec![
                header("Trace", b"a b"),
                header("content-type", b"text/plain"),
                header("ce_id", b"no event"),
                header("a b", b""),
            ],
        });
        check(
            &map,
            &[
                ("riverrun-subscription", "s"),
                ("riverrun-topic", "t"),
                ("riverrun-partition", "3"),
                ("riverrun-offset", "7"),
                ("riverrun-timestamp-ms", "5"),
                ("riverrun-attempts", "2"),
                ("riverrun-failures", "1"),
                ("riverrun-key", "%C3%A4%20%25"),
                ("riverrun-tombstone", "true"),
                ("riverrun-header-trace", "a%20b"),
                ("riverrun-header-ce_id", "no%20event"),
                ("content-type", "text/plain"),
                ("riverrun-headers-omitted", "1"),
            ],
        );
    }

    #[test]
    fn an_empty_content_type_says_nothing() {
        let headers = vec![header("content-type", b"")];
        let map = told(Record { headers, ..Record::default() });
        check(
            &map,
            &[("content-type", "application/octet-stream"), ("riverrun-headers-omitted", "1")],
        );
    }

    #[test]
    fn a_cloud_event_has_its_attributes() {
        let headers = vec![
            header("ce_specversion", b"1.0"),
            header("ce_id", b"9"),
            header("ce_subject", "ü".as_bytes()),
        ];
        let map = told(Record { value: Some("{}".into()), headers, ..Record::default() });
        check(
            &map,
            &[
                ("ce-specversion", "1.0"),
                ("ce-id", "9"),
                ("ce-subject", "%C3%BC"),
                ("content-type", "application/octet-stream"),
            ],
        );
        assert!(!map.contains_key("riverrun-tombstone") && !map.contains_key("riverrun-key"));
    }

    #[test]
    fn large_headers_are_left_out_and_counted() {
        let large = Bytes::from(vec![b' '; HEADER_BYTES_MAX / 2]);
        let huge = Bytes::from(vec![b'x'; 10 << 20]);
        let headers = vec![
            Header { key: "large".into(), value: Some(large) },
            Header { key: "fits".into(), value: Some("1".into()) },
        ];
        let map = told(Record { key: Some(huge), headers, ..Record::default() });
        check(&map, &[("riverrun-headers-omitted", "2"), ("riverrun-header-fits", "1")]);
    }
}
