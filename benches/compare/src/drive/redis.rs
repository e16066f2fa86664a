//! Redis streams through redis-rs: a stream for each topic, the record in a field `v`.

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection, cmd,
};

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender, window::Window};
use crate::{case::IN_HAND, error::Error};

/// Commands of one pipeline.
const PIPELINE: usize = 500;
/// Pipelines in flight when as many records as possible are sent.
const PIPELINES: usize = 2;
/// Commands in flight when each is sent by itself.
const SINGLES: usize = 1000;
/// Records read at once.
const READ: usize = 1000;
/// Consumer group.
const GROUP: &str = "workers";

/// How to connect.
#[derive(Debug)]
pub(super) struct Client(redis::Client);

impl Client {
    async fn connection(&self) -> Result<MultiplexedConnection> {
        // Blocking reads take as long as they take. Every call finds room in the line at once: only then do they keep their order.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(2 * SINGLES);
        let open = self.0.get_multiplexed_async_connection_with_config(&config);
        open.await.map_err(Error::peer)
    }
}

impl Guest for Client {
    type Sender = Xadd;
    type Receiver = Xread;

    async fn connect(job: &Job) -> Result<Client> {
        let client =
            Client(redis::Client::open(format!("redis://{}", job.address)).map_err(Error::peer)?);
        let mut connection = client.connection().await?;
        // While it replays its file, it takes connections and refuses commands.
        while let Err(error) = run::<String>(&mut connection, &cmd("PING")).await {
            if !error.to_string().contains("LOADING") {
                return Err(Error::peer(error));
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(client)
    }

    async fn make_topic(&self, topic: &str, _: Level) -> Result<()> {
        let mut connection = self.connection().await?;
        // A stream appears with its first entry; its group has to be there before.
        let create =
            cmd("XGROUP").arg("CREATE").arg(topic).arg(GROUP).arg("0").arg("MKSTREAM").to_owned();
        run::<Value>(&mut connection, &create).await.map_err(Error::peer)?;
        Ok(())
    }

    async fn sender(&self, topic: &str, pace: Pace) -> Result<Xadd> {
        let calls_max = match pace {
            Pace::Bulk => PIPELINES,
            Pace::Prompt => SINGLES,
        };
        Ok(Xadd {
            connection: self.connection().await?,
            topic: topic.to_owned(),
            pace,
            pipeline: Pipeline::with_capacity(PIPELINE),
            window: Window::new(calls_max),
        })
    }

    async fn receiver(&self, topic: &str) -> Result<Xread> {
        let connection = self.connection().await?;
        Ok(Xread { connection, topic: topic.to_owned(), last: b"0".to_vec() })
    }

    async fn acknowledge(
        &self,
        topic: &str,
        records: u64,
        mut take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut acks = Window::new(1);
        let read = cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg("one")
            .arg("COUNT")
            .arg(IN_HAND)
            .arg("BLOCK")
            .arg(0)
            .arg("STREAMS")
            .arg(topic)
            .arg(">")
            .to_owned();
        let (mut taken, mut acked) = (0, 0);
        while taken < records {
            let reply: Value = run(&mut connection, &read).await.map_err(Error::peer)?;
            let mut pipeline = Pipeline::with_capacity(IN_HAND);
            for (id, payload) in entries(&reply)? {
                take(payload)?;
                taken += 1;
                pipeline.cmd("XACK").arg(topic).arg(GROUP).arg(id);
            }
            acked += acks.begin(send_pipeline(connection.clone(), pipeline)).await?.unwrap_or(0);
        }
        acked += acks.next().await?.unwrap_or(0);
        if acked == records {
            Ok(())
        } else {
            Err(Error::Wrong(format!("{acked} of {records} acknowledgements were taken")))
        }
    }
}

/// Sends records.
pub(super) struct Xadd {
    connection: MultiplexedConnection,
    topic: String,
    pace: Pace,
    pipeline: Pipeline,
    window: Window<u64>,
}

impl Xadd {
    async fn ship(&mut self) -> Result<()> {
        let pipeline = std::mem::replace(&mut self.pipeline, Pipeline::with_capacity(PIPELINE));
        let call = send_pipeline(self.connection.clone(), pipeline);
        self.window.begin(call).await?;
        Ok(())
    }
}

impl Sender for Xadd {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        self.pipeline.cmd("XADD").arg(&self.topic).arg("*").arg("v").arg(payload.as_ref());
        if self.pace == Pace::Prompt || self.pipeline.len() >= PIPELINE {
            self.ship().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.pipeline.is_empty() {
            self.ship().await?;
        }
        self.window.finish().await
    }
}

/// Reads records.
pub(super) struct Xread {
    connection: MultiplexedConnection,
    topic: String,
    last: Vec<u8>,
}

impl Receiver for Xread {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        let read = cmd("XREAD")
            .arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(0)
            .arg("STREAMS")
            .arg(&self.topic)
            .arg(self.last.as_slice())
            .to_owned();
        let reply: Value = run(&mut self.connection, &read).await.map_err(Error::peer)?;
        for (id, payload) in entries(&reply)? {
            take(payload)?;
            self.last.clear();
            self.last.extend_from_slice(id);
        }
        Ok(())
    }
}

async fn run<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> std::result::Result<T, RedisError> {
    command.query_async(connection).await
}

/// Runs the commands. Gives the sum of the replies that are numbers; one that is an error fails.
async fn send_pipeline(mut connection: MultiplexedConnection, pipeline: Pipeline) -> Result<u64> {
    let sent = pipeline.len();
    let replies: Vec<Value> = pipeline.query_async(&mut connection).await.map_err(Error::peer)?;
    if replies.len() != sent {
        return Err(Error::Wrong(format!("{} replies to {sent} commands", replies.len())));
    }
    let number = |reply: &Value| {
        if let Value::Int(number) = reply { u64::try_from(*number).unwrap_or(0) } else { 0 }
    };
    Ok(replies.iter().map(number).sum())
}

/// Id and payload of each entry in the reply to a read of one stream.
fn entries(reply: &Value) -> Result<Vec<(&[u8], &[u8])>> {
    let wrong = || Error::Wrong(format!("a reply of another form: {reply:.200?}"));
    let stream = items(reply).and_then(|streams| items(streams.first()?)).ok_or_else(wrong)?;
    let entries = stream.get(1).and_then(items).ok_or_else(wrong)?;
    let entry = |entry| {
        let [id, fields] = items(entry)? else { return None };
        Some((text(id)?, text(items(fields)?.get(1)?)?))
    };
    entries.iter().map(|value| entry(value).ok_or_else(wrong)).collect()
}

fn items(value: &Value) -> Option<&[Value]> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

fn text(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}
