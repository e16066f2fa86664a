//! `GET`: what is there, or by long poll what comes.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Refused, answer, cursor, find,
    headers::{CURSOR, UP_TO_DATE},
    offset, problem, put_content_type, put_tail, sse,
};
use crate::{
    gateway::web::{WebDoor, call::Call, problem::Problem, reply},
    service::stream::{Chunk, Found, From, ReadRequest},
};

/// Most bytes of one reply; the first append comes even when it has more.
const CHUNK_BYTES: u32 = 1 << 20;

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Live {
    CatchUp,
    LongPoll,
    Events,
}

pub(super) async fn read(State(door): State<WebDoor>, call: Call) -> Response {
    answer(reply(door, call).await)
}

async fn reply(door: WebDoor, mut call: Call) -> Result<Response, Refused> {
    let live = call.parsed("live", "long-poll or sse", |text| match text {
        "long-poll" => Some(Live::LongPoll),
        "sse" => Some(Live::Events),
        _ => None,
    })?;
    let live = live.unwrap_or(Live::CatchUp);
    let from = call.parsed("offset", "an offset that was told before, -1 or now", from)?;
    let came = call.take("cursor");
    let from = match (from, live) {
        (Some(from), _) => from,
        (None, Live::CatchUp) => From::Start,
        (None, Live::LongPoll | Live::Events) => {
            return Err(Problem::field("offset", "given beside `live`", "nothing").into());
        }
    };
    let found = find(&door, &call)?;
    if live == Live::Events {
        return sse::events(door, &call, (found, from, came)).await;
    }
    let wait = match live {
        Live::LongPoll => door.config.http.stream_wait,
        Live::CatchUp | Live::Events => Duration::ZERO,
    };
    let request = ReadRequest { from, wait, bytes_max: CHUNK_BYTES };
    let read = door.services.streams.read(&found, request, &call.caller.replies).await;
    let chunk = problem::told(read)?;
    let cursor = match live {
        Live::LongPoll => Some(cursor::next(door.services.streams.wall_ms(), came.as_deref())),
        Live::CatchUp | Live::Events => None,
    };
    // The content between two places of a compacted topic changes.
    let is_tagged = from != From::Now && found.keeps_records();
    whole(&call, &found, (chunk, cursor, is_tagged)).await
}

fn from(text: &str) -> Option<From> {
    match text {
        "-1" => Some(From::Start),
        "now" => Some(From::Now),
        word => offset::parse(word).map(From::At),
    }
}

/// The reply with all that was read.
async fn whole(
    call: &Call,
    found: &Found,
    (chunk, cursor, is_tagged): (Chunk, Option<u64>, bool),
) -> Result<Response, Refused> {
    let tag = tag(found, &chunk);
    let is_known = is_tagged && call.knows(&tag);
    let Chunk { values, next, is_up_to_date, is_closed, shares, .. } = chunk;
    let mut response = match (is_known, cursor) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, Some(_)) if values.is_empty() => StatusCode::NO_CONTENT.into_response(),
        (false, _) => {
            let bytes = content(found, &values);
            // Made a reply of; what was taken for them is free for it.
            drop((values, shares));
            Response::new(Body::from(
                reply::count(bytes, &call.caller.replies).await.map_err(Refused::from)?,
            ))
        }
    };
    let headers = response.headers_mut();
    put_content_type(headers, found);
    put_tail(headers, &offset::text(next), is_closed);
    if is_up_to_date {
        headers.insert(UP_TO_DATE, HeaderValue::from_static("true"));
    }
    // What is followed by more never changes.
    let caching = match (is_tagged, is_up_to_date) {
        (false, _) => "no-store",
        (true, true) => "no-cache",
        (true, false) => "private, max-age=60, stale-while-revalidate=300",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if is_tagged {
        headers.insert(header::ETAG, tag);
    }
    if let Some(cursor) = cursor.filter(|_| !is_closed) {
        headers.insert(CURSOR, cursor.into());
    }
    Ok(response)
}

/// The data as one body.
pub(super) fn content(found: &Found, values: &[bytes::Bytes]) -> Vec<u8> {
    match found.is_json() {
        true => [&b"["[..], &values.join(&b","[..]), &b"]"[..]].concat(),
        false => values.concat(),
    }
}

/// A tag that is the same for the same data, and for the same end.
fn tag(found: &Found, chunk: &Chunk) -> HeaderValue {
    let (start, end) = (offset::text(chunk.start), offset::text(chunk.next));
    let closed = if chunk.is_closed { ":c" } else { "" };
    let tag = format!("\"{}:{}:{start}:{end}{closed}\"", found.topic.id, found.partition);
    HeaderValue::from_str(&tag).expect("an id and digits between quotes")
}
