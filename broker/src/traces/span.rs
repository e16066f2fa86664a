//! One span: while its call runs, and when it is over.

use std::{borrow::Cow, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::Tracer;

/// What is told of a call that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The door it came by.
    pub door: Door,
    /// What was called: service and method, or method and route.
    pub name: Cow<'static, str>,
    /// The trace it belongs to.
    pub trace: [u8; 16],
    /// Its own id.
    pub id: [u8; 8],
    /// The caller's span, when it told one.
    pub parent: Option<[u8; 8]>,
    /// When it began, since 1970-01-01 UTC.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// The topic, when there was exactly one.
    pub topic: Option<String>,
    /// How many partitions it was about; 0 when that was not told.
    pub partitions: u32,
    /// Bytes of records that came or went.
    pub bytes: u64,
    /// How it ended.
    pub ended: Ended,
}

/// A door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// gRPC, and gRPC-Web.
    #[default]
    Grpc,
    /// HTTP.
    Web,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// Its caller went away.
    #[default]
    Cut,
    /// With this status of gRPC.
    Grpc(i32),
    /// With this status of HTTP.
    Http(u16),
    /// A part of a stream was refused with this code of ours.
    Refused(i32),
}

/// A span whose call runs. Dropped without an end, its caller went away.
#[derive(Debug)]
pub struct OpenSpan {
    notes: Notes,
    /// Taken by the end.
    begun: Option<Begun>,
}

/// What is known from the beginning.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) tracer: Arc<Tracer>,
    /// On the monotonic clock.
    pub(super) at: Duration,
    pub(super) span: Span,
}

/// What is found out about a call while it runs. All that have it write to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    topic: Option<String>,
    has_several: bool,
    partitions: u32,
    bytes: u64,
}

impl Notes {
    /// The call is about this topic.
    pub(crate) fn topic(&self, name: &str) {
        let mut noted = self.0.lock();
        match &noted.topic {
            None => noted.topic = Some(name.to_owned()),
            Some(known) => noted.has_several |= known != name,
        }
    }

    /// It is about so many partitions. Of what is told piece by piece, the largest counts.
    pub(crate) fn partitions(&self, count: usize) {
        let mut noted = self.0.lock();
        noted.partitions = noted.partitions.max(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// So many more bytes came or went.
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.0.lock().bytes += bytes as u64;
    }

    /// Bytes that were told.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }
}

impl OpenSpan {
    pub(super) fn new(begun: Begun) -> OpenSpan {
        OpenSpan { notes: Notes::default(), begun: Some(begun) }
    }

    /// Where to write what is found out.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The call is over.
    pub(crate) fn end(mut self, ended: Ended) {
        self.tell(ended);
    }

    fn tell(&mut self, ended: Ended) {
        let Some(Begun { tracer, at, mut span }) = self.begun.take() else { return };
        span.took = tracer.clock.elapsed().saturating_sub(at);
        let mut noted = self.notes.0.lock();
        span.topic = noted.topic.take().filter(|_| !noted.has_several);
        (span.partitions, span.bytes) = (noted.partitions, noted.bytes);
        drop(noted);
        span.ended = ended;
        tracer.tell(span);
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        self.tell(Ended::Cut);
    }
}
