//! What a session is told, as the text of events.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::point::Point;
use crate::{
    gateway::web::{problem::Problem, receive::write_record, reply, session_json},
    quota::Room,
    service::delivery::{
        PushError,
        session::{Delivered, Opened, Out, SessionIn, SessionOut},
    },
};

/// How long `EventSource` waits before it calls again, in milliseconds: a lost session keeps its records for 2 s.
const RETRY_MS: u32 = 500;
/// Waits for room before a session is given up: what is written is leased by now.
const TRIES: u32 = 10;
/// A sign of life.
const COMMENT: &str = ":\n\n";

/// One stream of events.
pub(super) struct Session {
    /// Where its client stands.
    point: Point,
    /// Where the client stood when it came, if it holds what it held then.
    came_from: Option<Point>,
    /// Kept, because the session is lost with it.
    _input: SessionIn,
    output: SessionOut,
    room: Room,
}

/// What to send, and whether it is the last.
type Step = (Bytes, bool);

impl Session {
    /// The session of this id. Its client stood at `last` before.
    pub(super) fn new(
        (session_id, last): (String, Option<Point>),
        (input, output): (SessionIn, SessionOut),
        room: Room,
    ) -> Session {
        let point = Point { session_id, epoch: 0, seq: 0, offset: 0 };
        Session { point, came_from: last, _input: input, output, room }
    }

    /// As the body of a reply.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), async |session| {
            let mut session = session?;
            let (text, is_last) = session.next().await?;
            Some((Ok::<_, Infallible>(text), (!is_last).then_some(session)))
        }))
    }

    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<Step> {
        let out = match self.output.next().await? {
            Ok(out) => out,
            Err(error) => return Some(self.problem(&error.into())),
        };
        let (name, data) = match out {
            Out::Opened(told) => return Some((self.greeting(&told).into(), false)),
            Out::Deliver(told) => return Some(self.records(told).await),
            Out::Revoked(place, runs, reason) => {
                ("revoked", session_json::revoked(&place, &runs, reason))
            }
            Out::Lost(place, runs) => ("lost", session_json::lost(&place, &runs)),
            Out::Goaway(error, released) => return Some(self.goaway(error, released)),
            // Calls that settle have answers of their own.
            Out::Settled(_) | Out::Heartbeat(_) => {
                return Some((Bytes::from_static(COMMENT.as_bytes()), false));
            }
        };
        let text = self.event(name, &data).into_bytes();
        Some(self.counted(text).await.unwrap_or_else(|problem| self.give_up(&problem)))
    }

    fn greeting(&mut self, told: &Opened) -> String {
        self.point.epoch = told.epoch;
        self.came_from = self.came_from.take().filter(|_| told.resumed);
        if let Some(Point { seq, offset, .. }) = self.came_from {
            (self.point.seq, self.point.offset) = (seq, offset);
        }
        let data = session_json::opened(&self.point.session_id, told);
        format!("retry: {RETRY_MS}\n{}", self.event("subscribed", &data))
    }

    /// The records of a delivery that the client was not sent before.
    async fn records(&mut self, delivered: Delivered) -> Step {
        let mut text = Vec::new();
        let mut point = self.point.clone();
        for one in &delivered.frame.records {
            let (seq, offset) = (delivered.seq, one.offset.0);
            if self.came_from.as_ref().is_some_and(|point| point.has(seq, offset)) {
                continue;
            }
            (point.seq, point.offset) = (seq, offset);
            text.extend_from_slice(format!("id: {point}\nevent: record\ndata: ").as_bytes());
            write_record(&delivered, one, &mut text);
            text.extend_from_slice(b"\n\n");
        }
        // What was read is given back first: nobody waits for room while he holds some.
        drop(delivered);
        if text.is_empty() {
            return (Bytes::from_static(COMMENT.as_bytes()), false);
        }
        match self.counted(text).await {
            Ok(step) => {
                self.point = point;
                step
            }
            Err(problem) => self.give_up(&problem),
        }
    }

    /// A text as a step, once there is room for it: with more patience than an answer has.
    async fn counted(&self, text: Vec<u8>) -> Result<Step, Problem> {
        for _ in 1..TRIES {
            if let Ok(share) = self.room.take(text.len()).await {
                return Ok((reply::held(text, share), false));
            }
        }
        let share = self.room.take(text.len()).await?;
        Ok((reply::held(text, share), false))
    }

    /// Ends the session: all that it holds goes back and counts as no failure.
    fn give_up(&mut self, problem: &Problem) -> Step {
        self.output.release();
        self.problem(problem)
    }

    /// The session ends. When the broker does, no call to settle comes in any more: what is held is given back at once.
    fn goaway(&mut self, error: PushError, released: bool) -> Step {
        let stops = matches!(error, PushError::Stopping);
        if stops {
            self.output.release();
        }
        let data = json!({"error": Problem::from(error).to_json(), "released": released});
        (self.event("goaway", &data).into(), stops)
    }

    fn problem(&self, problem: &Problem) -> Step {
        (self.event("problem", &problem.to_json()).into(), true)
    }

    fn event(&self, name: &str, data: &Value) -> String {
        format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.point)
    }
}
