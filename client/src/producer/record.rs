//! A record to send.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use riverrun_proto::{Header, PartitionId};

use crate::clock;

/// Header with the time before which push subscriptions withhold a record, in milliseconds since
/// 1970-01-01 UTC, as decimal digits.
const DELIVER_AT: &str = "riverrun-deliver-at";

/// A record to send. Made from its value, then given a key, headers and the rest.
///
/// ```
/// use riverrun_client::Record;
/// let record = Record::new("{\"total\": 12}").key("customer-7").header("type", "json");
/// assert_eq!(record.key_bytes(), Some(&b"customer-7"[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<Header>,
    /// Milliseconds since 1970-01-01 UTC; the time of sending when absent.
    pub(super) timestamp_ms: Option<i64>,
    pub(super) partition: Option<PartitionId>,
}

impl Record {
    /// A record with this value and nothing else.
    pub fn new(value: impl Into<Bytes>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    /// A record without value, which compaction takes as the deletion of its key.
    pub fn tombstone(key: impl Into<Bytes>) -> Record {
        Record { key: Some(key.into()), ..Record::default() }
    }

    /// The key. Records with the same key go to the same partition and keep their order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. Names may repeat; order is kept.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Record {
        let key = Bytes::from(name.into());
        self.headers.push(Header { key, value: Some(value.into()) });
        self
    }

    /// The time of the record, instead of the time of sending.
    pub fn timestamp(mut self, time: SystemTime) -> Record {
        self.timestamp_ms = Some(clock::timestamp_ms(time));
        self
    }

    /// Push subscriptions withhold the record until this time; readers that pull see it at once. Sets the
    /// header `riverrun-deliver-at`.
    pub fn deliver_at(self, time: SystemTime) -> Record {
        self.header(DELIVER_AT, clock::timestamp_ms(time).to_string())
    }

    /// As [`Record::deliver_at`], by this machine's clock from now.
    pub fn deliver_after(self, delay: Duration) -> Record {
        self.header(DELIVER_AT, clock::after_ms(delay).to_string())
    }

    /// The partition, instead of the one the key gives.
    pub fn partition(mut self, partition: u32) -> Record {
        self.partition = Some(PartitionId(partition));
        self
    }

    /// The key, when there is one.
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The value, when there is one.
    pub fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// At least the bytes the record takes in a batch before compression.
    pub(super) fn bytes_max(&self) -> usize {
        const FIXED: usize = 40;
        const PER_HEADER: usize = 10;
        let of = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|header| PER_HEADER + header.key.len() + of(&header.value))
            .sum();
        FIXED + of(&self.key) + of(&self.value) + headers
    }
}

impl From<Bytes> for Record {
    fn from(value: Bytes) -> Record {
        Record::new(value)
    }
}

impl From<Vec<u8>> for Record {
    fn from(value: Vec<u8>) -> Record {
        Record::new(value)
    }
}

impl From<String> for Record {
    fn from(value: String) -> Record {
        Record::new(value)
    }
}

impl From<&'static str> for Record {
    fn from(value: &'static str) -> Record {
        Record::new(value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_time_of_delivery_is_a_header() {
        let record =
            Record::new("v").deliver_at(UNIX_EPOCH + Duration::from_millis(1_795_180_920_123));
        let header =
            Header { key: "riverrun-deliver-at".into(), value: Some("1795180920123".into()) };
        assert_eq!(record.headers, [header]);
        let record = Record::new("v").deliver_after(Duration::from_secs(3600));
        let value = record.headers[0].value.clone().unwrap();
        let ms: i64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        assert!(ms >= clock::wall_ms() + 3_599_000 && ms <= clock::wall_ms() + 3_600_000);
    }
}
