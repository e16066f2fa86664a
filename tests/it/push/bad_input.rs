//! What must be refused, by name, with no effect on anybody else.

use bytes::Bytes;
use riverrun_proto::grpc::v1::{
    self, SettleStatus, session_request::Frame as Ask, settle_item::Outcome,
};
use tonic::Code;

use crate::support::{
    broker::TestBroker,
    push::{Got, PushStubs, Session, ack, item, nack, open, spec},
    records::code,
};

/// Opens with a change, and is refused.
async fn refused(
    stubs: &mut PushStubs,
    change: impl FnOnce(&mut v1::OpenSession),
    expected: v1::ErrorCode,
    text: &str,
) {
    let mut request = open("bad");
    change(&mut request);
    let status = stubs.session_with(request).await.expect_err(text);
    assert_eq!(code(&status), expected, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_is_told_why() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let invalid = v1::ErrorCode::InvalidArgument;
    refused(&mut stubs, |open| open.session_id = String::new(), invalid, "`session_id`").await;
    refused(&mut stubs, |open| open.session_id = "a b".into(), invalid, "`session_id`").await;
    refused(&mut stubs, |open| open.session_id = "x".repeat(65), invalid, "`session_id`").await;
    refused(&mut stubs, |open| open.subscription = "../s".into(), invalid, "`subscription`").await;
    refused(&mut stubs, |open| open.subscription = String::new(), invalid, "`subscription`").await;
    refused(&mut stubs, |open| open.max_in_flight = 1_000_001, invalid, "`max_in_flight`").await;
    refused(&mut stubs, |open| open.format = 9, invalid, "`format`").await;
    let unknown = v1::ErrorCode::UnknownSubscription;
    refused(&mut stubs, |open| open.subscription = "nowhere".into(), unknown, "nowhere").await;
    let create = Some(v1::SubscriptionSpec::default());
    let change = |open: &mut v1::OpenSession| {
        (open.subscription, open.create) = ("new".into(), create);
    };
    refused(&mut stubs, change, invalid, "`topics`").await;
    let credit = Ask::Credit(v1::Credit { messages_total: 1, bytes_total: 1 });
    let status = Session::open(&mut stubs, Some(credit)).await.expect_err("not opened");
    assert_eq!(code(&status), invalid);
    assert!(status.message().contains("`open`"), "{status}");
    let status = Session::open(&mut stubs, None).await.expect_err("no frame");
    assert_eq!(code(&status), invalid);
    let mut fine = stubs.session("fine").await;
    fine.rest().await;
}

#[tokio::test]
async fn a_frame_that_makes_no_sense_ends_the_session_by_name() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(1).await;
    let mut witness = stubs.session_with(open("witness")).await.unwrap();
    let too_many = vec![v1::SettleItem::default(); 10_001];
    let settle = |settle_id, items, sync| Ask::Settle(v1::SettleFrame { settle_id, items, sync });
    for (frame, text) in [
        (Ask::Open(open("again")), "`open`"),
        (Ask::Credit(v1::Credit { messages_total: 1 << 63, bytes_total: 1 }), "`messages_total`"),
        (Ask::Credit(v1::Credit { messages_total: 1, bytes_total: u64::MAX }), "`bytes_total`"),
        (settle(1, too_many, false), "`items`"),
        (settle(0, Vec::new(), true), "`settle_id`"),
    ] {
        let mut session = stubs.session_with(open("bad")).await.unwrap();
        session.ask(frame).await;
        let status = session.until_ended().await.expect_err(text);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    let mut session = stubs.session_with(open("bad")).await.unwrap();
    session.ask_nothing().await;
    let status = session.until_ended().await.expect_err("an empty frame");
    assert_eq!(status.code(), Code::InvalidArgument);
    witness.grant(1, 100).await;
    let got = witness.one().await;
    assert_eq!(got.failures, 0, "nobody else's trouble");
    witness.ack(&[got]).await;
}

#[tokio::test]
async fn items_are_refused_one_by_one() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    session.grant(1, 100).await;
    let got = session.one().await;
    let with = |change: &dyn Fn(&mut v1::SettleItem)| {
        let mut item = ack(&got);
        change(&mut item);
        item
    };
    let extend = Outcome::Extend(v1::Extend { lease_ms: 0 });
    let late =
        Outcome::Nack(v1::Nack { delay_ms: Some(12 * 3_600_000 + 1), reason: String::new() });
    let cases: Vec<(v1::SettleItem, SettleStatus)> = vec![
        (with(&|item| item.topic = "nowhere".into()), SettleStatus::UnknownPartition),
        (with(&|item| item.partition = 9), SettleStatus::UnknownPartition),
        (with(&|item| item.end_offset = item.start_offset), SettleStatus::Invalid),
        (with(&|item| item.outcome = None), SettleStatus::Invalid),
        (item(&got, extend), SettleStatus::Invalid),
        (item(&got, late), SettleStatus::Invalid),
        (with(&|item| (item.start_offset, item.end_offset) = (70, 90)), SettleStatus::NotDelivered),
        (nack(&Got { seq: got.seq + 1, ..got.clone() }, 0), SettleStatus::StaleLease),
        (nack(&Got { epoch: got.epoch + 1, ..got.clone() }, 0), SettleStatus::StaleLease),
        // What was delivered of it is done.
        (with(&|item| (item.start_offset, item.end_offset) = (0, u64::MAX)), SettleStatus::Ok),
        (ack(&got), SettleStatus::Ok),
    ];
    let (items, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(session.settle(items).await, expected);
    assert_eq!(stubs.lane().await.floor, 1);
}

#[tokio::test]
async fn an_ack_after_the_end_or_by_a_stranger_is_judged_by_its_lease() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    // Another session names the lease of this one: it is the lease that counts.
    let mut other = stubs.session_with(open("b")).await.unwrap();
    let status =
        other.settle_one(nack(&Got { epoch: other.opened.session_epoch, ..got[0].clone() }, 0));
    assert_eq!(status.await, SettleStatus::StaleLease);
    drop(session);
    let mut again = other;
    again.grant(10, 1_000).await;
    let back = again.take(2).await;
    let statuses = stubs.settle("a", vec![nack(&got[0], 0)]).await.unwrap();
    assert_eq!(statuses, [SettleStatus::StaleLease]);
    again.ack(&back).await;
}

#[tokio::test]
async fn unary_calls_are_checked_like_the_stream() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let ask = v1::ReceiveRequest {
        subscription: "s".into(),
        session_id: "w".into(),
        ..v1::ReceiveRequest::default()
    };
    let invalid = v1::ErrorCode::InvalidArgument;
    for (request, expected, text) in [
        (v1::ReceiveRequest { max_records: 10_001, ..ask.clone() }, invalid, "`max_records`"),
        (v1::ReceiveRequest { max_wait_ms: 60_001, ..ask.clone() }, invalid, "`max_wait_ms`"),
        (v1::ReceiveRequest { session_id: "/".into(), ..ask.clone() }, invalid, "`session_id`"),
        (v1::ReceiveRequest { attempt_id: "x".repeat(65), ..ask.clone() }, invalid, "`attempt_id`"),
        (v1::ReceiveRequest { format: 7, ..ask.clone() }, invalid, "`format`"),
        (
            v1::ReceiveRequest { subscription: "no".into(), ..ask.clone() },
            v1::ErrorCode::UnknownSubscription,
            "no",
        ),
    ] {
        let status = stubs.receive(request).await.expect_err(text);
        assert_eq!(code(&status), expected, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    let items = vec![v1::SettleItem::default(); 10_001];
    let status = stubs.settle("w", items).await.expect_err("too many");
    assert!(status.message().contains("`items`"), "{status}");
}

#[tokio::test]
async fn settings_out_of_bounds_are_named() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    let none = v1::SubscriptionSettings::default;
    let header = v1::HeaderFilter { name: "h".into(), condition: None };
    let filter = v1::SubscriptionFilter { headers: vec![header; 17], ..Default::default() };
    for (settings, text) in [
        (v1::SubscriptionSettings { order: Some(44), ..none() }, "`settings.order`"),
        (v1::SubscriptionSettings { ack_wait_ms: Some(999), ..none() }, "`settings.ack_wait_ms`"),
        (
            v1::SubscriptionSettings { max_lease_ms: Some(43_200_001), ..none() },
            "`settings.max_lease_ms`",
        ),
        (
            v1::SubscriptionSettings { max_failures: Some(1_001), ..none() },
            "`settings.max_failures`",
        ),
        (v1::SubscriptionSettings { max_open: Some(0), ..none() }, "`settings.max_open`"),
        (v1::SubscriptionSettings { key_pipeline: Some(0), ..none() }, "`settings.key_pipeline`"),
        (
            v1::SubscriptionSettings { max_ack_state_bytes: Some(65 << 20), ..none() },
            "`settings.max_ack_state_bytes`",
        ),
        (
            v1::SubscriptionSettings { dead_letter_topic: Some("a b".into()), ..none() },
            "`settings.dead_letter_topic`",
        ),
        (v1::SubscriptionSettings { filter: Some(filter), ..none() }, "`settings.filter.headers`"),
    ] {
        let status = stubs.create("s", spec(settings)).await.expect_err(text);
        assert_eq!(code(&status), v1::ErrorCode::InvalidArgument, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    let own = || v1::SubscriptionSettings { dead_letter_topic: Some("t".into()), ..none() };
    let told = "`settings.dead_letter_topic` must be a topic that the subscription does not read";
    let status = stubs.create("s", spec(own())).await.expect_err("its own source");
    assert!(status.message().contains(told), "{status}");
    stubs.create("s", spec(none())).await.expect("a good one");
    let alter = v1::AlterSubscriptionRequest {
        subscription: "s".into(),
        settings: Some(own()),
        ..Default::default()
    };
    let status = stubs.subscriptions.alter_subscription(alter).await.expect_err("its own source");
    assert!(status.message().contains(told), "{status}");
    let status = stubs.create("a b", spec(none())).await.expect_err("a bad name");
    assert!(status.message().contains("`subscription`"), "{status}");
}

#[tokio::test]
async fn a_time_of_delivery_that_is_none_is_refused() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let header = |value: Option<&'static [u8]>| v1::Header {
        key: "riverrun-deliver-at".into(),
        value: value.map(Bytes::from_static),
    };
    let digits: &[u8] = b"99999999999999999999999999";
    for (values, told) in [
        (vec![Some(&b"abc"[..])], "found `abc`"),
        (vec![Some(&b"\xff"[..])], "found `\\xff`"),
        (vec![Some(digits)], "found `99999999999999999999999999`"),
        (vec![Some(&b"-5"[..])], "found `-5`"),
        (vec![Some(&b"+1"[..])], "found `+1`"),
        (vec![Some(&b""[..])], "found ``"),
        (vec![None], "found ``"),
        (vec![Some(&b"1"[..]), Some(&b"1"[..])], "found two of it"),
    ] {
        let headers = values.into_iter().map(header).collect();
        let records = vec![v1::Record::default(), v1::Record { headers, ..Default::default() }];
        let request = v1::AppendRequest {
            topic: "t".into(),
            payload: Some(v1::append_request::Payload::Records(v1::Records { records })),
            ..Default::default()
        };
        let status = stubs.topics.produce.append(request).await.expect_err(told);
        assert_eq!(code(&status), v1::ErrorCode::InvalidArgument, "{status}");
        assert!(status.message().contains("record 1 of the batch"), "{status}");
        assert!(status.message().contains(told), "{status}");
    }
}

#[tokio::test]
async fn too_many_sessions_or_subscriptions_are_refused() {
    let broker = TestBroker::start_with(|config| {
        config.subscriptions.sessions_max = 2;
        config.subscriptions.subscriptions_max = 1;
    })
    .await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let status = stubs.create("other", spec(Default::default())).await.unwrap_err();
    assert_eq!(code(&status), v1::ErrorCode::QuotaExceeded);
    let first = stubs.session("a").await;
    let _second = stubs.session("b").await;
    refused(&mut stubs, |_| (), v1::ErrorCode::QuotaExceeded, "subscriptions.sessions_max").await;
    // One that replaces itself needs no further place.
    let _again = stubs.session("a").await;
    drop(first);
}
