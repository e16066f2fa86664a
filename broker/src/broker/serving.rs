//! The threads that serve connections: one runtime each, so that a connection's work stays on one core.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    runtime::{Builder, Handle},
    time::{MissedTickBehavior, interval},
};

use super::Rooms;
use crate::{
    clock::Clock,
    config::Config,
    gateway::grpc::{APIS, Acceptor, Arrivals, GrpcDoor, Meters, set_health},
    partition::housekeeping::{self, Housekeeper},
    quota::Quota,
    shutdown::{Shutdown, ShutdownWatch},
    topic::Registry,
};

/// A thread that only reads cold data ends when idle for so long.
const READER_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Rounds of housekeeping between two of compaction.
const COMPACTION_ROUNDS: u32 = 15;

/// The serving threads.
#[derive(Debug)]
pub(super) struct Serving {
    address: SocketAddr,
    threads: Vec<Thread>,
    clock: Clock,
}

/// One serving thread.
#[derive(Debug)]
struct Thread {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Dropped to end the thread once its connections are done.
    stop: tokio::sync::oneshot::Sender<()>,
    /// Hears when its connections are done.
    served: mpsc::Receiver<()>,
}

impl Serving {
    /// Starts the threads, the listener and, where something can be written, the rounds of housekeeping.
    pub(super) fn start(
        config: &Arc<Config>,
        rooms: &Rooms,
        (listener, housekeeper): (TcpListener, Option<Housekeeper>),
        shutdown: &Shutdown,
    ) -> io::Result<Serving> {
        let address = listener.local_addr()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = config.threads.io_count(cores);
        let (health, _) = tonic_health::server::health_reporter();
        let limits = &config.limits;
        let receiving =
            Quota::new("limits.receive_bytes_max", limits.receive_bytes_max, limits.quota_wait);
        let metrics = &rooms.services.metrics;
        metrics.add_quota(&receiving);
        let meters = Meters {
            door: metrics.add_door("grpc", APIS),
            refusals: metrics.refusals().clone(),
            clock: Clock::real(),
        };
        let door = GrpcDoor {
            services: rooms.services.clone(),
            config: config.clone(),
            receiving,
            shutdown: shutdown.watch(),
            health: health.clone(),
            meters: meters.clone(),
        };
        let runtimes = (0..count).map(|_| runtime(config)).collect::<io::Result<Vec<_>>>()?;
        let first = runtimes[0].handle().clone();
        let (acceptor, arrivals) = {
            let _inside = first.enter();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Acceptor::new(listener, config, count, meters.door)
        };
        let mut threads = Vec::new();
        for (index, (runtime, arrivals)) in runtimes.into_iter().zip(arrivals).enumerate() {
            threads.push(Thread::start(index, runtime, door.clone(), arrivals)?);
        }
        let (end, clock) = (shutdown.watch(), Clock::real());
        let registry = rooms.registry.clone();
        let rounds = config.disk.housekeeping_interval;
        first.spawn(async move {
            set_health(&health, true).await;
            match housekeeper {
                Some(housekeeper) => {
                    tokio::join!(
                        keep_house(housekeeper, &registry, rounds, end.clone()),
                        compact(&registry, (clock, rounds * COMPACTION_ROUNDS), end),
                    );
                }
                // Nothing can be written, so there is nothing to look after.
                None => end.begun().await,
            }
            set_health(&health, false).await;
        });
        for work in [&rooms.groups, &rooms.subscriptions] {
            if let Some(work) = work.0.lock().take() {
                first.spawn(work);
            }
        }
        first.spawn(acceptor.run(shutdown.watch()));
        Ok(Serving { address, threads, clock: Clock::real() })
    }

    /// The address listened on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits up to `grace` for the calls in flight, closes every partition, and ends the threads. The end was
    /// announced before.
    pub(super) fn stop(self, rooms: &Rooms, grace: Duration) {
        let deadline = self.clock.elapsed() + grace;
        for thread in &self.threads {
            let left = deadline.saturating_sub(self.clock.elapsed());
            if thread.served.recv_timeout(left).is_err() && !grace.is_zero() {
                tracing::warn!("calls were cut: they did not finish in time");
            }
        }
        if let Some(first) = self.threads.first() {
            let rooms = rooms.clone();
            let (sender, closed) = mpsc::channel();
            first.handle.spawn(async move {
                close_partitions(&rooms).await;
                let _ = sender.send(());
            });
            let _ = closed.recv();
        }
        for Thread { thread, stop, .. } in self.threads {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
    }
}

impl Thread {
    fn start(
        index: usize,
        runtime: tokio::runtime::Runtime,
        door: GrpcDoor,
        arrivals: Arrivals,
    ) -> io::Result<Thread> {
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (sender, served) = mpsc::channel();
        handle.spawn(async move {
            if let Err(error) = door.serve(arrivals).await {
                tracing::error!(%error, "a serving thread ended");
            }
            let _ = sender.send(());
        });
        let thread = thread::Builder::new().name(format!("io-{index}")).spawn(move || {
            // Ends with an error: the sender is dropped, never used.
            drop(runtime.block_on(stopped));
            runtime.shutdown_timeout(Duration::from_millis(500));
        })?;
        Ok(Thread { handle, thread, stop, served })
    }
}

fn runtime(config: &Config) -> io::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.threads.readers)
        .thread_keep_alive(READER_KEEP_ALIVE)
        .thread_name("reader")
        .build()
}

/// Does the rounds until the end is announced.
async fn keep_house(
    mut housekeeper: Housekeeper,
    registry: &Registry,
    rounds: Duration,
    shutdown: ShutdownWatch,
) {
    let mut tick = interval(rounds);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.begun() => return,
        }
        housekeeper.look_at_space();
        housekeeper.round(&registry.open_partitions()).await;
        registry.remove_doomed().await;
    }
}

/// Compacts keys until the end is announced; one partition at a time.
async fn compact(registry: &Registry, (clock, rounds): (Clock, Duration), shutdown: ShutdownWatch) {
    let mut tick = interval(rounds);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.begun() => return,
        }
        let partitions = registry.open_partitions();
        tokio::select! {
            () = housekeeping::compact(&partitions, &clock) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Writes what groups and subscriptions still have to store, then flushes and closes every partition, the metadata
/// log last.
async fn close_partitions(rooms: &Rooms) {
    rooms.services.groups.close().await;
    rooms.services.delivery.close().await;
    let partitions = rooms.registry.open_partitions();
    let closed = join_all(partitions.iter().map(|partition| partition.close()));
    for (partition, closed) in partitions.iter().zip(closed.await) {
        if let Err(error) = closed {
            tracing::warn!(partition = %partition.name(), %error, "not closed cleanly");
        }
    }
    let metadata = rooms.registry.log().partition();
    if let Err(error) = metadata.close().await {
        tracing::warn!(%error, "metadata log not closed cleanly");
    }
}
