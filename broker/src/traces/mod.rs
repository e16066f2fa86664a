//! The words of traces: which calls are told of, and what is told of each.
//!
//! ```text
//! a door begins a span -> notes what was asked -> the call ends -> queue -> whoever exports takes it
//! ```
//!
//! Invariants:
//! - Without an exporter, and for a call that is not sampled, no span is made.
//! - The queue is bounded and nobody waits for it: a span that finds no room is lost, and counted.
//! - Whether a call is told of is its caller's decision where there is one (the flag in `traceparent`), else a share of all.
//!
//! Nothing here talks to a collector; see feature `otlp` of the binary.

mod parent;
mod span;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use self::span::Notes;
pub use self::span::{Door, Ended, OpenSpan, Span};
use self::{parent::Parent, span::Begun};
use crate::{clock::Clock, metrics::SpanMeter};

/// Spans that wait to be exported; some MiB at the worst.
pub const QUEUE_MAX: usize = 4_096;
/// What a share of all calls is counted in.
pub const WHOLE: u32 = 1_000_000;

/// Where doors begin spans; nowhere, by default.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    tracer: Option<Arc<Tracer>>,
}

/// What spans are begun and ended with.
#[derive(Debug)]
struct Tracer {
    queue: mpsc::Sender<Span>,
    meter: Arc<SpanMeter>,
    clock: Clock,
    /// Calls without a parent that are told of, in millionths.
    sampled: u32,
}

/// The exporter's end of the queue.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Receiver<Span>,
    /// Counts what became of spans.
    pub meter: Arc<SpanMeter>,
}

/// Where a call comes from: what its spans have in common.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    tracer: Arc<Tracer>,
    door: Door,
    parent: Option<Parent>,
}

impl Traces {
    /// Spans for an exporter, of so many millionths of the calls that have no parent.
    pub fn exported(sampled: u32, clock: Clock) -> (Traces, Spans) {
        Traces::with_room(QUEUE_MAX, (sampled, clock))
    }

    fn with_room(room: usize, (sampled, clock): (u32, Clock)) -> (Traces, Spans) {
        let (sender, queue) = mpsc::channel(room);
        let meter = Arc::new(SpanMeter::default());
        let tracer = Tracer { queue: sender, meter: meter.clone(), clock, sampled };
        (Traces { tracer: Some(Arc::new(tracer)) }, Spans { queue, meter })
    }

    /// Where a call with this header `traceparent` comes from; `None` when nothing will be told of it. A header that is not
    /// understood counts as none; nobody looks for it where nothing is told of any call.
    pub(crate) fn origin<'a>(
        &self,
        door: Door,
        traceparent: impl FnOnce() -> Option<&'a [u8]>,
    ) -> Option<Origin> {
        let tracer = self.tracer.as_ref()?;
        let parent = traceparent().and_then(Parent::parse);
        let is_left_out = match parent {
            Some(parent) => !parent.is_sampled,
            None => tracer.sampled == 0,
        };
        (!is_left_out).then(|| Origin { tracer: tracer.clone(), door, parent })
    }

    /// Counts spans, where any are made.
    pub fn meter(&self) -> Option<Arc<SpanMeter>> {
        self.tracer.as_ref().map(|tracer| tracer.meter.clone())
    }
}

impl Origin {
    /// Begins a span, unless it belongs to the share that is not told of.
    pub(crate) fn begin(&self, name: impl Into<Cow<'static, str>>) -> Option<OpenSpan> {
        let trace = match &self.parent {
            Some(parent) => parent.trace,
            None => {
                let id = Uuid::new_v4();
                let (high, low) = id.as_u64_pair();
                let is_chosen = (high ^ low) % u64::from(WHOLE) < u64::from(self.tracer.sampled);
                is_chosen.then(|| id.into_bytes())?
            }
        };
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let span = Span {
            door: self.door,
            name: name.into(),
            trace,
            // Zero is no id.
            id: (high ^ low).max(1).to_le_bytes(),
            parent: self.parent.map(|parent| parent.span),
            began: self.tracer.clock.wall(),
            ..Span::default()
        };
        Some(OpenSpan::new(Begun {
            tracer: self.tracer.clone(),
            at: self.tracer.clock.elapsed(),
            span,
        }))
    }
}

impl Tracer {
    /// Gives a span away. Never waits.
    fn tell(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.meter.lost.add(1);
        }
    }
}

impl Spans {
    /// Some spans, at most `most` and at least one, waiting for it; `None` when there will never be one again.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Span>> {
        let mut spans = Vec::new();
        (self.queue.recv_many(&mut spans, most).await > 0).then_some(spans)
    }
}
