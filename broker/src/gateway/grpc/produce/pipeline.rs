//! The produce pipeline: requests flow in without waiting, receipts flow out as they become ready, many in
//! one message.
//!
//! One task reads and sends; the reply stream takes what the writer and flush threads have put down. The
//! number of batches on their way and receipts not taken is bounded, for one pipeline and for all of a
//! connection: past it the task does not read, and the client's window fills.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use futures_core::Stream;
use futures_util::stream;
use parking_lot::Mutex;
use riverrun_proto::grpc::v1;
use tokio::{
    sync::{Notify, Semaphore},
    task::{self, AbortHandle},
};
use tonic::{Status, Streaming};

use super::super::{
    connection::Caller,
    convert::{append_response, failed_response, produce_request},
    refusal::named,
    traced,
};
use crate::{
    metrics::Refusals,
    partition::{AppendResult, Completer, ReceiptSink},
    quota::Quota,
    service::{ProduceService, produce::Acks},
    shutdown::ShutdownWatch,
    traces::{Ended, OpenSpan, Origin},
};

/// Batches on their way in one pipeline.
const IN_FLIGHT_MAX: usize = 4_096;
/// The same over all pipelines of a connection: with a receipt of little more than 1 KiB at the worst, 10 MiB.
const CONNECTION_IN_FLIGHT_MAX: usize = 2 * IN_FLIGHT_MAX;

/// Receipts on their way to the client.
#[derive(Debug)]
struct Receipts {
    /// Ready to be sent. Bounded by the batches on their way.
    ready: Mutex<Vec<v1::AppendResponse>>,
    more: Notify,
    /// Room for further batches.
    slots: Semaphore,
    /// The same over all pipelines of the connection; what is taken of `slots` is taken here too.
    connection_slots: Arc<Semaphore>,
    /// Nothing more will be read.
    input_ended: AtomicBool,
    /// Why not, when it could not be read. Told after the last receipt.
    broken: Mutex<Option<Status>>,
    /// Where refused batches are counted.
    refusals: Arc<Refusals>,
}

/// The reply side.
struct Replies {
    receipts: Arc<Receipts>,
    reader: AbortHandle,
}

/// Room for batches of all pipelines of a new connection.
pub(in crate::gateway::grpc) fn connection_slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTION_IN_FLIGHT_MAX))
}

/// Runs a pipeline: the stream of its replies.
pub(super) fn run(
    (service, refusals): (Arc<ProduceService>, Arc<Refusals>),
    (caller, origin): (Caller, Option<Origin>),
    requests: Streaming<v1::AppendRequest>,
    shutdown: ShutdownWatch,
) -> impl Stream<Item = Result<v1::AppendPipelineResponse, Status>> + Send {
    let receipts = Arc::new(Receipts::new(caller.pipeline_slots, refusals));
    let (in_flight, receipts_kept) = (caller.in_flight, receipts.clone());
    let input = Input { service, in_flight, receipts: receipts_kept, origin };
    let reader = task::spawn(async move {
        input.read(requests, &shutdown).await;
        input.receipts.end();
    });
    let replies = Replies { receipts, reader: reader.abort_handle() };
    stream::unfold(replies, |replies| async move {
        let reply = match replies.receipts.next().await {
            Some(responses) => Ok(v1::AppendPipelineResponse { responses }),
            None => Err(replies.receipts.broken.lock().take()?),
        };
        Some((reply, replies))
    })
}

/// The request side.
struct Input {
    service: Arc<ProduceService>,
    in_flight: Quota,
    receipts: Arc<Receipts>,
    /// What spans of batches begin with, where they are told of.
    origin: Option<Origin>,
}

/// Where the receipt of a batch goes whose span ends with it.
#[derive(Debug)]
struct Traced {
    receipts: Arc<Receipts>,
    /// Taken by the receipt.
    span: Mutex<Option<OpenSpan>>,
}

impl Traced {
    fn add(&self, response: v1::AppendResponse) {
        if let Some(span) = self.span.lock().take() {
            let refused = response.error.as_ref().map(|error| Ended::Refused(error.code));
            span.end(refused.unwrap_or(Ended::Grpc(0)));
        }
        self.receipts.add(response);
    }
}

impl ReceiptSink for Traced {
    fn put(&self, tag: u64, result: AppendResult) {
        self.add(receipt(tag, result));
    }
}

impl Input {
    async fn read(&self, mut requests: Streaming<v1::AppendRequest>, shutdown: &ShutdownWatch) {
        loop {
            // What was read is sent and answered also when the end is announced meanwhile.
            let next = tokio::select! {
                next = self.next(&mut requests) => next,
                () = shutdown.begun() => None,
            };
            let Some(wire) = next else { return };
            self.send(wire).await;
        }
    }

    /// The next request, with a slot taken for its answer. A broken stream ends the input; what was sent is
    /// still answered, and then why it broke.
    async fn next(&self, requests: &mut Streaming<v1::AppendRequest>) -> Option<v1::AppendRequest> {
        let wire = match requests.message().await {
            Ok(wire) => wire?,
            Err(refused) => {
                *self.receipts.broken.lock() = Some(named(refused));
                return None;
            }
        };
        self.receipts.take_slot().await?;
        Some(wire)
    }

    async fn send(&self, wire: v1::AppendRequest) {
        let request_id = wire.request_id;
        let traced = self.begin(&wire);
        let add = |response| match &traced {
            Some(traced) => traced.add(response),
            None => self.receipts.add(response),
        };
        let request = match produce_request(wire) {
            Ok(request) => request,
            Err(error) => return add(failed_response(request_id, &error)),
        };
        let answers_at_once = request.acks == Acks::None;
        let completer = || match (answers_at_once, traced.clone()) {
            (true, _) => Completer::nobody(),
            (false, Some(traced)) => Completer::sink(traced, request_id),
            (false, None) => Completer::sink(self.receipts.clone(), request_id),
        };
        match self.service.send(request, Some(&self.in_flight), completer).await {
            Ok(()) if answers_at_once => add(append_response(request_id, None)),
            Ok(()) => {}
            Err(error) => add(failed_response(request_id, &error)),
        }
    }

    /// Begins the span of a batch, where it is told of.
    fn begin(&self, wire: &v1::AppendRequest) -> Option<Arc<Traced>> {
        let span = self.origin.as_ref()?.begin("Produce/AppendPipeline")?;
        traced::note_append(span.notes(), wire);
        let (receipts, span) = (self.receipts.clone(), Mutex::new(Some(span)));
        Some(Arc::new(Traced { receipts, span }))
    }
}

fn receipt(tag: u64, result: AppendResult) -> v1::AppendResponse {
    match result {
        Ok(receipt) => append_response(tag, Some(receipt)),
        Err(error) => failed_response(tag, &error),
    }
}

impl ReceiptSink for Receipts {
    fn put(&self, tag: u64, result: AppendResult) {
        self.add(receipt(tag, result));
    }
}

impl Receipts {
    fn new(connection_slots: Arc<Semaphore>, refusals: Arc<Refusals>) -> Receipts {
        Receipts {
            ready: Mutex::default(),
            more: Notify::new(),
            slots: Semaphore::new(IN_FLIGHT_MAX),
            connection_slots,
            input_ended: AtomicBool::new(false),
            broken: Mutex::default(),
            refusals,
        }
    }

    fn add(&self, response: v1::AppendResponse) {
        if let Some(error) = &response.error {
            self.refusals.count(error.code);
        }
        let mut ready = self.ready.lock();
        ready.push(response);
        let is_first = ready.len() == 1;
        drop(ready);
        if is_first {
            self.more.notify_one();
        }
    }

    async fn take_slot(&self) -> Option<()> {
        let slot = self.slots.acquire().await.ok()?;
        self.connection_slots.acquire().await.ok()?.forget();
        slot.forget();
        Some(())
    }

    fn give_slots(&self, count: usize) {
        self.slots.add_permits(count);
        self.connection_slots.add_permits(count);
    }

    fn end(&self) {
        self.input_ended.store(true, SeqCst);
        self.more.notify_one();
    }

    /// Everything that is ready, waiting for it; `None` once all is answered and nothing more will come.
    async fn next(&self) -> Option<Vec<v1::AppendResponse>> {
        loop {
            // Read before `ready`: whatever was on its way then has been added, or is still counted.
            let ended = self.input_ended.load(SeqCst);
            // Lets a flush give all its receipts, so that they travel together.
            task::yield_now().await;
            let taken = std::mem::take(&mut *self.ready.lock());
            if !taken.is_empty() {
                self.give_slots(taken.len());
                return Some(taken);
            }
            if ended && self.slots.available_permits() == IN_FLIGHT_MAX {
                return None;
            }
            self.more.notified().await;
        }
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        // Those that nobody took.
        self.connection_slots.add_permits(IN_FLIGHT_MAX - self.slots.available_permits());
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        // The client is gone: nothing more is read from it.
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn pipelines_of_a_connection_share_their_slots_and_give_all_of_them_back() {
        let slots = connection_slots();
        let pipelines = [(); 3].map(|()| Receipts::new(slots.clone(), Arc::default()));
        for receipts in &pipelines[..2] {
            for _ in 0..IN_FLIGHT_MAX {
                receipts.take_slot().await.unwrap();
            }
            assert!(poll!(Box::pin(receipts.take_slot())).is_pending(), "full itself");
        }
        let [first, second, third] = pipelines;
        let mut waiting = Box::pin(third.take_slot());
        assert!(poll!(&mut waiting).is_pending(), "the connection is full");
        first.add(v1::AppendResponse::default());
        assert_eq!(first.next().await.unwrap().len(), 1);
        assert!(poll!(&mut waiting).is_ready());
        drop(waiting);
        drop((first, second, third));
        assert_eq!(slots.available_permits(), CONNECTION_IN_FLIGHT_MAX);
    }
}
