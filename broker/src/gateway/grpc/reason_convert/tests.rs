//! Every reason why nothing is delivered, as it is told: code, fields and a part of the sentence.

use std::{collections::BTreeSet, sync::Arc};

use riverrun_proto::grpc::v1::IdleReason;

use super::*;
use crate::service::delivery::session::Place;

/// A reason and what is told of it: code, offset, session, until when, a part of the sentence.
type Row = (Reason, IdleReason, Option<u64>, Option<&'static str>, Option<i64>, &'static str);

/// Reasons with nothing but a name.
fn plain_rows() -> Vec<Row> {
    let row = |reason, code, text| (reason, code, None, None, None, text);
    vec![
        row(Reason::Nothing, IdleReason::NothingToDeliver, "settled or in consumers' hands"),
        row(Reason::NoSession, IdleReason::NoSession, "no session is open"),
        row(Reason::NoCredit, IdleReason::NoCredit, "used up its credit"),
        row(Reason::SessionLimit, IdleReason::SessionLimit, "`max_in_flight`"),
        row(Reason::OpenLimit, IdleReason::InFlightLimit, "`max_open`"),
        row(Reason::AckStateLimit, IdleReason::AckStateLimit, "`max_ack_state_bytes`"),
        row(Reason::ScheduledLimit, IdleReason::ScheduledLimit, "too many records wait"),
        row(Reason::Paused, IdleReason::Paused, "the subscription is paused"),
        row(Reason::SessionsPaused, IdleReason::SessionsPaused, "every session is paused"),
        row(Reason::Filter, IdleReason::Filter, "matched the filter"),
        row(Reason::NotVisible, IdleReason::NotVisible, "not durable yet"),
        row(Reason::Reading, IdleReason::Reading, "being read from the log"),
        row(Reason::StateFailed, IdleReason::StateFailed, "until the broker restarts"),
    ]
}

/// Reasons that tell which record, who, and until when.
fn rows_with_fields() -> Vec<Row> {
    let (offset, until_ms) = (7, 5_000);
    let (some, until) = (Some(offset), Some(until_ms));
    let session: Option<Arc<str>> = Some("w".into());
    let error: Arc<str> = "it broke".into();
    let held = Reason::KeyBlocked { offset, session: session.clone(), until_ms };
    let retried = Reason::KeyBlocked { offset, session: None, until_ms };
    let unread = Reason::PartitionError { error: error.clone(), until_ms: until };
    let stopped = Reason::PartitionError { error: error.clone(), until_ms: None };
    let quota = Reason::Quota { error: error.clone(), until_ms };
    let letter = Reason::DeadLetterBlocked { offset, error };
    let alone = Reason::Isolated { offset, session };
    let unkept = Reason::Isolated { offset, session: None };
    vec![
        (held, IdleReason::KeyBlocked, some, Some("w"), until, "held by session `w` until 5000"),
        (retried, IdleReason::KeyBlocked, some, None, until, "offset 7 of its key, which is tried"),
        (
            Reason::RetryWait { offset, until_ms },
            IdleReason::RetryWait,
            some,
            None,
            until,
            "offset 7 is tried again at 5000",
        ),
        (
            Reason::Scheduled { offset, until_ms },
            IdleReason::Scheduled,
            some,
            None,
            until,
            "offset 7 is to be delivered at 5000",
        ),
        (unread, IdleReason::PartitionError, None, None, until, "read until 5000: it broke"),
        (stopped, IdleReason::PartitionError, None, None, None, "nothing more comes: it broke"),
        (quota, IdleReason::Quota, None, None, until, "read again at 5000: it broke"),
        (letter, IdleReason::DeadLetterBlocked, some, None, None, "dead letter of offset 7"),
        (
            Reason::Standby { session: "w".into() },
            IdleReason::Standby,
            None,
            Some("w"),
            None,
            "session `w` holds the subscription alone",
        ),
        (alone, IdleReason::Isolated, some, Some("w"), None, "handed out alone to session `w`"),
        (
            Reason::WebhookWaits { error: "it broke".into(), until_ms: 5_000 },
            IdleReason::WebhookWaits,
            None,
            None,
            until,
            "tried again at 5000: it broke",
        ),
        (unkept, IdleReason::Isolated, some, None, None, "waits for a session that holds nothing"),
    ]
}

#[test]
fn every_reason_is_told_by_its_code_its_fields_and_its_sentence() {
    let mut codes = BTreeSet::new();
    for (reason, code, offset, session, until_ms, text) in
        plain_rows().into_iter().chain(rows_with_fields())
    {
        let place = Place { topic: "t".into(), partition: 3 };
        let key = Some(bytes::Bytes::from_static(b"k"));
        let told = explanation(Explanation { place, reason, key: key.clone() });
        assert_eq!((told.topic.as_str(), told.partition, &told.key), ("t", 3, &key));
        assert_eq!(told.reason(), code, "{told:?}");
        let fields = (told.offset, told.session_id.as_deref(), told.until_ms);
        assert_eq!(fields, (offset, session, until_ms), "{told:?}");
        assert!(told.message.contains(text), "{}", told.message);
        codes.insert(told.reason);
    }
    let all = (1..=i32::MAX).take_while(|code| IdleReason::try_from(*code).is_ok());
    assert!(codes.into_iter().eq(all), "a code without a row, or a row without a code");
}
