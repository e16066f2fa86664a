//! A push session: what its client says, and what it is told.
//!
//! ```text
//! stream in ──▶ SessionIn ──▶ delivery ──▶ mailbox ──▶ SessionOut ──▶ stream out
//! ```
//!
//! Both halves live in one call. When either is dropped the session is lost, and may be resumed within the grace;
//! after the client closed its half it only drains.
//!
//! When the broker stops, a session is told, gets nothing more, and has a moment to settle what it holds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use riverrun_proto::TopicId;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    error::PushError,
    frame::{Frame, next_frame},
    live::Live,
    mailbox::{End, Mail, Mailbox, SettleOutcome, Settled, Taken},
    scan::ScanError,
    settle::{By, SettleItem, is_fine},
    webhook::WebhookStanding,
};
use crate::{
    delivery::{
        self, Handout, LaneKey, Order, RevokeReason, Run, SessionRef, SettleResult, SettleStatus,
        UNSENT_DELIVERIES_MAX, UNSENT_RECORDS_MAX,
    },
    partition::Partition,
    quota::Share,
    service::fetch::Format,
};

/// Settlements of one session that may wait to be durable.
const SYNCS_MAX: usize = 64;
/// Time that sessions have to settle what they hold when the broker stops.
const LEAVE: Duration = Duration::from_secs(1);
/// Records for which there was no room to read them are kept for so long before they are given back.
const NO_ROOM: Duration = Duration::from_millis(100);

/// The session as its client is told.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its epoch.
    pub epoch: u64,
    /// Leases of an earlier stream go on.
    pub resumed: bool,
    /// A sign of life is due after so long without another frame.
    pub heartbeat_interval: Duration,
    /// Lease of a delivery.
    pub ack_wait: Duration,
    /// Longest lease.
    pub lease_max: Duration,
    /// Records that may be in its hands.
    pub in_flight_max: u32,
    /// Order of the subscription.
    pub order: Order,
    /// What credit was used for before, without what is sent again.
    pub credit_used: Amount,
}

/// Something to tell the client.
#[derive(Debug)]
pub enum Out {
    /// It is open.
    Opened(Opened),
    /// Records.
    Deliver(Delivered),
    /// What became of settled items.
    Settled(Settled),
    /// Records the session no longer holds.
    Revoked(Place, Vec<Run>, RevokeReason),
    /// Records that retention removed.
    Lost(Place, Vec<Run>),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// The session ends; its leases with it or not.
    Goaway(PushError, bool),
}

/// A partition by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: u32,
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Records.
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub bytes: u64,
}

/// Records under one lease.
#[derive(Debug)]
pub struct Delivered {
    /// Where they are from.
    pub place: Place,
    /// Id of the topic.
    pub topic_id: TopicId,
    /// Number of the delivery.
    pub seq: u64,
    /// Epoch of its lease.
    pub epoch: u64,
    /// The records.
    pub frame: Frame,
    /// Those that were handed out or failed before.
    pub counts: Vec<delivery::DeliveryCount>,
    /// It was sent before.
    pub replayed: bool,
}

/// How the subscription stands.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// Records not settled.
    pub lag: u64,
    /// Age of the oldest of them, in milliseconds; 0 when there is none.
    pub oldest_unsettled_ms: u64,
    /// Why nothing is delivered, when there is something.
    pub idle: Option<delivery::Reason>,
    /// What credit was used for until then, also what could not be sent.
    pub credit_used: Amount,
}

/// What the client of a session says.
#[derive(Debug)]
pub struct SessionIn {
    live: Arc<Live>,
    mailbox: Arc<Mailbox>,
    session: SessionRef,
    syncs: Arc<Semaphore>,
    /// Longest time without a frame.
    silence_max: Duration,
    /// The client closed its half.
    closed: bool,
}

/// What the client of a session is told.
#[derive(Debug)]
pub struct SessionOut {
    live: Arc<Live>,
    mailbox: Arc<Mailbox>,
    session: SessionRef,
    format: Format,
    opened: Option<Opened>,
    heartbeat_interval: Duration,
    /// What credit was used for before, and what was taken up since.
    taken: Amount,
    /// Deliveries taken up, and their records, of which delivery was not told yet.
    untold: (u32, u64),
    sending: Option<Sending>,
    /// Records that credit was used for were given back unsent: the client is to hear of it.
    owes_heartbeat: bool,
    /// Settlements that wait to be durable.
    syncs: Arc<Semaphore>,
    /// None of them is left.
    is_settled: bool,
    /// The broker stops; the session ends then.
    leaves: Option<Instant>,
    ended: bool,
    _share: Share,
}

/// A delivery of which frames were not all sent.
#[derive(Debug)]
struct Sending {
    handout: Handout,
    left: VecDeque<Run>,
    place: Place,
    partition: Arc<Partition>,
}

/// Both halves of a session that was opened.
pub(super) fn halves(
    live: &Arc<Live>,
    (session, mailbox): (SessionRef, Arc<Mailbox>),
    opened: Opened,
    (format, share): (Format, Share),
) -> (SessionIn, SessionOut) {
    let heartbeat_interval = opened.heartbeat_interval;
    let syncs = Arc::new(Semaphore::new(SYNCS_MAX));
    let input = SessionIn {
        live: live.clone(),
        mailbox: mailbox.clone(),
        session,
        syncs: syncs.clone(),
        silence_max: heartbeat_interval * 3,
        closed: false,
    };
    let output = SessionOut {
        live: live.clone(),
        mailbox,
        session,
        format,
        heartbeat_interval,
        taken: opened.credit_used,
        untold: (0, 0),
        opened: Some(opened),
        sending: None,
        owes_heartbeat: false,
        syncs,
        is_settled: false,
        leaves: None,
        ended: false,
        _share: share,
    };
    (input, output)
}

impl SessionIn {
    /// Longest time without a frame.
    pub fn silence_max(&self) -> Duration {
        self.silence_max
    }

    /// Grants credit, as totals.
    pub fn credit(&self, records_total: u64, bytes_total: u64) {
        self.live.event(|state, now| {
            state.delivery.credit(self.session, records_total, bytes_total, now);
        });
    }

    /// Stops delivery, or goes on with it.
    pub fn pause(&self, paused: bool) {
        self.live.event(|state, now| match paused {
            true => state.delivery.pause_session(self.session, now),
            false => state.delivery.resume_session(self.session, now),
        });
    }

    /// Lets it hold at most so many records from now on.
    pub fn limit(&self, in_flight_max: u32) {
        self.live.event(|state, now| {
            state.delivery.limit_session(self.session, in_flight_max, now);
        });
    }

    /// Asks for no further records.
    pub fn drain(&self) {
        self.live.event(|state, now| state.delivery.drain(self.session, now));
    }

    /// The client closed its half: a drain, in which nothing more is heard.
    pub fn half_closed(mut self) {
        self.closed = true;
        self.drain();
    }

    /// The client broke the rules, or the stream broke: ends the session with this error.
    pub fn refuse(self, error: PushError) {
        self.mailbox.cut(End::Refused(error));
    }

    /// Nothing was heard for too long: the session is lost, and whoever still listens is told.
    pub fn silent(self, error: PushError) {
        self.mailbox.cut(End::Goaway(error, false));
    }

    /// Takes outcomes, and says at once what became of each; nothing is told by the other half.
    pub fn settle_now(&self, items: Vec<SettleItem>) -> Vec<SettleResult> {
        self.live.settle(&By::Stream(self.session), items)
    }

    /// Takes the outcome of a record that was posted, and tells at once how its endpoint stands by what became of that.
    pub fn settle_telling(
        &self,
        item: SettleItem,
        tell: impl FnOnce(&mut WebhookStanding, SettleStatus),
    ) {
        self.live.event(|state, now| {
            let results = state.settle(&By::Stream(self.session), vec![item], now);
            if let Some(result) = results.first() {
                tell(&mut state.webhook, result.status);
            }
        });
    }

    /// Takes outcomes. With `sync` every item is answered once it is durable, otherwise those that are refused are
    /// answered at once.
    pub async fn settle(&self, settle_id: u64, items: Vec<SettleItem>, sync: bool) {
        self.mailbox.room().await;
        let results = self.live.settle(&By::Stream(self.session), items);
        if !sync {
            let refused: Vec<_> = (0..)
                .zip(results)
                .filter(|(_, result)| !is_fine(result))
                .map(|(item, result)| (item, SettleOutcome::Decided(result)))
                .collect();
            if !refused.is_empty() {
                self.mailbox.put(Mail::Settled(Settled { settle_id, results: refused }));
                self.mailbox.wake();
            }
            return;
        }
        let Ok(permit) = self.syncs.clone().acquire_owned().await else { return };
        let (live, mailbox) = (self.live.clone(), self.mailbox.clone());
        tokio::spawn(async move {
            let results = live.when_durable(results).await;
            mailbox
                .put(Mail::Settled(Settled { settle_id, results: (0..).zip(results).collect() }));
            mailbox.wake();
            drop(permit);
        });
    }
}

impl Drop for SessionIn {
    fn drop(&mut self) {
        if !self.closed {
            self.live.lose(self.session);
        }
        // Nobody hears what the other half could still say.
        self.mailbox.wake();
    }
}

impl Drop for SessionOut {
    fn drop(&mut self) {
        self.live.lose(self.session);
        // Nobody takes mail any more: who waits for room in the mailbox waits in vain.
        self.mailbox.cut(End::Drained);
    }
}

impl SessionOut {
    /// What to tell next; `None` at the end. An error is the last thing told.
    pub async fn next(&mut self) -> Option<Result<Out, PushError>> {
        if let Some(opened) = self.opened.take() {
            return Some(Ok(Out::Opened(opened)));
        }
        loop {
            if self.ended {
                return None;
            }
            if let Some(delivered) = self.next_delivery().await {
                return Some(Ok(Out::Deliver(delivered)));
            }
            if std::mem::take(&mut self.owes_heartbeat) {
                return Some(Ok(self.heartbeat().await));
            }
            let out = match self.mailbox.take() {
                Some(Taken::Mail(mail)) => self.open_mail(mail).map(Ok),
                Some(Taken::End(End::Drained)) if !self.is_settled => {
                    self.last_answers().await;
                    None
                }
                Some(Taken::End(end)) => return self.finish(end),
                None => self.wait().await.map(Ok),
            };
            if out.is_some() {
                return out;
            }
        }
    }

    /// All that credit was used for, as far as it was taken up: also what could not be read then.
    pub fn taken(&self) -> Amount {
        self.taken
    }

    /// Waits for mail; tells of the end of the broker, or gives a sign of life, when that comes first.
    async fn wait(&mut self) -> Option<Out> {
        let shutdown = self.live.shared.shutdown.clone();
        if let Some(leaves) = self.leaves {
            tokio::select! {
                () = self.mailbox.more() => {}
                () = sleep_until(leaves) => self.release(),
            }
            return None;
        }
        tokio::select! {
            woken = timeout(self.heartbeat_interval, self.mailbox.more()) => match woken {
                Ok(()) => None,
                Err(_) => Some(self.heartbeat().await),
            },
            () = shutdown.begun() => {
                self.leaves = Some(Instant::now() + LEAVE);
                self.live.event(|state, now| state.delivery.drain(self.session, now));
                Some(Out::Goaway(PushError::Stopping, true))
            }
        }
    }

    async fn heartbeat(&self) -> Out {
        let told = self.live.heartbeat(self.session).await;
        Out::Heartbeat(Heartbeat { credit_used: self.taken, ..told })
    }

    /// Waits until every settlement so far is answered.
    async fn last_answers(&mut self) {
        let all = u32::try_from(SYNCS_MAX).unwrap_or(u32::MAX);
        drop(self.syncs.acquire_many(all).await);
        self.is_settled = true;
    }

    /// Gives everything back, which counts as no failure, and ends.
    pub fn release(&mut self) {
        self.live.event(|state, now| state.delivery.closed(self.session, now));
        self.ended = true;
    }

    fn finish(&mut self, end: End) -> Option<Result<Out, PushError>> {
        self.ended = true;
        match end {
            End::Drained => None,
            End::Goaway(error, released) => Some(Ok(Out::Goaway(error, released))),
            End::Refused(error) => Some(Err(error)),
        }
    }

    fn open_mail(&mut self, mail: Mail) -> Option<Out> {
        match mail {
            Mail::Handout(handout) => {
                self.taken.records += handout.count();
                self.taken.bytes += handout.bytes;
                self.tell_sent(&handout);
                let (place, partition) = self.source(&handout.lane)?;
                let left = handout.runs.iter().copied().collect();
                self.sending = Some(Sending { left, place, partition: partition?, handout });
                None
            }
            Mail::Revoked(lane, runs, reason) => {
                Some(Out::Revoked(self.source(&lane)?.0, runs, reason))
            }
            Mail::Lost(lane, runs) => Some(Out::Lost(self.source(&lane)?.0, runs)),
            Mail::Settled(settled) => Some(Out::Settled(settled)),
        }
    }

    /// A delivery leaves the mailbox. That is told in bulk: half of what may wait still may meanwhile.
    fn tell_sent(&mut self, handout: &Handout) {
        self.untold.0 += 1;
        self.untold.1 += handout.count();
        let (deliveries, records) = self.untold;
        if deliveries < UNSENT_DELIVERIES_MAX / 2 && records < UNSENT_RECORDS_MAX / 2 {
            return;
        }
        self.untold = (0, 0);
        self.live.event(|state, now| state.delivery.sent(self.session, deliveries, records, now));
    }

    /// The next frame of the delivery at hand.
    async fn next_delivery(&mut self) -> Option<Delivered> {
        while let Some(sending) = &mut self.sending {
            let cache = &self.live.shared.cache;
            let framed =
                next_frame(cache, &sending.partition, &mut sending.left, self.format).await;
            let mut frame = match framed {
                Ok(frame) => frame,
                Err(error) => {
                    self.not_readable(&error).await;
                    continue;
                }
            };
            let missing = std::mem::take(&mut frame.missing);
            let delivered = (!frame.runs.is_empty()).then(|| sending.delivered(frame));
            if !missing.is_empty() {
                self.live.forget_missing(self.session, &sending.handout, missing);
            }
            if sending.left.is_empty() {
                self.sending = None;
            }
            if delivered.is_some() {
                return delivered;
            }
        }
        None
    }

    /// What is left of the delivery at hand cannot be read.
    async fn not_readable(&mut self, error: &ScanError) {
        let is_for_want_of_room = match error {
            ScanError::Quota(_) => true,
            ScanError::Read(_) | ScanError::Decode { .. } => false,
        };
        if is_for_want_of_room {
            // Who is given them next, at once perhaps, wants the same room.
            sleep(NO_ROOM).await;
        }
        let Some(Sending { handout, left, place, .. }) = self.sending.take() else { return };
        let Place { topic, partition } = &place;
        tracing::warn!(%topic, partition, %error, "records handed out cannot be read");
        // What else is in the way may last, and the leases are what spaces the tries: they end, which counts. So records that can be read
        // get their turn.
        if is_for_want_of_room {
            self.live.give_back(self.session, left.into_iter().map(|run| (&handout, run)));
            self.owes_heartbeat = true;
        }
    }

    fn source(&self, lane: &LaneKey) -> Option<(Place, Option<Arc<Partition>>)> {
        self.live.source(lane)
    }
}

impl Sending {
    fn delivered(&self, frame: Frame) -> Delivered {
        Delivered::new(&self.place, &self.handout, frame)
    }
}

impl Delivered {
    /// A frame of this delivery.
    pub(super) fn new(place: &Place, handout: &Handout, frame: Frame) -> Delivered {
        let is_in = |offset: u64| frame.runs.iter().any(|run| run.contains(offset));
        Delivered {
            place: place.clone(),
            topic_id: handout.lane.topic_id,
            seq: handout.seq,
            epoch: handout.epoch,
            counts: handout.counts.iter().filter(|count| is_in(count.offset)).copied().collect(),
            replayed: handout.replayed,
            frame,
        }
    }
}
