//! Which segments retention drops. Pure: facts, policy and time in, a count out.
//!
//! Age is told by append time, which the broker gave and which never falls within a log, so a record
//! whose own timestamp lies far ahead or behind is dropped no sooner and no later than its neighbours.

use crate::{RetentionPolicy, Timestamp};

/// What retention looks at in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentAge {
    /// Bytes of the segment.
    pub(crate) bytes: u64,
    /// Append time of its newest entry.
    pub(crate) last_append_time: Timestamp,
}

/// True when everything in a segment is older than the policy keeps.
pub(crate) fn is_expired(segment: &SegmentAge, policy: &RetentionPolicy, now: Timestamp) -> bool {
    policy.age_max.is_some_and(|age| now.since(segment.last_append_time) > age)
}

/// How many of the `sealed` segments, oldest first, are dropped while `active_bytes` stay.
///
/// # Example
/// With `bytes_max` 250 and segments of 100, 100, 100 beside an active one of 50 bytes, the first goes:
/// without it the log still holds 250.
pub(crate) fn segments_to_drop(
    sealed: &[SegmentAge],
    active_bytes: u64,
    policy: &RetentionPolicy,
    now: Timestamp,
) -> usize {
    let mut kept = active_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut dropped = 0;
    for segment in sealed {
        let rest = kept - segment.bytes;
        let too_large = policy.bytes_max.is_some_and(|max| rest >= max);
        if !too_large && !is_expired(segment, policy, now) {
            break;
        }
        kept = rest;
        dropped += 1;
    }
    dropped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(ages: &[i64], age_max: Option<u64>, bytes_max: Option<u64>, dropped: usize) {
        let sealed: Vec<_> = ages
            .iter()
            .map(|age| SegmentAge { bytes: 100, last_append_time: Timestamp(1_000 - age) })
            .collect();
        let policy = RetentionPolicy { age_max: age_max.map(Duration::from_millis), bytes_max };
        assert_eq!(segments_to_drop(&sealed, 50, &policy, Timestamp(1_000)), dropped);
    }

    #[test]
    fn old_and_excess_segments_go_oldest_first() {
        check(&[], Some(10), Some(0), 0);
        check(&[30, 20, 10], None, None, 0);
        check(&[30, 20, 10], Some(20), None, 1);
        check(&[30, 20, 10], Some(19), None, 2);
        check(&[30, 20, 10], Some(5), None, 3);
        check(&[10, 30, 30], Some(20), None, 0);
        check(&[30, 20, 10], None, Some(250), 1);
        check(&[30, 20, 10], None, Some(251), 0);
        check(&[30, 20, 10], None, Some(0), 3);
        check(&[30, 20, 10], Some(15), Some(250), 2);
    }

    #[test]
    fn a_clock_that_fell_back_expires_nothing() {
        check(&[-5_000, -5_000], Some(1), None, 0);
    }
}
