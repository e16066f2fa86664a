//! Settings of a subscriber.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    Subscriber,
    book::BookSettings,
    driver::Driver,
    shared::{Settings, Shared, Stage},
};
use crate::{
    client::Client,
    error::{Error, ErrorCode, Result},
    subscription::{Mode, StartAt, SubscriptionFilter, SubscriptionSettings, SubscriptionSpec},
};

/// Records that may be unsettled by default.
const RECORDS_WINDOW: u32 = 256;
/// Bytes of them at first, by default.
const BYTES_WINDOW: u64 = 4 << 20;
/// What the window in bytes grows to.
const BYTES_MAX: u64 = 32 << 20;

/// Settings of a [`Subscriber`] and, where it does not exist yet, of its subscription.
#[derive(Clone, Debug)]
#[must_use = "call `open` to get the subscriber"]
pub struct SubscriberBuilder {
    pub(super) client: Client,
    name: String,
    spec: SubscriptionSpec,
    session_id: Option<String>,
    client_id: String,
    creates: bool,
    credit: (u32, u64),
    marks_started: bool,
}

impl SubscriberBuilder {
    pub(crate) fn new(client: Client, topics: Vec<String>) -> SubscriberBuilder {
        let client_id = client.client_id().to_owned();
        SubscriberBuilder {
            client,
            name: String::new(),
            creates: !topics.is_empty(),
            spec: SubscriptionSpec { topics, ..SubscriptionSpec::default() },
            session_id: None,
            client_id,
            credit: (RECORDS_WINDOW, BYTES_WINDOW),
            marks_started: true,
        }
    }

    /// Name of the subscription. Subscribers with the same name share its records.
    pub fn name(mut self, name: impl Into<String>) -> SubscriberBuilder {
        self.name = name.into();
        self
    }

    /// Order of delivery. Opening fails when the subscription exists with another one.
    pub fn mode(self, mode: Mode) -> SubscriberBuilder {
        self.with(|settings| settings.mode = Some(mode))
    }

    /// Most records that are not settled, and most bytes of them. Default 256 and 4 MiB; the bytes grow up
    /// to 32 MiB when they hold the broker back.
    pub fn credit(mut self, records: u32, bytes: u64) -> SubscriberBuilder {
        self.credit = (records.max(1), bytes.max(1));
        self
    }

    /// How long a record may stay unsettled before it counts as failed: 1 s to 12 h. Default 30 s. Only
    /// used when the subscription is created, as everything below up to `start`.
    pub fn ack_wait(self, wait: Duration) -> SubscriberBuilder {
        self.with(|settings| settings.ack_wait = Some(wait))
    }

    /// Longest time with all extensions, up to 12 h. Default 1 h.
    pub fn max_lease(self, lease: Duration) -> SubscriberBuilder {
        self.with(|settings| settings.max_lease = Some(lease))
    }

    /// Failures after which a record becomes a dead letter: 1 to 1,000; 0 is never. Default 10.
    pub fn max_failures(self, failures: u32) -> SubscriberBuilder {
        self.with(|settings| settings.max_failures = Some(failures))
    }

    /// Delay before the first retry, doubling up to the longest. Default 1 s and 5 min.
    pub fn backoff(self, min: Duration, max: Duration) -> SubscriberBuilder {
        self.with(|settings| {
            settings.backoff_min = Some(min);
            settings.backoff_max = Some(max);
        })
    }

    /// Topic for dead letters. Default is the subscription's name and `.dead`.
    pub fn dead_letter(self, topic: impl Into<String>) -> SubscriberBuilder {
        self.with(|settings| settings.dead_letter = Some(topic.into()))
    }

    /// Which records are delivered. Default all.
    pub fn filter(self, filter: SubscriptionFilter) -> SubscriberBuilder {
        self.with(|settings| settings.filter = Some(filter))
    }

    /// All settings of the subscription at once, instead of those given before.
    pub fn settings(mut self, settings: SubscriptionSettings) -> SubscriberBuilder {
        self.spec.settings = settings;
        self
    }

    /// Where the subscription begins. Default at the first record kept.
    pub fn start(mut self, start: StartAt) -> SubscriberBuilder {
        self.spec.start = start;
        self
    }

    /// Whether a subscription that does not exist is created. Default true when topics are named.
    pub fn create_missing(mut self, creates: bool) -> SubscriberBuilder {
        self.creates = creates && !self.spec.topics.is_empty();
        self
    }

    /// Free text shown to operators. Default is that of the client.
    pub fn client_id(mut self, client_id: impl Into<String>) -> SubscriberBuilder {
        self.client_id = client_id.into();
        self
    }

    /// Id of the session, 1 to 64 of `A-Za-z0-9._-`. Default one made up. Whoever opens the same id later
    /// replaces this subscriber.
    pub fn session_id(mut self, session_id: impl Into<String>) -> SubscriberBuilder {
        self.session_id = Some(session_id.into());
        self
    }

    /// A record counts as started only when [`crate::Job::started`] says so, not when it is received: for
    /// programs that queue jobs themselves. Only started records count as failed when the program dies.
    pub fn manual_start(mut self) -> SubscriberBuilder {
        self.marks_started = false;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut SubscriptionSettings)) -> SubscriberBuilder {
        change(&mut self.spec.settings);
        self
    }

    /// Opens the first session and returns once the broker answered.
    ///
    /// # Errors
    /// `InvalidArgument` without a name; `UnknownSubscription` when it does not exist and is not created;
    /// `SubscriptionExists` when it has another order; why no session could be opened within the client's
    /// call timeout.
    pub async fn open(self) -> Result<Subscriber> {
        self.check()?;
        let deadline = self.client.deadline();
        let shared = Arc::new(Shared::new(self.client.clone(), self.into_settings()));
        let mut stage = shared.stage.subscribe();
        let subscriber = Subscriber::new(shared.clone());
        tokio::spawn(Driver::new(shared).run());
        let is_decided = |stage: &Stage| !matches!(stage, Stage::Opening(_));
        drop(tokio::time::timeout_at(deadline, stage.wait_for(is_decided)).await);
        let decided = stage.borrow().clone();
        match decided {
            Stage::Open => Ok(subscriber),
            Stage::Over(error) => Err(error.unwrap_or_else(super::desk::over)),
            Stage::Opening(error) => Err(error.unwrap_or_else(late)),
        }
    }

    /// # Errors
    /// `InvalidArgument` without a name.
    pub(super) fn check(&self) -> Result<()> {
        if self.name.is_empty() {
            let message = "`name` of the subscription is missing";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        Ok(())
    }

    /// What to create, when something may be created.
    fn create(&self) -> Option<riverrun_proto::grpc::v1::SubscriptionSpec> {
        self.creates.then(|| self.spec.to_wire())
    }

    /// The session's id, made up unless it was given.
    fn session_id_or_new(&self) -> String {
        let made_up = || Uuid::new_v4().simple().to_string();
        self.session_id.clone().unwrap_or_else(made_up)
    }

    pub(super) fn into_settings(self) -> Settings {
        let (records_window, bytes_window) = self.credit;
        Settings {
            session_id: self.session_id_or_new(),
            create: self.create(),
            mode: self.spec.settings.mode,
            subscription: self.name,
            client_id: self.client_id,
            book: BookSettings {
                records_window,
                bytes_window,
                bytes_max: BYTES_MAX,
                marks_started: self.marks_started,
            },
        }
    }
}

/// No session was open in time, and none was refused.
fn late() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "session: no answer before the deadline")
}
