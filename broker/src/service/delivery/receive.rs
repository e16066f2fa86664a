//! Receive: asks for records once, with a long poll. The unary twin of a session, on the same position and leases.
//!
//! When the caller goes away before he has an answer, what would have been in it is given back, unless he named his
//! try: then he may come for it again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use riverrun_proto::limits::WAIT_MS_MAX;
use tokio::time::{Instant, timeout_at};

use super::{
    DeliveryService,
    create::Spec,
    error::PushError,
    frame::next_frame,
    live::Live,
    mailbox::{End, Mail, Mailbox, SettleOutcome, Taken},
    open::{check_id, shortened},
    session::Delivered,
    settle::{By, ITEMS_MAX, SettleItem},
};
use crate::{
    delivery::{Ask, Handout, Reason, SessionRef},
    service::fetch::Format,
};

/// Most records of one reply.
const RECORDS_MAX: u32 = 10_000;
/// Bytes of a reply when the caller does not say.
const BYTES_DEFAULT: u32 = 4 << 20;
/// Most bytes of a reply.
const BYTES_MAX: u32 = 64 << 20;
/// Longest time that a call which does not wait gives a read that is under way.
const READING_MAX: Duration = Duration::from_secs(1);
/// Longest name of a try.
const ATTEMPT_BYTES_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReceiveRequest {
    /// Name of the subscription.
    pub subscription: String,
    /// Who asks; empty makes one up.
    pub session_id: String,
    /// Most records; 0 is 1.
    pub records_max: u32,
    /// Most bytes; 0 is the default.
    pub bytes_max: u32,
    /// How long to wait for the first record, in milliseconds.
    pub wait_ms: u32,
    /// Form of the records.
    pub format: Format,
    /// Makes the subscription when it does not exist.
    pub create: Option<Spec>,
    /// Name of this try; empty is none.
    pub attempt: String,
    /// Address it came from.
    pub host: String,
}

/// What was given.
#[derive(Debug)]
pub struct Received {
    /// The session it was given to.
    pub session_id: Arc<str>,
    /// Its epoch.
    pub epoch: u64,
    /// Records, by partition.
    pub deliveries: Vec<Delivered>,
    /// Lease.
    pub ack_wait: Duration,
    /// Why nothing came.
    pub idle: Option<Reason>,
}

impl DeliveryService {
    /// Asks for records, and waits for the first of them.
    ///
    /// # Errors
    /// What is not allowed.
    pub async fn receive(&self, request: ReceiveRequest) -> Result<Received, PushError> {
        if self.shared.shutdown.has_begun() {
            return Err(PushError::Stopping);
        }
        let ask = request.check()?;
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.wait_ms));
        let live = self.find_or_create(&request.subscription, request.create).await?;
        let mut asking = Asking::begin(&live, ask)?;
        live.dispatch();
        let woken = tokio::select! {
            woken = asking.wait(deadline) => woken,
            () = self.shared.shutdown.begun() => false,
        };
        if !woken && request.wait_ms == 0 {
            // What is there may have to be looked at first.
            asking.wait_for_reading().await;
        }
        let now = self.shared.now();
        let session = asking.session;
        let idle = live.look(|state| state.delivery.idle_reason(session, now));
        asking.take();
        let deliveries = asking.frames(request.format).await?;
        let idle = Some(idle).filter(|_| deliveries.is_empty());
        let received = Received {
            session_id: asking.mailbox.id.clone(),
            epoch: session.epoch(),
            deliveries,
            ack_wait: live.look(|state| state.settings.delivery.ack_wait),
            idle,
        };
        asking.is_answered = true;
        Ok(received)
    }

    /// Settles records by the lease they came with.
    ///
    /// # Errors
    /// When the call as a whole is not allowed; items are judged one by one.
    pub async fn settle(
        &self,
        subscription: &str,
        session_id: &str,
        (items, sync): (Vec<SettleItem>, bool),
    ) -> Result<Vec<SettleOutcome>, PushError> {
        let by = By::Call(check_id(session_id)?);
        if items.len() > ITEMS_MAX {
            let expected = format!("a list of at most {ITEMS_MAX}");
            return Err(PushError::field("items", expected, items.len()));
        }
        let live = self.find(subscription)?;
        let results = live.settle(&by, items);
        if sync {
            return Ok(live.when_durable(results).await);
        }
        Ok(results.into_iter().map(SettleOutcome::Decided).collect())
    }
}

impl ReceiveRequest {
    fn check(&self) -> Result<Ask, PushError> {
        let within = |field, value: u32, max: u32| match value <= max {
            true => Ok(value),
            false => Err(PushError::field(field, format!("at most {max}"), value)),
        };
        within("max_records", self.records_max, RECORDS_MAX)?;
        within("max_bytes", self.bytes_max, BYTES_MAX)?;
        within("max_wait_ms", self.wait_ms, WAIT_MS_MAX)?;
        if self.attempt.len() > ATTEMPT_BYTES_MAX {
            let expected = format!("at most {ATTEMPT_BYTES_MAX} bytes");
            let found = format!("{} bytes", self.attempt.len());
            return Err(PushError::field("attempt_id", expected, found));
        }
        let id = match self.session_id.as_str() {
            "" => uuid::Uuid::new_v4().simple().to_string().into(),
            id => check_id(id)?,
        };
        let bytes_max = if self.bytes_max == 0 { BYTES_DEFAULT } else { self.bytes_max };
        Ok(Ask {
            id,
            client_id: shortened(""),
            host: self.host.as_str().into(),
            records_max: self.records_max.max(1),
            bytes_max: u64::from(bytes_max),
            attempt: self.attempt.as_str().into(),
        })
    }
}

/// A call that asks. When it is dropped it asks no more.
struct Asking {
    live: Arc<Live>,
    session: SessionRef,
    mailbox: Arc<Mailbox>,
    /// Records given to it.
    handouts: Vec<Handout>,
    /// The caller may come again for what it was given.
    is_named: bool,
    is_answered: bool,
}

impl Asking {
    fn begin(live: &Arc<Live>, ask: Ask) -> Result<Asking, PushError> {
        let mailbox = Arc::new(Mailbox::of_call(ask.id.clone()));
        let is_named = !ask.attempt.is_empty();
        let session = live.event(|state, now| {
            state.check_open(&live.name)?;
            let opened = state.delivery.receive(ask, now)?;
            for handout in opened.replay {
                mailbox.put(Mail::Handout(handout));
            }
            if let Some(older) = state.mailboxes.insert(opened.session, mailbox.clone()) {
                // Another call of this session waits: it goes away with nothing.
                older.end(End::Drained);
            }
            Ok::<_, PushError>(opened.session)
        })?;
        let (live, handouts) = (live.clone(), Vec::new());
        Ok(Asking { live, session, mailbox, handouts, is_named, is_answered: false })
    }

    /// Waits until there is something; false when the time is over.
    async fn wait(&self, deadline: Instant) -> bool {
        while self.mailbox.is_empty() {
            if timeout_at(deadline, self.mailbox.more()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits as long as records are being read and none came.
    async fn wait_for_reading(&self) {
        let deadline = Instant::now() + READING_MAX;
        loop {
            let read = self.live.read.notified();
            let is_reading = self.live.look(|state| state.scans > 0);
            if !is_reading || !self.mailbox.is_empty() || timeout_at(deadline, read).await.is_err()
            {
                return;
            }
        }
    }

    /// Takes what was given, and asks no more.
    fn take(&mut self) {
        self.stop();
        while let Some(Taken::Mail(mail)) = self.mailbox.take() {
            match mail {
                Mail::Handout(handout) => self.handouts.push(handout),
                Mail::Revoked(..) | Mail::Lost(..) | Mail::Settled(_) => {}
            }
        }
    }

    fn stop(&self) {
        self.live.event(|state, now| {
            let known = state.mailboxes.get(&self.session);
            if known.is_some_and(|mailbox| Arc::ptr_eq(mailbox, &self.mailbox)) {
                state.mailboxes.remove(&self.session);
                state.delivery.stop_asking(self.session, now);
            }
        });
    }

    async fn frames(&self, format: Format) -> Result<Vec<Delivered>, PushError> {
        let mut delivered = Vec::new();
        for handout in &self.handouts {
            let Some((place, Some(partition))) = self.live.source(&handout.lane) else { continue };
            let mut left: VecDeque<_> = handout.runs.iter().copied().collect();
            while !left.is_empty() {
                let cache = &self.live.shared.cache;
                let mut frame = next_frame(cache, &partition, &mut left, format).await?;
                let missing = std::mem::take(&mut frame.missing);
                if !missing.is_empty() {
                    self.live.forget_missing(self.session, handout, missing);
                }
                if !frame.runs.is_empty() {
                    delivered.push(Delivered::new(&place, handout, frame));
                }
            }
        }
        Ok(delivered)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.take();
        if self.is_named || self.handouts.is_empty() {
            return;
        }
        let unsent = self.handouts.iter();
        let unsent = unsent.flat_map(|handout| handout.runs.iter().map(move |run| (handout, *run)));
        self.live.give_back(self.session, unsent);
    }
}
