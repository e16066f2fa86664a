//! Records as JSON.
//!
//! ```text
//! {"key": "k", "value": "v", "headers": [{"key": "h", "value": "x"}], "timestamp_ms": 1700000000000, "partition": 3}
//! ```
//!
//! A value that is a string is its UTF-8 bytes, `null` is a tombstone, and any other JSON is kept as the text it
//! was written as. With `"value_type": "base64"` the string is decoded, with `"json"` a string is JSON too. Keys
//! and header values are strings or `null`, with `key_type` and `value_type` of their own. What is read back says
//! its type only where it is `base64`: bytes that are no UTF-8.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use riverrun_proto::{Header, Record, batch::OffsetRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{object::Object, problem::Problem};

/// Most bytes of a record as JSON without those of its key, value and headers.
const RECORD_BYTES: usize = 192;
/// The same of a header.
const HEADER_BYTES: usize = 56;
/// Most bytes that one byte takes in a text of JSON.
const ESCAPE_BYTES: usize = 6;

/// A record as it comes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RecordIn<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(default)]
    key_type: Type,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(default)]
    value_type: Type,
    #[serde(borrow, default)]
    headers: Vec<Object<HeaderIn<'a>>>,
    #[serde(default)]
    timestamp_ms: i64,
    /// Where to; by key when absent.
    #[serde(default)]
    pub(super) partition: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct HeaderIn<'a> {
    key: String,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(default)]
    value_type: Type,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    /// A string is text, anything else JSON.
    #[default]
    Auto,
    Text,
    Base64,
    Json,
}

impl RecordIn<'_> {
    /// The record it stands for.
    pub(super) fn into_record(self) -> Result<Record, Problem> {
        let key = self.key.map(|key| bytes_of("key", key, self.key_type)).transpose()?.flatten();
        let value = bytes_of("value", self.value, self.value_type)?;
        let mut headers = Vec::with_capacity(self.headers.len());
        for Object(HeaderIn { key, value, value_type }) in self.headers {
            let value = bytes_of("headers.value", value, value_type)?;
            headers.push(Header { key: key.into(), value });
        }
        Ok(Record { timestamp_ms: self.timestamp_ms, key, value, headers })
    }
}

/// The bytes that JSON stands for; `None` for `null`.
fn bytes_of(field: &str, raw: &RawValue, kind: Type) -> Result<Option<Bytes>, Problem> {
    let json = raw.get();
    if json == "null" {
        return Ok(None);
    }
    let is_text = json.starts_with('"');
    let takes_json = field == "value" && kind == Type::Auto || kind == Type::Json;
    if takes_json && !is_text || kind == Type::Json {
        return Ok(Some(Bytes::copy_from_slice(json.as_bytes())));
    }
    let text: String =
        serde_json::from_str(json).map_err(|_| Problem::field(field, "a string or null", json))?;
    match kind {
        Type::Base64 => {
            let decoded = STANDARD.decode(&text);
            let decoded = decoded.map_err(|_| Problem::field(field, "base64", text))?;
            Ok(Some(decoded.into()))
        }
        Type::Auto | Type::Text | Type::Json => Ok(Some(text.into())),
    }
}

/// No fewer bytes than [`write()`] makes of a record, and hardly more; found without making them.
pub(super) fn text_bytes(record: &OffsetRecord) -> usize {
    let field = |bytes: Option<&Bytes>| match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes)))
    {
        None => 0,
        Some((bytes, Ok(_))) => escaped_bytes(bytes),
        Some((bytes, Err(_))) => bytes.len().div_ceil(3) * 4,
    };
    let header = |header: &Header| {
        let key = match std::str::from_utf8(&header.key) {
            Ok(_) => escaped_bytes(&header.key),
            // A replacement for every byte, at most.
            Err(_) => header.key.len() * ESCAPE_BYTES,
        };
        HEADER_BYTES + key + field(header.value.as_ref())
    };
    let Record { key, value, headers, timestamp_ms: _ } = &record.record;
    let headers: usize = headers.iter().map(header).sum();
    RECORD_BYTES + field(key.as_ref()) + field(value.as_ref()) + headers
}

/// Bytes of a text as JSON, without its quotes.
fn escaped_bytes(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | 8..=10 | 12 | 13 => 2,
        0..32 => ESCAPE_BYTES,
        32.. => 1,
    };
    text.iter().map(escaped).sum()
}

/// Writes a record that was read.
pub(super) fn write(record: &OffsetRecord, to: &mut Vec<u8>) {
    let mut text = String::from("{");
    write_fields(record, &mut text);
    to.extend_from_slice(text.as_bytes());
}

/// Writes a record that was read from this partition.
pub(super) fn write_with(partition: u32, record: &OffsetRecord, to: &mut String) {
    let _ = write!(to, "{{\"partition\":{partition},");
    write_fields(record, to);
}

/// Everything of a record after its opening brace.
fn write_fields(record: &OffsetRecord, text: &mut String) {
    let OffsetRecord { offset, record } = record;
    let _ = write!(text, "\"offset\":{},\"timestamp_ms\":{}", offset.0, record.timestamp_ms);
    write_bytes("key", record.key.as_ref(), text);
    write_bytes("value", record.value.as_ref(), text);
    text.push_str(",\"headers\":[");
    for (index, header) in record.headers.iter().enumerate() {
        text.push_str(if index == 0 { "{\"key\":" } else { ",{\"key\":" });
        // Checked when it was produced; a foreign log may hold something else.
        write_text(&String::from_utf8_lossy(&header.key), text);
        write_bytes("value", header.value.as_ref(), text);
        text.push('}');
    }
    text.push_str("]}");
}

fn write_bytes(name: &str, bytes: Option<&Bytes>, to: &mut String) {
    let _ = write!(to, ",\"{name}\":");
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => to.push_str("null"),
        Some((_, Ok(text))) => write_text(text, to),
        Some((bytes, Err(_))) => {
            let _ = write!(to, "\"{}\",\"{name}_type\":\"base64\"", STANDARD.encode(bytes));
        }
    }
}

fn write_text(text: &str, to: &mut String) {
    let written = serde_json::to_string(text);
    to.push_str(&written.expect("a string is always JSON"));
}

#[cfg(test)]
mod tests {
    use riverrun_proto::Offset;

    use super::*;

    fn read(json: &str) -> Result<Record, String> {
        let record: RecordIn<'_> = serde_json::from_str(json).map_err(|e| e.to_string())?;
        record.into_record().map_err(|problem| problem.to_json().to_string())
    }

    #[track_caller]
    fn value(json: &str, expected: Option<&[u8]>) {
        assert_eq!(read(json).unwrap().value.as_deref(), expected, "{json}");
    }

    #[test]
    fn values_are_text_json_base64_or_nothing() {
        value(r#"{"value":"a\nb"}"#, Some(b"a\nb"));
        value(r#"{"value":null}"#, None);
        value(r#"{"value":{"a": [1, 2.50]}}"#, Some(br#"{"a": [1, 2.50]}"#));
        value(r#"{"value":"eA==","value_type":"base64"}"#, Some(b"x"));
        value(r#"{"value":"x","value_type":"json"}"#, Some(br#""x""#));
        for (json, part) in [
            (r#"{}"#, "value"),
            (r#"{"value":1,"value_type":"text"}"#, "a string or null"),
            (r#"{"value":"?","value_type":"base64"}"#, "base64"),
            (r#"{"value":"a","valu":1}"#, "unknown field `valu`"),
            (r#"{"value":"a","value":"b"}"#, "duplicate field `value`"),
            (r#"{"value":"a","key":1}"#, "`key` must be a string"),
            (r#"{"value":"a","timestamp_ms":1e999}"#, "out of range"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    /// The estimate is no less than what is written, and hardly more.
    #[track_caller]
    fn is_estimated(record: Record) {
        let record = OffsetRecord { offset: Offset(u64::MAX), record };
        let mut text = String::new();
        write_with(u32::MAX, &record, &mut text);
        let estimate = text_bytes(&record);
        let most = text.len() + RECORD_BYTES + HEADER_BYTES * record.record.headers.len();
        assert!((text.len()..=most).contains(&estimate), "{estimate} for {}: {text}", text.len());
    }

    #[test]
    fn the_text_of_a_record_is_known_before_it_is_made() {
        let all: String = (0..300).filter_map(char::from_u32).collect();
        let bytes = Bytes::from_static(b"\xff\xfe\x00\x01\x02");
        let header =
            |key: &Bytes, value: &Bytes| Header { key: key.clone(), value: Some(value.clone()) };
        for (key, value) in [
            (None, None),
            (Some(bytes.clone()), Some(bytes.clone())),
            (Some(all.clone().into()), Some(all.clone().into())),
            (Some("\u{1}".repeat(100).into()), Some("\"".repeat(100).into())),
        ] {
            let headers = vec![header(&all.clone().into(), &bytes), header(&"k".into(), &bytes)];
            is_estimated(Record { timestamp_ms: i64::MIN, key, value, headers });
        }
        let headers = vec![Header { key: bytes, value: None }];
        is_estimated(Record { timestamp_ms: 0, headers, ..Record::default() });
    }

    #[test]
    fn what_is_written_reads_back() {
        let header = |key: &'static str, value| Header { key: key.into(), value };
        let record = Record {
            timestamp_ms: 5,
            key: Some(Bytes::from_static(b"\xff\x00")),
            value: Some("line\n\"quoted\" \u{2028}".into()),
            headers: vec![header("a", None), header("a", Some(Bytes::from_static(b"\xfe")))],
        };
        let mut text = Vec::new();
        write(&OffsetRecord { offset: Offset(9), record: record.clone() }, &mut text);
        is_estimated(record.clone());
        let text = String::from_utf8(text).unwrap();
        let without_offset = text.replacen("\"offset\":9,", "", 1);
        assert_eq!(read(&without_offset).unwrap(), record, "{text}");
    }
}
