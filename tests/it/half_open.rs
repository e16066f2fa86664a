//! Clients behind a connection of which one direction swallows everything for a while: it stays open, and nobody is told. However
//! long that lasts against the keepalive, everything is sent, received and settled soon after it is over.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_client::{
    Client, Producer, Record, Subscriber, SubscriberEvent, SubscriptionSettings, SubscriptionSpec,
    TopicSpec,
};
use riverrun_proto::grpc::v1;
use riverrun_tests::proxy::{Fault, Proxy, Way};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::support::{
    broker::TestBroker,
    client::{address, client, in_time, number, send_numbers},
    push::{PushStubs, open},
};

/// Silence after which a client asks whether the broker is there, and then the time for its answer.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Records that a worker may hold: few, so that the broker hands out all of them into the silence.
const WINDOW: u32 = 16;
/// Lease of a record; it ends while the silence lasts.
const ACK_WAIT: Duration = Duration::from_secs(1);

/// Records read once everything is at work.
const AT_WORK: usize = 100;

/// Longer than a lost connection is kept; `HALF_OPEN_SECONDS` says how long.
fn long() -> Duration {
    let set = std::env::var("HALF_OPEN_SECONDS").ok();
    KEEPALIVE * set.map_or(4, |seconds| seconds.parse().expect("a number of seconds"))
}

/// What came so far of the numbers that are sent.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// No more is sent.
    sent: Arc<AtomicBool>,
    /// Numbers acknowledged to the producer, once it came to its end.
    acknowledged: Arc<AtomicU64>,
    read: Arc<Mutex<BTreeSet<u64>>>,
    /// Something was read.
    came: Arc<Notify>,
}

/// A client with little patience.
async fn impatient(door: SocketAddr) -> Client {
    let builder = Client::builder()
        .dial_timeout(KEEPALIVE / 2)
        .call_timeout(KEEPALIVE * 2)
        .keepalive(KEEPALIVE, KEEPALIVE);
    in_time(builder.connect(&door.to_string())).await.unwrap()
}

/// Topic `t` and its subscriptions.
async fn furnish(mq: &Client) {
    mq.admin().create_topic(TopicSpec::new("t").partitions(3)).await.unwrap();
    let settings = SubscriptionSettings {
        ack_wait: Some(ACK_WAIT),
        max_failures: Some(1_000),
        backoff_min: Some(Duration::from_millis(20)),
        backoff_max: Some(Duration::from_millis(100)),
        ..SubscriptionSettings::default()
    };
    for name in ["stream", "run"] {
        let spec = SubscriptionSpec::new("t").settings(settings.clone());
        mq.admin().create_subscription(name, &spec).await.unwrap();
    }
}

/// Sends numbers until it is told to end, and waits for all receipts.
async fn produce(producer: Producer, progress: Progress) {
    let mut deliveries = Vec::new();
    while !progress.sent.load(Ordering::Relaxed) {
        let n = deliveries.len();
        deliveries.push(producer.send(Record::new(n.to_string()).key(format!("k{n}"))).await);
        sleep(Duration::from_millis(3)).await;
    }
    let count = deliveries.len() as u64;
    for delivery in deliveries {
        delivery.unwrap().await.unwrap();
    }
    progress.acknowledged.store(count, Ordering::Relaxed);
}

async fn subscribe(mq: &Client, name: &str) -> Subscriber {
    mq.subscription(name).credit(WINDOW, 1 << 20).open().await.unwrap()
}

async fn read(mq: Client, progress: Progress) {
    let mut consumer = mq.consumer("t").build().await.unwrap();
    loop {
        let batch = consumer.next_batch().await.unwrap();
        progress.read.lock().extend(batch.iter().map(|record| number(&record)));
        progress.came.notify_one();
    }
}

/// A member of a group; what fails for now comes again.
async fn be_member(mq: Client) {
    let builder = mq.consumer("t").group("g").session_timeout(KEEPALIVE * 2);
    let mut consumer = builder.max_bytes(20_000, 5_000).build().await.unwrap();
    loop {
        let batch = consumer.next_batch().await.unwrap();
        match consumer.commit(&batch).await {
            Ok(()) => {}
            Err(error) if error.is_fenced() || error.is_retriable() => {}
            Err(error) => panic!("a commit failed: {error}"),
        }
    }
}

/// What is still to be done, in words; `None` at the end. `mq` sees the broker itself.
async fn left(mq: &Client, progress: &Progress) -> Option<String> {
    let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
    let read = progress.read.lock().len() as u64;
    let mut work = Vec::new();
    for name in ["stream", "run"] {
        let described = mq.admin().describe_subscription(name).await.unwrap();
        work.push(described.partitions.iter().map(|partition| partition.lag).sum::<u64>());
    }
    let group: Option<u64> =
        mq.admin().lag("g").await.ok().map(|rows| rows.iter().map(|row| row.lag).sum());
    let is_over = acknowledged > 0 && read == acknowledged && work == [0, 0] && group == Some(0);
    (!is_over).then(|| {
        format!(
            "{acknowledged} acknowledged, {read} read, {work:?} unsettled by stream and run, \
             {group:?} to be read by the group"
        )
    })
}

/// Lets everything at work go on through a fault of the network.
async fn check(fault: Fault, lasts: Duration) {
    let broker = TestBroker::start().await;
    let mq = client(&broker).await;
    furnish(&mq).await;
    let proxy = Proxy::start(address(&broker), 3).unwrap();
    let door = proxy.address();
    let progress = Progress::default();
    let mut tasks = tokio::task::JoinSet::new();
    let producer = impatient(door).await.producer("t").linger(Duration::ZERO);
    let producer = producer.delivery_timeout(Duration::from_secs(120)).build().await.unwrap();
    tasks.spawn(produce(producer, progress.clone()));
    tasks.spawn(read(impatient(door).await, progress.clone()));
    for _ in 0..2 {
        tasks.spawn(be_member(impatient(door).await));
    }
    for _ in 0..2 {
        let mut jobs = subscribe(&impatient(door).await, "stream").await;
        tasks.spawn(async move {
            while let Some(job) = jobs.next().await {
                job.unwrap().ack();
            }
            panic!("the jobs ended");
        });
        let jobs = subscribe(&impatient(door).await, "run").await;
        tasks.spawn(async move {
            jobs.run(4, |_| async { Ok::<(), String>(()) }).await.unwrap();
            panic!("the run ended");
        });
    }
    in_time(async {
        while progress.read.lock().len() < AT_WORK {
            progress.came.notified().await;
        }
    })
    .await;
    proxy.set(fault, 100);
    sleep(lasts).await;
    proxy.heal();
    progress.sent.store(true, Ordering::Relaxed);
    let waited = timeout(Duration::from_secs(60), async {
        while left(&mq, &progress).await.is_some() {
            while let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    if waited.await.is_err() {
        panic!("after 60 s: {:?}", left(&mq, &progress).await);
    }
    tasks.shutdown().await;
}

#[tokio::test]
async fn replies_swallowed_for_a_while_stop_nobody_for_good() {
    let fault = Fault::Swallow(Way::Down);
    tokio::join!(Box::pin(check(fault, KEEPALIVE * 2)), Box::pin(check(fault, long())));
}

#[tokio::test]
async fn requests_swallowed_for_a_while_stop_nobody_for_good() {
    let fault = Fault::Swallow(Way::Up);
    tokio::join!(Box::pin(check(fault, KEEPALIVE * 2)), Box::pin(check(fault, long())));
}

#[tokio::test]
async fn what_comes_late_from_connections_given_up_stops_nobody_for_good() {
    let (up, down) = (Fault::Stall(Way::Up), Fault::Stall(Way::Down));
    tokio::join!(Box::pin(check(up, long())), Box::pin(check(down, long())));
}

#[tokio::test]
async fn an_open_that_comes_late_from_a_connection_given_up_does_not_end_the_subscriber() {
    let broker = TestBroker::start().await;
    let mq = client(&broker).await;
    furnish(&mq).await;
    let proxy = Proxy::start(address(&broker), 3).unwrap();
    let worker = impatient(proxy.address()).await;
    let mut jobs = worker.subscription("stream").session_id("mine").open().await.unwrap();
    let mut events = jobs.events();
    let mut stubs = PushStubs::new(&broker).await;
    proxy.set(Fault::Swallow(Way::Down), 100);
    // The session breaks, and an open sent on a connection after it is not answered.
    for _ in 0..2 {
        in_time(async {
            while !matches!(events.next().await, Some(SubscriberEvent::Disconnected(_))) {}
        })
        .await;
    }
    proxy.heal();
    let session_epoch = in_time(async {
        loop {
            if let SubscriberEvent::Opened { session_epoch, .. } = events.next().await.unwrap() {
                return session_epoch;
            }
        }
    })
    .await;
    // What the broker gets when one of the opens sent meanwhile arrives only now, and the end of its connection behind it.
    let resume_from = Some(v1::ResumePoint { session_epoch, last_delivery_seq: 0 });
    let mut late = v1::OpenSession { subscription: "stream".into(), ..open("mine") };
    late.resume_from = resume_from;
    drop(stubs.session_with(late).await.unwrap());
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..100).await;
    for _ in 0..100 {
        in_time(jobs.next()).await.expect("not over").expect("no error").ack();
    }
}
