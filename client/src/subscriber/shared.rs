//! What a subscriber, its driver and its stream of frames share.
//!
//! Locks, each held for a few instructions and never two together: `book`, `parcels`, the desk's slips.

use std::{collections::VecDeque, sync::Arc};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use riverrun_proto::grpc::v1;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    book::{Book, BookSettings},
    desk::Desk,
    event::{Standing, SubscriberEvent},
    parcel::Parcel,
};
use crate::{
    client::Client,
    clock,
    error::{Error, Result},
    subscription::Mode,
};

/// Events kept for readers that are slow.
const EVENTS_KEPT: usize = 256;

/// The settings that do not change.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) subscription: String,
    pub(super) session_id: String,
    pub(super) client_id: String,
    /// What to create when it does not exist.
    pub(super) create: Option<v1::SubscriptionSpec>,
    /// The order that was asked for.
    pub(super) mode: Option<Mode>,
    pub(super) book: BookSettings,
}

/// How far a subscriber is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// No session was open yet; why the last try failed.
    Opening(Option<Error>),
    /// A session was open.
    Open,
    /// It is over: closed, or for this reason.
    Over(Option<Error>),
}

/// What a subscriber, its driver and its stream of frames share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) desk: Arc<Desk>,
    pub(super) book: Mutex<Book>,
    /// Deliveries for the program, oldest first. Bounded by the credit.
    parcels: Mutex<VecDeque<Parcel>>,
    /// The program, when it waits for a delivery.
    reader: AtomicWaker,
    pub(super) events: broadcast::Sender<SubscriberEvent>,
    pub(super) standing: watch::Sender<Option<Standing>>,
    /// Changed by the driver only.
    pub(super) stage: watch::Sender<Stage>,
    /// The subscriber is closed or dropped.
    pub(super) closing: CancellationToken,
}

impl Shared {
    pub(super) fn new(client: Client, settings: Settings) -> Shared {
        Shared {
            client,
            desk: Arc::default(),
            book: Mutex::new(Book::new(settings.book.clone(), clock::now())),
            settings,
            parcels: Mutex::default(),
            reader: AtomicWaker::new(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            standing: watch::Sender::new(None),
            stage: watch::Sender::new(Stage::Opening(None)),
            closing: CancellationToken::new(),
        }
    }

    /// Puts a delivery into the program's reach.
    pub(super) fn put(&self, parcel: Parcel) {
        self.parcels.lock().push_back(parcel);
        self.reader.wake();
    }

    pub(super) fn next_parcel(&self) -> Option<Parcel> {
        self.parcels.lock().pop_front()
    }

    /// Registers who is woken by the next delivery, and by the end. Look again afterwards.
    pub(super) fn register_reader(&self, waker: &std::task::Waker) {
        self.reader.register(waker);
    }

    /// Tells of what happened. Nobody needs to listen.
    pub(super) fn tell(&self, events: impl IntoIterator<Item = SubscriberEvent>) {
        for event in events {
            let _nobody = self.events.send(event);
        }
    }

    /// Begins the end: nothing more is given out.
    pub(super) fn drain(&self) {
        self.book.lock().drain();
        self.parcels.lock().clear();
        self.desk.wake();
        self.reader.wake();
    }

    /// The end. Who waits for a confirmation hears why there will be none.
    pub(super) fn finish(&self, ended: Result<()>) {
        let mut untaken = self.desk.close();
        let error = ended.as_ref().err().cloned().unwrap_or_else(super::desk::over);
        let mut book = self.book.lock();
        book.take(&mut untaken);
        book.finish(&error);
        drop(book);
        self.parcels.lock().clear();
        self.stage.send_replace(Stage::Over(ended.err()));
        self.reader.wake();
        self.desk.wake();
    }
}
