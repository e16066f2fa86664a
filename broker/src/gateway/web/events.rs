//! `GET /v1/topics/{topic}/events`: server-sent events of a topic, over all its partitions.
//!
//! ```text
//! id: CURSOR            where a reader stands after this record: what `EventSource` sends back in `Last-Event-ID`
//! data: {...}           the record as JSON, always on one line, with its partition
//!
//! event: gap            records that the reader will not get, with the reason
//! event: problem        an error after which the stream ends
//! :                     a comment now and then, so that both ends see that the other lives
//! ```
//!
//! The first event has an id and no data: whoever loses the connection before the first record resumes there too.
//! A reader that takes nothing is cut by the connection's `write_timeout` and resumes where it was.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, Method, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use riverrun_proto::batch::OffsetRecord;
use serde_json::Value;

use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
    record, reply,
    tail::{Cursor, Filter, Form, Tail, Wanted},
};

/// How long `EventSource` waits before it calls again, in milliseconds.
const RETRY_MS: u32 = 2_000;
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/topics/{topic}/events", get(events))
}

async fn events(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let wanted = wanted(&mut call)?;
    let (room, shared) = (call.caller.replies.clone(), door.steps.events.clone());
    let tail = Tail::open((door, room), shared, wanted)?;
    let body = match call.method {
        Method::HEAD => Body::empty(),
        _ => Stream::new(tail).into_body(),
    };
    Ok(response(body))
}

/// A reply of events.
pub(super) fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that would gather the reply must not.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}

fn wanted(call: &mut Call) -> Result<Wanted, Problem> {
    let cursor = match call.header(LAST_EVENT_ID)? {
        "" => call.take("cursor").map(|text| ("cursor", text)),
        text => {
            let text = text.to_owned();
            // What the first connection was given stays in the address that `EventSource` calls again.
            call.take("cursor");
            Some(("last-event-id", text))
        }
    };
    let from_start = call.parsed("from", "earliest or latest", |text| match text {
        "earliest" => Some(true),
        "latest" => Some(false),
        _ => None,
    })?;
    let partitions = call.parsed("partitions", "numbers with commas between them", |text| {
        text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    })?;
    let header = call.take("header").map(Filter::header);
    let filter = Filter { key: call.take("key"), key_prefix: call.take("key_prefix"), header };
    call.finish()?;
    let (topic, from_start) = (call.name("topic").to_owned(), from_start.unwrap_or_default());
    Ok(Wanted { topic, cursor, from_start, partitions, filter })
}

/// One stream of events.
struct Stream {
    tail: Tail<Events>,
    /// What to say before anything else.
    greeting: Option<String>,
}

impl Stream {
    fn new(mut tail: Tail<Events>) -> Stream {
        let mut greeting = format!("retry: {RETRY_MS}\n");
        match tail.take_recreated() {
            Some(told) => event(&mut greeting, "gap", (tail.cursor(), &told)),
            None => drop(write!(greeting, "id: {}\n\n", tail.cursor())),
        }
        Stream { tail, greeting: Some(greeting) }
    }

    /// As the body of a reply.
    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), async |stream| {
            let mut stream = stream?;
            if stream.tail.is_over() {
                return None;
            }
            let (text, ended) = stream.next().await;
            Some((Ok::<_, Infallible>(text), (!ended).then_some(stream)))
        }))
    }

    /// The next events, and whether they are the last.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(greeting) = self.greeting.take() {
            return (greeting.into(), false);
        }
        let before = self.tail.cursor().clone();
        let (mut events, ended) = self.tail.step().await;
        let mut rest = String::new();
        if let Err(problem) = &ended {
            // What came before it is in the text and in the cursor: it is sent all the same.
            event(&mut rest, "problem", (self.tail.cursor(), &problem.to_json()));
        } else if events.0.is_empty() && *self.tail.cursor() != before {
            // Nothing was wanted; whoever resumes need not read it again.
            let _ = write!(rest, "id: {}\n\n", self.tail.cursor());
        } else if events.0.is_empty() {
            rest.push_str(":\n\n");
        }
        if !rest.is_empty() {
            events = Arc::new(Events(events.0.clone() + &rest));
        }
        match self.tail.room_for(events.0.len()).await {
            Ok(share) => (reply::held(Sent(events), share), ended.is_err()),
            Err(problem) => {
                self.tail.go_back(before);
                let mut text = String::new();
                event(&mut text, "problem", (self.tail.cursor(), &problem.to_json()));
                (text.into(), true)
            }
        }
    }
}

/// Events as they go out.
#[derive(Debug, Default)]
pub(super) struct Events(String);

/// Events on their way to one of their readers.
struct Sent(Arc<Events>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.0.as_bytes()
    }
}

impl Form for Events {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn record(&mut self, cursor: &Cursor, partition: u32, record: &OffsetRecord) {
        let _ = write!(self.0, "id: {cursor}\ndata: ");
        record::write_with(partition, record, &mut self.0);
        self.0.push_str("\n\n");
    }

    fn gap(&mut self, cursor: &Cursor, told: &Value) {
        event(&mut self.0, "gap", (cursor, told));
    }
}

fn event(text: &mut String, name: &str, (cursor, data): (&Cursor, &Value)) {
    let _ = write!(text, "id: {cursor}\nevent: {name}\ndata: {data}\n\n");
}
