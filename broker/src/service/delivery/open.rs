//! Opening a push session.

use std::{sync::Arc, time::Duration};

use super::{
    DeliveryService, Shared,
    create::Spec,
    error::PushError,
    live::{Live, State},
    mailbox::{Mail, Mailbox},
    session::{Amount, Opened, SessionIn, SessionOut, halves},
    webhook::WEBHOOK_ID_PREFIX,
};
use crate::{
    delivery::{self, ResumePoint},
    quota::Share,
    service::fetch::Format,
};

/// Records in the hands of a session that does not say.
const IN_FLIGHT_DEFAULT: u32 = 1_000;
/// Most records in the hands of a session.
pub const IN_FLIGHT_MAX: u32 = 1_000_000;
/// Longest id of a session.
const ID_BYTES_MAX: usize = 64;
/// Bytes kept of what a client calls itself.
const CLIENT_ID_BYTES_MAX: usize = 256;
/// Signs of life of a session are due after this, while there are not too many.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Sessions that are looked after so often; with more of them, later ones are looked after more rarely.
const SESSIONS_AT_FULL_PACE: u32 = 1_000;

/// A session to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Name of the subscription.
    pub subscription: String,
    /// Id of the session.
    pub session_id: String,
    /// Where it stands, when it comes back.
    pub resume: Option<ResumePoint>,
    /// Most records in its hands; 0 for the default.
    pub in_flight_max: u32,
    /// Most bytes of them, a single larger one aside; 0 for any.
    pub in_flight_bytes_max: u64,
    /// Form of the records.
    pub format: Format,
    /// What the client calls itself.
    pub client_id: String,
    /// Address it came from.
    pub host: String,
    /// Makes the subscription when it does not exist.
    pub create: Option<Spec>,
    /// It says of which records handling began.
    pub reports_started: bool,
}

impl DeliveryService {
    /// Opens or resumes a session.
    ///
    /// # Errors
    /// What is not allowed.
    pub async fn open_session(
        &self,
        request: OpenRequest,
    ) -> Result<(SessionIn, SessionOut), PushError> {
        if self.shared.shutdown.has_begun() {
            return Err(PushError::Stopping);
        }
        let open = request.check()?;
        let live = self.find_or_create(&request.subscription, request.create).await?;
        self.open_on(&live, open, request.format)
    }

    /// Looks whether a session may be opened so, and opens none.
    ///
    /// # Errors
    /// What is not allowed; that another stream took the id of the session it is to go on with.
    pub fn check_open(&self, request: &OpenRequest) -> Result<(), PushError> {
        if self.shared.shutdown.has_begun() {
            return Err(PushError::Stopping);
        }
        let open = request.check()?;
        let live = match self.find(&request.subscription) {
            Err(PushError::UnknownSubscription { .. }) if request.create.is_some() => return Ok(()),
            found => found?,
        };
        live.look(|state| {
            state.check_open(&live.name)?;
            match open.resume {
                Some(from) if state.delivery.is_elsewhere(&open.id, from.epoch) => {
                    Err(PushError::Replaced)
                }
                Some(_) | None => Ok(()),
            }
        })
    }

    /// Opens or resumes a session of this subscription.
    pub(super) fn open_on(
        &self,
        live: &Arc<Live>,
        open: delivery::Open,
        format: Format,
    ) -> Result<(SessionIn, SessionOut), PushError> {
        let share = self.shared.place(live, &open.id)?;
        let heartbeat_interval = self.shared.heartbeat_interval();
        let mailbox = Arc::new(Mailbox::of_stream(open.id.clone()));
        let in_flight_max = open.in_flight_max;
        let (session, opened) = live.event(|state, now| {
            state.check_open(&live.name)?;
            let delivery::Opened { session, resumed, replay, used } =
                state.delivery.open_session(open, now)?;
            replay.into_iter().for_each(|handout| mailbox.put(Mail::Handout(handout)));
            state.mailboxes.insert(session, mailbox.clone());
            let settings = &state.settings.delivery;
            let opened = Opened {
                epoch: session.epoch(),
                resumed,
                heartbeat_interval,
                ack_wait: settings.ack_wait,
                lease_max: settings.lease_max,
                in_flight_max,
                order: settings.order,
                credit_used: Amount { records: used.records, bytes: used.bytes },
            };
            Ok::<_, PushError>((session, opened))
        })?;
        live.dispatch();
        Ok(halves(live, (session, mailbox), opened, (format, share)))
    }
}

impl State {
    /// Somebody may come.
    pub(super) fn check_open(&self, name: &Arc<str>) -> Result<(), PushError> {
        let subscription = name.clone();
        match (self.gone, self.closed) {
            (true, _) => Err(PushError::Deleted { subscription }),
            (false, Some(why)) => Err(PushError::Altering { subscription, why }),
            (false, None) if self.orphaned => Err(PushError::TopicsDeleted { subscription }),
            (false, None) => Ok(()),
        }
    }
}

impl Shared {
    /// A place for one more session. One that replaces another of its id needs none of its own.
    fn place(&self, live: &Live, id: &Arc<str>) -> Result<Share, PushError> {
        let exceeded = match self.sessions.try_take(1) {
            Ok(share) => return Ok(share),
            Err(exceeded) => exceeded,
        };
        let replaces = live.look(|state| state.mailboxes.values().any(|one| one.id == *id));
        if replaces { Ok(Share::default()) } else { Err(exceeded.into()) }
    }

    /// Longer the more sessions there are, so that those that are idle cost next to nothing.
    fn heartbeat_interval(&self) -> Duration {
        let sessions = u32::try_from(self.sessions.used()).unwrap_or(u32::MAX);
        if sessions <= SESSIONS_AT_FULL_PACE {
            return HEARTBEAT;
        }
        HEARTBEAT * 2 * sessions.div_ceil(SESSIONS_AT_FULL_PACE)
    }
}

impl OpenRequest {
    fn check(&self) -> Result<delivery::Open, PushError> {
        let id = check_id(&self.session_id)?;
        if self.in_flight_max > IN_FLIGHT_MAX {
            let expected = format!("at most {IN_FLIGHT_MAX}");
            return Err(PushError::field("max_in_flight", expected, self.in_flight_max));
        }
        let (given, bytes) = (self.in_flight_max, self.in_flight_bytes_max);
        Ok(delivery::Open {
            id,
            client_id: shortened(&self.client_id),
            host: self.host.as_str().into(),
            in_flight_max: if given == 0 { IN_FLIGHT_DEFAULT } else { given },
            in_flight_bytes_max: if bytes == 0 { u64::MAX } else { bytes },
            reports_started: self.reports_started,
            resume: self.resume,
        })
    }
}

/// Checks the id that a client gives to a session. Those of webhooks are not for clients, who would take their place.
pub(super) fn check_id(id: &str) -> Result<Arc<str>, PushError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_plain = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
    if is_plain && !id.starts_with(WEBHOOK_ID_PREFIX) {
        return Ok(id.into());
    }
    let expected = match is_plain {
        true => "one that does not begin with `webhook-`",
        false => "1 to 64 characters of [A-Za-z0-9._-]",
    };
    let found: String = id.chars().take(100).flat_map(char::escape_debug).collect();
    Err(PushError::field("session_id", expected, found))
}

/// What a client calls itself, as far as it is kept.
pub(super) fn shortened(client_id: &str) -> Arc<str> {
    let end = client_id.floor_char_boundary(CLIENT_ID_BYTES_MAX);
    client_id[..end].into()
}
