//! Appends to a stream, and its end.
//!
//! ```text
//! no turn, not the last   held open for reading: many at once, one flush for all of them
//! a turn, or the last     one at a time, judged and noted; runs to its end when the caller goes away
//! ```
//!
//! When nobody can say what became of an append, what is remembered of the writers is forgotten and folded again from
//! what the log has.

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::batch::OffsetRecord;
use tokio::sync::RwLockReadGuard;

use super::{Found, Position, StreamError, StreamService, content};
use crate::{
    partition::{AppendError, Durability},
    quota::{Quota, Room, Share},
    service::produce::{Acks, Payload, ProduceError, ProduceRequest},
    stream::{Closing, Mark, Producer, Stream, StreamFacts, Turn, Verdict, Writers},
    topic::catalog::id_bytes,
};

/// Bytes of records that are read at once to fold them.
const FOLD_BYTES: u32 = 1 << 20;

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
    /// Appends to a stream, closes it, or both at once.
    ///
    /// # Errors
    /// Why nothing was appended, or that nobody can say.
    pub async fn append(
        &self,
        request: AppendRequest,
        (connection, room): (&Quota, &Room),
    ) -> Result<Appended, StreamError> {
        let found = self.find(&request.name, request.partition).await?;
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
        stream.use_at(self.clock.steady_ms());
        if request.mark == Mark::default() {
            return self.append_open(&found, &stream, request, (connection, room)).await;
        }
        let (service, connection, room) = (self.clone(), connection.clone(), room.clone());
        let appending = tokio::spawn(async move {
            service.append_in_turn(&found, &stream, request, (&connection, &room)).await
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
        (connection, room): (&Quota, &Room),
    ) -> Result<Appended, StreamError> {
        // Held until the append is in the log, so that nothing closes the stream before it.
        let writers = self.writers(found, stream, room).await?;
        if let Some(closing) = writers.as_ref().and_then(Writers::closing) {
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
        stream: &Stream,
        request: AppendRequest,
        (connection, room): (&Quota, &Room),
    ) -> Result<Appended, StreamError> {
        let mut held = stream.writers.write().await;
        let mut writers = match held.take() {
            Some(writers) => writers,
            None => self.fold(found, room).await?,
        };
        let values = match self.judge(found, (stream.facts(), &writers), &request) {
            Ok(Judged::New(values)) => values,
            Ok(Judged::Old(appended)) => {
                *held = Some(writers);
                return Ok(appended);
            }
            Err(error) => {
                *held = Some(writers);
                return Err(error);
            }
        };
        let AppendRequest { mark, share: _share, .. } = request;
        let records = self.request(found, &mark, values);
        let receipt = match self.produce.append_to_stream(records, connection).await {
            Ok(receipt) => receipt,
            // Nobody can say what is in the log: it is folded again. Every other refusal left the log as it was.
            Err(error @ ProduceError::Append(AppendError::Indeterminate { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                *held = Some(writers);
                return Err(error.into());
            }
        };
        let last = receipt.end_offset.0.saturating_sub(1);
        writers.note(&mark, last);
        *held = Some(writers);
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
        (facts, writers): (&StreamFacts, &Writers),
        AppendRequest { content_type, body, mark, .. }: &AppendRequest,
    ) -> Result<Judged, StreamError> {
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
        match writers.judge(mark)? {
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

    /// What the writers did, held for reading; never `None`.
    async fn writers<'a>(
        &self,
        found: &Found,
        stream: &'a Stream,
        room: &Room,
    ) -> Result<RwLockReadGuard<'a, Option<Writers>>, StreamError> {
        let known = stream.writers.read().await;
        if known.is_some() {
            return Ok(known);
        }
        drop(known);
        let mut writers = stream.writers.write().await;
        if writers.is_none() {
            *writers = Some(self.fold(found, room).await?);
        }
        Ok(writers.downgrade())
    }

    /// Folds the marks of every record.
    async fn fold(&self, found: &Found, room: &Room) -> Result<Writers, StreamError> {
        let mut writers = Writers::default();
        let mut from = Position::default();
        loop {
            let read = self.read_log(found, from, (Duration::ZERO, FOLD_BYTES), room).await?;
            for OffsetRecord { offset, record } in &read.records.records {
                writers.note(&Mark::of(&record.headers), offset.0);
            }
            let next = read.records.next_offset;
            if next >= read.visible.high_watermark {
                return Ok(writers);
            }
            from = Position { epoch: 0, offset: next.0 };
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
