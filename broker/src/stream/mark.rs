//! What the last record of an append says of its writer, in headers.
//!
//! ```text
//! stream-producer: EPOCH:SEQ:ID    the turn of an idempotent producer
//! stream-seq: TEXT                 the writers' own sequence
//! stream-closed: true              this record has no data: it closes the stream
//! ```
//!
//! The headers stand in the same batch as the data, so both are in the log or neither. Headers that do not parse are
//! somebody else's and say nothing.

use bytes::Bytes;
use riverrun_proto::{Header, Record};

const PRODUCER: &[u8] = b"stream-producer";
const SEQ: &[u8] = b"stream-seq";
const CLOSED: &[u8] = b"stream-closed";

/// One turn of an idempotent producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Who.
    pub id: String,
    /// Its life, as it counts them itself.
    pub epoch: u64,
    /// Its turn within that life, from 0.
    pub seq: u64,
}

/// What an append says of its writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Whose turn it is.
    pub producer: Option<Producer>,
    /// The writers' own sequence.
    pub seq: Option<Bytes>,
    /// It closes the stream.
    pub is_closing: bool,
}

impl Mark {
    /// What these headers say.
    pub fn of(headers: &[Header]) -> Mark {
        let mut mark = Mark::default();
        for Header { key, value } in headers {
            let Some(value) = value else { continue };
            if key == PRODUCER {
                mark.producer = producer(value);
            } else if key == SEQ {
                mark.seq = Some(value.clone());
            } else if key == CLOSED {
                mark.is_closing = true;
            }
        }
        mark
    }

    /// Records with these values that say this; the closing record is one more.
    pub fn records(&self, values: Vec<Bytes>) -> Vec<Record> {
        let record =
            |value| Record { timestamp_ms: 0, key: None, value: Some(value), headers: Vec::new() };
        let mut records: Vec<_> = values.into_iter().map(record).collect();
        if self.is_closing {
            records.push(record(Bytes::new()));
        }
        if let Some(last) = records.last_mut() {
            last.headers = self.headers();
        }
        records
    }

    fn headers(&self) -> Vec<Header> {
        let header =
            |key: &'static [u8], value| Header { key: Bytes::from_static(key), value: Some(value) };
        let turn =
            |Producer { id, epoch, seq }: &Producer| Bytes::from(format!("{epoch}:{seq}:{id}"));
        let producer = self.producer.as_ref().map(|producer| header(PRODUCER, turn(producer)));
        let seq = self.seq.clone().map(|seq| header(SEQ, seq));
        let closed = self.is_closing.then(|| header(CLOSED, Bytes::from_static(b"true")));
        producer.into_iter().chain(seq).chain(closed).collect()
    }
}

fn producer(value: &[u8]) -> Option<Producer> {
    let mut parts = std::str::from_utf8(value).ok()?.splitn(3, ':');
    let epoch = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    Some(Producer { id: parts.next()?.to_owned(), epoch, seq })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_says_what_the_append_was() {
        let producer = Producer { id: "a:b".into(), epoch: 7, seq: u64::MAX };
        let mark = Mark { producer: Some(producer), seq: Some("x".into()), is_closing: true };
        let records = mark.records(vec!["1".into(), "2".into()]);
        assert_eq!(records.len(), 3);
        assert_eq!(records[2].value.as_deref(), Some(&b""[..]));
        let marks: Vec<_> = records.iter().map(|record| Mark::of(&record.headers)).collect();
        assert_eq!(marks, [Mark::default(), Mark::default(), mark]);
        let open = Mark { is_closing: false, ..marks[2].clone() };
        let records = open.records(vec!["1".into()]);
        assert_eq!((records.len(), Mark::of(&records[0].headers)), (1, open));
    }

    #[test]
    fn headers_of_others_say_nothing() {
        for value in ["", "1", "1:2", "x:2:a", "1:-2:a", "18446744073709551616:0:a"] {
            let headers = [Header { key: Bytes::from_static(PRODUCER), value: Some(value.into()) }];
            assert_eq!(Mark::of(&headers), Mark::default(), "{value}");
        }
        assert_eq!(
            Mark::of(&[Header { key: Bytes::from_static(CLOSED), value: None }]),
            Mark::default()
        );
    }
}
