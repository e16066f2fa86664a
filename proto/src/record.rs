//! One record.

use bytes::Bytes;

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 name.
    pub key: Bytes,
    /// Value; absent and empty differ.
    pub value: Option<Bytes>,
}

/// One record: key, value, headers and timestamp. Its bytes keep their buffer alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Key; absent and empty differ.
    pub key: Option<Bytes>,
    /// Value; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in the producer's order.
    pub headers: Vec<Header>,
}
