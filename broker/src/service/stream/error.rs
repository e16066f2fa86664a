//! What can go wrong with streams.

use riverrun_proto::batch::EncodeError;
use thiserror::Error;

use super::{Position, fork::FORK_BYTES_MAX};
use crate::{
    partition::AppendError,
    service::{
        fetch::{FetchError, FetchPartitionError},
        produce::ProduceError,
    },
    stream::WriterError,
    topic::error::{FindError, InvalidField, TopicError, UnknownTopicOrPartition},
};

/// A call that was refused or failed.
#[derive(Debug, Error)]
pub enum StreamError {
    /// There is nothing of that name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It was deleted, and forks of it stand.
    #[error("stream `{}` was deleted; its name is kept while forks of it stand", .name.escape_debug())]
    Gone {
        /// Its name.
        name: String,
    },
    /// A topic that was not created as a stream.
    #[error(
        "topic `{topic}` cannot {what}: it was not created as a stream, so its records may go and what they say with them"
    )]
    NoStream {
        /// Its name.
        topic: String,
        /// What only a stream can do.
        what: &'static str,
    },
    /// There is one with other facts.
    #[error("`{name}` exists: {what}")]
    Exists {
        /// Its name.
        name: String,
        /// What is not as asked for, as a sentence.
        what: &'static str,
    },
    /// It is closed.
    #[error("the stream is closed")]
    Closed {
        /// Where it ends.
        tail: Position,
    },
    /// Content of another type.
    #[error("`content-type` must be `{expected}`, found `{}`", .found.escape_debug())]
    ContentType {
        /// That of the stream.
        expected: String,
        /// What came.
        found: String,
    },
    /// The content is not what it says.
    #[error("the body is no JSON: {reason}")]
    Json {
        /// Why.
        reason: String,
    },
    /// A field is not allowed.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// Not its writer's turn.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The source of a fork is kept for its other forks alone.
    #[error("stream `{}` was deleted; nothing can be forked from it", .source_name.escape_debug())]
    SourceGone {
        /// Its name.
        source_name: String,
    },
    /// A fork with more records than are copied at once.
    #[error("the fork would have more than {FORK_BYTES_MAX} bytes, which are copied at once")]
    ForkTooLarge,
    /// A record of the source of a fork is gone, so that the fork would count otherwise.
    #[error(
        "the record at offset {offset} of the source is gone: a fork of it would not be as it is"
    )]
    Hole {
        /// Where it was.
        offset: u64,
    },
    /// It cannot be created or deleted.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// It cannot be written.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// It cannot be read now.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It cannot be read there.
    #[error(transparent)]
    Read(#[from] FetchPartitionError),
    /// The task that worked on it died.
    #[error("the work was interrupted")]
    Interrupted,
}

impl From<UnknownTopicOrPartition> for StreamError {
    fn from(error: UnknownTopicOrPartition) -> StreamError {
        StreamError::Find(error.into())
    }
}

impl From<EncodeError> for StreamError {
    fn from(error: EncodeError) -> StreamError {
        StreamError::Produce(error.into())
    }
}

impl From<AppendError> for StreamError {
    fn from(error: AppendError) -> StreamError {
        StreamError::Produce(error.into())
    }
}

impl StreamError {
    /// A field outside its bounds.
    pub(super) fn field(
        field: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> StreamError {
        let (expected, found) = (expected.into(), found.to_string());
        InvalidField { field, expected, found }.into()
    }
}
