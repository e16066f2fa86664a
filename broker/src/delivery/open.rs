//! Opening a session.

use std::sync::Arc;

use thiserror::Error;

/// Sessions of one subscription at once.
pub const SESSIONS_MAX: usize = 10_000;

/// An open session. One that was replaced or resumed has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    pub(super) slot: u32,
    pub(super) epoch: u64,
}

impl SessionRef {
    /// Epoch of the session; rises with every open and resume in the subscription.
    pub fn epoch(self) -> u64 {
        self.epoch
    }
}

/// A session to open or resume.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its id, kept over reconnects.
    pub id: Arc<str>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Address it came from.
    pub host: Arc<str>,
    /// Most records in its hands, at least 1.
    pub in_flight_max: u32,
    /// Most bytes of them; a single record may be larger.
    pub in_flight_bytes_max: u64,
    /// It says of which records handling began.
    pub reports_started: bool,
    /// Set to go on with the leases of an earlier stream.
    pub resume: Option<ResumePoint>,
}

/// Where a resumed session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Its epoch.
    pub epoch: u64,
    /// Highest delivery received.
    pub last_seq: u64,
}

/// The session is open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its name from now on.
    pub session: SessionRef,
    /// Leases of an earlier stream go on.
    pub resumed: bool,
    /// Deliveries that the client did not get, under the lease they had.
    pub replay: Vec<super::effects::Handout>,
    /// What credit was used for before, without what is in `replay`.
    pub used: Used,
}

/// What credit was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Records.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Records asked for once.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Id of the session.
    pub id: Arc<str>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Address it came from.
    pub host: Arc<str>,
    /// Most records.
    pub records_max: u32,
    /// Most bytes; the first record comes even when it is larger.
    pub bytes_max: u64,
    /// Name of this try; a repeated one gets the same records. Empty is none.
    pub attempt: Arc<str>,
}

/// A session cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Too many.
    #[error("the subscription has `{SESSIONS_MAX}` sessions, which is the limit")]
    TooManySessions,
    /// A stream of the same id is open or may still be resumed.
    #[error("session `{id}` has an open stream")]
    StreamOpen {
        /// Its id.
        id: Arc<str>,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// Another stream took its id.
    Replaced,
    /// It asked to drain and everything is settled.
    Drained,
}
