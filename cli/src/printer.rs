//! Writes records to standard output: formatted into one buffer, written in large pieces.
//!
//! It bypasses the line buffering of the standard library; whoever uses it flushes when nothing more is
//! at hand. A closed pipe comes back as [`Stop::PipeClosed`].

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use serde_json::json;

use crate::{
    failure::{Failure, Stop},
    template::{Row, Template},
};

/// The buffer is written out once it holds this much.
const BUFFER_BYTES: usize = 1 << 20;

/// How a record is written.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// By a template.
    Template(Template),
    /// As a line of JSON.
    Json,
}

/// A buffered writer of records.
#[derive(Debug)]
pub(crate) struct Printer {
    form: Form,
    out: File,
    buffer: Vec<u8>,
    /// A write failed, and what was in the buffer is lost.
    is_broken: bool,
}

impl Printer {
    /// Writes to standard output.
    pub(crate) fn stdout(form: Form) -> Result<Printer, Stop> {
        let out =
            io::stdout().as_fd().try_clone_to_owned().map_err(|error| Stop::from_stdout(&error))?;
        let buffer = Vec::with_capacity(BUFFER_BYTES + (64 << 10));
        Ok(Printer { form, out: out.into(), buffer, is_broken: false })
    }

    /// Adds one record; true when it is time to flush.
    #[inline]
    pub(crate) fn push(&mut self, row: &Row<'_>) -> bool {
        match &self.form {
            Form::Template(template) => template.write(row, &mut self.buffer),
            Form::Json => write_json(row, &mut self.buffer),
        }
        self.buffer.len() >= BUFFER_BYTES
    }

    /// Writes out what was added. May block while the reader is slow. Once it failed it fails for good: what was to be written then
    /// is never taken for written.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        if self.is_broken {
            return Err(Failure::other("standard output could not be written to").into());
        }
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        self.is_broken = written.is_err();
        written.map_err(|error| Stop::from_stdout(&error))
    }
}

/// One line; bytes that are no UTF-8 stand as hex under a name of their own.
fn write_json(row: &Row<'_>, out: &mut Vec<u8>) {
    let mut object = json!({
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset.0,
        "timestamp_ms": row.timestamp_ms,
    });
    put_bytes(&mut object, "key", row.key);
    put_bytes(&mut object, "value", row.value);
    let mut headers: Vec<serde_json::Value> = Vec::new();
    row.headers.for_each(|name, value| {
        let mut pair = json!({ "name": String::from_utf8_lossy(name) });
        put_bytes(&mut pair, "value", value);
        headers.push(pair);
    });
    if !headers.is_empty() {
        object["headers"] = headers.into();
    }
    out.extend_from_slice(object.to_string().as_bytes());
    out.push(b'\n');
}

/// Bytes under `name`; those that are no UTF-8 as hex under a name of their own.
pub(crate) fn put_bytes(object: &mut serde_json::Value, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object[name] = serde_json::Value::Null,
        Some(Ok(text)) => object[name] = text.into(),
        Some(Err(_)) => {
            let hex: String =
                bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
            object[format!("{name}_hex")] = hex.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{
        BatchBuilder, BuilderOptions, Compression, Header, Record, limits::INFLATED_BYTES_MAX,
    };

    use super::*;

    #[test]
    fn json_tells_absent_text_and_bytes_apart() {
        let headers = vec![Header { key: "h".into(), value: Some("1".into()) }];
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        let value = Some(b"\xff\n".as_slice().into());
        builder.push(&Record { timestamp_ms: 3, key: None, value, headers }).unwrap();
        let batch = builder.build().unwrap();
        let records = batch.records(INFLATED_BYTES_MAX).unwrap();
        let record = records.views().next().unwrap().unwrap();
        let row = Row::of_view("t", 1, record);
        let mut out = Vec::new();
        write_json(&row, &mut out);
        assert!(out.ends_with(b"}\n") && out.iter().filter(|byte| **byte == b'\n').count() == 1);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "topic": "t", "partition": 1, "offset": 0, "timestamp_ms": 3, "key": null,
            "value_hex": "ff0a", "headers": [{ "name": "h", "value": "1" }],
        });
        assert_eq!(read, expected);
    }
}
