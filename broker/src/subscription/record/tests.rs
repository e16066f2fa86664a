use riverrun_proto::grpc::state::v1::{FailedAttempt, LaneChanged, RecordFailed, RecordWornOut};
use uuid::Uuid;

use super::*;
use crate::delivery::{Attempt, DeadCause, FailureCause, Run};

fn entry(version: u32, change: SubscriptionChange) -> Vec<u8> {
    SubscriptionLogEntry { version, changes: vec![change] }.encode_to_vec()
}

fn change(change: Option<Change>) -> SubscriptionChange {
    SubscriptionChange { kind: "from-the-future".into(), subscription: 3, change }
}

fn lane(change: impl FnOnce(&mut LaneChanged)) -> Option<Change> {
    let topic_id = topic_id_bytes(TopicId(Uuid::from_u128(9)));
    let mut changed = LaneChanged { topic_id, ..LaneChanged::default() };
    change(&mut changed);
    Some(Change::LaneChanged(changed))
}

#[track_caller]
fn refused(change_of: Option<Change>, text: &str) {
    let error = decode(&entry(1, change(change_of))).unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn what_a_newer_broker_wrote_is_refused_by_name() {
    refused(None, "a change of kind `from-the-future`");
    let attempt = FailedAttempt { cause: "struck".into(), ..FailedAttempt::default() };
    let failed = RecordFailed { attempts: vec![attempt], ..RecordFailed::default() };
    refused(lane(|lane| lane.failed.push(failed)), "a failure of kind `struck`");
    let worn_out = RecordWornOut { cause: "too\nold".into(), ..RecordWornOut::default() };
    refused(lane(|lane| lane.worn_out.push(worn_out)), "a dead letter of kind `too\\nold`");
    let deleted = || change(Some(Change::Deleted(SubscriptionDeleted {})));
    for version in [0, 2] {
        let error = decode(&entry(version, deleted())).unwrap_err();
        assert_eq!(error, RecordError::Version { found: version, known: 1 });
    }
    assert_eq!(decode(&entry(1, deleted())), Ok(vec![(3, Body::Deleted)]));
}

#[test]
fn damaged_entries_are_refused() {
    assert!(matches!(decode(b"\xff\xff"), Err(RecordError::Malformed { .. })));
    let begun = |topic_id: &'static [u8], floor| {
        let topic_id = Bytes::from_static(topic_id);
        Some(Change::LaneBegun(LaneBegun { topic_id, floor, ..LaneBegun::default() }))
    };
    refused(begun(b"short", 0), "`5` bytes instead of 16");
    refused(begun(&[1; 16], u64::MAX), "offset `18446744073709551615`");
    refused(lane(|lane| lane.seek = Some(1 << 63)), "offset `9223372036854775808`");
    refused(lane(|lane| lane.done = vec![1]), "no length");
    refused(lane(|lane| lane.dead = vec![u64::MAX]), "offset");
    let settings = riverrun_proto::grpc::v1::SubscriptionSettings {
        max_open: Some(0),
        ..SubscriptionSettings::default().to_message()
    };
    let settings = Some(settings);
    let created = SubscriptionCreated { settings, ..SubscriptionCreated::default() };
    refused(Some(Change::Created(created)), "`settings.max_open` must be 1 to 1000000");
}

#[test]
fn entries_are_of_about_the_size_that_was_asked_for() {
    let attempt = Attempt {
        time_ms: 1,
        cause: FailureCause::Crashed,
        session: "s".repeat(64).into(),
        reason: "r".repeat(256).into(),
    };
    let parts = (0..2_000).map(|offset| match offset % 3 {
        0 => LanePart::Failed {
            offset,
            failures: 16,
            not_before_ms: -1,
            attempts: vec![attempt.clone(); 16],
        },
        1 => LanePart::Scheduled { hour: -3, run: Run::new(10 * offset, 10 * offset + 5) },
        _ => LanePart::WornOut {
            offset,
            cause: DeadCause::Rejected,
            failures: 1,
            attempts: vec![attempt.clone()],
        },
    });
    let mut parts: Vec<LanePart> = parts.collect();
    parts.sort_by_key(|part| matches!(part, LanePart::WornOut { .. }));
    let key = LaneKey::new(TopicId(Uuid::from_u128(9)), 7);
    let mut writer = EntryWriter::new(64 << 10);
    writer.push(3, &Body::Lane { key, parts: parts.clone() });
    let entries = writer.finish();
    let sizes: Vec<usize> = entries.iter().map(Bytes::len).collect();
    assert!(sizes.len() > 50 && sizes.iter().all(|bytes| *bytes < 72 << 10), "{sizes:?}");
    let mut again = Vec::new();
    for entry in &entries {
        for (number, body) in decode(entry).unwrap() {
            let Body::Lane { key: of, parts } = body else { panic!("{body:?}") };
            assert_eq!((number, of), (3, key));
            again.extend(parts);
        }
    }
    assert_eq!(again, parts);
}
