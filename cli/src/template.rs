//! The template of `consume --format`: `%v\n`, `%p %o %k\t%v\n`, parsed once, then written per record.
//!
//! Letters are kcat's where kcat has them. An absent key or value is written as nothing, its length
//! as -1; keys and values go out as the bytes they are.

use riverrun_client::Received;
use riverrun_proto::{
    Header, Offset,
    batch::{HeaderViews, RecordView},
};

use crate::escape;

/// What each letter stands for, for help and error messages.
pub(crate) const LETTERS: &str = "%t topic, %p partition, %o offset, %T timestamp in ms, %k key, \
%K key length, %v or %s value, %S value length, %h headers, %% a percent sign; \
escapes \\n \\t \\r \\0 \\\\ \\xHH";

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

/// One record and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// The headers of a record, borrowed from a batch or from an owned record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Headers<'a> {
    Views(HeaderViews<'a>),
    Owned(&'a [Header]),
}

impl<'a> Headers<'a> {
    /// Hands each header's name and value to `take`, in order.
    pub(crate) fn for_each(self, mut take: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        match self {
            Headers::Views(views) => views.for_each(|header| take(header.key, header.value)),
            Headers::Owned(headers) => {
                headers.iter().for_each(|header| take(&header.key, header.value.as_deref()));
            }
        }
    }
}

impl<'a> Row<'a> {
    /// A record of a batch.
    pub(crate) fn of_view(topic: &'a str, partition: u32, view: RecordView<'a>) -> Row<'a> {
        let RecordView { offset, timestamp_ms, key, value, headers } = view;
        let headers = Headers::Views(headers);
        Row { topic, partition, offset, timestamp_ms, key, value, headers }
    }

    /// An owned record.
    pub(crate) fn of(record: &'a Received) -> Row<'a> {
        Row {
            topic: &record.partition.topic,
            partition: record.partition.partition.0,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: Headers::Owned(&record.headers),
        }
    }
}

impl Template {
    /// Parses `text`; the message of a refusal names the place and the letters there are.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let length = match c {
                '\\' => {
                    let (byte, length) = escape::one(rest)?;
                    plain.push(byte);
                    length
                }
                '%' if rest.starts_with("%%") => {
                    plain.push(b'%');
                    2
                }
                '%' => {
                    let letter = rest.chars().nth(1);
                    let piece = Piece::of(letter).ok_or_else(|| unknown(letter))?;
                    pieces.extend(
                        (!plain.is_empty()).then(|| Piece::Text(std::mem::take(&mut plain))),
                    );
                    pieces.push(piece);
                    2
                }
                _ => {
                    plain.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
                    c.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        pieces.extend((!plain.is_empty()).then_some(Piece::Text(plain)));
        Ok(Template { pieces })
    }

    /// Appends one record to `out`.
    #[inline]
    pub(crate) fn write(&self, row: &Row<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Topic => out.extend_from_slice(row.topic.as_bytes()),
                Piece::Partition => push_number(u64::from(row.partition), out),
                Piece::Offset => push_number(row.offset.0, out),
                Piece::Timestamp => push_signed(row.timestamp_ms, out),
                Piece::Key => out.extend_from_slice(row.key.unwrap_or_default()),
                Piece::KeyLength => push_length(row.key, out),
                Piece::Value => out.extend_from_slice(row.value.unwrap_or_default()),
                Piece::ValueLength => push_length(row.value, out),
                Piece::Headers => push_headers(row.headers, out),
            }
        }
    }
}

impl Piece {
    fn of(letter: Option<char>) -> Option<Piece> {
        Some(match letter? {
            't' => Piece::Topic,
            'p' => Piece::Partition,
            'o' => Piece::Offset,
            'T' => Piece::Timestamp,
            'k' => Piece::Key,
            'K' => Piece::KeyLength,
            'v' | 's' => Piece::Value,
            'S' => Piece::ValueLength,
            'h' => Piece::Headers,
            _ => return None,
        })
    }
}

fn unknown(letter: Option<char>) -> String {
    match letter {
        Some(letter) => format!("`%{letter}` means nothing in a format; there are {LETTERS}"),
        None => format!("a `%` at the end of a format means nothing; there are {LETTERS}"),
    }
}

/// Decimal digits without the detour of a formatter: this runs for every record.
fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        // A remainder of ten is one digit.
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn push_signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    push_number(number.unsigned_abs(), out);
}

fn push_length(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes {
        Some(bytes) => push_number(bytes.len() as u64, out),
        None => out.extend_from_slice(b"-1"),
    }
}

/// `name=value,name=value`; a header without value has no `=`.
fn push_headers(headers: Headers<'_>, out: &mut Vec<u8>) {
    let mut is_first = true;
    headers.for_each(|name, value| {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        out.extend_from_slice(name);
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    });
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{
        BatchBuilder, BuilderOptions, Compression, Header, LeaderEpoch, Offset, Record,
        limits::INFLATED_BYTES_MAX,
    };

    use super::*;

    #[track_caller]
    fn check(
        text: &str,
        key: Option<&'static [u8]>,
        value: Option<&'static [u8]>,
        expected: &[u8],
    ) {
        let header = |key: &'static str, value: Option<&'static str>| Header {
            key: key.into(),
            value: value.map(Into::into),
        };
        let headers = vec![header("type", Some("json")), header("traced", None)];
        let (key, value) = (key.map(Into::into), value.map(Into::into));
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        builder.push(&Record { timestamp_ms: -12, key, value, headers }).unwrap();
        let batch = builder.build().unwrap().stamped(Offset(Offset::MAX.0 - 1), LeaderEpoch(0));
        let records = batch.records(INFLATED_BYTES_MAX).unwrap();
        let record = records.views().next().unwrap().unwrap();
        let mut out = Vec::new();
        Template::parse(text).unwrap().write(&Row::of_view("orders", 3, record), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected), "{text}");
        assert_eq!(out, expected, "{text}");
    }

    #[test]
    fn every_letter_is_written() {
        check("%v\\n", None, Some(b"body"), b"body\n");
        check("%t %p %o %T", None, None, b"orders 3 9223372036854775806 -12");
        check("%k=%v (%K,%S)", Some(b"k"), Some(b"\xff\x00"), b"k=\xff\x00 (1,2)");
        check("[%k|%v] %K %S", None, None, b"[|] -1 -1");
        check("%h", None, None, b"type=json,traced");
        check("100%% %s\\t\\x41\\\\n", None, Some(b""), b"100% \tA\\n");
        check("\u{fc}%p", None, None, "\u{fc}3".as_bytes());
        check("", None, Some(b"x"), b"");
    }

    #[test]
    fn unknown_letters_are_refused_with_the_ones_there_are() {
        for text in ["%x", "%", "a %", "%V", "%\u{fc}", "\\q", "\\"] {
            let refusal = Template::parse(text).unwrap_err();
            assert!(refusal.contains("there are") || refusal.contains("\\\\"), "{text}: {refusal}");
        }
    }
}
