//! One fetch pipeline: answers in order, each asked for ahead of its time as long as there is room.

use std::{collections::HashMap, time::Duration};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use tokio::{sync::mpsc, time::timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::shared::Shared;
use crate::{
    clock::{self, Instant},
    connection::Replies,
    error::{Error, ErrorCode, Result},
};

/// Answers asked for at most that did not come: the next one is made while the last one is on its way.
const OPEN_MAX: usize = 2;

/// What is asked, by partition: life and offset of the next answer.
pub(super) type Asked = HashMap<TopicPartition, (u64, Offset)>;

/// An open pipeline.
pub(super) struct Reading {
    pub(super) asked: Asked,
    asks: mpsc::Sender<v1::FetchPipelineRequest>,
    replies: Replies<v1::FetchResponse>,
    /// Answers that did not come yet.
    open: usize,
    /// Bytes of the last answer: as many are expected of the next.
    last_bytes: usize,
    /// Longest time for an answer.
    patience: Duration,
    /// When the next answer is here at the latest.
    due: Instant,
    /// Something came.
    is_answered: bool,
}

impl Reading {
    /// Opens a pipeline, with its first answer asked for.
    ///
    /// # Errors
    /// When there is no connection in time, or the broker refuses.
    pub(super) async fn open(
        shared: &Shared,
        request: v1::FetchRequest,
        asked: Asked,
    ) -> Result<Reading> {
        let patience = shared.settings.max_wait + shared.client.call_timeout();
        let (asks, feed) = mpsc::channel(OPEN_MAX);
        let connection = shared.client.connection();
        let link = connection.link(shared.client.deadline()).await?;
        let begin = v1::FetchPipelineRequest { begin: Some(request) };
        // It has room: nothing was sent before.
        drop(asks.try_send(begin));
        let opening = connection.fetch_pipeline(&link, ReceiverStream::new(feed));
        let due = clock::now() + patience;
        let replies = timeout_at(due, opening).await.map_err(|_| late())??;
        let (open, last_bytes, is_answered) = (1, 0, false);
        Ok(Reading { asked, asks, replies, open, last_bytes, patience, due, is_answered })
    }

    /// Asks for as many answers as there is room for, `queued` bytes being there already of `most`. False when none is
    /// on its way.
    pub(super) fn ask(&mut self, queued: usize, most: usize) -> bool {
        while self.open < OPEN_MAX && queued + self.open * self.last_bytes < most {
            if self.asks.try_send(v1::FetchPipelineRequest { begin: None }).is_err() {
                // The connection takes nothing now, or the stream has ended, which the next answer tells.
                break;
            }
            if self.open == 0 {
                self.due = clock::now() + self.patience;
            }
            self.open += 1;
        }
        self.open > 0
    }

    /// The next answer; `None` when the broker ended the pipeline.
    ///
    /// # Errors
    /// When it broke, or nothing came in time.
    pub(super) async fn next(&mut self) -> Result<Option<v1::FetchResponse>> {
        let answer = timeout_at(self.due, self.replies.next()).await.map_err(|_| late())??;
        if let Some(answer) = &answer {
            self.open = self.open.saturating_sub(1);
            self.due = clock::now() + self.patience;
            self.last_bytes = answer.partitions.iter().map(|one| one.batches.len()).sum();
            self.is_answered = true;
        }
        Ok(answer)
    }

    /// The broker ended it: after an error of a partition, which was told, or because it stops.
    ///
    /// # Errors
    /// When it ended before anything came, so that it is not opened again at once.
    pub(super) fn ended(&self) -> Result<()> {
        if self.is_answered {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Unavailable, "the broker ended the fetch without an answer"))
    }
}

fn late() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "fetch_pipeline: no answer before the deadline")
}
