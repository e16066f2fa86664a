//! What waits to be sent to one session.
//!
//! Deliveries wait as ranges of offsets, never as bytes: a frame is made when the stream can take it. So a session
//! that is not read costs what was handed to it, in ranges, and the frames its stream has taken already.
//!
//! Invariant: mail goes out in the order it came; after the end nothing does, but answers to a session that drained.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::PushError;
use crate::delivery::{Handout, LaneKey, RevokeReason, Run, SettleResult};

/// Answers to settlements that may wait; past it the session is not read.
const ANSWERS_MAX: usize = 1_000;
/// Room for mail that an empty mailbox keeps.
const SLOTS_KEPT: usize = 64;

/// Something to send.
#[derive(Debug)]
pub(super) enum Mail {
    /// A delivery.
    Handout(Handout),
    /// Records the session no longer holds.
    Revoked(LaneKey, Vec<Run>, RevokeReason),
    /// Records that retention removed.
    Lost(LaneKey, Vec<Run>),
    /// An answer.
    Settled(Settled),
}

/// Answer to a frame of outcomes.
#[derive(Debug)]
pub struct Settled {
    /// What the client called the frame.
    pub settle_id: u64,
    /// Index of the item and what became of it.
    pub results: Vec<(u32, SettleOutcome)>,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// It was decided.
    Decided(SettleResult),
    /// It counts, and may or may not have become durable.
    Indeterminate,
}

/// How a session ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It asked for it, and everything is settled.
    Drained,
    /// The broker ends it; its leases end with it or not.
    Goaway(PushError, bool),
    /// The client broke the rules.
    Refused(PushError),
}

/// The mailbox of one session.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Id of the session.
    pub(super) id: Arc<str>,
    /// It is a call's, which takes records and hears nothing else.
    handouts_only: bool,
    queue: Mutex<Queue>,
    /// Something came.
    more: Notify,
    /// Answers were taken.
    room: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    mail: VecDeque<Mail>,
    answers: usize,
    end: Option<End>,
}

/// What [`Mailbox::take`] gives.
#[derive(Debug)]
pub(super) enum Taken {
    Mail(Mail),
    End(End),
}

impl Mailbox {
    /// An empty one, of the stream of session `id`.
    pub(super) fn of_stream(id: Arc<str>) -> Mailbox {
        Mailbox::new(id, false)
    }

    /// An empty one, of a call of session `id`: what it has no answer for does not end its wait.
    pub(super) fn of_call(id: Arc<str>) -> Mailbox {
        Mailbox::new(id, true)
    }

    fn new(id: Arc<str>, handouts_only: bool) -> Mailbox {
        let queue = Mutex::default();
        Mailbox { id, handouts_only, queue, more: Notify::new(), room: Notify::new() }
    }

    /// Puts mail in; the session is woken by [`Mailbox::wake`].
    pub(super) fn put(&self, mail: Mail) {
        if self.handouts_only && !matches!(mail, Mail::Handout(_)) {
            return;
        }
        let mut queue = self.queue.lock();
        // The last answers of a session that drained come when they are durable.
        if matches!(queue.end, None | Some(End::Drained)) {
            queue.put(mail);
        }
    }

    /// Ends the session, in order behind what waits; the first end counts.
    pub(super) fn end(&self, end: End) {
        self.queue.lock().end.get_or_insert(end);
        self.wake();
    }

    /// Ends the session at once: what waits is not sent.
    pub(super) fn cut(&self, end: End) {
        let mut queue = self.queue.lock();
        queue.mail = VecDeque::new();
        queue.end.get_or_insert(end);
        drop(queue);
        self.wake();
    }

    /// Wakes whoever sends.
    pub(super) fn wake(&self) {
        self.more.notify_one();
        self.room.notify_one();
    }

    /// Takes what is next, if there is something.
    pub(super) fn take(&self) -> Option<Taken> {
        let mut queue = self.queue.lock();
        let Some(mail) = queue.mail.pop_front() else { return queue.end.clone().map(Taken::End) };
        if let Mail::Settled(_) = mail {
            queue.answers -= 1;
            self.room.notify_one();
        }
        if queue.mail.is_empty() && queue.mail.capacity() > SLOTS_KEPT {
            // A backlog once sent leaves no memory behind.
            queue.mail = VecDeque::new();
        }
        Some(Taken::Mail(mail))
    }

    /// Waits for something to come.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// Waits until there is room for answers, or the end.
    pub(super) async fn room(&self) {
        loop {
            if self.has_room() {
                return;
            }
            self.room.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        queue.answers < ANSWERS_MAX || queue.end.is_some()
    }

    /// Nothing waits, not even the end.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.mail.is_empty() && queue.end.is_none()
    }
}

impl Queue {
    fn put(&mut self, mail: Mail) {
        match (self.mail.back_mut(), mail) {
            (Some(Mail::Revoked(lane, runs, reason)), Mail::Revoked(also, more, because))
                if *lane == also && *reason == because =>
            {
                more.into_iter().for_each(|run| Run::push(runs, run));
            }
            (Some(Mail::Lost(lane, runs)), Mail::Lost(also, more)) if *lane == also => {
                more.into_iter().for_each(|run| Run::push(runs, run));
            }
            (_, mail) => {
                self.answers += usize::from(matches!(mail, Mail::Settled(_)));
                self.mail.push_back(mail);
            }
        }
    }
}
