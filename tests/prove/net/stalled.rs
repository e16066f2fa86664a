//! Sessions that stop reading: each costs the broker its window and 256 KiB at most, and the others go on (G15).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use riverrun_client::{Client, Record, StartAt, Subscriber, SubscriptionSpec, TopicSpec};
use riverrun_tests::proxy::{Fault, Proxy, Way};

use super::{
    crowd::{connect, in_time},
    server::{Server, text},
    town::{Place, Town},
};

const SETTINGS: &str = r#"
insecure = true
[grpc]
connections_per_ip_max = 4000
[subscriptions]
cache_bytes_max = "8MiB"
"#;
/// What the allocator does not use goes back at once, so that what is measured is in use.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");
/// Of one stalled session: records and bytes.
const WINDOW: (u32, u64) = (64, 64 << 10);
/// What a session may cost besides.
const EXTRA_BYTES: u64 = 256 << 10;
/// Bytes of a record.
const RECORD_BYTES: usize = 1000;
/// Times that records are sent.
const BURSTS: usize = 4;
/// Sessions that read on.
const FAST: usize = 4;
/// Sessions at the end of the slow line.
const SLOW: usize = 4;

/// What it came to.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) sessions: u64,
    /// Bytes by which the broker grew when they were opened.
    pub(super) opened: u64,
    /// Bytes by which it grew in all.
    pub(super) grown: u64,
    pub(super) allowed: u64,
}

/// Stalls so many sessions while others read.
pub(super) async fn run(town: Option<&Town>, seed: u64, sessions: u64) -> Result<Cost, String> {
    let server = Server::start_with(town, SETTINGS, &[ALLOCATOR])?;
    let direct = server.address(town.map(|town| town.broker(Place::Client)));
    let mq = connect(direct).await?;
    mq.admin().create_topic(TopicSpec::new("bulk").partitions(4)).await.map_err(text)?;
    for name in ["fast", "slow", "stalled"] {
        let spec = SubscriptionSpec::new("bulk").start(StartAt::Latest);
        mq.admin().create_subscription(name, &spec).await.map_err(text)?;
    }
    let readers: Vec<_> = (0..FAST).map(|_| tokio::spawn(read_fast(mq.clone()))).collect();
    // More than all windows together, in several bursts.
    let burst = sessions * u64::from(WINDOW.0) / 2;
    let base = work(&mq, burst, &server).await?;

    let proxy = Proxy::start(direct, seed).map_err(text)?;
    let mut stalled: Vec<(Client, Subscriber)> = Vec::new();
    for _ in 0..sessions {
        let mq = connect(proxy.address()).await?;
        let opening = mq.subscription("stalled").credit(WINDOW.0, WINDOW.1).open();
        let session = in_time("a session", opening).await?.map_err(text)?;
        stalled.push((mq, session));
    }
    let slow = match town {
        Some(town) => Some(Slow::start(town, server.address(Some(town.broker(Place::Slow))))?),
        None => None,
    };
    proxy.set(Fault::Stall(Way::Down), 100);
    let opened = server.memory()?.saturating_sub(base);
    let peak = work(&mq, burst, &server).await?;
    if let Some(slow) = slow {
        slow.end();
    }
    for reader in readers {
        reader.abort();
    }
    let grown = peak.saturating_sub(base);
    Ok(Cost { sessions, opened, grown, allowed: sessions * (WINDOW.1 + EXTRA_BYTES) })
}

/// Sends bursts and waits until the fast sessions have them; gives the most memory that the broker had after one.
async fn work(mq: &Client, burst: u64, server: &Server) -> Result<u64, String> {
    let mut peak = 0;
    for _ in 0..BURSTS {
        send(mq, burst).await?;
        drained(mq).await?;
        peak = server.memory()?.max(peak);
    }
    Ok(peak)
}

async fn send(mq: &Client, count: u64) -> Result<(), String> {
    let producer = mq.producer("bulk").build().await.map_err(text)?;
    let record = |number: u64| Record::new(vec![b'.'; RECORD_BYTES]).key(format!("k{number}"));
    let mut left = 0..count;
    loop {
        let some: Vec<Record> = left.by_ref().take(1000).map(record).collect();
        if some.is_empty() {
            break;
        }
        in_time("room", producer.send_all(some)).await?.map_err(text)?;
    }
    in_time("the receipts", producer.flush()).await?.map_err(text)
}

/// Waits until those that read have everything.
async fn drained(mq: &Client) -> Result<(), String> {
    let wait = async {
        loop {
            let described = mq.admin().describe_subscription("fast").await.map_err(text)?;
            if described.partitions.iter().map(|partition| partition.lag).sum::<u64>() == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the end of what the fast sessions read", wait).await?
}

async fn read_fast(mq: Client) -> Result<(), String> {
    let mut jobs = mq.subscription("fast").open().await.map_err(text)?;
    while let Some(job) = jobs.next().await {
        job.map_err(text)?.ack();
    }
    Ok(())
}

/// Sessions at the end of a line of 8 kbit/s, on a thread that lives there.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Slow {
    fn start(town: &Town, broker: std::net::SocketAddr) -> Result<Slow, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, open) = std::sync::mpsc::channel();
        let space = town.door(Place::Slow)?;
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            space.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(text)?.block_on(async {
                let mut sessions = Vec::new();
                for _ in 0..SLOW {
                    let mq = connect(broker).await?;
                    sessions.push(mq.subscription("slow").open().await.map_err(text)?);
                }
                opened.send(()).ok();
                while !stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            })
        });
        let waited = open.recv_timeout(Duration::from_secs(30));
        let slow = Slow { stop, thread };
        if waited.is_err() {
            return Err(slow.end().unwrap_or_else(|| "no session on the slow line".to_owned()));
        }
        town.slow_down()?;
        Ok(slow)
    }

    /// Ends them; gives what went wrong.
    fn end(self) -> Option<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()?.err()
    }
}
