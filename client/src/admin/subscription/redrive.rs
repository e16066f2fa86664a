//! Bringing dead letters back.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::SystemTime,
};

use bytes::Bytes;
use riverrun_proto::grpc::v1;

use crate::{
    client::Client,
    clock,
    error::{Error, Result},
};

/// Dead letters to bring back, done by awaiting it. Conditions that are set must all hold.
#[derive(Debug)]
#[must_use = "nothing is brought back until this is awaited"]
pub struct Redrive {
    client: Client,
    request: v1::RedriveRequest,
}

/// What was brought back.
#[derive(Clone, Debug)]
pub struct Redriven {
    /// Dead letters that fulfilled the conditions.
    pub matched: u64,
    /// Of them brought back now.
    pub redriven: u64,
    /// Of them not brought back, because their topic is gone or refused them.
    pub failed: u64,
    /// The first failure.
    pub error: Option<Error>,
}

impl Redrive {
    pub(super) fn new(client: Client, name: &str) -> Redrive {
        let request =
            v1::RedriveRequest { subscription: name.to_owned(), ..v1::RedriveRequest::default() };
        Redrive { client, request }
    }

    /// Only those with this key.
    pub fn key(mut self, key: impl Into<Bytes>) -> Redrive {
        self.request.key = Some(key.into());
        self
    }

    /// Only those that died at or after this time.
    pub fn from(mut self, time: SystemTime) -> Redrive {
        self.request.from_ms = Some(clock::timestamp_ms(time));
        self
    }

    /// Only those that died before this time.
    pub fn until(mut self, time: SystemTime) -> Redrive {
        self.request.until_ms = Some(clock::timestamp_ms(time));
        self
    }

    /// To this topic instead of the one each came from.
    pub fn to_topic(mut self, topic: impl Into<String>) -> Redrive {
        self.request.to_topic = topic.into();
        self
    }

    /// At most this many.
    pub fn max(mut self, records: u64) -> Redrive {
        self.request.max_records = records;
        self
    }

    /// Only counts.
    pub fn dry_run(mut self) -> Redrive {
        self.request.dry_run = true;
        self
    }

    async fn send(self) -> Result<Redriven> {
        let deadline = self.client.deadline();
        let reply = self.client.connection().redrive(self.request, deadline).await?;
        Ok(Redriven {
            matched: reply.matched,
            redriven: reply.redriven,
            failed: reply.failed,
            error: reply.error.as_ref().map(Error::from_wire),
        })
    }
}

impl IntoFuture for Redrive {
    type Output = Result<Redriven>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
