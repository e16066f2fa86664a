//! The threads that serve connections: one runtime each, so that a connection's work stays on one core.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::future::join_all;
use rustls::ClientConfig;
use tokio::runtime::{Builder, Handle};
use tonic_health::server::HealthReporter;

use super::{
    Rooms,
    rounds::{look_after, scrub, scrubber},
};
use crate::{
    clock::Clock,
    config::Config,
    gateway::{
        accept::{Acceptor, Arrivals},
        caps::Caps,
        grpc::{APIS, GrpcDoor, GrpcWeb, Meters},
        web::{WebDoor, WebMeters, call_names},
        webhook::{LOOKUPS_MAX, WebhookDoor},
    },
    metrics::DoorMeter,
    partition::housekeeping::Housekeeper,
    quota::Quota,
    shutdown::Shutdown,
};

/// A thread that only reads cold data ends when idle for so long.
const READER_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The serving threads.
#[derive(Debug)]
pub(super) struct Serving {
    address: SocketAddr,
    web_address: Option<SocketAddr>,
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

/// The bound listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    /// Absent where there is no web door.
    pub(super) web: Option<TcpListener>,
}

/// The doors as every thread opens them.
#[derive(Clone, Debug)]
struct Doors {
    grpc: GrpcDoor,
    web: WebDoor,
}

/// The connections of one thread, by door.
#[derive(Debug)]
struct Visitors {
    grpc: Arrivals,
    web: Option<Arrivals>,
}

impl Serving {
    /// Starts the threads, the listeners and, where something can be written, the rounds of housekeeping.
    pub(super) fn start(
        config: &Arc<Config>,
        rooms: &Rooms,
        (listeners, housekeeper, tls): (Listeners, Option<Housekeeper>, ClientConfig),
        shutdown: &Shutdown,
    ) -> io::Result<Serving> {
        let address = listeners.grpc.local_addr()?;
        let web_address = listeners.web.as_ref().map(TcpListener::local_addr).transpose()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = config.threads.io_count(cores);
        let (health, _) = tonic_health::server::health_reporter();
        let metrics = &rooms.services.metrics;
        let meters = (metrics.add_door("grpc", APIS), metrics.add_door("web", &[]));
        let doors = Doors::new((config, rooms), shutdown, health.clone(), meters.0.clone());
        let runtimes = (0..count)
            .map(|_| runtime_with(config.threads.readers))
            .collect::<io::Result<Vec<_>>>()?;
        let first = runtimes[0].handle().clone();
        let (acceptors, visitors) = {
            let _inside = first.enter();
            accept(listeners, config, meters, count)?
        };
        let mut threads = Vec::new();
        for (index, (runtime, visitors)) in runtimes.into_iter().zip(visitors).enumerate() {
            threads.push(Thread::start(
                format!("io-{index}"),
                runtime,
                doors.clone().serve(visitors),
            )?);
        }
        // A thread of its own, so that neither handshakes nor slow names hold up those who are connected.
        let (services, watch) = (rooms.services.clone(), shutdown.watch());
        let webhooks = WebhookDoor::new(services, (config.clone(), tls), watch);
        let runtime = runtime_with(config.threads.readers + LOOKUPS_MAX)?;
        threads.push(Thread::start("webhooks".into(), runtime, webhooks.serve())?);
        first.spawn(look_after(rooms.registry.clone(), config, (housekeeper, health), shutdown));
        if let Some(scrubber) = scrubber(config, rooms) {
            first.spawn(scrub(scrubber, rooms.clone(), shutdown.watch()));
        }
        for work in [&rooms.groups, &rooms.subscriptions] {
            if let Some(work) = work.0.lock().take() {
                first.spawn(work);
            }
        }
        for acceptor in acceptors {
            let (delivery, watch) = (rooms.services.delivery.clone(), shutdown.watch());
            first.spawn(async move {
                delivery.begun().await;
                acceptor.run(watch).await;
            });
        }
        Ok(Serving { address, web_address, threads, clock: Clock::real() })
    }

    /// The address listened on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the web door, when there is one.
    pub(super) fn web_address(&self) -> Option<SocketAddr> {
        self.web_address
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
    /// A thread that runs `serving` until it is stopped.
    fn start(
        name: String,
        runtime: tokio::runtime::Runtime,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Thread> {
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (sender, served) = mpsc::channel();
        handle.spawn(async move {
            serving.await;
            let _ = sender.send(());
        });
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Ends with an error: the sender is dropped, never used.
            drop(runtime.block_on(stopped));
            runtime.shutdown_timeout(Duration::from_millis(500));
        })?;
        Ok(Thread { handle, thread, stop, served })
    }
}

impl Doors {
    /// Serves the connections of one thread to the end.
    async fn serve(self, visitors: Visitors) {
        let web = async {
            if let Some(arrivals) = visitors.web {
                self.web.serve(arrivals).await;
            }
        };
        let (served, ()) = tokio::join!(self.grpc.serve(visitors.grpc), web);
        if let Err(error) = served {
            tracing::error!(%error, "a serving thread ended");
        }
    }

    fn new(
        (config, rooms): (&Arc<Config>, &Rooms),
        shutdown: &Shutdown,
        health: HealthReporter,
        door: Arc<DoorMeter>,
    ) -> Doors {
        let limits = &config.limits;
        let receiving =
            Quota::new("limits.receive_bytes_max", limits.receive_bytes_max, limits.quota_wait);
        let metrics = &rooms.services.metrics;
        metrics.add_quota(&receiving);
        let refusals = metrics.refusals().clone();
        let traces = metrics.traces();
        let meters = Meters { door, refusals, clock: Clock::real(), traces: traces.clone() };
        let (services, shutdown) = (rooms.services.clone(), shutdown.watch());
        let config = config.clone();
        let grpc = GrpcDoor { services, config, receiving, shutdown, health, meters };
        let web = WebDoor {
            services: grpc.services.clone(),
            config: grpc.config.clone(),
            receiving: grpc.receiving.clone(),
            shutdown: grpc.shutdown.clone(),
            grpc: GrpcWeb::new(&grpc),
            meters: WebMeters {
                requests: metrics.web_meter(call_names),
                refusals: metrics.refusals().clone(),
                clock: Clock::real(),
                traces,
            },
            steps: Default::default(),
            turn: Arc::default(),
            sockets: Default::default(),
        };
        Doors { grpc, web }
    }
}

/// Acceptors of the listeners, and what each of `count` threads hears from them.
fn accept(
    listeners: Listeners,
    config: &Config,
    meters: (Arc<DoorMeter>, Arc<DoorMeter>),
    count: usize,
) -> io::Result<(Vec<Acceptor>, Vec<Visitors>)> {
    let acceptor = |listener, (total, per_ip), meter| {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok::<_, io::Error>(Acceptor::new(listener, Caps::new(total, per_ip, meter), count))
    };
    let grpc = &config.grpc;
    let (acceptor_grpc, arrivals) =
        acceptor(listeners.grpc, (grpc.connections_max, grpc.connections_per_ip_max), meters.0)?;
    let mut acceptors = vec![acceptor_grpc];
    let mut visitors: Vec<_> =
        arrivals.into_iter().map(|grpc| Visitors { grpc, web: None }).collect();
    if let Some(listener) = listeners.web {
        let http = &config.http;
        let (acceptor, arrivals) =
            acceptor(listener, (http.connections_max, http.connections_per_ip_max), meters.1)?;
        acceptors.push(acceptor);
        for (visitors, arrivals) in visitors.iter_mut().zip(arrivals) {
            visitors.web = Some(arrivals);
        }
    }
    Ok((acceptors, visitors))
}

fn runtime_with(readers: usize) -> io::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(readers)
        .thread_keep_alive(READER_KEEP_ALIVE)
        .thread_name("reader")
        .build()
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
