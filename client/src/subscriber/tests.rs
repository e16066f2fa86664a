//! Subscribers against a broker in memory, over real sockets.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use riverrun_proto::grpc::v1;
use tokio::time::timeout;
use v1::session_response::Frame as Answer;

use super::*;
use crate::{
    ErrorCode, Mode, Offset,
    testing::push::{FakePush, PushModel, State},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn open(fake: &FakePush, credit: u32) -> Subscriber {
    let builder = fake.client().await.subscribe("orders").name("workers");
    builder.credit(credit, 1 << 20).open().await.unwrap()
}

async fn next(jobs: &mut Subscriber) -> Job {
    let job = timeout(PATIENCE, jobs.next()).await.expect("a job in time");
    job.expect("not over").expect("no error")
}

fn all_done(model: &PushModel) -> bool {
    model.entries.iter().all(|entry| entry.state == State::Done)
}

/// Waits for an event that `is` the one.
async fn event(events: &mut SubscriberEvents, is: impl Fn(&SubscriberEvent) -> bool) {
    let found = async {
        loop {
            if is(&events.next().await.expect("not over")) {
                return;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("an event in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_acked_from_any_task_in_any_order() {
    let fake = FakePush::start(5_000).await;
    let mut jobs = open(&fake, 100).await;
    let mut seen = HashSet::new();
    let mut batch = Vec::new();
    for _ in 0..5_000 {
        let job = next(&mut jobs).await;
        assert_eq!(job.record().value.as_deref(), Some(job.record().offset.to_string().as_bytes()));
        assert_eq!((job.attempts(), job.failures()), (1, 0));
        assert!(seen.insert(job.record().offset));
        batch.push(job);
        if batch.len() == 50 {
            let done: Vec<_> = batch.drain(..).rev().collect();
            tokio::spawn(async move { done.into_iter().for_each(Job::ack) });
        }
    }
    fake.until(all_done).await;
    assert_eq!(fake.model.lock().created.as_ref().unwrap().topics, ["orders"]);
}

#[tokio::test]
async fn no_more_is_unsettled_than_the_credit_says() {
    let fake = FakePush::start(100).await;
    let mut jobs = open(&fake, 8).await;
    let mut held: Vec<Job> = Vec::new();
    for _ in 0..8 {
        held.push(next(&mut jobs).await);
    }
    assert!(jobs.take().is_none());
    let in_flight = |model: &PushModel| model.count(|s| matches!(s, State::InFlight { .. }));
    assert_eq!(in_flight(&fake.model.lock()), 8);
    // One slot comes free: the program is dry, so it is used at once, not at half of the window.
    held.pop().unwrap().ack();
    held.push(next(&mut jobs).await);
    assert_eq!(in_flight(&fake.model.lock()), 8);
}

#[tokio::test]
async fn every_outcome_reaches_the_broker() {
    let fake = FakePush::start(6).await;
    let mut jobs = open(&fake, 6).await;
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(next(&mut jobs).await);
    }
    let mut all = all.into_iter();
    let mut one = || all.next().unwrap();
    one().ack();
    one().nack("no");
    one().retry_after(Duration::from_secs(1));
    one().release();
    one().reject("never");
    one().ack_sync().await.unwrap();
    let mut again = Vec::new();
    for _ in 0..3 {
        let job = next(&mut jobs).await;
        again.push((job.record().offset.0, job.attempts(), job.failures()));
        job.ack();
    }
    again.sort_unstable();
    assert_eq!(again, [(1, 2, 1), (2, 2, 1), (3, 2, 0)]);
    fake.until(|model| model.count(|state| *state == State::Done) == 5).await;
    assert_eq!(fake.model.lock().entries[4].state, State::Dead("never".into()));
}

#[tokio::test]
async fn what_is_received_counts_as_started_unless_the_program_says() {
    let fake = FakePush::start(3).await;
    let started = |model: &PushModel, offset: usize| {
        matches!(model.entries[offset].state, State::InFlight { started: true, .. })
    };
    let mut jobs = open(&fake, 3).await;
    let first = next(&mut jobs).await;
    fake.until(|model| started(model, 0)).await;
    assert!(!started(&fake.model.lock(), 1), "it still waits in the subscriber");
    first.ack();
    jobs.close().await.unwrap();

    let builder = fake.client().await.subscribe("orders").name("workers").manual_start();
    let mut jobs = builder.open().await.unwrap();
    let (second, third) = (next(&mut jobs).await, next(&mut jobs).await);
    third.started();
    fake.until(|model| started(model, 2)).await;
    assert!(!started(&fake.model.lock(), 1));
    second.ack();
    third.ack();
}

#[tokio::test]
async fn a_broken_stream_repeats_nothing_and_loses_no_outcome() {
    let fake = FakePush::start(200).await;
    let mut jobs = open(&fake, 50).await;
    let mut events = jobs.events();
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    for round in 0..20 {
        for _ in 0..10 {
            let job = next(&mut jobs).await;
            assert!(seen.insert(job.record().offset), "given out twice: {}", job.record().offset);
            assert_eq!(job.attempts(), 1);
            held.push(job);
        }
        // Outcomes are lost with the stream, or they count and their answers are lost.
        fake.change(|model| (model.deaf, model.mute) = (round % 3 == 0, round % 3 == 1));
        held.drain(..5).for_each(Job::ack);
        fake.cut();
        event(&mut events, |event| matches!(event, SubscriberEvent::Opened { resumed: true, .. }))
            .await;
        fake.change(|model| (model.deaf, model.mute) = (false, false));
        fake.cut();
        event(&mut events, |event| matches!(event, SubscriberEvent::Opened { resumed: true, .. }))
            .await;
        held.drain(..).for_each(Job::ack);
    }
    fake.until(all_done).await;
    jobs.close().await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_not_resumed_takes_its_jobs_back() {
    let fake = FakePush::start(20).await;
    let mut jobs = open(&fake, 10).await;
    let mut events = jobs.events();
    let (first, second) = (next(&mut jobs).await, next(&mut jobs).await);
    assert!(!first.is_revoked());
    fake.change(|model| model.forgetful = true);
    fake.cut();
    event(&mut events, |event| matches!(event, SubscriberEvent::Opened { resumed: false, .. }))
        .await;
    assert!(first.is_revoked() && second.is_revoked());
    second.nack("means nothing any more");
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&mut jobs).await);
    }
    let seen: Vec<_> = held.iter().map(|job| (job.record().offset.0, job.attempts())).collect();
    assert_eq!(seen, (0..10).map(|offset| (offset, 2)).collect::<Vec<_>>());
    held.into_iter().for_each(Job::ack);
    fake.until(|model| model.count(|state| *state == State::Done) == 10).await;
    assert_eq!(fake.model.lock().entries[1].failures, 0, "what an old lease failed is not told");
}

#[tokio::test]
async fn ack_sync_waits_for_its_answer_also_over_a_break() {
    let fake = FakePush::start(2).await;
    let mut jobs = open(&fake, 2).await;
    let (first, second) = (next(&mut jobs).await, next(&mut jobs).await);
    fake.change(|model| model.mute = true);
    let mut acked = tokio::spawn(first.ack_sync());
    fake.until(|model| model.entries[0].state == State::Done).await;
    assert!(timeout(Duration::from_millis(20), &mut acked).await.is_err(), "nobody answered");
    fake.change(|model| model.mute = false);
    fake.cut();
    timeout(PATIENCE, acked).await.unwrap().unwrap().unwrap();
    // Another session has the record meanwhile.
    fake.change(|model| {
        let token = (u64::MAX, 1);
        model.entries[1].state = State::InFlight { session: "other".into(), token, started: true };
    });
    let refused = timeout(PATIENCE, second.ack_sync()).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StaleLease);
    assert!(refused.is_fenced());
}

#[tokio::test]
async fn closing_gives_back_what_was_not_received_and_waits_for_what_was() {
    let fake = FakePush::start(10).await;
    let mut jobs = open(&fake, 10).await;
    let (first, second) = (next(&mut jobs).await, next(&mut jobs).await);
    let closing = tokio::spawn(jobs.close());
    fake.until(|model| model.count(|state| *state == State::Ready) == 8).await;
    assert!(fake.model.lock().sessions.values().all(|session| session.drained));
    first.ack();
    fake.until(|model| model.entries[0].state == State::Done).await;
    assert!(!closing.is_finished());
    drop(second);
    timeout(PATIENCE, closing).await.unwrap().unwrap().unwrap();
    fake.until(|model| model.entries[1].state == State::Ready).await;
    let untouched = fake.model.lock().entries[2..].iter().all(|entry| entry.failures == 0);
    assert!(untouched);
}

#[tokio::test]
async fn jobs_settle_after_their_subscriber_was_dropped() {
    let fake = FakePush::start(4).await;
    let mut jobs = open(&fake, 4).await;
    let (first, second) = (next(&mut jobs).await, next(&mut jobs).await);
    drop(jobs);
    fake.until(|model| model.count(|state| *state == State::Ready) == 2).await;
    timeout(PATIENCE, first.ack_sync()).await.unwrap().unwrap();
    second.ack();
    fake.until(|model| model.count(|state| *state == State::Done) == 2).await;
}

#[tokio::test]
async fn a_revoked_record_is_not_given_out_and_says_so() {
    let fake = FakePush::start(6).await;
    let mut jobs = open(&fake, 6).await;
    let mut events = jobs.events();
    let first = next(&mut jobs).await;
    let ranges = vec![
        v1::OffsetRange { start_offset: 0, end_offset: 2 },
        v1::OffsetRange { start_offset: 4, end_offset: 5 },
    ];
    fake.change(|model| {
        model.says.push(Answer::Revoked(v1::Revoked {
            topic: "orders".into(),
            partition: 0,
            ranges,
            reason: v1::RevokeReason::Seek.into(),
        }));
        for offset in [0, 1, 4] {
            model.entries[offset].state = State::Done;
        }
    });
    event(&mut events, |event| {
        matches!(event, SubscriberEvent::Revoked { reason: RevokeReason::Seek, ranges, .. }
            if *ranges == [Offset(0)..Offset(2), Offset(4)..Offset(5)])
    })
    .await;
    assert!(first.is_revoked());
    fake.append(3);
    // Six again: what was revoked gave its credit back.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(next(&mut jobs).await);
    }
    let offsets: Vec<u64> = held.iter().map(|job| job.record().offset.0).collect();
    assert_eq!(offsets, [2, 3, 5, 6, 7, 8]);
    assert!(held.iter().all(|job| !job.is_revoked()));
}

#[tokio::test]
async fn refusals_that_are_final_end_it_once() {
    let fake = FakePush::start(1).await;
    fake.change(|model| model.refuses = Some(v1::ErrorCode::UnknownSubscription));
    let builder = fake.client().await.subscription("nowhere");
    let refused = builder.open().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::UnknownSubscription);
    let nameless = fake.client().await.subscribe("orders").open().await.unwrap_err();
    assert_eq!(nameless.code(), ErrorCode::InvalidArgument);

    fake.change(|model| (model.refuses, model.order) = (None, v1::DeliveryOrder::KeyFifo));
    let wrong = fake.client().await.subscribe("orders").name("w").mode(Mode::Exclusive);
    let wrong = wrong.open().await.unwrap_err();
    assert_eq!(wrong.code(), ErrorCode::SubscriptionExists);
    assert_eq!(wrong.message(), "subscription `w` delivers `key-fifo`, not `exclusive`");

    let mut jobs = open(&fake, 1).await;
    let job = next(&mut jobs).await;
    fake.change(|model| model.refuses = Some(v1::ErrorCode::SessionReplaced));
    fake.cut();
    let end = timeout(PATIENCE, jobs.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.code(), ErrorCode::SessionReplaced);
    assert!(jobs.next().await.is_none(), "told once");
    let late = job.ack_sync().await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_settle_by_what_they_return() {
    let fake = FakePush::start(40).await;
    let jobs = open(&fake, 16).await;
    let stop = jobs.stopper();
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen_most = most.clone();
    let running = tokio::spawn(jobs.run(4, move |job| {
        let (busy, most) = (busy.clone(), most.clone());
        async move {
            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            busy.fetch_sub(1, Ordering::SeqCst);
            match job.record().offset.0 % 10 {
                1 if job.failures() == 0 => Err("not yet"),
                2 if job.failures() == 0 => panic!("not yet either"),
                3 => Ok(Outcome::reject("never")),
                4 if job.attempts() == 1 => Ok(Outcome::Release),
                _ => Ok(Outcome::Done),
            }
        }
    }));
    fake.until(|model| model.count(|s| matches!(s, State::Done | State::Dead(_))) == 40).await;
    stop.stop();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert!((1..=4).contains(&seen_most.load(Ordering::SeqCst)));
    for (offset, entry) in (0..).zip(&fake.model.lock().entries) {
        let (state, failures, attempts) = match offset % 10 {
            1 | 2 => (State::Done, 1, 2),
            3 => (State::Dead("never".into()), 0, 1),
            4 => (State::Done, 0, 2),
            _ => (State::Done, 0, 1),
        };
        assert_eq!((&entry.state, entry.failures, entry.attempts), (&state, failures, attempts));
    }
}

#[tokio::test]
async fn a_stopped_run_lets_handlers_finish() {
    let fake = FakePush::start(3).await;
    let jobs = open(&fake, 3).await;
    let stop = jobs.stopper();
    let (began, mut has_begun) = tokio::sync::mpsc::channel(1);
    let go_on = Arc::new(tokio::sync::Notify::new());
    let wait = go_on.clone();
    let running = tokio::spawn(jobs.run(1, move |_job| {
        let (began, wait) = (began.clone(), wait.clone());
        async move {
            began.send(()).await.unwrap();
            wait.notified().await;
        }
    }));
    has_begun.recv().await.unwrap();
    stop.stop();
    fake.until(|model| model.count(|state| *state == State::Ready) == 2).await;
    assert!(!running.is_finished());
    go_on.notify_one();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!(fake.model.lock().count(|state| *state == State::Done), 1);
}

#[tokio::test]
async fn leases_are_extended_while_a_handler_runs() {
    let fake = FakePush::start(1).await;
    fake.change(|model| model.ack_wait_ms = 40);
    let jobs = open(&fake, 1).await;
    let running = tokio::spawn(jobs.run(1, |_job| std::future::pending::<()>()));
    fake.until(|model| model.extended >= 3).await;
    running.abort();
}

#[tokio::test]
async fn a_receiver_asks_and_settles_by_call() {
    let fake = FakePush::start(30).await;
    let builder = fake.client().await.subscribe("orders").name("workers");
    let mut jobs = builder.receiver().unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        let got = jobs.receive(10, Duration::from_secs(1)).await.unwrap();
        assert_eq!(got.len(), 10);
        for job in got {
            seen.push(job.record().offset.0);
            match (round, seen.len() % 10) {
                (0, 1) => job.ack_sync().await.unwrap(),
                (1, 2) => job.reject("never"),
                _ => job.ack(),
            }
        }
    }
    assert_eq!(seen, (0..30).collect::<Vec<u64>>());
    assert!(jobs.receive(10, Duration::ZERO).await.unwrap().is_empty());
    jobs.close().await.unwrap();
    let model = fake.model.lock();
    assert_eq!(model.count(|state| *state == State::Done), 29);
    assert_eq!(model.entries[11].state, State::Dead("never".into()));
}
