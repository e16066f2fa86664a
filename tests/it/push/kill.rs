//! Push subscriptions whose broker is killed: what was confirmed as settled never comes again, failures are not
//! forgotten, and every poisoned record has one dead letter.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::grpc::v1::{self, SettleStatus, settle_item::Outcome};
use tonic::transport::Endpoint;

use crate::support::{
    client::in_time,
    process::Broker,
    push::{Got, PushStubs, Session, ack, item, nack, spec},
    records::fetch,
};

const RECORDS: u64 = 600;
const KILLS: usize = 4;
/// Records settled before each kill.
const PER_KILL: usize = 120;

async fn stubs(broker: &Broker) -> PushStubs {
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap();
    PushStubs::on(in_time(endpoint.connect()).await.unwrap())
}

/// What the consumer was told.
#[derive(Default)]
struct Ledger {
    /// Confirmed as settled: never again.
    settled: BTreeSet<u64>,
    /// Failures confirmed.
    failures: BTreeMap<u64, u32>,
    /// Every tenth record fails until it dies.
    dead: BTreeSet<u64>,
}

fn is_poison(got: &Got) -> bool {
    got.offset.is_multiple_of(10)
}

impl Ledger {
    #[track_caller]
    fn take(&self, got: &Got) {
        let is_over = self.settled.contains(&got.offset) || self.dead.contains(&got.offset);
        assert!(!is_over, "{} was confirmed as settled", got.offset);
        let known = self.failures.get(&got.offset).copied().unwrap_or(0);
        assert!(got.failures >= known, "{}: {} failures, {known} known", got.offset, got.failures);
    }

    /// Settles some records: nine of ten are done, the tenth fails.
    async fn settle(&mut self, session: &mut Session, some: &[Got]) {
        let outcome = |got: &Got| if is_poison(got) { nack(got, 1) } else { ack(got) };
        let statuses = session.settle(some.iter().map(outcome).collect()).await;
        for (got, status) in some.iter().zip(statuses) {
            assert_eq!(status, SettleStatus::Ok, "{got:?}");
            if is_poison(got) {
                self.failures.insert(got.offset, got.failures + 1);
                self.dead.extend((got.failures + 1 == 3).then_some(got.offset));
            } else {
                self.settled.insert(got.offset);
            }
        }
    }

    fn count(&self) -> usize {
        self.settled.len() + self.dead.len()
    }
}

/// Every record of partition 0.
async fn read_all(push: &mut PushStubs, topic: &str) -> Vec<v1::Record> {
    let (mut all, mut next) = (Vec::new(), 0);
    loop {
        let read = push.topics.fetch.fetch(fetch(topic, next)).await.unwrap().into_inner();
        let part = read.partitions.into_iter().next().unwrap();
        if part.records.is_empty() {
            return all;
        }
        next = part.next_offset;
        all.extend(part.records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_settled_stays_settled_and_what_failed_is_not_forgotten() {
    let mut broker = Broker::start();
    let mut push = stubs(&broker).await;
    push.topics.create("t", 1, v1::TopicConfig::default()).await;
    let settings = v1::SubscriptionSettings {
        max_failures: Some(3),
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..v1::SubscriptionSettings::default()
    };
    push.create("s", spec(settings)).await.unwrap();
    for _ in 0..6 {
        push.send_numbers(RECORDS / 6).await;
    }
    let mut ledger = Ledger::default();
    for _ in 0..KILLS {
        let mut session = push.session("w").await;
        let mut handled = 0;
        while handled < PER_KILL {
            let some = session.take(1).await;
            some.iter().for_each(|got| ledger.take(got));
            ledger.settle(&mut session, &some).await;
            handled += some.len();
        }
        // Some are on their way when it dies.
        broker.kill();
        broker.restart();
        push = stubs(&broker).await;
    }
    let mut session = push.session("w").await;
    while ledger.count() < usize::try_from(RECORDS).unwrap() {
        let some = session.take(1).await;
        some.iter().for_each(|got| ledger.take(got));
        ledger.settle(&mut session, &some).await;
    }
    let poison = RECORDS / 10;
    let lane = push.lane_until(|lane| lane.lag == 0).await;
    assert_eq!((lane.floor, lane.dead), (RECORDS, poison));
    // One more, so that whatever would come again has come before it.
    push.send_numbers(1).await;
    let last = session.one().await;
    assert_eq!(last.offset, RECORDS);
    session.settle_one(item(&last, Outcome::Ack(v1::Ack {}))).await;
    let letters = read_all(&mut push, "s.dead").await;
    let origin = |letter: &v1::Record| {
        let header = letter.headers.iter().find(|one| one.key == "riverrun-dead-offset").unwrap();
        let text = String::from_utf8(header.value.clone().unwrap().to_vec()).unwrap();
        text.parse::<u64>().unwrap()
    };
    let origins: BTreeSet<u64> = letters.iter().map(origin).collect();
    assert_eq!((letters.len() as u64, origins.len() as u64), (poison, poison), "one of each");
}
