//! The id of an event: a session, and the last record that its client was sent.

use std::{fmt, str::FromStr};

use crate::delivery::ResumePoint;

/// Where a client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) session_id: String,
    /// Epoch of the session.
    pub(super) epoch: u64,
    /// The last delivery of which a record was sent; 0 before the first.
    pub(super) seq: u64,
    /// Offset of that record.
    pub(super) offset: u64,
}

impl Point {
    /// Where the session goes on: with this delivery once more, of which some records may not have been sent.
    pub(super) fn resume(&self) -> ResumePoint {
        ResumePoint { epoch: self.epoch, last_seq: self.seq.saturating_sub(1) }
    }

    /// A record of this delivery was sent by then: those of one come in the order of their offsets.
    pub(super) fn has(&self, seq: u64, offset: u64) -> bool {
        (seq, offset) <= (self.seq, self.offset)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { session_id, epoch, seq, offset } = self;
        write!(f, "{session_id}:{epoch}:{seq}:{offset}")
    }
}

impl FromStr for Point {
    type Err = ();

    /// What is named so is checked where it is used.
    fn from_str(text: &str) -> Result<Point, ()> {
        let mut parts = text.split(':');
        let session_id = parts.next().ok_or(())?.to_owned();
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(());
        let (epoch, seq, offset) = (number()?, number()?, number()?);
        match parts.next() {
            None => Ok(Point { session_id, epoch, seq, offset }),
            Some(_) => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_was_written_and_has_what_came_before() {
        let point = Point { session_id: "w-1.x".into(), epoch: 7, seq: 3, offset: 40 };
        assert_eq!(point.to_string().parse(), Ok(point.clone()));
        for broken in ["", "w", "w:1:2", "w:1:2:3:4", "w:1:2:x", "w:-1:2:3", "w:1::3"] {
            assert_eq!(broken.parse::<Point>(), Err(()), "{broken}");
        }
        assert!(point.has(3, 40) && point.has(3, 0) && point.has(2, 99));
        assert!(!point.has(3, 41) && !point.has(4, 0));
        assert_eq!(point.resume(), ResumePoint { epoch: 7, last_seq: 2 });
    }
}
