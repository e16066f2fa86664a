//! Appends to a stream, and its end.
//!
//! ```text
//! no turn, not the last   held open for reading: many at once, one flush for all of them
//! a turn, or the last     one at a time: waits for its turn with its caller, then is judged, appended and noted to its
//!                         end, also when the caller goes away
//! ```
//!
//! When nobody can say what became of an append, what the log has from there on is read again before the next one.

use bytes::Bytes;
use tokio::sync::OwnedRwLockWriteGuard;

use super::{Found, Position, StreamError, StreamService, content, usage::Usage};
use crate::{
    partition::{AppendError, Durability},
    quota::{Quota, Share},
    service::produce::{Acks, Payload, ProduceError, ProduceRequest},
    stream::{Closing, Fold, Mark, Producer, Stream, StreamFacts, Turn, Verdict, Writers},
    topic::catalog::id_bytes,
};

/// An append, or the end of the stream, or both.
#[derive(Debug)]
pub struct AppendRequest {
    /// Name of the stream.
    pub name: String,
    /// Partition of the topic; 0 for a stream.
    pub partition: u32,
    /// Media type of the body, when it says one.
    pub content_type: Option<String>,
    /// What to append; may be empty only when it closes the stream.
    pub body: Bytes,
    /// Whose turn it is, the writers' own sequence, and whether it is the end.
    pub mark: Mark,
    /// What was taken for the body; given back when the append has ended, also when the caller goes away before.
    pub share: Share,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The end of the data now.
    pub tail: Position,
    /// Nothing follows any more.
    pub is_closed: bool,
    /// Where the producer stands, when it named itself.
    pub turn: Option<Turn>,
    /// It was in the log before.
    pub is_duplicate: bool,
}

impl StreamService {
    /// Appends to a stream, closes it, or both at once. `connection` is the caller's share of the bytes in flight.
    ///
    /// # Errors
    /// Why nothing was appended, or that nobody can say.
    pub async fn append(
        &self,
        request: AppendRequest,
        connection: &Quota,
    ) -> Result<Appended, StreamError> {
        let found = self.find(&request.name, request.partition)?;
        if request.body.is_empty() && !request.mark.is_closing {
            return Err(StreamError::field(
                "body",
                "not empty, or the end of the stream",
                "nothing",
            ));
        }
        let Some(stream) = found.topic.stream.clone() else {
            return self.append_to_topic(&found, request, connection).await;
        };
        let usage = self.enter(&found)?;
        if request.mark == Mark::default() {
            return self.append_open(&found, &stream, request, connection).await;
        }
        // With its caller: those who wait for their turn are no more than there are callers.
        let held = self.alone(&found, &stream).await?;
        let (service, connection) = (self.clone(), connection.clone());
        let appending = tokio::spawn(async move {
            service.append_in_turn(&found, (held, usage), request, &connection).await
        });
        appending.await.unwrap_or(Err(StreamError::Interrupted))
    }

    /// Appends to a topic that is no stream.
    async fn append_to_topic(
        &self,
        found: &Found,
        request: AppendRequest,
        connection: &Quota,
    ) -> Result<Appended, StreamError> {
        if request.mark != Mark::default() {
            found.stream("be closed or take turns of writers")?;
        }
        let facts = StreamFacts::bytes();
        let content_type = request.content_type.as_deref();
        let values = content::appended(&facts, content_type, &request.body)?;
        let records = self.request(found, &request.mark, values);
        let receipt = self.produce.append(records, Some(connection)).await?;
        let end = receipt.ok_or(StreamError::Interrupted)?.end_offset;
        Ok(Appended {
            tail: found.position(end.0),
            is_closed: false,
            turn: None,
            is_duplicate: false,
        })
    }

    /// Appends data that only needs the stream to be open.
    async fn append_open(
        &self,
        found: &Found,
        stream: &Stream,
        request: AppendRequest,
        connection: &Quota,
    ) -> Result<Appended, StreamError> {
        // Held until the append is in the log, so that nothing closes the stream before it.
        let held = self.together(found, stream).await?;
        if let Some(closing) = held.writers().and_then(Writers::closing) {
            return Err(StreamError::Closed { tail: found.position(closing.offset) });
        }
        let content_type = request.content_type.as_deref();
        let values = content::appended(stream.facts(), content_type, &request.body)?;
        let records = self.request(found, &request.mark, values);
        let receipt = self.produce.append_to_stream(records, connection).await?;
        let tail = found.position(receipt.end_offset.0);
        Ok(Appended { tail, is_closed: false, turn: None, is_duplicate: false })
    }

    /// Appends data that has a turn, or is the last.
    async fn append_in_turn(
        &self,
        found: &Found,
        (mut held, _usage): (OwnedRwLockWriteGuard<Fold>, Option<Usage>),
        request: AppendRequest,
        connection: &Quota,
    ) -> Result<Appended, StreamError> {
        let values = match self.judge(found, &held, &request)? {
            Judged::New(values) => values,
            Judged::Old(appended) => return Ok(appended),
        };
        let AppendRequest { mark, share: _share, .. } = request;
        let records = self.request(found, &mark, values);
        let before = found.topic.partition(found.partition)?.visible().high_watermark;
        // Until somebody can say what became of it.
        held.doubt(before.0);
        let receipt = match self.produce.append_to_stream(records, connection).await {
            Ok(receipt) => receipt,
            Err(error) => {
                let is_known =
                    !matches!(error, ProduceError::Append(AppendError::Indeterminate { .. }));
                if is_known {
                    // It was refused, and left the log as it was.
                    held.complete();
                }
                return Err(error.into());
            }
        };
        let last = receipt.end_offset.0.saturating_sub(1);
        held.note(&mark, (last, self.clock.wall_ms()));
        let end = if mark.is_closing { last } else { last + 1 };
        Ok(Appended {
            tail: found.position(end),
            is_closed: mark.is_closing,
            turn: turn(&mark),
            is_duplicate: false,
        })
    }

    /// What an append with a turn, or the last, is to what the log has.
    fn judge(
        &self,
        found: &Found,
        fold: &Fold,
        AppendRequest { content_type, body, mark, .. }: &AppendRequest,
    ) -> Result<Judged, StreamError> {
        let facts = found.stream("take turns of writers")?.facts();
        let writers = fold.writers().ok_or(StreamError::Interrupted)?;
        if let Some(closing) = writers.closing() {
            let tail = found.position(closing.offset);
            return match is_closed_by(closing, mark, body.is_empty()) {
                true => Ok(Judged::Old(Appended {
                    tail,
                    is_closed: true,
                    turn: turn(mark),
                    is_duplicate: true,
                })),
                false => Err(StreamError::Closed { tail }),
            };
        }
        let values = match body.is_empty() {
            true => Vec::new(),
            false => content::appended(facts, content_type.as_deref(), body)?,
        };
        match writers.judge(mark, self.clock.wall_ms())? {
            Verdict::New => Ok(Judged::New(values)),
            Verdict::Duplicate(turn) => {
                let partition = found.topic.partition(found.partition)?;
                Ok(Judged::Old(Appended {
                    tail: found.position(partition.visible().high_watermark.0),
                    is_closed: false,
                    turn: Some(turn),
                    is_duplicate: true,
                }))
            }
        }
    }

    fn request(&self, found: &Found, mark: &Mark, values: Vec<Bytes>) -> ProduceRequest {
        ProduceRequest {
            topic: found.topic.name.to_string(),
            topic_id: id_bytes(found.topic.id),
            partition: found.partition,
            acks: Acks::All,
            durability_min: Durability::Os,
            payload: Payload::Records(mark.records(values)),
        }
    }
}

/// What an append is to what the log has.
enum Judged {
    /// To be appended.
    New(Vec<Bytes>),
    /// Done before.
    Old(Appended),
}

/// This very call closed the stream, or it asks for nothing else.
fn is_closed_by(closing: &Closing, mark: &Mark, is_empty: bool) -> bool {
    match &mark.producer {
        Some(producer) => closing.by.as_ref() == Some(producer),
        None => is_empty && mark.is_closing,
    }
}

fn turn(mark: &Mark) -> Option<Turn> {
    mark.producer.as_ref().map(|Producer { epoch, seq, .. }| Turn { epoch: *epoch, seq: *seq })
}
