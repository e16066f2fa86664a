//! A broker in this process, on a directory of its own, with a real socket.

use std::{path::Path, sync::Arc};

use riverrun_broker::{Broker, Config, broker::Ground, clock::Clock};
use riverrun_proto::grpc::v1::{
    admin_client::AdminClient, fetch_client::FetchClient, produce_client::ProduceClient,
};
use riverrun_storage::{
    data_dir::{DataDir, Meta},
    disk::{Disk, RealDiskOptions, sim::SimDisk},
};
use riverrun_tests::ports::lasting_address;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// A running broker.
#[derive(Debug)]
pub(crate) struct TestBroker {
    broker: Option<Broker>,
    /// Removed with the broker, unless it is stopped first.
    dir: Option<TempDir>,
}

/// Settings for a test: few threads, a free port, room enough.
pub(crate) fn config(data_dir: &Path) -> Config {
    let mut config = Config { data_dir: data_dir.to_owned(), ..Config::default() };
    config.grpc.listen = lasting_address();
    config.http.listen = lasting_address();
    config.threads.io = 2;
    config.threads.writers = 2;
    config.threads.flushers = 2;
    config.disk.free_bytes_min = 1 << 20;
    config
}

impl TestBroker {
    /// A broker on an empty directory.
    pub(crate) async fn start() -> TestBroker {
        TestBroker::start_with(|_| ()).await
    }

    /// A broker on an empty directory with changed settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> TestBroker {
        let dir = tempfile::tempdir().expect("a directory");
        TestBroker::start_in(dir, change).await
    }

    /// A broker on a directory that another one left.
    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> TestBroker {
        let mut config = config(&dir.path().join("data"));
        change(&mut config);
        let broker = spawn_blocking(move || Broker::start(config).expect("the broker starts"));
        TestBroker { broker: Some(broker.await.expect("does not panic")), dir: Some(dir) }
    }

    /// As [`TestBroker::start_in`], with a clock of the test's.
    pub(crate) async fn start_in_at(
        (dir, clock): (TempDir, Clock),
        change: impl FnOnce(&mut Config),
    ) -> TestBroker {
        let mut config = config(&dir.path().join("data"));
        change(&mut config);
        let broker = spawn_blocking(move || {
            let new = Meta { cluster_id: Uuid::from_u128(5), node_id: 0 };
            let held = DataDir::open(&config.data_dir, new, RealDiskOptions::default());
            let held = held.expect("opens");
            let (disk, meta) = (held.disk(), held.meta());
            let ground = Ground { disk, meta, clock, data_dir: Some(held) };
            Broker::start_on(config, ground).expect("starts")
        });
        TestBroker { broker: Some(broker.await.expect("does not panic")), dir: Some(dir) }
    }

    /// A broker on a simulated disk.
    pub(crate) async fn start_on(disk: SimDisk, change: impl FnOnce(&mut Config)) -> TestBroker {
        TestBroker::start_at((disk, Clock::real()), change).await
    }

    /// A broker on a simulated disk with a clock of the test's.
    pub(crate) async fn start_at(
        (disk, clock): (SimDisk, Clock),
        change: impl FnOnce(&mut Config),
    ) -> TestBroker {
        let mut config = config(Path::new("simulated"));
        change(&mut config);
        if disk.list(Path::new("logs")).is_err() {
            disk.create_dir(Path::new("logs")).expect("a directory");
            disk.sync_dir(Path::new("")).expect("synced");
        }
        let ground = Ground {
            disk: Arc::new(disk),
            meta: Meta { cluster_id: Uuid::from_u128(5), node_id: 0 },
            clock,
            data_dir: None,
        };
        let broker = spawn_blocking(move || Broker::start_on(config, ground).expect("starts"));
        TestBroker { broker: Some(broker.await.expect("does not panic")), dir: None }
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("runs until it is stopped")
    }

    /// The broker, for callers in the same process.
    pub(crate) fn inside(&self) -> &Broker {
        self.broker()
    }

    /// Its data directory on the real disk.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.as_ref().expect("on the real disk").path().join("data")
    }

    /// `http://` and its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.broker().address())
    }

    /// Address of its web door.
    pub(crate) fn web_address(&self) -> std::net::SocketAddr {
        self.broker().web_address().expect("it has one")
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url()).expect("an address");
        endpoint.connect().await.expect("connects")
    }

    /// Raw stubs on a connection of their own.
    pub(crate) async fn stubs(&self) -> Stubs {
        Stubs::new(self.channel().await)
    }

    /// Stops in order; gives the directory back for another start.
    pub(crate) async fn stop(mut self) -> Option<TempDir> {
        let broker = self.broker.take().expect("runs until it is stopped");
        spawn_blocking(move || broker.stop()).await.expect("does not panic");
        self.dir.take()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            // Dropping blocks; a test that ends early must not do so on its own runtime.
            let _ = std::thread::spawn(move || drop(broker)).join();
        }
    }
}

/// Raw stubs of the services.
#[derive(Clone, Debug)]
pub(crate) struct Stubs {
    pub(crate) produce: ProduceClient<Channel>,
    pub(crate) fetch: FetchClient<Channel>,
    pub(crate) admin: AdminClient<Channel>,
}

impl Stubs {
    /// Stubs on a connection of their own to a broker in another process.
    pub(crate) async fn connect(address: &str) -> Stubs {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Stubs::new(endpoint.connect().await.expect("connects"))
    }

    pub(crate) fn new(channel: Channel) -> Stubs {
        Stubs {
            produce: ProduceClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            fetch: FetchClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            admin: AdminClient::new(channel),
        }
    }
}
