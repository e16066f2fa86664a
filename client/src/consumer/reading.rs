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
    asks: Asks,
    replies: Replies<v1::FetchResponse>,
    /// Longest time for an answer.
    patience: Duration,
    /// When the next answer is here at the latest.
    due: Instant,
    /// Something came.
    is_answered: bool,
}

/// What was asked for and did not come yet.
struct Asks {
    feed: mpsc::Sender<v1::FetchPipelineRequest>,
    /// Answers that did not come yet.
    open: usize,
    /// Bytes of the last answer: as many are expected of the next.
    last_bytes: usize,
}

impl Asks {
    /// Asks for as many answers as there is room for.
    fn fill(&mut self, queued: usize, most: usize) {
        while self.open < OPEN_MAX && queued + self.open * self.last_bytes < most {
            if self.feed.try_send(v1::FetchPipelineRequest { begin: None }).is_err() {
                return;
            }
            self.open += 1;
        }
    }

    /// Whether something is to be waited for: an answer, or the end of a stream that takes nothing any more. It may end with every
    /// answer here that was asked for.
    fn is_due(&self) -> bool {
        self.open > 0 || self.feed.is_closed()
    }

    /// One came.
    fn came(&mut self, bytes: usize) {
        self.open = self.open.saturating_sub(1);
        self.last_bytes = bytes;
    }
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
        let (feed, stream) = mpsc::channel(OPEN_MAX);
        let connection = shared.client.connection();
        let link = connection.link(shared.client.deadline()).await?;
        let begin = v1::FetchPipelineRequest { begin: Some(request) };
        // It has room: nothing was sent before.
        drop(feed.try_send(begin));
        let opening = connection.fetch_pipeline(&link, ReceiverStream::new(stream));
        let due = clock::now() + patience;
        let replies = timeout_at(due, opening).await.map_err(|_| late())??;
        let asks = Asks { feed, open: 1, last_bytes: 0 };
        Ok(Reading { asked, asks, replies, patience, due, is_answered: false })
    }

    /// Asks for as many answers as there is room for, `queued` bytes being there already of `most`. False when nothing is to
    /// be waited for.
    pub(super) fn ask(&mut self, queued: usize, most: usize) -> bool {
        if self.asks.open == 0 {
            self.due = clock::now() + self.patience;
        }
        self.asks.fill(queued, most);
        self.asks.is_due()
    }

    /// The next answer; `None` when the broker ended the pipeline.
    ///
    /// # Errors
    /// When it broke, or nothing came in time.
    pub(super) async fn next(&mut self) -> Result<Option<v1::FetchResponse>> {
        let answer = timeout_at(self.due, self.replies.next()).await.map_err(|_| late())??;
        if let Some(answer) = &answer {
            self.asks.came(answer.partitions.iter().map(|one| one.batches.len()).sum());
            self.due = clock::now() + self.patience;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_asked_for_as_long_as_there_is_room() {
        let (feed, mut stream) = mpsc::channel(OPEN_MAX);
        let mut asks = Asks { feed, open: 1, last_bytes: 0 };
        asks.fill(0, 100);
        assert_eq!(asks.open, 2);
        stream.try_recv().expect("asked");
        asks.came(60);
        asks.fill(50, 100);
        assert_eq!(asks.open, 1, "the one on its way will fill it");
        asks.came(60);
        asks.fill(100, 100);
        assert!(!asks.is_due(), "full, and nothing on its way");
        asks.fill(0, 100);
        assert!(asks.is_due());
    }

    /// A broker that is killed may have answered everything: nobody would read the end, and nothing would be read again.
    #[test]
    fn the_end_of_a_stream_that_answered_everything_is_waited_for() {
        let (feed, stream) = mpsc::channel(OPEN_MAX);
        let mut asks = Asks { feed, open: 2, last_bytes: 0 };
        drop(stream);
        for _ in 0..2 {
            asks.came(10);
            asks.fill(0, 100);
            assert!(asks.is_due());
        }
        assert_eq!(asks.open, 0);
    }
}
