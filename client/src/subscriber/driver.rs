//! The task behind a subscriber: it opens one session after another, takes what the broker sends, and ends
//! when the subscriber is closed and nothing is in hand, or when the broker's refusal is final.

use std::{sync::Arc, time::Duration};

use riverrun_proto::{TopicPartition, grpc::v1};
use tokio::time::timeout;
use v1::session_response::Frame;

use super::{
    book::without,
    event::{RevokeReason, Standing, SubscriberEvent},
    feed::Feed,
    parcel::{self, Arrival, Place},
    shared::{Shared, Stage},
};
use crate::{
    clock::{self, Instant},
    connection::Link,
    error::{Error, ErrorCode, Result},
    subscription::Mode,
};

/// A wait for a link that is as good as endless.
const LONG: Duration = Duration::from_secs(3600);
/// So long what was sent on a connection that was given up may still reach the broker.
const ECHO_MAX: Duration = Duration::from_secs(60);
/// Heartbeats of the broker that may fail to come.
const SILENT_HEARTBEATS: u32 = 3;

/// The task behind a subscriber.
pub(super) struct Driver {
    shared: Arc<Shared>,
    /// Number of the next delivery.
    serial: u64,
    /// A drain was begun.
    draining: bool,
    /// A session was open since the last wait.
    was_open: bool,
    /// Streams that were opened and not answered. Their first frames may still be on their way, on connections that were given up.
    unanswered: u32,
    /// When the last of them is not on its way any more.
    echo_until: Instant,
    /// Why the session that was opened is ended again, told when its stream is over.
    refused: Option<Error>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Driver {
        Driver {
            shared,
            serial: 0,
            draining: false,
            was_open: false,
            unanswered: 0,
            echo_until: clock::now(),
            refused: None,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = self.sessions().await;
        self.shared.finish(ended);
    }

    /// Opens one session after another.
    async fn sessions(&mut self) -> Result<()> {
        let mut backoff = self.shared.client.connection().backoff();
        loop {
            let Some(link) = self.link().await? else { return Ok(()) };
            let error = match self.session(&link).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if is_final(&error) && !self.is_own_echo(&error) {
                return Err(error);
            }
            if !self.was_open && error.code() == ErrorCode::Unreachable {
                self.unanswered = self.unanswered.saturating_add(1);
                self.echo_until = clock::now() + ECHO_MAX;
            }
            self.broken(error.clone());
            if std::mem::take(&mut self.was_open) {
                backoff.reset();
            }
            let wait = backoff.next_wait().max(error.retry_after());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                ended = self.closed() => return ended,
            }
        }
    }

    /// Whether the session was replaced by an earlier try of this subscriber that reached the broker late. Each try is believed in once,
    /// and for a while, so another program under the same id prevails.
    fn is_own_echo(&mut self, error: &Error) -> bool {
        if clock::now() > self.echo_until {
            self.unanswered = 0;
        }
        let is_one = error.code() == ErrorCode::SessionReplaced && self.unanswered > 0;
        self.unanswered -= u32::from(is_one);
        is_one
    }

    /// A link to open a session on; `None` when none is needed any more.
    async fn link(&mut self) -> Result<Option<Link>> {
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                link = shared.client.connection().link(clock::now() + LONG) => match link {
                    Ok(link) => return Ok(Some(link)),
                    Err(error) if error.code() == ErrorCode::Closed => return Err(error),
                    Err(_) => {}
                },
                ended = self.closed() => return ended.map(|()| None),
            }
        }
    }

    /// Resolves when the subscriber is closed and there is nothing to say to the broker, or no longer time
    /// to say it.
    async fn closed(&mut self) -> Result<()> {
        self.shared.closing.cancelled().await;
        self.drain();
        if self.shared.book.lock().is_drained() {
            return Ok(());
        }
        tokio::time::sleep(self.shared.client.call_timeout()).await;
        let message = "the connection was lost before every outcome was told";
        Err(Error::new(ErrorCode::Unreachable, message))
    }

    fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.shared.drain();
        }
    }

    fn broken(&self, error: Error) {
        let name = &self.shared.settings.subscription;
        tracing::debug!(subscription = name, %error, "session broke");
        if error.code() == ErrorCode::UnknownSession {
            self.shared.book.lock().forget_session();
        }
        let why = error.clone();
        self.shared.stage.send_if_modified(|stage| match stage {
            Stage::Opening(last) => {
                *last = Some(why);
                true
            }
            Stage::Open | Stage::Over(_) => false,
        });
        self.shared.tell([SubscriberEvent::Disconnected(error)]);
    }

    /// One stream from beginning to end; `Ok` after a drain.
    async fn session(&mut self, link: &Link) -> Result<()> {
        let feed = self.feed();
        let opening = self.shared.client.connection().session(link, feed);
        let opened = timeout(self.shared.client.call_timeout(), opening).await;
        let mut replies = opened.unwrap_or_else(|_| Err(silent()))?;
        let closing = self.shared.closing.clone();
        let mut goaway = None;
        loop {
            let patience = self.shared.book.lock().heartbeat() * SILENT_HEARTBEATS;
            let reply = tokio::select! {
                reply = timeout(patience, replies.next()) => reply.unwrap_or_else(|_| Err(silent())),
                () = closing.cancelled(), if !self.draining => {
                    self.drain();
                    continue;
                }
            };
            if !matches!(reply, Ok(Some(_)))
                && let Some(refused) = self.refused.take()
            {
                return Err(refused);
            }
            let frame = match reply {
                Ok(Some(response)) => response.frame,
                Ok(None) if self.shared.book.lock().is_drained() => return Ok(()),
                Ok(None) => return Err(goaway.unwrap_or_else(ended)),
                Err(error) => return Err(goaway.filter(is_final).unwrap_or(error)),
            };
            if let Some(Frame::Goaway(last)) = frame {
                goaway = Some(self.goaway(last));
            } else if let Some(frame) = frame {
                self.receive(frame)?;
            }
            self.shared.desk.wake();
        }
    }

    fn feed(&self) -> Feed {
        let settings = &self.shared.settings;
        let (stream, resume_from) = self.shared.book.lock().begin(clock::now());
        let open = v1::OpenSession {
            subscription: settings.subscription.clone(),
            session_id: settings.session_id.clone(),
            resume_from,
            max_in_flight: settings.book.records_window,
            format: v1::RecordFormat::Encoded.into(),
            client_id: settings.client_id.clone(),
            create: settings.create.clone(),
            reports_started: true,
        };
        Feed::new(self.shared.clone(), stream, open)
    }

    /// Takes one frame of the broker.
    fn receive(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Opened(opened) => self.opened(&opened),
            Frame::Deliver(deliver) => self.deliver(deliver)?,
            Frame::Settled(settled) => {
                let events = self.shared.book.lock().settled(&settled);
                self.shared.tell(events);
            }
            Frame::Revoked(v1::Revoked { topic, partition, ranges, reason }) => {
                let partition = TopicPartition::new(topic, partition);
                let ranges = self.shared.book.lock().taken_back(&partition, &ranges);
                let reason = RevokeReason::from_wire(reason);
                self.shared.tell([SubscriberEvent::Revoked { partition, ranges, reason }]);
            }
            Frame::Lost(v1::Lost { topic, partition, ranges }) => {
                let partition = TopicPartition::new(topic, partition);
                let ranges = self.shared.book.lock().taken_back(&partition, &ranges);
                self.shared.tell([SubscriberEvent::Lost { partition, ranges }]);
            }
            Frame::Heartbeat(heartbeat) => {
                if let Some(used) = &heartbeat.credit_used {
                    self.shared.book.lock().used(used);
                }
                self.shared.standing.send_replace(Some(Standing::from_wire(heartbeat)));
            }
            Frame::Goaway(_) => {}
        }
        Ok(())
    }

    fn opened(&mut self, opened: &v1::Opened) {
        if let Some(refused) = self.wrong_order(Mode::from_wire(opened.order)) {
            // The stream of frames ends, so the broker ends the session and does not wait for it to be resumed.
            self.shared.book.lock().finish(&refused);
            self.refused = Some(refused);
            return;
        }
        self.was_open = true;
        let events = self.shared.book.lock().opened(opened);
        self.shared.tell(events);
        self.shared.stage.send_replace(Stage::Open);
    }

    /// What is wrong with this order, when another one was asked for.
    fn wrong_order(&self, order: Mode) -> Option<Error> {
        let settings = &self.shared.settings;
        let mode = settings.mode.filter(|mode| *mode != order)?;
        let (name, is, not) = (&settings.subscription, order.name(), mode.name());
        let message = format!("subscription `{name}` delivers `{is}`, not `{not}`");
        Some(Error::new(ErrorCode::SubscriptionExists, message))
    }

    fn deliver(&mut self, mut deliver: v1::Deliver) -> Result<()> {
        let whole = if deliver.replayed { deliver.ranges.clone() } else { Vec::new() };
        let is_news = self.shared.book.lock().is_news(&mut deliver);
        let known = without(&whole, &deliver.ranges);
        if !known.is_empty() {
            let amount = parcel::cost(&deliver.batches, &known)?;
            self.shared.book.lock().came_again(amount);
        }
        if !is_news {
            return Ok(());
        }
        self.serial += 1;
        let epoch = self.shared.book.lock().epoch().unwrap_or_default();
        let place =
            Place { desk: &self.shared.desk, serial: self.serial, epoch, now: clock::now() };
        let arrival = Arrival::decode(deliver, &place)?;
        let parcel = self.shared.book.lock().arrive(arrival);
        if let Some(parcel) = parcel {
            self.shared.put(parcel);
        }
        Ok(())
    }

    /// The broker's last words; the error they come to.
    fn goaway(&self, goaway: v1::Goaway) -> Error {
        let error = match &goaway.error {
            Some(error) => Error::from_wire(error),
            None => Error::new(ErrorCode::Unavailable, "the broker ended the session"),
        };
        self.shared.tell([SubscriberEvent::Goaway(error.clone())]);
        error
    }
}

/// Whether opening another session is of no use.
fn is_final(error: &Error) -> bool {
    error.is_fatal() || error.code() == ErrorCode::SessionReplaced
}

fn silent() -> Error {
    Error::new(ErrorCode::Unreachable, "the broker fell silent")
}

fn ended() -> Error {
    Error::new(ErrorCode::Unavailable, "the broker ended the session")
}
