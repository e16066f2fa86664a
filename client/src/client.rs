//! The client: a cheap handle on one connection, from which producers, consumers and admin are made.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    admin::Admin,
    backoff::Randomness,
    clock::{self, Instant},
    connection::{Address, Connection, ConnectionOptions, ConnectionState},
    consumer::ConsumerBuilder,
    error::Result,
    producer::ProducerBuilder,
    subscriber::SubscriberBuilder,
};

/// Room for one largest batch and its envelope.
const MESSAGE_BYTES_MAX: usize = riverrun_proto::limits::BATCH_BYTES_MAX as usize + (16 << 20);

/// A connection to a broker. Clones share it; it closes when the last handle is gone.
///
/// ```no_run
/// # async fn example() -> Result<(), riverrun_client::Error> {
/// let mq = riverrun_client::Client::connect("riverrun://127.0.0.1:7070").await?;
/// mq.admin().create_topic(riverrun_client::TopicSpec::new("orders").partitions(6)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    client_id: String,
    call_timeout: Duration,
}

impl Client {
    /// Connects with the defaults to `riverrun://host:port`, `host:port` or `host`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed address; `Unreachable` when no connection was made in time.
    pub async fn connect(address: &str) -> Result<Client> {
        Client::builder().connect(address).await
    }

    /// Settings before connecting.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The state of the connection, now and as it changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.connection.state()
    }

    /// Topics, groups and offsets, for operators.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Settings of a producer for `topic`; `build` makes it.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic.into())
    }

    /// Settings of a consumer of one topic; `build` makes it.
    pub fn consumer(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), vec![topic.into()])
    }

    /// Settings of a consumer of several topics.
    pub fn consumer_of<T: Into<String>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topics.into_iter().map(Into::into).collect())
    }

    /// Settings of a subscriber of one topic; give it a name, then `open` makes it. The subscription is
    /// created when it does not exist.
    pub fn subscribe(&self, topic: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), vec![topic.into()])
    }

    /// Settings of a subscriber of several topics.
    pub fn subscribe_to<T: Into<String>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), topics.into_iter().map(Into::into).collect())
    }

    /// Settings of a subscriber of a subscription that exists.
    pub fn subscription(&self, name: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), Vec::new()).name(name)
    }

    /// Closes the connection for every handle. Calls under way fail; flush producers first.
    pub fn close(&self) {
        self.connection.close();
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Hears one answer of the broker, without trying again.
    ///
    /// # Errors
    /// `DeadlineExceeded` when it does not answer within the call timeout; `Unreachable` when what listens there
    /// hangs up or does not answer as a broker does; `Protocol` when its first byte says who is there instead, such as a
    /// server that speaks TLS.
    pub async fn probe(&self) -> Result<()> {
        self.connection.probe(self.deadline()).await
    }

    /// The free text operators see.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// When a call that begins now gives up.
    pub(crate) fn deadline(&self) -> Instant {
        clock::now() + self.call_timeout
    }

    /// Longest time for one call.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }
}

/// Settings of a [`Client`]. Every one has a default that works.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    client_id: String,
    connect_timeout: Duration,
    call_timeout: Duration,
    dial_timeout: Duration,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    message_bytes_max: usize,
    randomness: Option<u64>,
}

impl Default for ClientBuilder {
    fn default() -> ClientBuilder {
        ClientBuilder {
            client_id: "riverrun-client".to_owned(),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            message_bytes_max: MESSAGE_BYTES_MAX,
            randomness: None,
        }
    }
}

impl ClientBuilder {
    /// Free text shown to operators, for instance the service's name.
    pub fn client_id(mut self, client_id: impl Into<String>) -> ClientBuilder {
        self.client_id = client_id.into();
        self
    }

    /// How long [`ClientBuilder::connect`] waits for the first connection. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, reconnects included. Default 30 s.
    pub fn call_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.call_timeout = timeout;
        self
    }

    /// How long one try to open a socket may take. Default 5 s.
    pub fn dial_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.dial_timeout = timeout;
        self
    }

    /// Ping after this much silence, and count the connection as lost when no answer comes within
    /// `timeout`. Default 20 s and 10 s.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> ClientBuilder {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }

    /// Largest message taken from the broker or sent to it. Default 80 MiB, which holds the largest batch.
    pub fn message_bytes_max(mut self, bytes: usize) -> ClientBuilder {
        self.message_bytes_max = bytes;
        self
    }

    /// Seed of the jitter between reconnects, for repeatable tests.
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.randomness = Some(seed);
        self
    }

    /// Connects and waits for the first connection.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed address; `Unreachable` when no connection was made within
    /// the connect timeout.
    pub async fn connect(self, address: &str) -> Result<Client> {
        let first = clock::now() + self.connect_timeout;
        let client = self.connect_lazy(address)?;
        client.connection.link(first).await?;
        Ok(client)
    }

    /// Returns at once and connects in the background; calls wait for the connection.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(self, address: &str) -> Result<Client> {
        let address: Address = address.parse()?;
        let connection = Connection::start(ConnectionOptions {
            address,
            dial_timeout: self.dial_timeout,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            message_bytes_max: self.message_bytes_max,
            randomness: match self.randomness {
                Some(seed) => Randomness::seeded(seed),
                None => Randomness::from_system(),
            },
        });
        Ok(Client { connection, client_id: self.client_id, call_timeout: self.call_timeout })
    }
}
