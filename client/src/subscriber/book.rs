//! The state of a session: what is in hand, what came of it, what may be sent. Pure: time comes in.
//!
//! ```text
//! arrive: open --(given to the program)--> slip: ack, nack, ... --> freed, queued for the broker
//!           |                                                          ^
//!           +-- waited too long for the program, or drain: released ---+
//!           +-- revoked, lost, session over: freed, marked as taken back
//! ```
//!
//! Invariants: a record is given out at most once per delivery, and a delivery that is replayed is not
//! given out again. Every record received frees its credit exactly once. An outcome is forgotten only
//! when the broker confirmed it, or the session is over and it means nothing any more.

mod held;
mod outgoing;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    time::Duration,
};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use v1::session_request::Frame;

use self::{
    held::Held,
    outgoing::{Item, Outgoing},
};
use super::{
    credit::{Amount, Credit},
    desk::{Act, Slip, Waiter},
    event::{RevokeReason, SubscriberEvent},
    parcel::{Arrival, Parcel},
};
use crate::{clock::Instant, error::Error};

/// No more credit is given while this many outcomes are not confirmed.
const UNCONFIRMED_MAX: usize = 200_000;

/// How the book keeps itself. Constant.
#[derive(Clone, Debug)]
pub(super) struct BookSettings {
    /// Most records not settled.
    pub(super) records_window: u32,
    /// Most bytes of them at first, and later.
    pub(super) bytes_window: u64,
    pub(super) bytes_max: u64,
    /// A record counts as started when the program takes it.
    pub(super) marks_started: bool,
}

/// What the broker said about the session.
#[derive(Clone, Debug)]
struct Session {
    /// Rises with every stream.
    stream: u64,
    /// `None` before the first.
    epoch: Option<u64>,
    /// The broker answered on this stream.
    is_open: bool,
    /// The broker says what it used of the credit; older ones do not.
    counts_used: bool,
    last_seq: u64,
    /// Offsets received under `last_seq`: a delivery may come in several frames.
    last_ranges: Vec<v1::OffsetRange>,
    heartbeat: Duration,
    ack_wait: Duration,
    max_lease: Duration,
}

/// What the program wants of the session, and what of it was said on this stream.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    drain: bool,
    drain_said: bool,
    pause: bool,
    pause_said: bool,
}

/// The state of a session.
#[derive(Debug)]
pub(super) struct Book {
    settings: BookSettings,
    session: Session,
    wishes: Wishes,
    /// By serial.
    held: HashMap<u64, Held>,
    /// Serials of what may still be given out, in order.
    unread: VecDeque<u64>,
    credit: Credit,
    outgoing: Outgoing,
    /// When something was sent last.
    said_at: Instant,
}

impl Book {
    pub(super) fn new(settings: BookSettings, now: Instant) -> Book {
        let BookSettings { records_window, bytes_window, bytes_max, .. } = settings;
        Book {
            settings,
            session: Session {
                stream: 0,
                epoch: None,
                is_open: false,
                counts_used: false,
                last_seq: 0,
                last_ranges: Vec::new(),
                heartbeat: Duration::from_secs(5),
                ack_wait: Duration::from_secs(30),
                max_lease: Duration::from_secs(3600),
            },
            wishes: Wishes::default(),
            held: HashMap::new(),
            unread: VecDeque::new(),
            credit: Credit::new(records_window.into(), bytes_window, bytes_max),
            outgoing: Outgoing::default(),
            said_at: now,
        }
    }

    /// A new stream begins: its number, and where to resume.
    pub(super) fn begin(&mut self, now: Instant) -> (u64, Option<v1::ResumePoint>) {
        self.session.stream += 1;
        self.session.is_open = false;
        self.said_at = now;
        // More frames of the last delivery may be lost, so it is asked for again.
        let last_delivery_seq = self.session.last_seq.saturating_sub(1);
        let resume = |session_epoch| v1::ResumePoint { session_epoch, last_delivery_seq };
        (self.session.stream, self.session.epoch.map(resume))
    }

    /// Whether `stream` is the one in use.
    pub(super) fn is_current(&self, stream: u64) -> bool {
        self.session.stream == stream
    }

    /// Epoch of the session; `None` before the first.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.session.epoch
    }

    pub(super) fn heartbeat(&self) -> Duration {
        self.session.heartbeat
    }

    pub(super) fn leases(&self) -> (Duration, Duration) {
        (self.session.ack_wait, self.session.max_lease)
    }

    /// The broker opened the session, or resumed it.
    pub(super) fn opened(&mut self, opened: &v1::Opened) -> Vec<SubscriberEvent> {
        let mut events = Vec::new();
        if opened.resumed {
            self.credit.forget_granted();
            self.mark_started_again();
        } else {
            events.extend(self.end_session());
        }
        let or = |ms: u64, default: Duration| match ms {
            0 => default,
            ms => Duration::from_millis(ms),
        };
        let session = &mut self.session;
        session.epoch = Some(opened.session_epoch);
        session.is_open = true;
        session.heartbeat = or(opened.heartbeat_interval_ms.into(), session.heartbeat);
        session.ack_wait = or(opened.ack_wait_ms, session.ack_wait);
        session.max_lease = or(opened.max_lease_ms, session.max_lease);
        if let Some(used) = &opened.credit_used {
            self.credit.begin_at(amount(used));
        }
        self.session.counts_used = opened.credit_used.is_some();
        self.outgoing.reopen(opened.resumed);
        self.wishes.drain_said = false;
        self.wishes.pause_said = false;
        let (session_epoch, resumed) = (opened.session_epoch, opened.resumed);
        events.push(SubscriberEvent::Opened { session_epoch, resumed });
        events
    }

    /// The session is over at the broker: nothing of it is ours any more.
    fn end_session(&mut self) -> Vec<SubscriberEvent> {
        let mut events = Vec::new();
        for held in self.held.values_mut().filter(|held| held.is_live) {
            held.is_live = false;
            held.lease.close();
            let (runs, _) = held.take_back(0..held.lease.spans.len());
            if !runs.is_empty() {
                let reason = RevokeReason::SessionOver;
                let ranges = offsets(held, &runs);
                let partition = held.lease.partition.clone();
                events.push(SubscriberEvent::Revoked { partition, ranges, reason });
            }
        }
        self.unread.clear();
        self.held.retain(|_, held| !held.is_over());
        self.credit.restart();
        self.session.last_seq = 0;
        self.session.last_ranges.clear();
        events
    }

    /// Marks of what is in hand may be lost with the stream.
    fn mark_started_again(&mut self) {
        for held in self.held.values().filter(|held| held.is_live) {
            for run in held.started() {
                self.outgoing.push(Item::new(held.lease.clone(), run, Act::Started));
            }
        }
    }

    /// Of a frame that repeats a delivery, records that had come before came once more.
    pub(super) fn came_again(&mut self, amount: Amount) {
        if self.session.counts_used {
            self.credit.receive_again(amount);
        }
    }

    /// The broker said what it used of the credit up to now.
    pub(super) fn used(&mut self, used: &v1::CreditUsed) {
        self.credit.used(amount(used));
    }

    /// Takes out of a frame what was received before; false when nothing is left.
    pub(super) fn is_news(&mut self, frame: &mut v1::Deliver) -> bool {
        let session = &mut self.session;
        if frame.delivery_seq < session.last_seq {
            frame.ranges.clear();
            return false;
        }
        if frame.delivery_seq > session.last_seq {
            session.last_seq = frame.delivery_seq;
            session.last_ranges.clear();
        }
        frame.ranges = without(&frame.ranges, &session.last_ranges);
        session.last_ranges.extend_from_slice(&frame.ranges);
        session.last_ranges.sort_unstable_by_key(|range| range.start_offset);
        !frame.ranges.is_empty()
    }

    /// Takes a delivery in; the parcel for the program, unless there is nothing in it to give out.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<Parcel> {
        let Arrival { parcel, sizes } = arrival;
        let serial = parcel.lease.serial;
        let (held, amount) = Held::new(parcel.lease.clone(), sizes);
        self.credit.receive(amount);
        let absent = held.absent();
        self.held.insert(serial, held);
        for run in absent {
            self.give_back(serial, run);
        }
        if self.wishes.drain {
            self.close(serial);
            return None;
        }
        self.unread.push_back(serial);
        Some(parcel)
    }

    /// The broker answered outcomes.
    pub(super) fn settled(&mut self, answer: &v1::Settled) -> Vec<SubscriberEvent> {
        self.outgoing.settled(answer)
    }

    /// The broker took records back; the offsets that were ours.
    pub(super) fn taken_back(
        &mut self,
        partition: &TopicPartition,
        ranges: &[v1::OffsetRange],
    ) -> Vec<Range<Offset>> {
        let mut ours = Vec::new();
        for held in self.held.values_mut() {
            if !held.is_live || held.lease.partition != *partition {
                continue;
            }
            for range in ranges {
                let indices = held.lease.spans.indices(range.start_offset..range.end_offset);
                let (runs, freed) = held.take_back(indices);
                self.credit.free(freed);
                ours.extend(offsets(held, &runs));
            }
        }
        self.held.retain(|_, held| !held.is_over());
        ours.sort_unstable_by_key(|range| range.start);
        ours
    }

    /// Takes what jobs handed in, and empties the list.
    pub(super) fn take(&mut self, slips: &mut Vec<Slip>) {
        slips.sort_by(|a, b| (a.serial, &a.act, a.index).cmp(&(b.serial, &b.act, b.index)));
        let mut slips = slips.drain(..).peekable();
        while let Some(first) = slips.next() {
            let Slip { serial, index, act, waiter } = first;
            let mut indices = index..index + 1;
            let mut waiters: Vec<_> = waiter.map(|waiter| (index, waiter)).into_iter().collect();
            let mut count = 1;
            while let Some(next) = slips.next_if(|next| {
                next.serial == serial && next.act == act && next.index == indices.end
            }) {
                indices.end += 1;
                count += 1;
                waiters.extend(next.waiter.map(|waiter| (next.index, waiter)));
            }
            self.happened(serial, indices, act, (count, waiters));
        }
    }

    /// What became of a run of records of one delivery.
    fn happened(
        &mut self,
        serial: u64,
        indices: Range<u32>,
        act: Act,
        (count, waiters): (u32, Vec<(u32, Waiter)>),
    ) {
        let Some(held) = self.held.get_mut(&serial) else { return outgoing::refuse(waiters) };
        if act.settles() {
            let freed = held.free(indices.clone());
            if held.is_live {
                self.credit.free(freed);
            }
        }
        if act.settles() || act == Act::Dropped {
            held.returned += count;
        }
        if act == Act::Started {
            held.start(indices.clone());
        }
        // Of an ended session only acknowledgements mean something.
        if act == Act::Dropped || !(held.is_live || act == Act::Ack) {
            outgoing::refuse(waiters);
        } else {
            let mut item = Item::new(held.lease.clone(), indices, act);
            item.waiters = waiters;
            self.outgoing.push(item);
        }
        if held.is_over() {
            self.held.remove(&serial);
        }
    }

    /// Gives records back that the program never saw.
    fn give_back(&mut self, serial: u64, indices: Range<u32>) {
        let Some(held) = self.held.get_mut(&serial) else { return };
        for run in held.open_in(indices) {
            self.credit.free(held.free(run.clone()));
            self.outgoing.push(Item::new(held.lease.clone(), run, Act::Release));
        }
        if held.is_over() {
            self.held.remove(&serial);
        }
    }

    /// Nothing more of a delivery is given to the program; the rest goes back.
    fn close(&mut self, serial: u64) {
        let Some(held) = self.held.get(&serial) else { return };
        let (until, len) = (held.lease.close().until, held.lease.spans.len());
        self.give_back(serial, until..len);
    }

    /// The next frame to send on the stream in use.
    pub(super) fn next_frame(&mut self, now: Instant) -> Option<Frame> {
        if !self.session.is_open {
            return None;
        }
        self.follow_the_reader();
        self.give_back_what_waits(now);
        let frame = self.choose_frame(now);
        if frame.is_some() {
            self.said_at = now;
        }
        frame
    }

    fn choose_frame(&mut self, now: Instant) -> Option<Frame> {
        if self.wishes.drain && !self.wishes.drain_said {
            self.outgoing.begin_end();
        }
        if let Some(settle) = self.outgoing.next_frame() {
            return Some(Frame::Settle(settle));
        }
        if self.wishes.drain && !self.wishes.drain_said {
            self.wishes.drain_said = true;
            return Some(Frame::Drain(v1::DrainSession {}));
        }
        if self.wishes.pause != self.wishes.pause_said {
            self.wishes.pause_said = self.wishes.pause;
            return Some(match self.wishes.pause {
                true => Frame::Pause(v1::PauseSession {}),
                false => Frame::Resume(v1::ResumeSession {}),
            });
        }
        let may_give = !self.wishes.drain && self.outgoing.unconfirmed_count() < UNCONFIRMED_MAX;
        if let Some(total) = may_give.then(|| self.credit.due(self.unread.is_empty())).flatten() {
            let Amount { records: messages_total, bytes: bytes_total } = total;
            return Some(Frame::Credit(v1::Credit { messages_total, bytes_total }));
        }
        let is_silent = self.said_at + self.session.heartbeat <= now;
        is_silent.then_some(Frame::Heartbeat(v1::ClientHeartbeat {}))
    }

    /// When to ask for a frame again at the latest; `None` before the session is open.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        if !self.session.is_open {
            return None;
        }
        let silent = self.said_at + self.session.heartbeat;
        let waits = self.unread.front().and_then(|serial| self.held.get(serial));
        Some(waits.map_or(silent, |held| silent.min(held.lease.received + self.patience())))
    }

    /// How long a record may wait for the program before it is given back: its lease is not used up by
    /// waiting, since running out of it would count as a failure.
    fn patience(&self) -> Duration {
        self.session.ack_wait * 3 / 4
    }

    /// Looks how far the program came; reports what it began with.
    fn follow_the_reader(&mut self) {
        while let Some(serial) = self.unread.front() {
            let Some(held) = self.held.get_mut(serial) else {
                self.unread.pop_front();
                continue;
            };
            let handed = held.lease.handed();
            if self.settings.marks_started && handed.until > held.reported {
                for run in held.open_in(held.reported..handed.until) {
                    held.start(run.clone());
                    self.outgoing.push(Item::new(held.lease.clone(), run, Act::Started));
                }
            }
            held.reported = handed.until;
            if !held.is_given_out(handed) {
                return;
            }
            self.unread.pop_front();
        }
    }

    fn give_back_what_waits(&mut self, now: Instant) {
        while let Some(serial) = self.unread.front().copied() {
            let received = self.held.get(&serial).map(|held| held.lease.received);
            if received.is_some_and(|received| received + self.patience() > now) {
                return;
            }
            self.unread.pop_front();
            self.close(serial);
        }
    }

    /// Asks for nothing more and gives back what the program did not take.
    pub(super) fn drain(&mut self) {
        self.wishes.drain = true;
        self.follow_the_reader();
        for serial in std::mem::take(&mut self.unread) {
            self.close(serial);
        }
    }

    pub(super) fn pause(&mut self, pause: bool) {
        self.wishes.pause = pause;
    }

    /// Whether nothing is in hand and everything is confirmed.
    pub(super) fn is_drained(&self) -> bool {
        let is_settled = || self.held.values().all(|held| held.outstanding() == 0);
        self.wishes.drain && self.outgoing.is_idle() && is_settled()
    }

    /// Whether the drain is complete and the broker knows of it.
    pub(super) fn may_end(&self) -> bool {
        self.wishes.drain_said && self.is_drained()
    }

    /// The broker does not know the session any more: the next stream opens a new one.
    pub(super) fn forget_session(&mut self) {
        self.session.epoch = None;
    }

    /// What was sent last may not have come through.
    pub(super) fn tell_again(&mut self) {
        self.outgoing.reopen(true);
    }

    /// The broker wants no outcomes of this session: who waits hears why.
    pub(super) fn fail_outcomes(&mut self, error: &Error) {
        self.outgoing.fail(error);
    }

    /// The subscriber is over: who waits hears why, and nothing is given out any more.
    pub(super) fn finish(&mut self, error: &Error) {
        self.session.is_open = false;
        self.session.stream += 1;
        self.end_session();
        self.outgoing.fail(error);
    }
}

fn amount(used: &v1::CreditUsed) -> Amount {
    Amount { records: used.messages_total, bytes: used.bytes_total }
}

/// What of `ranges` is in none of `known`, which are in order.
pub(super) fn without(
    ranges: &[v1::OffsetRange],
    known: &[v1::OffsetRange],
) -> Vec<v1::OffsetRange> {
    let mut left = Vec::with_capacity(ranges.len());
    for &v1::OffsetRange { start_offset: mut start, end_offset: end } in ranges {
        for one in known {
            if one.end_offset <= start || one.start_offset >= end {
                continue;
            }
            if one.start_offset > start {
                left.push(v1::OffsetRange { start_offset: start, end_offset: one.start_offset });
            }
            start = start.max(one.end_offset);
        }
        if start < end {
            left.push(v1::OffsetRange { start_offset: start, end_offset: end });
        }
    }
    left
}

/// The offsets of runs of indices.
fn offsets(held: &Held, runs: &[Range<u32>]) -> Vec<Range<Offset>> {
    let offset = |index| held.lease.spans.offset(index);
    runs.iter().map(|run| Offset(offset(run.start))..Offset(offset(run.end - 1) + 1)).collect()
}
