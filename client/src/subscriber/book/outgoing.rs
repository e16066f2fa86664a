//! Outcomes on their way to the broker, until it confirmed them.
//!
//! ```text
//! queue --frame (at most 10,000 items)--> sent --answer to this or a later sync frame--> confirmed
//!   ^                                       |
//!   +------- the stream broke: again -------+
//! ```
//!
//! One frame at a time asks for an answer when it is durable; its answer confirms everything sent before.
//! What may have been lost is sent again: an acknowledgement is never harmful twice, and any other
//! outcome under an old lease is refused by the broker. Of marks of a start only those are repeated here that somebody waits for; the
//! book repeats all that still hold. Whoever waits for what is not sent any more hears that the lease is over.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use riverrun_proto::{Offset, grpc::v1};

use super::super::{
    desk::{Act, Waiter},
    event::{SubscriberEvent, refusal},
    lease::Lease,
};
use crate::error::{Error, ErrorCode};

/// Most items of one frame.
const ITEMS_MAX: usize = 10_000;

/// A run of records of one delivery and their common outcome.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) lease: Arc<Lease>,
    pub(super) indices: Range<u32>,
    pub(super) act: Act,
    /// By index.
    pub(super) waiters: Vec<(u32, Waiter)>,
    /// It was sent before, so a refusal as stale says nothing.
    is_repeated: bool,
}

/// Items sent together.
#[derive(Debug)]
struct Frame {
    id: u64,
    items: Vec<Item>,
    sync: bool,
    answered: bool,
}

/// Outcomes on their way to the broker.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: VecDeque<Item>,
    /// By rising id.
    sent: VecDeque<Frame>,
    last_id: u64,
    /// Items in `sent`.
    unconfirmed_count: usize,
    /// Every frame asks.
    is_ending: bool,
}

impl Item {
    pub(super) fn new(lease: Arc<Lease>, indices: Range<u32>, act: Act) -> Item {
        Item { lease, indices, act, waiters: Vec::new(), is_repeated: false }
    }

    fn to_wire(&self) -> v1::SettleItem {
        use v1::settle_item::Outcome;
        let Range { start, end } = self.indices;
        let outcome = match &self.act {
            Act::Ack => Some(Outcome::Ack(v1::Ack {})),
            Act::Release => Some(Outcome::Release(v1::Release {})),
            Act::Started => Some(Outcome::Started(v1::Started {})),
            Act::Extend(lease_ms) => Some(Outcome::Extend(v1::Extend { lease_ms: *lease_ms })),
            Act::Reject(reason) => Some(Outcome::Reject(v1::Reject { reason: (**reason).into() })),
            Act::Nack(nack) => Some(Outcome::Nack(v1::Nack {
                delay_ms: nack.delay_ms,
                reason: nack.reason.clone(),
            })),
            Act::Dropped => None,
        };
        v1::SettleItem {
            topic: self.lease.partition.topic.to_string(),
            partition: self.lease.partition.partition.0,
            start_offset: self.lease.spans.offset(start),
            end_offset: self.lease.spans.offset(end - 1) + 1,
            session_epoch: self.lease.epoch,
            delivery_seq: self.lease.seq,
            outcome,
        }
    }

    /// The broker's word on it: all of it, or only some of its offsets.
    fn refused(
        &mut self,
        error: &Error,
        range: Option<v1::OffsetRange>,
    ) -> (Range<u32>, Vec<Item>) {
        let among = range.map_or(self.indices.clone(), |range| {
            self.lease.spans.indices(range.start_offset..range.end_offset)
        });
        let mut again = Vec::new();
        for (index, waiter) in std::mem::take(&mut self.waiters) {
            if among.contains(&index) {
                let _nobody = waiter.send(Err(error.clone()));
            } else {
                // Others of the item got some other status; each is asked for by itself, with what it said.
                again.push(Item {
                    lease: self.lease.clone(),
                    indices: index..index + 1,
                    act: self.act.clone(),
                    waiters: vec![(index, waiter)],
                    is_repeated: self.is_repeated,
                });
            }
        }
        (among, again)
    }
}

impl Outgoing {
    pub(super) fn push(&mut self, item: Item) {
        self.queue.push_back(item);
    }

    pub(super) fn unconfirmed_count(&self) -> usize {
        self.unconfirmed_count
    }

    /// Whether everything is confirmed.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sent.is_empty()
    }

    /// The next frame to send.
    pub(super) fn next_frame(&mut self) -> Option<v1::SettleFrame> {
        let asks = self.sent.iter().any(|frame| frame.sync && !frame.answered);
        if self.queue.is_empty() && !asks {
            self.ask_for_the_rest();
        }
        if self.queue.is_empty() {
            return None;
        }
        let count = self.queue.len().min(ITEMS_MAX);
        let items: Vec<Item> = self.queue.drain(..count).collect();
        self.last_id += 1;
        let sync = self.is_ending || !asks || items.iter().any(|item| !item.waiters.is_empty());
        let wire = v1::SettleFrame {
            settle_id: self.last_id,
            items: items.iter().map(Item::to_wire).collect(),
            sync,
        };
        self.unconfirmed_count += items.len();
        self.sent.push_back(Frame { id: self.last_id, items, sync, answered: false });
        Some(wire)
    }

    /// A drain begins. The broker ends the stream as soon as nothing is in hand, so from here on every frame asks, and what did not
    /// is repeated and does.
    pub(super) fn begin_end(&mut self) {
        self.is_ending = true;
        // An answer speaks for all frames before it.
        if self.queue.is_empty() && self.sent.back().is_some_and(|frame| !frame.sync) {
            self.ask_for_the_rest();
        }
    }

    /// Nothing else is to be sent and the newest frames did not ask for an answer: the last one is
    /// repeated, and asks.
    fn ask_for_the_rest(&mut self) {
        while let Some(frame) = self.sent.pop_back() {
            self.unconfirmed_count -= frame.items.len();
            self.queue.extend(frame.items.into_iter().filter(|item| item.act.settles()));
            if !self.queue.is_empty() {
                break;
            }
        }
        self.queue.iter_mut().for_each(|item| item.is_repeated = true);
    }

    /// Takes an answer; what was refused.
    pub(super) fn settled(&mut self, answer: &v1::Settled) -> Vec<SubscriberEvent> {
        let mut refused = Vec::new();
        let mut again = Vec::new();
        let found = self.sent.iter_mut().find(|frame| frame.id == answer.settle_id);
        let Some(frame) = found else { return refused };
        for result in &answer.results {
            let status = v1::SettleStatus::try_from(result.status).unwrap_or_default();
            let item = frame.items.get_mut(result.item as usize);
            let (Some(error), Some(item)) = (refusal(status), item) else { continue };
            let (among, rest) = item.refused(&error, result.range);
            again.extend(rest);
            let is_expected = item.is_repeated && error.code() == ErrorCode::StaleLease;
            if among.is_empty() || is_expected || item.act == Act::Started {
                continue;
            }
            let offset = |index| Offset(item.lease.spans.offset(index));
            refused.push(SubscriberEvent::Refused {
                partition: item.lease.partition.clone(),
                range: offset(among.start)..Offset(offset(among.end - 1).0 + 1),
                error,
            });
        }
        if frame.sync {
            frame.answered = true;
            let waiters = frame.items.iter_mut().flat_map(|item| item.waiters.drain(..));
            waiters.for_each(|(_, waiter)| drop(waiter.send(Ok(()))));
            self.confirm();
        }
        self.queue.extend(again);
        refused
    }

    /// Everything sent before the newest frame that was answered counts; frames that wait for their own answer stay. Answers may come
    /// in another order than the frames went.
    fn confirm(&mut self) {
        let Some(id) = self.sent.iter().rfind(|frame| frame.answered).map(|frame| frame.id) else {
            return;
        };
        while let Some(frame) = self.sent.front() {
            if !(frame.answered || frame.id < id && !frame.sync) {
                break;
            }
            self.unconfirmed_count -= frame.items.len();
            self.sent.pop_front();
        }
    }

    /// A new stream is open: what was not confirmed is sent again. When the session was not resumed its
    /// leases are over, and only acknowledgements still mean something.
    pub(super) fn reopen(&mut self, resumed: bool) {
        let unsent = std::mem::take(&mut self.queue);
        let sent = std::mem::take(&mut self.sent).into_iter().flat_map(|frame| frame.items);
        let sent = sent.map(|item| Item { is_repeated: true, ..item });
        for item in sent.chain(unsent) {
            let still_means = match resumed {
                true => !item.is_repeated || item.act.settles() || !item.waiters.is_empty(),
                false => item.act == Act::Ack,
            };
            match still_means {
                true => self.queue.push_back(item),
                false => refuse(item.waiters),
            }
        }
        self.unconfirmed_count = 0;
    }

    /// Nothing more is sent; who waits hears why.
    pub(super) fn fail(&mut self, error: &Error) {
        let sent = std::mem::take(&mut self.sent).into_iter().flat_map(|frame| frame.items);
        for item in sent.chain(std::mem::take(&mut self.queue)) {
            for (_, waiter) in item.waiters {
                let _nobody = waiter.send(Err(error.clone()));
            }
        }
        self.unconfirmed_count = 0;
    }
}

/// Nothing is sent for those who wait: the record is not in this subscriber's hands any more.
pub(super) fn refuse(waiters: Vec<(u32, Waiter)>) {
    for (_, waiter) in waiters {
        let _nobody = waiter.send(Err(Error::new(ErrorCode::StaleLease, "the lease is over")));
    }
}
