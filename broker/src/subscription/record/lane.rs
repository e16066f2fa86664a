//! What happened on a lane, written and read.

use riverrun_proto::grpc::state::v1::{
    DeadLetterIntended, FailedAttempt, LaneChanged, RecordFailed, RecordWornOut, RecordsScheduled,
};

use super::{RecordError, offset, topic_id, topic_id_bytes};
use crate::{
    delivery::{Attempt, DeadCause, FailureCause, LaneKey, Piece, Run, change::ATTEMPTS_KEPT},
    offset::PartitionKey,
    subscription::{
        lane::{DeadIntent, LanePart},
        offsets::{self, OffsetsWriter},
    },
};

/// Bytes counted for a part besides its texts.
const PART_BYTES: usize = 64;

/// `parts` as changes of about `bytes_max` each. A change keeps the order of `parts` among kinds only, so a kind that
/// stands before the one before it begins a new change.
pub(super) fn encode(key: LaneKey, parts: &[LanePart], bytes_max: usize) -> Vec<LaneChanged> {
    let mut changes = Vec::new();
    let mut open = Open::new(key);
    for part in parts {
        if open.bytes >= bytes_max || rank(part) < open.rank {
            changes.push(std::mem::replace(&mut open, Open::new(key)).close());
        }
        open.push(part);
    }
    if open.bytes > 0 {
        changes.push(open.close());
    }
    changes
}

/// A change being written.
struct Open {
    change: LaneChanged,
    done: OffsetsWriter,
    scheduled: Vec<(i64, OffsetsWriter)>,
    bytes: usize,
    rank: u8,
}

impl Open {
    fn new(key: LaneKey) -> Open {
        let change = LaneChanged {
            topic_id: topic_id_bytes(key.topic_id),
            partition: key.partition,
            ..LaneChanged::default()
        };
        let (done, scheduled) = (OffsetsWriter::default(), Vec::new());
        Open { change, done, scheduled, bytes: 0, rank: 0 }
    }

    fn push(&mut self, part: &LanePart) {
        self.rank = rank(part);
        self.bytes += PART_BYTES;
        match part {
            LanePart::Seek(offset) => self.change.seek = Some(*offset),
            LanePart::HourCame(hour) => self.change.hours_came.push(*hour),
            LanePart::Scheduled { hour, run } => self.schedule(*hour, *run),
            LanePart::Failed { offset, failures, not_before_ms, attempts } => {
                let (offset, failures, not_before_ms) = (*offset, *failures, *not_before_ms);
                let attempts = self.attempts(attempts);
                let failed = RecordFailed { offset, failures, not_before_ms, attempts };
                self.change.failed.push(failed);
            }
            LanePart::WornOut { offset, cause, failures, attempts } => {
                let worn_out = RecordWornOut {
                    offset: *offset,
                    cause: dead_cause(*cause).to_owned(),
                    failures: *failures,
                    attempts: self.attempts(attempts),
                };
                self.change.worn_out.push(worn_out);
            }
            LanePart::Intended { offset, intent } => {
                self.change.dead_intended.push(DeadLetterIntended {
                    offset: *offset,
                    topic_id: topic_id_bytes(intent.topic_id),
                    partition: intent.partition,
                    end_before: intent.end_before,
                });
            }
            LanePart::Dead(offset) => self.change.dead.push(*offset),
            LanePart::Done(piece) => {
                self.bytes += PART_BYTES;
                self.done.push(piece);
            }
        }
    }

    fn schedule(&mut self, hour: i64, run: Run) {
        if self.scheduled.last().is_none_or(|(last, _)| *last != hour) {
            self.scheduled.push((hour, OffsetsWriter::default()));
        }
        if let Some((_, offsets)) = self.scheduled.last_mut() {
            offsets.push_run(run);
        }
    }

    fn attempts(&mut self, attempts: &[Attempt]) -> Vec<FailedAttempt> {
        let wire = attempts.iter().map(|attempt| FailedAttempt {
            time_ms: attempt.time_ms,
            cause: failure_cause(attempt.cause).to_owned(),
            session_id: attempt.session.to_string(),
            reason: attempt.reason.to_string(),
        });
        let wire: Vec<FailedAttempt> = wire.collect();
        let texts = wire.iter().map(|attempt| attempt.session_id.len() + attempt.reason.len());
        self.bytes += texts.map(|bytes| bytes + PART_BYTES).sum::<usize>();
        wire
    }

    fn close(mut self) -> LaneChanged {
        let scheduled = self.scheduled.into_iter();
        let scheduled =
            scheduled.map(|(hour, offsets)| RecordsScheduled { hour, offsets: offsets.ranges });
        self.change.scheduled = scheduled.collect();
        self.change.done = self.done.ranges;
        self.change.done_bits = self.done.bits;
        self.change
    }
}

/// Place of a kind in a change.
fn rank(part: &LanePart) -> u8 {
    match part {
        LanePart::Seek(_) => 0,
        LanePart::HourCame(_) => 1,
        LanePart::Scheduled { .. } => 2,
        LanePart::Failed { .. } => 3,
        LanePart::WornOut { .. } => 4,
        LanePart::Intended { .. } => 5,
        LanePart::Dead(_) => 6,
        LanePart::Done(_) => 7,
    }
}

/// The lane and the parts that `change` holds, in their order.
pub(super) fn decode(change: LaneChanged) -> Result<(LaneKey, Vec<LanePart>), RecordError> {
    let key = PartitionKey::new(topic_id(&change.topic_id)?, change.partition);
    let mut parts = Vec::new();
    if let Some(seek) = change.seek {
        parts.push(LanePart::Seek(offset(seek)?));
    }
    parts.extend(change.hours_came.into_iter().map(LanePart::HourCame));
    for scheduled in change.scheduled {
        let hour = scheduled.hour;
        for piece in offsets::read(&scheduled.offsets, &[])? {
            let runs = piece.runs().map(|run| Run::new(run.start, run.end));
            parts.extend(runs.map(|run| LanePart::Scheduled { hour, run }));
        }
    }
    for failed in change.failed {
        parts.push(LanePart::Failed {
            offset: offset(failed.offset)?,
            failures: failed.failures,
            not_before_ms: failed.not_before_ms,
            attempts: attempts(failed.attempts)?,
        });
    }
    for worn_out in change.worn_out {
        parts.push(LanePart::WornOut {
            offset: offset(worn_out.offset)?,
            cause: dead_cause_of(worn_out.cause)?,
            failures: worn_out.failures,
            attempts: attempts(worn_out.attempts)?,
        });
    }
    for intended in change.dead_intended {
        let (topic_id, partition) = (topic_id(&intended.topic_id)?, intended.partition);
        let intent = DeadIntent { topic_id, partition, end_before: offset(intended.end_before)? };
        parts.push(LanePart::Intended { offset: offset(intended.offset)?, intent });
    }
    for dead in change.dead {
        parts.push(LanePart::Dead(offset(dead)?));
    }
    let done: Vec<Piece> = offsets::read(&change.done, &change.done_bits)?;
    parts.extend(done.into_iter().map(LanePart::Done));
    Ok((key, parts))
}

fn attempts(wire: Vec<FailedAttempt>) -> Result<Vec<Attempt>, RecordError> {
    let excess = wire.len().saturating_sub(ATTEMPTS_KEPT);
    let attempt = |attempt: FailedAttempt| {
        Ok(Attempt {
            time_ms: attempt.time_ms,
            cause: failure_cause_of(attempt.cause)?,
            session: attempt.session_id.into(),
            reason: attempt.reason.into(),
        })
    };
    wire.into_iter().skip(excess).map(attempt).collect()
}

/// Name of a cause in the log, and in dead letters.
pub fn failure_cause(cause: FailureCause) -> &'static str {
    match cause {
        FailureCause::Nack => "nack",
        FailureCause::Expired => "expired",
        FailureCause::Crashed => "crashed",
        FailureCause::Rejected => "rejected",
    }
}

fn failure_cause_of(name: String) -> Result<FailureCause, RecordError> {
    let all =
        [FailureCause::Nack, FailureCause::Expired, FailureCause::Crashed, FailureCause::Rejected];
    let found = all.into_iter().find(|cause| failure_cause(*cause) == name);
    found.ok_or(RecordError::UnknownKind { what: "failure", kind: name })
}

/// Name of a cause in the log, and in dead letters.
pub fn dead_cause(cause: DeadCause) -> &'static str {
    match cause {
        DeadCause::FailuresMax => "failures-max",
        DeadCause::Rejected => "rejected",
    }
}

fn dead_cause_of(name: String) -> Result<DeadCause, RecordError> {
    let all = [DeadCause::FailuresMax, DeadCause::Rejected];
    let found = all.into_iter().find(|cause| dead_cause(*cause) == name);
    found.ok_or(RecordError::UnknownKind { what: "dead letter", kind: name })
}
