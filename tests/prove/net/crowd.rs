//! Clients at work: idempotent producers, members of a group, workers of a subscription.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_client::{
    Client, Delivery, Job, Producer, Subscriber, SubscriptionSettings, SubscriptionSpec, TopicSpec,
};
use riverrun_tests::proxy::Dice;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    ledger::{Ledger, View, number_of, record_of},
    server::text,
};

/// Topic, group and subscription.
pub(crate) const TOPIC: &str = "t";
pub(crate) const GROUP: &str = "g";
pub(crate) const WORK: &str = "work";
/// Records that a session may hold.
pub(crate) const WINDOW: u32 = 16;
/// Partitions of the topic.
pub(crate) const PARTITIONS: u32 = 4;
/// Deliveries of one producer that are not acknowledged yet.
const OPEN_MAX: usize = 64;
/// Longest time for everything to be well again.
const DEADLINE: Duration = Duration::from_secs(60);
/// Silence after which a member is no longer one.
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Lease of a record.
const ACK_WAIT: Duration = Duration::from_secs(1);

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) producers: u64,
    pub(crate) members: usize,
    pub(crate) workers: usize,
    /// Between two sends of a producer.
    pub(crate) pause: Duration,
}

/// What producers look like from inside, for when one of them does not come to its end.
type Insides = Arc<Mutex<Vec<(Client, Producer)>>>;
/// Most of it that is told.
const INSIDE_BYTES_MAX: usize = 8_000;

/// The clients.
pub(crate) struct Crowd {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    insides: Insides,
    /// No more records are sent.
    sent: Arc<AtomicBool>,
    /// Nothing is left to do.
    over: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Result<(), String>>>,
    others: Vec<JoinHandle<Result<(), String>>>,
}

/// Makes the topic and its subscription.
pub(crate) async fn furnish(broker: SocketAddr) -> Result<(), String> {
    // Nothing is wrong with the network yet; a busy machine may take longer than a call has later.
    let mq = Client::connect(&broker.to_string()).await.map_err(text)?;
    mq.admin().create_topic(TopicSpec::new(TOPIC).partitions(PARTITIONS)).await.map_err(text)?;
    let settings = SubscriptionSettings {
        ack_wait: Some(ACK_WAIT),
        max_failures: Some(1000),
        backoff_min: Some(Duration::from_millis(20)),
        backoff_max: Some(Duration::from_millis(100)),
        ..SubscriptionSettings::default()
    };
    let spec = SubscriptionSpec::new(TOPIC).settings(settings);
    mq.admin().create_subscription(WORK, &spec).await.map_err(text)?;
    Ok(())
}

pub(crate) async fn connect(broker: SocketAddr) -> Result<Client, String> {
    let builder = Client::builder()
        .connect_timeout(DEADLINE)
        .dial_timeout(Duration::from_millis(500))
        .call_timeout(Duration::from_secs(2))
        .keepalive(Duration::from_secs(1), Duration::from_secs(1));
    builder.connect(&broker.to_string()).await.map_err(text)
}

impl Crowd {
    /// Sets them to work through `door`.
    pub(crate) fn start(door: SocketAddr, seed: u64, size: Size) -> Crowd {
        let mut crowd = Crowd {
            ledger: Arc::default(),
            insides: Arc::default(),
            sent: Arc::default(),
            over: Arc::default(),
            producers: Vec::new(),
            others: Vec::new(),
        };
        for number in 0..size.producers {
            let (ledger, sent) = (crowd.ledger.clone(), crowd.sent.clone());
            let insides = crowd.insides.clone();
            let send = produce(door, number, (ledger, sent, insides), size.pause);
            crowd.producers.push(tokio::spawn(send));
        }
        for _ in 0..size.members {
            let (ledger, over) = (crowd.ledger.clone(), crowd.over.clone());
            crowd.others.push(tokio::spawn(be_member(door, ledger, over)));
        }
        for number in 0..size.workers {
            let (ledger, over) = (crowd.ledger.clone(), crowd.over.clone());
            let dice = Dice::seeded(seed).throw(u64::try_from(number).unwrap_or(0));
            crowd.others.push(tokio::spawn(work(door, ledger, over, dice)));
        }
        crowd
    }

    /// Everything is well again: waits until all is acknowledged, received and settled, and holds it against the log.
    pub(crate) async fn finish(self, broker: SocketAddr) -> Result<(Ledger, View), String> {
        self.sent.store(true, Ordering::Relaxed);
        for producer in self.producers {
            let ended = in_time("the last acknowledgement", producer).await;
            ended.map_err(|late| format!("{late}: {}", inside(&self.insides)))?.map_err(text)??;
        }
        let mq = connect(broker).await?;
        if !self.others.is_empty() {
            in_time("the end of the log for group and workers", idle(&mq)).await??;
        }
        self.over.store(true, Ordering::Relaxed);
        for other in self.others {
            in_time("the last client to leave", other).await?.map_err(text)??;
        }
        let view = look(&mq).await?;
        let mut ledger = std::mem::take(&mut *self.ledger.lock());
        ledger.check_log(&view);
        Ok((ledger, view))
    }
}

/// After a restart everything must be as it was, and nothing is handed out again.
pub(crate) async fn check_again(
    broker: SocketAddr,
    ledger: &mut Ledger,
    first: &View,
) -> Result<(), String> {
    check_log_again(broker, ledger, first).await?;
    let mq = connect(broker).await?;
    ledger.check_work(first);
    for row in mq.admin().lag(GROUP).await.map_err(text)? {
        if let Some(offset) = row.committed {
            ledger.check_committed(row.partition.partition.0, offset.0);
        }
    }
    let mut jobs = subscribe(&mq).await?;
    while let Ok(Some(job)) = timeout(Duration::from_millis(300), jobs.next()).await {
        let job = job.map_err(text)?;
        if let Some(number) = number_of(job.record()) {
            ledger.late(number);
        }
        job.ack();
    }
    Ok(())
}

/// After a restart the log must be as it was.
pub(crate) async fn check_log_again(
    broker: SocketAddr,
    ledger: &mut Ledger,
    first: &View,
) -> Result<(), String> {
    let second = look(&connect(broker).await?).await?;
    if second != *first {
        ledger.accuse("the log is another one after a restart".to_owned());
    }
    Ok(())
}

/// Waits for something that must come.
pub(crate) async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> Result<T, String> {
    let waited = timeout(DEADLINE, wait).await;
    waited.map_err(|_| format!("{what} did not come within {} s", DEADLINE.as_secs()))
}

/// Waits until the group and the subscription are at the end of the log.
async fn idle(mq: &Client) -> Result<(), String> {
    loop {
        let group: u64 = match mq.admin().lag(GROUP).await {
            Ok(rows) => rows.iter().map(|row| row.lag).sum(),
            Err(error) if error.is_retriable() => 1,
            Err(error) => return Err(text(error)),
        };
        let work: u64 = match mq.admin().describe_subscription(WORK).await {
            Ok(described) => described.partitions.iter().map(|partition| partition.lag).sum(),
            Err(error) if error.is_retriable() => 1,
            Err(error) => return Err(text(error)),
        };
        if group + work == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads everything.
async fn look(mq: &Client) -> Result<View, String> {
    let described = mq.admin().describe_topic(TOPIC).await.map_err(text)?;
    let count: u64 = described.partitions.iter().map(|row| row.high_watermark.0).sum();
    let mut view = View::new();
    let mut reader = mq.consumer(TOPIC).build().await.map_err(text)?;
    let mut seen = 0;
    while seen < count {
        let batch = in_time("the log", reader.next_batch()).await?.map_err(text)?;
        for record in &batch {
            let number = number_of(&record).unwrap_or(u64::MAX);
            let records = view.entry(record.partition.partition.0).or_default();
            records.push((record.offset.0, number));
            seen += 1;
        }
    }
    Ok(view)
}

/// Sends numbers until it is told to end, and waits for all receipts.
async fn produce(
    door: SocketAddr,
    own: u64,
    (ledger, sent, insides): (Arc<Mutex<Ledger>>, Arc<AtomicBool>, Insides),
    pause: Duration,
) -> Result<(), String> {
    let mq = connect(door).await?;
    let producer = in_time("a producer", producer(&mq)).await??;
    insides.lock().push((mq.clone(), producer.clone()));
    let mut open = std::collections::VecDeque::new();
    let mut counter = 0;
    while !sent.load(Ordering::Relaxed) {
        let number = own << 40 | counter;
        counter += 1;
        open.push_back((number, send(&producer, number).await?));
        while open.len() > OPEN_MAX
            || open.front().is_some_and(|(_, delivery)| delivery.try_receipt().is_some())
        {
            settle(open.pop_front(), &ledger).await;
        }
        sleep(pause).await;
    }
    while !open.is_empty() {
        settle(open.pop_front(), &ledger).await;
    }
    Ok(())
}

/// How producers stand, and their connections.
fn inside(insides: &Insides) -> String {
    let tell = |(mq, producer): &(Client, Producer)| {
        let mut text = format!("{:?} {producer:?}", mq.state().borrow());
        text.truncate(text.floor_char_boundary(INSIDE_BYTES_MAX));
        text
    };
    insides.lock().iter().map(tell).collect::<Vec<_>>().join("; ")
}

/// A producer. Its first look at the topic is one call with one call's patience, and the network may be bad for longer.
async fn producer(mq: &Client) -> Result<Producer, String> {
    loop {
        let builder = mq.producer(TOPIC).linger(Duration::ZERO).batch_bytes(2000);
        match builder.delivery_timeout(DEADLINE * 2).build().await {
            Ok(producer) => return Ok(producer),
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(text(error)),
        }
    }
}

async fn send(producer: &Producer, number: u64) -> Result<Delivery, String> {
    producer.send(record_of(number)).await.map_err(text)
}

async fn settle(front: Option<(u64, Delivery)>, ledger: &Mutex<Ledger>) {
    let Some((number, delivery)) = front else { return };
    match delivery.await {
        Ok(receipt) => ledger.lock().acknowledge(number, &receipt),
        Err(error) => ledger.lock().accuse(format!("a send failed for good: {error}")),
    }
}

/// A member of the group.
async fn be_member(
    door: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
) -> Result<(), String> {
    let mq = connect(door).await?;
    let builder = mq.consumer(TOPIC).group(GROUP).session_timeout(SESSION_TIMEOUT);
    let mut consumer = builder.max_bytes(20_000, 5_000).build().await.map_err(text)?;
    while !over.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(100)).await;
        let batch = match polled {
            Ok(Some(batch)) => batch,
            Ok(None) => continue,
            Err(error) => {
                ledger.lock().accuse(format!("a member got an error: {error}"));
                continue;
            }
        };
        ledger.lock().receive(&batch);
        let partition = batch.partition().partition.0;
        let before = ledger.lock().before_commit(partition);
        match consumer.commit(&batch).await {
            Ok(()) => ledger.lock().commit(partition, batch.next_offset().0, before),
            Err(error) if error.is_fenced() => ledger.lock().fenced += 1,
            Err(error) if error.is_retriable() => {}
            Err(error) => ledger.lock().accuse(format!("a commit failed: {error}")),
        }
    }
    timeout(DEADLINE, consumer.close()).await.ok();
    Ok(())
}

pub(crate) async fn subscribe(mq: &Client) -> Result<Subscriber, String> {
    let builder = mq.subscription(WORK).credit(WINDOW, 1 << 20);
    in_time("a session", builder.open()).await?.map_err(text)
}

/// A worker: takes as much as it gets, then settles all of it.
async fn work(
    door: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
    mut dice: Dice,
) -> Result<(), String> {
    let mq = connect(door).await?;
    let mut jobs = subscribe(&mq).await?;
    let mut held: Vec<Job> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        match timeout(Duration::from_millis(30), jobs.next()).await {
            Ok(Some(Ok(job))) => {
                ledger.lock().hand(number_of(job.record()), job.failures());
                held.push(job);
            }
            Ok(Some(Err(error))) => return Err(format!("a worker ended: {error}")),
            Ok(None) => return Err("a worker ended".to_owned()),
            Err(_) => {}
        }
        let own = held.iter().filter(|job| !job.is_revoked()).count();
        ledger.lock().hold(own, usize::try_from(WINDOW).unwrap_or(0));
        if held.len() < usize::try_from(WINDOW).unwrap_or(0) && dice.hits(90) {
            continue;
        }
        for job in held.drain(..) {
            settle_job(job, &ledger, &mut dice).await;
        }
    }
    drop(held);
    timeout(Duration::from_secs(5), jobs.close()).await.ok();
    Ok(())
}

async fn settle_job(job: Job, ledger: &Mutex<Ledger>, dice: &mut Dice) {
    let Some(number) = number_of(job.record()) else {
        ledger.lock().accuse(format!("a worker got wrong bytes at {}", job.record().offset.0));
        return;
    };
    if dice.hits(5) {
        ledger.lock().nack(number);
        return job.nack("a failure that passes");
    }
    ledger.lock().done(number);
    if dice.hits(80) {
        return job.ack();
    }
    // Not waited for to the end when the network is bad: the worker would do nothing else.
    if let Ok(Ok(())) = timeout(Duration::from_millis(200), job.ack_sync()).await {
        ledger.lock().confirm(number);
    }
}
