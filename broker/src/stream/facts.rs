//! What a stream is, from its creation on.

use riverrun_proto::{TopicId, grpc::state::v1};

/// Content type of a stream that nobody gave one.
const BYTES: &str = "application/octet-stream";

/// Where a fork comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source.
    pub topic_id: TopicId,
    /// Its name.
    pub topic: String,
    /// First offset of the source that the fork does not have.
    pub offset: u64,
    /// How much it has beyond: bytes, or values of JSON.
    pub sub_offset: u64,
}

/// What a stream is. Nothing of it changes but `is_deleted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// Media type of its content, as it was given.
    pub content_type: String,
    /// It expires after so many seconds without a read or a write.
    pub ttl_s: Option<u64>,
    /// It expires at this time, in milliseconds since 1970-01-01 UTC.
    pub expires_at_ms: Option<i64>,
    /// Set when it is a fork.
    pub origin: Option<Origin>,
    /// Its owner deleted it; it is kept for as long as forks of it stand.
    pub is_deleted: bool,
}

impl StreamFacts {
    /// A stream of bytes that never expires: what a topic that was not created as a stream is read as.
    pub fn bytes() -> StreamFacts {
        StreamFacts {
            content_type: BYTES.to_owned(),
            ttl_s: None,
            expires_at_ms: None,
            origin: None,
            is_deleted: false,
        }
    }

    /// From the metadata log.
    ///
    /// # Errors
    /// The length of an id that is not 16 bytes.
    pub fn from_message(message: &v1::StreamFacts) -> Result<StreamFacts, usize> {
        let origin = |origin: &v1::StreamOrigin| {
            let id = &origin.topic_id;
            let topic_id = TopicId::from_slice(id).ok_or(id.len())?;
            let (topic, offset, sub_offset) =
                (origin.topic.clone(), origin.offset, origin.sub_offset);
            Ok::<_, usize>(Origin { topic_id, topic, offset, sub_offset })
        };
        Ok(StreamFacts {
            content_type: message.content_type.clone(),
            ttl_s: message.ttl_s,
            expires_at_ms: message.expires_at_ms,
            origin: message.origin.as_ref().map(origin).transpose()?,
            is_deleted: message.is_deleted,
        })
    }

    /// As the metadata log has it.
    pub fn to_message(&self) -> v1::StreamFacts {
        let origin = self.origin.as_ref().map(|origin| v1::StreamOrigin {
            topic_id: bytes::Bytes::copy_from_slice(origin.topic_id.0.as_bytes()),
            topic: origin.topic.clone(),
            offset: origin.offset,
            sub_offset: origin.sub_offset,
        });
        v1::StreamFacts {
            content_type: self.content_type.clone(),
            ttl_s: self.ttl_s,
            expires_at_ms: self.expires_at_ms,
            origin,
            is_deleted: self.is_deleted,
        }
    }

    /// Its records are values of JSON.
    pub fn is_json(&self) -> bool {
        self.is_of("application/json")
    }

    /// Its content is text, which needs no encoding within server-sent events.
    pub fn is_text(&self) -> bool {
        self.is_json() || media_type(&self.content_type).starts_with("text/")
    }

    /// `other` names the same media type. Parameters say nothing.
    pub fn is_of(&self, other: &str) -> bool {
        media_type(&self.content_type) == media_type(other)
    }
}

/// A media type in lower case and without parameters.
pub fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
