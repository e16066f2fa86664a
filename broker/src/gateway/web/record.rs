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
        let text = String::from_utf8(text).unwrap();
        let without_offset = text.replacen("\"offset\":9,", "", 1);
        assert_eq!(read(&without_offset).unwrap(), record, "{text}");
    }
}
