//! Somebody reads or writes a stream: it does not expire meanwhile, and its time begins anew when they are done.

use std::sync::Arc;

use super::{Found, StreamError, StreamService};
use crate::{
    clock::Clock,
    stream::Stream,
    topic::error::{FindError, UnknownTopicOrPartition},
};

/// A use that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Usage {
    stream: Arc<Stream>,
    clock: Clock,
}

impl StreamService {
    /// Begins to use a stream; `None` for a topic that is none, which does not expire.
    ///
    /// # Errors
    /// When its time is over.
    pub(super) fn enter(&self, found: &Found) -> Result<Option<Usage>, StreamError> {
        let Some(stream) = found.topic.stream.clone() else { return Ok(None) };
        match stream.enter(self.clock.steady_ms()) {
            true => Ok(Some(Usage { stream, clock: self.clock.clone() })),
            false => Err(gone(&found.topic.name)),
        }
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.stream.leave(self.clock.steady_ms());
    }
}

/// What is said of a stream whose time is over, removed or not yet.
pub(super) fn gone(name: &str) -> StreamError {
    FindError::from(UnknownTopicOrPartition::Topic { topic: name.to_owned() }).into()
}
