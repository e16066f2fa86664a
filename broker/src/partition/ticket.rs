//! How the answer to an append comes back: as a ticket to await, or into a sink of receipts.
//!
//! A [`Completer`] is the writer's end. It is completed exactly once; dropped without that (a writer
//! thread died, the broker stops) it answers "indeterminate" by itself, so nobody waits for ever.

use std::{mem, sync::Arc};

use riverrun_proto::Offset;
use tokio::sync::oneshot;

use super::Durability;
use super::error::AppendError;

/// What an append came to.
pub type AppendResult = Result<AppendReceipt, AppendError>;

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReceipt {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// First offset past the batch.
    pub end_offset: Offset,
    /// Level reached when the receipt was made: `Os` or `Fsync`.
    pub reached: Durability,
    /// The records were in the log already.
    pub duplicate: bool,
}

/// Takes receipts for a caller who has many appends on their way.
pub trait ReceiptSink: Send + Sync + std::fmt::Debug {
    /// Takes one. Called on writer and flush threads: short, and never blocking.
    fn put(&self, tag: u64, result: AppendResult);
}

/// The writer's end of an append.
#[derive(Debug)]
pub struct Completer {
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// To one who awaits it.
    Ticket(oneshot::Sender<AppendResult>),
    /// Into a sink, under the caller's tag.
    Sink(Arc<dyn ReceiptSink>, u64),
    /// Nobody wants to know, or was told already.
    Nobody,
}

/// The caller's end of an append.
#[derive(Debug)]
pub struct AppendTicket {
    answer: oneshot::Receiver<AppendResult>,
}

impl Completer {
    /// A completer and the ticket it resolves.
    pub fn ticket() -> (Completer, AppendTicket) {
        let (sender, answer) = oneshot::channel();
        (Completer { way: Way::Ticket(sender) }, AppendTicket { answer })
    }

    /// A completer that puts its receipt into `sink` under `tag`.
    pub fn sink(sink: Arc<dyn ReceiptSink>, tag: u64) -> Completer {
        Completer { way: Way::Sink(sink, tag) }
    }

    /// A completer that tells nobody.
    pub fn nobody() -> Completer {
        Completer { way: Way::Nobody }
    }

    /// True when somebody waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        !matches!(self.way, Way::Nobody)
    }

    /// Gives the answer.
    pub(crate) fn complete(mut self, result: AppendResult) {
        mem::replace(&mut self.way, Way::Nobody).send(result);
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if self.is_awaited() {
            let reason = "the broker dropped the batch".into();
            let way = mem::replace(&mut self.way, Way::Nobody);
            way.send(Err(AppendError::Indeterminate { reason }));
        }
    }
}

impl Way {
    fn send(self, result: AppendResult) {
        match self {
            // A caller that went away does not want to know.
            Way::Ticket(sender) => drop(sender.send(result)),
            Way::Sink(sink, tag) => sink.put(tag, result),
            Way::Nobody => {}
        }
    }
}

impl AppendTicket {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Why the batch was not appended, or that nobody can say.
    pub async fn wait(self) -> AppendResult {
        let reason = || "the broker dropped the batch".into();
        self.answer.await.unwrap_or_else(|_| Err(AppendError::Indeterminate { reason: reason() }))
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct List(Mutex<Vec<(u64, AppendResult)>>);

    impl ReceiptSink for List {
        fn put(&self, tag: u64, result: AppendResult) {
            self.0.lock().push((tag, result));
        }
    }

    #[tokio::test]
    async fn every_completer_answers_once() {
        let (completer, ticket) = Completer::ticket();
        drop(completer);
        assert!(matches!(ticket.wait().await, Err(AppendError::Indeterminate { .. })));
        let list = Arc::new(List::default());
        drop(Completer::sink(list.clone(), 7));
        Completer::sink(list.clone(), 8).complete(Err(AppendError::Closed));
        let answers = list.0.lock();
        let expected = matches!(
            answers[..],
            [(7, Err(AppendError::Indeterminate { .. })), (8, Err(AppendError::Closed))]
        );
        assert!(expected, "{answers:?}");
    }
}
