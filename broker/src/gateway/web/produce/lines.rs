//! A stream of records, one JSON object per line, appended while it comes.
//!
//! Lines are appended in groups: as many as are there, up to a bound. A group is in the log before the next one is
//! sent, so that nothing is appended after what failed; all are made durable together at the end. The reply has a
//! bound whatever the length of the stream: it tells per partition what was appended, and after a failure which
//! lines of the last group were.

use std::collections::BTreeMap;

use riverrun_proto::Record;
use serde_json::{Value, json};

use super::{
    super::{
        body::{self, Line, Lines},
        problem::{Answer, Problem},
        record::RecordIn,
        reply,
    },
    failed,
    sender::{BATCH_BYTES, Placed, Sender, bytes_of},
};
use crate::service::produce::Acks;

/// Records of one group.
const GROUP_RECORDS_MAX: usize = 4_096;
/// Bytes of one group.
const GROUP_BYTES_MAX: usize = 4 * BATCH_BYTES;

/// What was appended to one partition.
#[derive(Debug)]
struct Range {
    count: u64,
    first: u64,
    next: u64,
}

/// What was appended so far.
#[derive(Debug, Default)]
struct Progress {
    /// Lines that hold a record and were appended.
    record_count: u64,
    partitions: BTreeMap<u32, Range>,
}

pub(super) async fn produce(sender: &Sender, mut lines: Lines) -> Answer {
    let mut progress = Progress::default();
    let ended = progress.run(sender, &mut lines).await;
    let settled = match sender.acks() {
        Acks::All => progress.settle(sender).await,
        Acks::Leader | Acks::None => Ok(()),
    };
    // When this fails nobody can say which of them survived.
    settled?;
    match ended {
        Ok(()) => Ok(reply::json(&progress.told())),
        Err(problem) => Err(problem.with("appended", progress.told())),
    }
}

impl Progress {
    /// Appends to the end of the stream or the first failure.
    async fn run(&mut self, sender: &Sender, lines: &mut Lines) -> Result<(), Problem> {
        loop {
            let (group, end) = self.group(lines).await;
            if !group.is_empty() {
                let placed = sender.send_with(Acks::Leader, group).await;
                self.note(&placed);
                if let Some(problem) = failed(&placed) {
                    return Err(problem);
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The next lines, and how the stream ended if it did.
    async fn group(
        &self,
        lines: &mut Lines,
    ) -> (Vec<(Option<u32>, Record)>, Option<Result<(), Problem>>) {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_RECORDS_MAX && bytes < GROUP_BYTES_MAX {
            let line = match group.is_empty() {
                true => lines.next().await,
                false => lines.try_next().await,
            };
            let line = match line {
                Ok(Line::Text(line)) => line,
                Ok(Line::NotYet) => break,
                Ok(Line::End) => return (group, Some(Ok(()))),
                Err(problem) => return (group, Some(Err(problem))),
            };
            let record = body::object::<RecordIn<'_>>(&line).and_then(|record| {
                let partition = record.partition;
                Ok((partition, record.into_record()?))
            });
            match record {
                Ok(record) => {
                    bytes += bytes_of(&record.1);
                    group.push(record);
                }
                Err(problem) => {
                    let index = self.record_count + group.len() as u64;
                    return (group, Some(Err(problem.with("index", index))));
                }
            }
        }
        (group, None)
    }

    fn note(&mut self, placed: &[Placed]) {
        for Placed { partition, offset } in placed {
            let Ok(offset) = *offset else { continue };
            self.record_count += 1;
            let range = Range { count: 0, first: offset, next: offset };
            let range = self.partitions.entry(*partition).or_insert(range);
            range.count += 1;
            range.next = range.next.max(offset + 1);
        }
    }

    async fn settle(&self, sender: &Sender) -> Result<(), Problem> {
        for (partition, range) in &self.partitions {
            sender.settle(*partition, range.next).await?;
        }
        Ok(())
    }

    fn told(&self) -> Value {
        let one = |(partition, range): (&u32, &Range)| {
            json!({
                "partition": partition,
                "record_count": range.count,
                "first_offset": range.first,
                "next_offset": range.next,
            })
        };
        let partitions: Vec<_> = self.partitions.iter().map(one).collect();
        json!({"record_count": self.record_count, "partitions": partitions})
    }
}
