//! Readers at the tail, by each way.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use riverrun_client::{Client, Start};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::events::Events;
use crate::{
    broker::Doors,
    clock,
    error::{Error, Result},
};

/// How late records came, in nanoseconds.
pub(super) type Latency = Histogram<u64>;

/// How records come to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The Rust client.
    Grpc,
    /// Server-sent events.
    Events,
    /// A WebSocket with JSON texts.
    Socket,
}

impl Way {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Grpc => "gRPC",
            Way::Events => "server-sent events",
            Way::Socket => "WebSocket",
        }
    }
}

/// Lets readers come to their place before something is sent.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Reads so many records from the end of the topic on; what came in the first part of them does not count.
pub(super) async fn read(way: Way, doors: Doors, topic: String, records: u32) -> Result<Latency> {
    let warm_up = records / 10;
    match way {
        Way::Grpc => by_grpc(&doors, &topic, records, warm_up).await,
        Way::Events => by_events(Events::open(&doors.web, &topic).await?, records, warm_up).await,
        Way::Socket => by_socket(&doors, &topic, records, warm_up).await,
    }
}

async fn by_grpc(doors: &Doors, topic: &str, records: u32, warm_up: u32) -> Result<Latency> {
    let client = Client::connect(&doors.grpc).await?;
    let mut consumer = client.consumer(topic).start_missing(Start::Latest).build().await?;
    let mut tally = Tally::new(warm_up)?;
    while tally.seen < records {
        for record in consumer.next_batch().await? {
            let value = record.value.unwrap_or_default();
            tally.take(&String::from_utf8_lossy(&value))?;
        }
    }
    Ok(tally.latency)
}

pub(super) async fn by_events(mut events: Events, records: u32, warm_up: u32) -> Result<Latency> {
    let mut tally = Tally::new(warm_up)?;
    while tally.seen < records {
        tally.take_all(&events.next().await?)?;
    }
    Ok(tally.latency)
}

async fn by_socket(doors: &Doors, topic: &str, records: u32, warm_up: u32) -> Result<Latency> {
    let wrong = |error: &dyn std::fmt::Display| Error::Wrong(format!("WebSocket: {error}"));
    let opened = connect_async(format!("ws://{}/v1/ws", doors.web)).await;
    let (mut socket, _) = opened.map_err(|error| wrong(&error))?;
    let tail = format!(r#"{{"op":"tail","id":1,"topic":"{topic}","from":"latest"}}"#);
    socket.send(Message::text(tail)).await.map_err(|error| wrong(&error))?;
    let mut tally = Tally::new(warm_up)?;
    while tally.seen < records {
        let message = socket.next().await.ok_or_else(|| wrong(&"it was closed"))?;
        let message = message.map_err(|error| wrong(&error))?;
        tally.take_all(message.to_text().unwrap_or_default())?;
    }
    Ok(tally.latency)
}

/// What came.
struct Tally {
    seen: u32,
    warm_up: u32,
    latency: Latency,
}

impl Tally {
    fn new(warm_up: u32) -> Result<Tally> {
        let latency = Histogram::new(3).map_err(|error| Error::Wrong(error.to_string()))?;
        Ok(Tally { seen: 0, warm_up, latency })
    }

    /// Every record of a JSON text. Its values are digits, so that the text need not be parsed.
    fn take_all(&mut self, text: &str) -> Result<()> {
        text.split(r#""value":""#)
            .skip(1)
            .try_for_each(|rest| self.take(rest.split('"').next().unwrap_or_default()))
    }

    fn take(&mut self, digits: &str) -> Result<()> {
        let now = u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX);
        let due: u64 =
            digits.parse().map_err(|_| Error::Wrong(format!("`{digits}` is no value of ours")))?;
        self.seen += 1;
        if self.seen > self.warm_up {
            let late = now.saturating_sub(due);
            self.latency.record(late).map_err(|error| Error::Wrong(error.to_string()))?;
        }
        Ok(())
    }
}
