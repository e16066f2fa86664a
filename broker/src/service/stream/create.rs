//! Creates streams, and says when one is there already.

use std::{mem, sync::Arc};

use bytes::Bytes;
use riverrun_proto::limits;

use super::{
    ForkRequest, Found, Position, StreamError, StreamService, Tail, content, fork::Inherited,
};
use crate::{
    quota::{Room, Share},
    service::{admin::to_its_end, produce::encode},
    stream::{Mark, StreamFacts, media_type},
    topic::{
        Topic,
        error::{FindError, TopicError},
        registry::NewStream,
    },
};

/// A stream to create.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its name.
    pub name: String,
    /// Media type of its content, when the caller says one.
    pub content_type: Option<String>,
    /// It expires after so many seconds without a read or a write.
    pub ttl_s: Option<u64>,
    /// It expires at this time.
    pub expires_at_ms: Option<i64>,
    /// Its body is all it will ever have.
    pub is_closed: bool,
    /// What it begins with.
    pub body: Bytes,
    /// What was taken for the body; given back when it is in the log, also when the caller goes away before.
    pub share: Share,
    /// Set when it is a fork.
    pub fork: Option<ForkRequest>,
}

/// A stream that is there.
#[derive(Clone, Debug)]
pub struct Created {
    /// The stream.
    pub found: Found,
    /// It was not there before.
    pub is_new: bool,
    /// The end of its data.
    pub tail: Tail,
}

impl StreamService {
    /// Creates a stream with what it begins with, or finds one that is as the request says.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn create(
        &self,
        mut request: CreateRequest,
        room: &Room,
    ) -> Result<Created, StreamError> {
        if let Some(created) = self.existing(&request, room).await? {
            return Ok(created);
        }
        let inherited = match &request.fork {
            Some(fork) => {
                self.registry.check_new_stream(&request.name)?;
                Some(self.inherited(fork, room).await?)
            }
            None => None,
        };
        let new = self.new_stream(&mut request, inherited)?;
        let registry = self.registry.clone();
        match to_its_end(async move { registry.create_stream(new).await }).await {
            Ok(topic) => self.created(topic, true, room).await,
            // Somebody else was faster.
            Err(TopicError::Exists { topic }) => {
                let existing = self.existing(&request, room).await?;
                existing.ok_or(StreamError::Topic(TopicError::Exists { topic }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to create: what it inherits in some batches, what the request brings as one.
    fn new_stream(
        &self,
        request: &mut CreateRequest,
        inherited: Option<Inherited>,
    ) -> Result<NewStream, StreamError> {
        let facts = facts(request, inherited.as_ref())?;
        let (body, share) = (mem::take(&mut request.body), mem::take(&mut request.share));
        let values = match body.is_empty() {
            true => Vec::new(),
            false => content::values(&facts, &body)?,
        };
        let mark = Mark { is_closing: request.is_closed, ..Mark::default() };
        let own = mark.records(values);
        let message_bytes_max = inherited.as_ref().and_then(|all| all.message_bytes_max);
        let mut content = inherited.map(|all| all.batches).unwrap_or_default();
        if !own.is_empty() {
            let bytes_max = message_bytes_max.unwrap_or(limits::BATCH_BYTES_DEFAULT);
            content.push((encode(&own, bytes_max as usize, self.clock.wall_ms())?, share));
        }
        Ok(NewStream { name: request.name.clone(), facts, message_bytes_max, content })
    }

    async fn created(
        &self,
        topic: Arc<Topic>,
        is_new: bool,
        room: &Room,
    ) -> Result<Created, StreamError> {
        let found = Found { topic, partition: 0 };
        let tail = self.tail(&found, room).await?;
        Ok(Created { found, is_new, tail })
    }

    /// The stream of that name, when it is as the request says; `None` when there is none.
    async fn existing(
        &self,
        request: &CreateRequest,
        room: &Room,
    ) -> Result<Option<Created>, StreamError> {
        let name = request.name.clone();
        let exists = |what| Err(StreamError::Exists { name: name.clone(), what });
        let found = match self.find(&request.name, 0) {
            Ok(found) => found,
            Err(StreamError::Gone { .. }) => {
                return exists("it was deleted, and forks of it stand");
            }
            Err(StreamError::Find(FindError::Unknown(_))) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(facts) = found.facts() else { return exists("it is no stream") };
        if let Some(what) = difference(facts, request) {
            return exists(what);
        }
        let created = self.created(found.topic, false, room).await?;
        match created.tail.is_closed == request.is_closed {
            true => Ok(Some(created)),
            false => exists("it is open and should be closed, or the other way round"),
        }
    }
}

/// What the new stream is.
fn facts(
    request: &CreateRequest,
    inherited: Option<&Inherited>,
) -> Result<StreamFacts, StreamError> {
    let is_own = request.ttl_s.is_some() || request.expires_at_ms.is_some();
    let source = inherited.map(|inherited| &inherited.source);
    let lasting = source.filter(|_| !is_own);
    let mut facts = StreamFacts {
        ttl_s: request.ttl_s.or_else(|| lasting?.ttl_s),
        expires_at_ms: request.expires_at_ms.or_else(|| lasting?.expires_at_ms),
        origin: inherited.map(|inherited| inherited.origin.clone()),
        ..StreamFacts::bytes()
    };
    if let Some(source) = source {
        facts.content_type.clone_from(&source.content_type);
    }
    let Some(found) = &request.content_type else { return Ok(facts) };
    if source.is_some_and(|source| !source.is_of(found)) {
        let (expected, found) = (facts.content_type, found.clone());
        return Err(StreamError::ContentType { expected, found });
    }
    facts.content_type.clone_from(found);
    Ok(facts)
}

/// What of an existing stream is not as the request says.
fn difference(facts: &StreamFacts, request: &CreateRequest) -> Option<&'static str> {
    let is_fork = request.fork.is_some();
    let default = StreamFacts::bytes().content_type;
    let content_type = match &request.content_type {
        None if is_fork => None,
        None => Some(&default),
        Some(given) => Some(given),
    };
    if content_type.is_some_and(|given| media_type(given) != media_type(&facts.content_type)) {
        return Some("its content type is another");
    }
    let asked = (request.ttl_s, request.expires_at_ms);
    let inherits = is_fork && asked == (None, None);
    if !inherits && asked != (facts.ttl_s, facts.expires_at_ms) {
        return Some("its time to live is another");
    }
    let is_same = match (&facts.origin, &request.fork) {
        (None, None) => true,
        (Some(origin), Some(fork)) => {
            let at = fork.offset.map(|position: Position| position.offset);
            origin.topic == fork.source
                && at.is_none_or(|at| at == origin.offset)
                && fork.sub_offset == origin.sub_offset
        }
        (None, Some(_)) | (Some(_), None) => false,
    };
    (!is_same).then_some("its origin is another")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateRequest {
        CreateRequest {
            name: "s".into(),
            content_type: None,
            ttl_s: None,
            expires_at_ms: None,
            is_closed: false,
            body: Bytes::new(),
            share: Share::default(),
            fork: None,
        }
    }

    #[test]
    fn an_existing_stream_must_be_as_the_request_says() {
        let facts = StreamFacts { ttl_s: Some(5), ..StreamFacts::bytes() };
        let same = || CreateRequest { ttl_s: Some(5), ..request() };
        assert_eq!(difference(&facts, &same()), None);
        let cased =
            CreateRequest { content_type: Some("APPLICATION/octet-stream; x=y".into()), ..same() };
        assert_eq!(difference(&facts, &cased), None);
        let other = CreateRequest { content_type: Some("text/plain".into()), ..same() };
        assert_eq!(difference(&facts, &other), Some("its content type is another"));
        assert_eq!(difference(&facts, &request()), Some("its time to live is another"));
        let fork = ForkRequest { source: "o".into(), offset: None, sub_offset: 0 };
        let fork = CreateRequest { fork: Some(fork), ..same() };
        assert_eq!(difference(&facts, &fork), Some("its origin is another"));
    }
}
