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
//! A reader has no state here: the cursor is all of it, so a resume is exact, also after the broker's restart.
//! One read at a time, made when the connection can take more; a reader that takes nothing is cut by the
//! connection's `write_timeout` and resumes where it was.

mod cursor;
mod stream;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, Method, header},
    response::Response,
    routing::get,
};
use riverrun_proto::Record;

use self::{
    cursor::{Cursor, Position},
    stream::Events,
};
use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
};
use crate::topic::{Slot, Topic};

/// Most partitions of one stream: the id of every event names all of them.
const PARTITIONS_MAX: usize = 128;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/topics/{topic}/events", get(events))
}

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    key: Option<String>,
    key_prefix: Option<String>,
    /// Name of a header, and its value if that matters.
    header: Option<(String, Option<String>)>,
}

impl Filter {
    fn take(call: &mut Call) -> Filter {
        let header = call.take("header").map(|header| match header.split_once(':') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (header, None),
        });
        Filter { key: call.take("key"), key_prefix: call.take("key_prefix"), header }
    }

    /// The record fulfils every condition.
    fn wants(&self, record: &Record) -> bool {
        let key = |holds: &dyn Fn(&[u8]) -> bool| record.key.as_deref().is_some_and(holds);
        let header = |(name, value): &(String, Option<String>)| {
            record.headers.iter().filter(|header| header.key == name.as_bytes()).any(|header| {
                value.as_ref().is_none_or(|value| header.value.as_deref() == Some(value.as_bytes()))
            })
        };
        self.key.as_ref().is_none_or(|equals| key(&|key| key == equals.as_bytes()))
            && self
                .key_prefix
                .as_ref()
                .is_none_or(|prefix| key(&|key| key.starts_with(prefix.as_bytes())))
            && self.header.as_ref().is_none_or(header)
    }
}

async fn events(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let given = match call.header(LAST_EVENT_ID)? {
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
    let chosen = call.parsed("partitions", "numbers with commas between them", |text| {
        text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    })?;
    let filter = Filter::take(&mut call);
    call.finish()?;
    let topic = door.services.admin.topic(call.name("topic"))?;
    let partitions = partitions(&topic, chosen.as_deref())?;
    let cursor = match given {
        Some((field, text)) => Some(resumed(field, &text, &topic)?),
        None => None,
    };
    let start = |partition: u32| match (&cursor, from_start) {
        // Partitions that the cursor does not name are newer than it.
        (Some(cursor), _) => cursor.positions.get(&partition).copied().unwrap_or_default(),
        (None, Some(true)) => visible(&topic, partition).0,
        (None, Some(false) | None) => visible(&topic, partition).1,
    };
    let positions = partitions.into_iter().map(|partition| (partition, start(partition)));
    let positions = positions.collect();
    let topic_id = cursor.as_ref().map_or(topic.id, |cursor| cursor.topic_id);
    let cursor = Cursor { topic_id, positions };
    let body = match call.method {
        Method::HEAD => Body::empty(),
        _ => {
            let room = call.caller.replies.clone();
            Events::new((door, room), &topic, (cursor, filter), chosen.is_none()).into_body()
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that would gather the reply must not.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    Ok(response)
}

/// The partitions to read.
fn partitions(topic: &Topic, chosen: Option<&[u32]>) -> Result<Vec<u32>, Problem> {
    let count = topic.partition_count();
    let partitions = chosen.map_or_else(|| (0..count).collect(), <[u32]>::to_vec);
    if !(1..=PARTITIONS_MAX).contains(&partitions.len()) {
        let expected = format!("1 to {PARTITIONS_MAX} of the topic's {count}");
        return Err(Problem::field("partitions", &expected, partitions.len()));
    }
    for partition in &partitions {
        // An unknown one is told as everywhere.
        topic.partition(*partition)?;
    }
    Ok(partitions)
}

/// The cursor to go on from.
fn resumed(field: &str, text: &str, topic: &Topic) -> Result<Cursor, Problem> {
    let cursor = Cursor::parse(text);
    let cursor = cursor.ok_or_else(|| Problem::field(field, "the id of an event", text))?;
    let count = topic.partition_count();
    let is_same = cursor.topic_id == topic.id;
    match cursor.positions.keys().find(|partition| is_same && **partition >= count) {
        Some(partition) => {
            let expected = format!("the id of an event of a topic with {count} partitions");
            Err(Problem::field(field, &expected, partition))
        }
        None => Ok(cursor),
    }
}

/// The start and the end of what may be read.
fn visible(topic: &Topic, partition: u32) -> (Position, Position) {
    match topic.partitions.get(partition as usize) {
        Some(Slot::Open(open)) => {
            let visible = open.visible();
            let position = |offset: riverrun_proto::Offset| Position {
                offset: offset.0,
                epoch: match offset.0.checked_sub(1) {
                    Some(before) => open.epoch_at(riverrun_proto::Offset(before)).0,
                    None => 0,
                },
            };
            let start = Position { offset: visible.log_start.0, epoch: 0 };
            (start, position(visible.high_watermark))
        }
        Some(Slot::Failed(_)) | None => Default::default(),
    }
}
