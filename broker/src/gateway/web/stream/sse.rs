//! `GET ?live=sse`: a stream as server-sent events.
//!
//! ```text
//! event: data       what was appended: text, an array of JSON, or base64 of bytes
//! event: control    where the reader stands after it: {"streamNextOffset", "streamCursor", "upToDate", "streamClosed"}
//! event: problem    what ends the stream early
//! :                 a comment now and then, so that both ends see that the other lives
//! ```
//!
//! A control event follows every data event in the same piece. The stream ends by itself after a minute, so that readers
//! gather at caches in between, and with the end of the data. A reader that takes nothing is cut by the connection's
//! `write_timeout`.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Refused, cursor, headers::DATA_ENCODING, offset, problem, read::content};
use crate::{
    gateway::web::{WebDoor, call::Call, reply},
    quota::Room,
    service::stream::{Chunk, Found, From, ReadRequest},
    stream::StreamFacts,
};

/// A stream of events ends after so long.
const LIFE: Duration = Duration::from_secs(60);
/// A step ends when there was nothing for so long.
const STEP: Duration = Duration::from_secs(15);
/// Most bytes read at once.
const STEP_BYTES: u32 = 256 << 10;

/// A reader.
struct Reader {
    door: WebDoor,
    room: Room,
    found: Found,
    from: From,
    /// The cursor it was told last, or is to be told: it never goes back.
    cursor: u64,
    is_text: bool,
    ends: Instant,
}

pub(super) async fn events(
    door: WebDoor,
    call: &Call,
    (found, from, came): (Found, From, Option<String>),
) -> Result<Response, Refused> {
    let room = call.caller.replies.clone();
    // The first read is now, so that what is wrong with the request is told by its status.
    let request = ReadRequest { from, wait: Duration::ZERO, bytes_max: STEP_BYTES };
    let first = problem::told(door.services.streams.read(&found, request, &room).await)?;
    let is_text = found.facts().is_some_and(StreamFacts::is_text);
    let cursor = cursor::next(door.services.streams.wall_ms(), came.as_deref());
    let reader = Reader { door, room, found, from, cursor, is_text, ends: Instant::now() + LIFE };
    let body = stream::unfold(Some((reader, Some(first))), async |state| {
        let (mut reader, first) = state?;
        if first.is_none() && reader.is_over() {
            return None;
        }
        let (text, is_last) = reader.step(first).await;
        Some((Ok::<_, Infallible>(text), (!is_last).then_some((reader, None))))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that would gather the reply must not.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    if !is_text {
        headers.insert(DATA_ENCODING, HeaderValue::from_static("base64"));
    }
    Ok(response)
}

impl Reader {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.door.shutdown.has_begun()
    }

    /// The next events, and whether they are the last.
    async fn step(&mut self, first: Option<Chunk>) -> (Bytes, bool) {
        let is_first = first.is_some();
        let chunk = match first {
            Some(chunk) => chunk,
            None => {
                let left = self.ends.saturating_duration_since(Instant::now());
                let request =
                    ReadRequest { from: self.from, wait: STEP.min(left), bytes_max: STEP_BYTES };
                match self.door.services.streams.read(&self.found, request, &self.room).await {
                    Ok(chunk) => chunk,
                    Err(error) => return (trouble(&problem::problem(error).to_json()), true),
                }
            }
        };
        self.from = From::At(chunk.next);
        let is_last = chunk.is_closed;
        if chunk.values.is_empty() && !is_last && !is_first {
            return (Bytes::from_static(b":\n\n"), false);
        }
        let Some(text) = self.text(&chunk) else {
            let message = "the content is no UTF-8; read it without `live=sse`";
            return (trouble(&json!({"code": "NOT_UTF8", "message": message})), true);
        };
        drop(chunk);
        match reply::count(text.into_bytes(), &self.room).await {
            Ok(text) => (text, is_last),
            Err(problem) => (trouble(&problem.to_json()), true),
        }
    }

    /// The events of what was read; `None` when it is no text and should be.
    fn text(&mut self, chunk: &Chunk) -> Option<String> {
        let mut text = String::new();
        if !chunk.values.is_empty() {
            let bytes = content(&self.found, &chunk.values);
            let data = match self.is_text {
                true => String::from_utf8(bytes).ok()?,
                false => STANDARD.encode(bytes),
            };
            event(&mut text, "data", &data);
        }
        event(&mut text, "control", &self.control(chunk).to_string());
        Some(text)
    }

    fn control(&mut self, chunk: &Chunk) -> Value {
        let mut control = Map::new();
        control.insert("streamNextOffset".into(), offset::text(chunk.next).into());
        if chunk.is_closed {
            control.insert("streamClosed".into(), true.into());
        } else {
            let now = cursor::next(self.door.services.streams.wall_ms(), None);
            self.cursor = self.cursor.max(now);
            control.insert("streamCursor".into(), self.cursor.to_string().into());
        }
        if chunk.is_up_to_date {
            control.insert("upToDate".into(), true.into());
        }
        control.into()
    }
}

fn trouble(told: &Value) -> Bytes {
    let mut text = String::new();
    event(&mut text, "problem", &told.to_string());
    text.into()
}

/// Writes an event. A reader takes one blank after the colon away, and ends a line at each of the three marks.
fn event(text: &mut String, name: &str, data: &str) {
    text.push_str("event: ");
    text.push_str(name);
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        text.push_str("\ndata:");
        if line.starts_with(' ') {
            text.push(' ');
        }
        text.push_str(line);
    }
    text.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_content_ends_an_event_or_loses_its_blanks() {
        let mut text = String::new();
        event(&mut text, "data", "a\r\n\r\nevent: control\rdata: x\n b");
        assert_eq!(
            text,
            "event: data\ndata:a\ndata:\ndata:event: control\ndata:data: x\ndata:  b\n\n"
        );
    }
}
