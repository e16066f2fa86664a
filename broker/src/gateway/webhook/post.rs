//! One request: a record goes out, a verdict comes back.
//!
//! The id of a request is that of its record: topic id, partition, epoch and offset. So it is the same in every try, also after
//! a crash of the broker, and a receiver that remembers ids takes no record twice. The epoch is that under which the record was
//! appended: where a power loss took the end of a log, what is appended there then has another one.

use std::{error::Error as _, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body_util::Full;
use hyper::body::Incoming;
use riverrun_proto::{LeaderEpoch, TopicId, batch::OffsetRecord};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    WebhookDoor,
    answer::{Verdict, Whose},
    connect::Connector,
    connection::{Connection, Post},
    head,
    places::{Place, Places},
    pool::{Pool, SendError},
    signature::Signer,
};
use crate::subscription::Webhook;

/// Longest time that the rest of an answer may take, once its head said what became of the record.
const REST_MAX: Duration = Duration::from_secs(1);
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
    /// Epoch under which it was appended.
    pub(super) epoch: LeaderEpoch,
    /// The record, in memory of its own.
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
    url: Arc<str>,
    /// Absent where the log of another version has what is no address.
    target: Option<Target>,
    signer: Signer,
    timeout: Duration,
    places: Places,
}

/// Where requests go.
#[derive(Debug)]
struct Target {
    pool: Arc<Pool>,
    host: HeaderValue,
    /// Path and query.
    path: Uri,
}

impl Job {
    /// Bytes of its record, as delivery counts them.
    pub(super) fn bytes(&self) -> usize {
        let record = &self.record.record;
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers = record.headers.iter().map(|one| one.key.len() + field(&one.value));
        field(&record.key) + field(&record.value) + headers.sum::<usize>()
    }

    fn id(&self) -> String {
        let (topic, epoch, offset) = (self.topic_id.0.simple(), self.epoch.0, self.record.offset.0);
        format!("{topic}-{}-{epoch}-{offset}", self.partition)
    }
}

impl Poster {
    /// For the webhook of this subscription.
    pub(super) fn new(
        (door, places): (&WebhookDoor, &Places),
        subscription: &Arc<str>,
        webhook: &Webhook,
    ) -> Poster {
        Poster {
            door: door.clone(),
            subscription: subscription.clone(),
            url: webhook.url.clone(),
            target: Target::of(door, webhook),
            signer: Signer::new(&webhook.secrets),
            timeout: webhook.timeout,
            places: places.clone(),
        }
    }

    /// Both post to the same address.
    pub(super) fn is_to_same(&self, other: &Poster) -> bool {
        self.url == other.url
    }

    /// Posts a record.
    pub(super) async fn post(&self, job: &Job) -> Verdict {
        let Some(target) = &self.target else {
            let reason = "the webhook has no address that can be posted to";
            return Verdict::failed(reason, Whose::Unreached);
        };
        let Some(place) = self.places.take(job.bytes() + REQUEST_BYTES).await else {
            return Verdict::NoRoom;
        };
        let began = Instant::now();
        let sending = target.pool.send(self.request(job, target));
        let answered = timeout_at(began + self.timeout, sending).await;
        self.door.services.delivery.observe_webhook(began.elapsed());
        match answered {
            Ok(Ok((connection, answer))) => self.judge(target, (connection, answer), place),
            Ok(Err(error)) => failure(&error),
            Err(_) => {
                let reason = format!("no answer within {} ms", self.timeout.as_millis());
                Verdict::failed(reason, Whose::Endpoint)
            }
        }
    }

    /// What the head of an answer says. What follows it says nothing more: it is waited for elsewhere, with the place it takes.
    fn judge(
        &self,
        target: &Target,
        (connection, answer): (Connection, Response<Incoming>),
        place: Place,
    ) -> Verdict {
        let (head, body) = answer.into_parts();
        let verdict = Verdict::of_answer(head.status, &head.headers, self.door.clock.wall_ms());
        let pool = target.pool.clone();
        let mut rest: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            if let Ok(Some(connection)) = timeout(REST_MAX, connection.finished(body)).await {
                pool.keep(connection);
            }
            drop(place);
        });
        // Most answers have no body: the next request finds this connection.
        if (&mut rest).now_or_never().is_none() {
            tokio::spawn(rest);
        }
        verdict
    }

    fn request(&self, job: &Job, target: &Target) -> Post {
        let value = job.record.record.value.clone().unwrap_or_default();
        let id = job.id();
        let seconds = self.door.clock.wall_ms().div_euclid(1_000);
        let mut headers = head::headers(job, &self.subscription);
        headers.insert(HOST, target.host.clone());
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
        *request.uri_mut() = target.path.clone();
        *request.headers_mut() = headers;
        request
    }
}

impl Target {
    fn of(door: &WebhookDoor, webhook: &Webhook) -> Option<Target> {
        let uri = webhook.uri()?;
        let host = match uri.port() {
            Some(port) => format!("{}:{port}", uri.host()?),
            None => uri.host()?.to_owned(),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let connector = Connector::new(door, &uri, webhook.timeout / 2);
        Some(Target {
            pool: Arc::new(Pool::new(connector, door.kept.clone())),
            host: HeaderValue::try_from(host).ok()?,
            path: path.parse().ok()?,
        })
    }
}

/// What went wrong, in words.
fn failure(error: &SendError) -> Verdict {
    match error {
        // Its words hold what is below.
        SendError::Connect(error) => Verdict::failed(error.to_string(), Whose::Unreached),
        SendError::Exchange(error) => {
            let mut text = error.to_string();
            let mut below = error.source();
            while let Some(cause) = below {
                text = format!("{text}: {cause}");
                below = cause.source();
            }
            Verdict::failed(text, Whose::Endpoint)
        }
    }
}
