//! One request: a record goes out, a verdict comes back.
//!
//! The id of a request is that of its record: topic id, partition and offset. So it is the same in every try, also after a
//! crash of the broker, and a receiver that remembers ids takes no record twice.

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioTimer},
};
use riverrun_proto::{TopicId, batch::OffsetRecord};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    WebhookDoor,
    answer::{Verdict, Whose},
    connect::{ConnectError, Connector},
    head,
    signature::Signer,
};
use crate::{
    quota::{Room, Share},
    subscription::Webhook,
};

/// Time that a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// Connections kept for the next request.
const IDLE_MAX: usize = 32;
/// Largest head of an answer, and headers in it.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
/// Bytes of an answer's body that are read, so that its connection can be used again; of more of them it is closed.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest wait for a place among all requests and for memory.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// Memory of a request beyond its record.
const REQUEST_BYTES: usize = 8 << 10;

/// A record to be posted.
#[derive(Debug)]
pub(super) struct Job {
    /// Its topic.
    pub(super) topic: Arc<str>,
    /// Id of that.
    pub(super) topic_id: TopicId,
    /// Its partition.
    pub(super) partition: u32,
    /// The record.
    pub(super) record: OffsetRecord,
    /// Times it was handed out, this one included.
    pub(super) attempts: u32,
    /// Times it failed.
    pub(super) failures: u32,
}

/// What posts to one endpoint.
#[derive(Debug)]
pub(super) struct Poster {
    door: WebhookDoor,
    subscription: Arc<str>,
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    uri: Uri,
    signer: Signer,
    timeout: Duration,
    room: Room,
}

impl Poster {
    pub(super) fn new(door: &WebhookDoor, subscription: &Arc<str>, webhook: &Webhook) -> Poster {
        let connector = Connector {
            allowed: door.config.webhooks.allow_networks.as_slice().into(),
            lookups: door.lookups.clone(),
            limit: webhook.timeout / 2,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*door.tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector);
        Poster {
            door: door.clone(),
            subscription: subscription.clone(),
            client,
            uri: webhook.url.parse().expect("checked when it was set"),
            signer: Signer::new(&webhook.secrets),
            timeout: webhook.timeout,
            room: door.room(),
        }
    }

    /// Posts a record.
    pub(super) async fn post(&self, job: &Job) -> Verdict {
        let value = job.record.record.value.clone().unwrap_or_default();
        let Ok(Some(_place)) = timeout(PLACE_WAIT, self.place(job)).await else {
            return Verdict::NoRoom;
        };
        let began = Instant::now();
        let deadline = began + self.timeout;
        let request = self.request(job, value);
        let answered = timeout_at(deadline, self.client.request(request)).await;
        self.door.services.delivery.observe_webhook(began.elapsed());
        match answered {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                let now_ms = self.door.clock.wall_ms();
                let verdict = Verdict::of_answer(head.status, &head.headers, now_ms);
                // What is in it, and whether it comes, says nothing more.
                drop(timeout_at(deadline, read_away(body)).await);
                verdict
            }
            Ok(Err(error)) => failure(&error),
            Err(_) => {
                let reason = format!("no answer within {} ms", self.timeout.as_millis());
                Verdict::failed(reason, Whose::Endpoint)
            }
        }
    }

    /// A place among all requests, and memory for the record; held until the verdict.
    async fn place(&self, job: &Job) -> Option<(tokio::sync::OwnedSemaphorePermit, Share)> {
        let place = self.door.requests.clone().acquire_owned().await.ok()?;
        let share = self.room.take(bytes_of(job)).await.ok()?;
        Some((place, share))
    }

    fn request(&self, job: &Job, value: Bytes) -> Request<Full<Bytes>> {
        let id = format!("{}-{}-{}", job.topic_id.0.simple(), job.partition, job.record.offset.0);
        let seconds = self.door.clock.wall_ms().div_euclid(1_000);
        let mut headers = head::headers(job, &self.subscription);
        let signature = self.signer.sign(&id, seconds, &value);
        for (name, value) in [
            ("webhook-id", Some(id)),
            ("webhook-timestamp", Some(seconds.to_string())),
            ("webhook-signature", signature),
        ] {
            let value = value.and_then(|value| HeaderValue::try_from(value).ok());
            value.into_iter().for_each(|value| drop(headers.insert(name, value)));
        }
        let mut request = Request::new(Full::new(value));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

fn bytes_of(job: &Job) -> usize {
    let record = &job.record.record;
    let headers: usize = record.headers.iter().map(|header| header.key.len()).sum();
    let values = record.headers.iter().map(|header| header.value.as_ref().map_or(0, Bytes::len));
    let own =
        record.value.as_ref().map_or(0, Bytes::len) + record.key.as_ref().map_or(0, Bytes::len);
    own + headers + values.sum::<usize>() + REQUEST_BYTES
}

/// Reads a body to its end, or as far as it is bounded.
async fn read_away(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BODY_BYTES_MAX {
            return;
        }
    }
}

/// What an error of the client says, in the words of whatever went wrong first.
fn failure(error: &Error) -> Verdict {
    let whose = if error.is_connect() { Whose::Unreached } else { Whose::Endpoint };
    let Some(mut cause) = error.source() else {
        return Verdict::failed(error.to_string(), whose);
    };
    let mut text = cause.to_string();
    let is_own = cause.is::<ConnectError>();
    while let Some(deeper) = cause.source().filter(|_| !is_own) {
        cause = deeper;
        text = format!("{text}: {cause}");
    }
    Verdict::failed(text, whose)
}
