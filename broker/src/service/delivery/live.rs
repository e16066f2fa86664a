//! One live subscription: its delivery behind a lock, and the ways in and out.
//!
//! ```text
//! session, timer, scan ──event──▶ Delivery ──effects──▶ mailboxes, store, dead letters, deadline
//! ```
//!
//! The lock is held for a few lines. What happened is put where it belongs under the same lock, so mail, changes and
//! deadlines keep the order of events; waking comes after. Nothing is awaited under it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_proto::TopicId;
use tokio::sync::Notify;

use super::{
    Shared,
    error::{Closing, PushError},
    heartbeat::OldestKnown,
    mailbox::{End, Mail, Mailbox},
    webhook::WebhookStanding,
};
use crate::{
    delivery::{DeadLetter, Delivery, Effects, GoneReason, LaneKey, Now, Scan, SessionRef, Told},
    partition::Partition,
    subscription::{StoreError, SubscriptionSettings},
};

/// Lanes of one subscription read at once.
const SCANS_AT_ONCE: usize = 4;

/// One live subscription.
#[derive(Debug)]
pub(super) struct Live {
    /// Its name.
    pub(super) name: Arc<str>,
    /// Its number in the store, never used twice.
    pub(super) number: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State>,
    /// Held from before a change of its settings is decided until it counts, so that changes count in the order in which they are
    /// stored.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Held while its lanes are brought in line with its topics, so that who looked earlier does not have the last word.
    pub(super) following: Mutex<()>,
    /// There may be something to scan, or partitions changed.
    pub(super) scans: Notify,
    /// A read ended.
    pub(super) read: Notify,
    /// A dispatcher runs.
    pub(super) dispatched: AtomicBool,
    /// The task that writes dead letters runs.
    pub(super) burying: AtomicBool,
    /// Itself, for its tasks.
    pub(super) me: Weak<Live>,
}

/// Guarded by the lock of the subscription.
#[derive(Debug)]
pub(super) struct State {
    pub(super) delivery: Delivery,
    /// What it reads, by lane.
    pub(super) sources: BTreeMap<LaneKey, Source>,
    /// Ids of its topics by name.
    pub(super) topic_ids: BTreeMap<Arc<str>, TopicId>,
    /// Counts changes of `sources`.
    pub(super) sources_version: u64,
    /// Whoever sends to a session.
    pub(super) mailboxes: HashMap<SessionRef, Arc<Mailbox>>,
    pub(super) settings: Arc<SubscriptionSettings>,
    /// Delivery is stopped.
    pub(super) paused: bool,
    /// Deadline as the schedule knows it.
    scheduled: Option<Duration>,
    /// Failures that are not known to be stored: once this sequence number is durable, so many are.
    unstored: VecDeque<(u64, u64)>,
    /// Reads for the dispatcher to begin.
    pub(super) scan_queue: VecDeque<Scan>,
    /// Reads queued or under way.
    pub(super) scans: usize,
    /// How the endpoint of its webhook stands.
    pub(super) webhook: WebhookStanding,
    /// Age of its oldest record, as it was looked up last.
    pub(super) oldest: OldestKnown,
    /// Dead letters to be written.
    pub(super) dead: VecDeque<DeadLetter>,
    /// It was deleted.
    pub(super) gone: bool,
    /// All its topics were deleted.
    pub(super) orphaned: bool,
    /// Nobody may come, and why.
    pub(super) closed: Option<Closing>,
}

/// What a lane reads.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Name of the topic.
    pub(super) topic: Arc<str>,
    /// `None` when it could not be opened.
    pub(super) partition: Option<Arc<Partition>>,
}

impl State {
    pub(super) fn new(
        mut delivery: Delivery,
        settings: Arc<SubscriptionSettings>,
        paused: bool,
    ) -> State {
        delivery.set_failures_stored(0);
        State {
            paused,
            delivery,
            sources: BTreeMap::new(),
            topic_ids: BTreeMap::new(),
            sources_version: 0,
            mailboxes: HashMap::new(),
            settings,
            scheduled: None,
            unstored: VecDeque::new(),
            scan_queue: VecDeque::new(),
            scans: 0,
            webhook: WebhookStanding::default(),
            oldest: OldestKnown::default(),
            dead: VecDeque::new(),
            gone: false,
            orphaned: false,
            closed: None,
        }
    }
}

/// What must be woken once the lock is free.
#[derive(Debug, Default)]
struct Wakes {
    mailboxes: Vec<Arc<Mailbox>>,
    burials: bool,
    scans: bool,
}

impl Live {
    pub(super) fn new(
        (name, number): (Arc<str>, u64),
        shared: Arc<Shared>,
        state: State,
    ) -> Arc<Live> {
        Arc::new_cyclic(|me| Live {
            me: me.clone(),
            name,
            number,
            shared,
            state: Mutex::new(state),
            changing: Arc::default(),
            following: Mutex::default(),
            scans: Notify::new(),
            read: Notify::new(),
            dispatched: AtomicBool::new(false),
            burying: AtomicBool::new(false),
        })
    }

    /// Lets something happen, and puts what came of it where it belongs.
    pub(super) fn event<T>(&self, happen: impl FnOnce(&mut State, Now) -> T) -> T {
        let now = self.shared.now();
        let mut state = self.state.lock();
        if !state.unstored.is_empty() {
            state.see_stored(self.shared.store.durable());
        }
        let failures = state.delivery.failures();
        let out = happen(&mut state, now);
        let effects = state.delivery.take_effects();
        let mut wakes = Wakes::default();
        let sequence = self.route(&mut state, effects, &mut wakes);
        if let Some(sequence) = sequence.filter(|_| state.delivery.failures() > failures) {
            let failures = state.delivery.failures();
            state.unstored.push_back((sequence, failures));
        }
        wakes.scans = state.plan_scans(self.shared.store.is_full());
        let next = state.delivery.next_deadline().filter(|_| !state.gone);
        if next != state.scheduled {
            self.shared.deadlines.set(self.number, state.scheduled, next);
            state.scheduled = next;
        }
        drop(state);
        self.wake(&wakes);
        out
    }

    /// Looks at it; nothing happens.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Ends every session: it was deleted, or its state cannot be stored any more.
    pub(super) fn end_all(&self, error: &PushError, released: bool) {
        let mut state = self.state.lock();
        for (_, mailbox) in state.mailboxes.drain() {
            mailbox.cut(End::Goaway(error.clone(), released));
        }
    }

    /// Nothing can be stored any more.
    pub(super) fn fail(&self) {
        self.event(|state, _| state.delivery.set_state_failed());
        let error = self.shared.store.failure().unwrap_or(StoreError::Closed);
        self.end_all(&error.into(), false);
    }

    /// Does what is due.
    pub(super) fn tick(&self) {
        self.event(|state, now| {
            state.scheduled = None;
            state.delivery.tick(now);
        });
    }

    /// Returns the sequence number of the changes, when there are some.
    fn route(&self, state: &mut State, effects: Effects, wakes: &mut Wakes) -> Option<u64> {
        let Effects { told, gone, dead, changes } = effects;
        let stores = !changes.is_empty();
        let sequence = stores.then(|| self.shared.store.record(self.number, changes));
        for (session, told) in told {
            let mail = match told {
                Told::Handout(handout) => Mail::Handout(handout),
                Told::Revoked(lane, run, reason) => Mail::Revoked(lane, vec![run], reason),
                Told::Lost(lane, run) => Mail::Lost(lane, vec![run]),
            };
            state.post(session, mail, wakes);
        }
        for (session, reason) in gone {
            if let Some(mailbox) = state.mailboxes.remove(&session) {
                mailbox.end(match reason {
                    GoneReason::Replaced => End::Goaway(PushError::Replaced, false),
                    GoneReason::Drained => End::Drained,
                });
            }
        }
        if !dead.is_empty() {
            state.dead.extend(dead);
            wakes.burials = true;
        }
        sequence
    }

    fn wake(&self, wakes: &Wakes) {
        for mailbox in &wakes.mailboxes {
            mailbox.wake();
        }
        if wakes.burials {
            self.start_burying();
        }
        if wakes.scans {
            self.scans.notify_one();
        }
    }
}

impl State {
    /// Everything up to this sequence number is durable.
    fn see_stored(&mut self, durable: u64) {
        while let Some((_, failures)) =
            self.unstored.front().copied().filter(|(sequence, _)| *sequence <= durable)
        {
            self.unstored.pop_front();
            self.delivery.set_failures_stored(failures);
        }
    }

    /// Takes what delivery wants to read; true when there is something. Nothing is read for it while what it did cannot
    /// be stored as fast as it happens.
    fn plan_scans(&mut self, is_full: bool) -> bool {
        while self.scans < SCANS_AT_ONCE
            && !is_full
            && let Some(scan) = self.delivery.next_scan()
        {
            self.scans += 1;
            self.scan_queue.push_back(scan);
        }
        !self.scan_queue.is_empty()
    }

    fn post(&self, session: SessionRef, mail: Mail, wakes: &mut Wakes) {
        let Some(mailbox) = self.mailboxes.get(&session) else { return };
        mailbox.put(mail);
        if !wakes.mailboxes.iter().any(|known| Arc::ptr_eq(known, mailbox)) {
            wakes.mailboxes.push(mailbox.clone());
        }
    }
}
