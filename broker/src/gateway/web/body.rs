//! Bodies of requests: taken as a whole or line by line, with bounds in bytes and in time.
//!
//! What is taken is counted against the connection's room before it is kept, and given back with the share that
//! comes along. A client that is silent for too long within a body, or too slow, is told so and cut. Line by line it is
//! too slow only within a line: a stream of lines may go on for ever.

use std::io;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderValue, StatusCode, header},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, future::poll_fn, stream};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{
    WebDoor,
    call::Call,
    object::Object,
    pace::{BYTES_PER_SECOND, Pace},
    problem::Problem,
};
use crate::quota::{Room, Share};

/// Bytes that are not counted; small requests are never refused for want of room.
const FREE_BYTES: usize = 8 << 10;

/// The frames of a body, each in time.
#[derive(Debug)]
struct Frames {
    body: Body,
    pace: Pace,
}

/// A body line by line.
#[derive(Debug)]
pub(super) struct Lines {
    frames: Frames,
    /// What came and was not given out.
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no line end.
    searched: usize,
    is_ended: bool,
    line_bytes_max: usize,
    room: Room,
    /// What is counted for `buffer`.
    share: Share,
}

/// What became of the wait for a line.
#[derive(Debug)]
pub(super) enum Line {
    /// A line without its end.
    Text(Bytes),
    /// Nothing is there now.
    NotYet,
    /// The body is over.
    End,
}

impl Frames {
    fn new(body: Body, door: &WebDoor) -> Frames {
        Frames { body, pace: Pace::new(door.config.http.body_timeout) }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let body = &mut self.body;
            let frame = poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context));
            let started = Instant::now();
            let Ok(frame) = timeout(self.pace.left(), frame).await else {
                let message = format!(
                    "the body was silent for {} ms, `http.body_timeout`, or by as much behind {BYTES_PER_SECOND} \
                     bytes a second",
                    self.pace.most().as_millis()
                );
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message));
            };
            match frame {
                None => return Ok(None),
                // Trailers say nothing here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.pace.moved(started.elapsed(), data.len());
                        return Ok(Some(data));
                    }
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    let message = format!("the body cannot be read: {error}");
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "BROKEN_BODY", message));
                }
            }
        }
    }
}

fn too_large(limit: usize, what: &str) -> Problem {
    let message = format!("{what} has more than {limit} bytes, `http.body_bytes_max`");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message)
}

/// The same body, which ends with an error when it is silent for too long.
pub(super) fn timed(body: Body, door: &WebDoor) -> Body {
    let frames = Frames::new(body, door);
    Body::from_stream(stream::try_unfold(frames, async |mut frames| {
        let next = frames.next().await;
        let next = next.map_err(|problem| io::Error::other(problem.message().to_owned()))?;
        Ok::<_, io::Error>(next.map(|data| (data, frames)))
    }))
}

/// The whole body, and what was taken for it.
pub(super) async fn whole(
    call: &Call,
    body: Body,
    door: &WebDoor,
) -> Result<(Bytes, Share), Problem> {
    refuse_encodings(call)?;
    let limit = door.config.http.body_bytes_max;
    let declared =
        body.size_hint().upper().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit, "the body"));
    }
    // A body of unknown length is counted as the largest until it is here.
    let expected = declared.unwrap_or(limit);
    let mut share = match expected > FREE_BYTES {
        true => call.caller.receiving.take(expected).await?,
        false => Share::default(),
    };
    let mut frames = Frames::new(body, door);
    let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0));
    while let Some(data) = frames.next().await? {
        if bytes.len() + data.len() > limit {
            return Err(too_large(limit, "the body"));
        }
        bytes.extend_from_slice(&data);
    }
    share.shrink(bytes.len());
    Ok((bytes.freeze(), share))
}

/// The whole body as a JSON object.
pub(super) async fn json<T: DeserializeOwned>(
    call: &Call,
    body: Body,
    door: &WebDoor,
) -> Result<T, Problem> {
    match media_type(call)?.as_str() {
        "application/json" => {}
        other => return Err(unsupported(other, "application/json")),
    }
    let (bytes, _share) = whole(call, body, door).await?;
    object(&bytes)
}

/// The refusal of a media type.
pub(super) fn unsupported(found: &str, expected: &str) -> Problem {
    let message = format!(
        "`content-type` must be {expected}, found `{}`",
        &found[..found.floor_char_boundary(100)]
    );
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

/// Reads JSON; the error says where.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| malformed(&error))
}

/// Reads a JSON object; the error says where.
pub(super) fn object<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    parse::<Object<T>>(bytes).map(|Object(read)| read)
}

/// What is wrong with JSON.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(500));
    let message = format!("the body is not as it should be: {text}");
    Problem::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}

/// The media type of the body in lower case, without parameters.
pub(super) fn media_type(call: &Call) -> Result<String, Problem> {
    let text = call.header(header::CONTENT_TYPE)?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Compressed bodies are not inflated: their size would not be known before.
pub(super) fn refuse_encodings(call: &Call) -> Result<(), Problem> {
    match call.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(()),
        Some(found) => {
            let found = String::from_utf8_lossy(&found[..found.len().min(100)]);
            let message = format!("`content-encoding` must be identity, found `{found}`");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(Problem::new(status, "UNSUPPORTED_CONTENT_ENCODING", message))
        }
    }
}

impl Lines {
    pub(super) fn new(call: &Call, body: Body, door: &WebDoor) -> Result<Lines, Problem> {
        refuse_encodings(call)?;
        Ok(Lines {
            frames: Frames::new(body, door),
            buffer: BytesMut::new(),
            searched: 0,
            is_ended: false,
            line_bytes_max: door.config.http.body_bytes_max,
            room: call.caller.receiving.clone(),
            share: Share::default(),
        })
    }

    /// The next line that is not empty, as soon as it is there. Never [`Line::NotYet`].
    pub(super) async fn next(&mut self) -> Result<Line, Problem> {
        loop {
            match self.try_next().await? {
                Line::NotYet => {
                    let data = self.frames.next().await?;
                    self.add(data).await?;
                }
                line @ (Line::Text(_) | Line::End) => return Ok(line),
            }
        }
    }

    /// The next line that is not empty, if it is there now.
    pub(super) async fn try_next(&mut self) -> Result<Line, Problem> {
        loop {
            if let Some(line) = self.buffered() {
                self.frames.pace.forgive();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Line::Text(line));
            }
            if self.is_ended {
                return Ok(Line::End);
            }
            let Some(data) = self.frames.next().now_or_never() else { return Ok(Line::NotYet) };
            self.add(data?).await?;
        }
    }

    async fn add(&mut self, data: Option<Bytes>) -> Result<(), Problem> {
        let Some(data) = data else {
            self.is_ended = true;
            return Ok(());
        };
        if self.buffer.len() + data.len() > self.line_bytes_max && !data.contains(&b'\n') {
            return Err(too_large(self.line_bytes_max, "a line of the body"));
        }
        self.buffer.extend_from_slice(&data);
        if self.buffer.len() > FREE_BYTES {
            // What is there was counted before: only what is new may have to wait.
            self.share = Share::default();
            self.share = self.room.take(self.buffer.len()).await?;
        }
        Ok(())
    }

    /// A line from the buffer; at the end of the body the rest is one too.
    fn buffered(&mut self) -> Option<Bytes> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = self.buffer.len();
            if self.is_ended && !self.buffer.is_empty() {
                self.searched = 0;
                return Some(self.buffer.split().freeze());
            }
            return None;
        };
        let line = self.buffer.split_to(self.searched + found).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}
