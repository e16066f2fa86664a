use std::time::Duration;

use riverrun_proto::LeaderEpoch;

use super::*;

fn batch(id: i64, epoch: i16, sequence: i32, count: u32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        total_bytes: 100,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        record_count: count,
    }
}

/// Plays `id epoch sequence count => outcome` lines against one table; offsets count on.
#[track_caller]
fn check(script: &str) {
    let mut producers = Producers::new(true);
    let mut end = 0;
    for line in script.trim().lines() {
        let (input, expected) = line.trim().split_once(" => ").unwrap();
        let numbers: Vec<i64> = input.split(' ').map(|word| word.parse().unwrap()).collect();
        let count = u32::try_from(numbers[3]).unwrap();
        let epoch = i16::try_from(numbers[1]).unwrap();
        let batch = batch(numbers[0], epoch, i32::try_from(numbers[2]).unwrap(), count);
        let outcome = match producers.check(&batch) {
            Ok(Sequence::Next) => {
                producers.add(&batch, Offset(end), Timestamp(0));
                end += u64::from(count);
                format!("{}", end - u64::from(count))
            }
            Ok(Sequence::Duplicate { base }) => format!("again {base}"),
            Err(AppendError::OutOfOrderSequence { expected, .. }) => format!("gap {expected}"),
            Err(AppendError::Fenced { current, .. }) => format!("fenced {}", current.0),
            Err(AppendError::UnknownProducer { .. }) => "unknown".to_owned(),
            Err(AppendError::InvalidProducer { .. }) => "invalid".to_owned(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(outcome, expected, "{line}");
    }
}

#[test]
fn retries_get_their_first_offset_and_gaps_are_refused() {
    check(
        "7 0 0 10 => 0
         7 0 10 5 => 10
         7 0 0 10 => again 0
         7 0 10 5 => again 10
         7 0 10 6 => gap 15
         7 0 16 1 => gap 15
         7 0 14 1 => gap 15
         7 0 15 1 => 15
         8 0 3 1 => unknown
         8 0 0 1 => 16
         -1 0 99 4 => 17
         7 0 16 1 => 21",
    );
}

#[test]
fn higher_epochs_fence_lower_ones_and_begin_at_zero() {
    check(
        "7 1 0 2 => 0
         7 0 2 1 => fenced 1
         7 2 2 1 => gap 0
         7 2 0 1 => 2
         7 1 0 2 => fenced 2
         7 2 -1 1 => invalid
         7 -1 0 1 => invalid",
    );
}

#[test]
fn only_the_last_five_batches_are_remembered() {
    check(
        "1 0 0 1 => 0
         1 0 1 1 => 1
         1 0 2 1 => 2
         1 0 3 1 => 3
         1 0 4 1 => 4
         1 0 0 1 => again 0
         1 0 5 1 => 5
         1 0 0 1 => gap 6
         1 0 1 1 => again 1",
    );
}

#[test]
fn sequences_begin_again_after_the_largest() {
    assert_eq!(after(i32::MAX, 1), 0);
    assert_eq!(after(i32::MAX - 1, 3), 1);
    assert_eq!(after(5, 0), 5);
}

#[test]
fn unknown_producers_are_believed_only_when_the_beginning_is_gone() {
    let producers = Producers::new(false);
    assert_eq!(producers.check(&batch(1, 0, 9, 1)).unwrap(), Sequence::Next);
}

#[test]
fn snapshots_are_read_back_only_whole() {
    let mut producers = Producers::new(true);
    for sequence in 0..7 {
        producers.add(&batch(3, 1, sequence, 1), Offset(5), Timestamp(9));
    }
    producers.add(&batch(4, 0, 0, 2), Offset(12), Timestamp(10));
    let file = producers.encode(Offset(14));
    assert_eq!(Producers::decode(&file, Offset(14)), Some(producers));
    assert_eq!(Producers::decode(&file, Offset(15)), None);
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert_eq!(Producers::decode(&bad, Offset(14)), None, "byte {at}");
    }
}

#[test]
fn the_table_is_bounded_by_age_and_count() {
    let mut producers = Producers::new(true);
    for id in 0..10 {
        producers.add(&batch(id, 0, 0, 1), Offset(0), Timestamp(id));
    }
    producers.forget(Timestamp(10), Duration::from_millis(7), 100);
    assert_eq!(producers.len(), 7);
    producers.forget(Timestamp(10), Duration::from_millis(7), 2);
    let mut left: Vec<_> = producers.known.keys().map(|id| id.0).collect();
    left.sort_unstable();
    assert_eq!(left, [8, 9]);
}
