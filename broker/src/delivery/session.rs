//! One consumer of a subscription.
//!
//! ```text
//!   open ──▶ attached ──lost──▶ detached ──grace over──▶ gone: what it handled failed, the rest is released
//!               │  ▲               │
//!               │  └────resume─────┘
//!               ├─drain──▶ draining ──all settled──▶ gone
//!               └─closed─▶ gone: everything is released
//! ```
//!
//! A session of unary calls is never attached or lost; each call brings the credit for its reply.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{credit::Credit, effects::Handout};

/// Deliveries that may wait to be sent to a session: with that many it is given nothing more. What waits is memory, and the leases of
/// what nobody reads end, so without this a session that is not read would be given the same records for ever.
pub const UNSENT_DELIVERIES_MAX: u32 = 64;
/// Records that may wait in them, but for those of the last.
pub const UNSENT_RECORDS_MAX: u64 = 4_096;

/// How a session is joined to its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A stream is open.
    Attached,
    /// The stream is gone; it may be resumed until then.
    Detached(Duration),
    /// By unary calls; idle since.
    Unary(Duration),
}

/// Deliveries that wait to be sent to a stream, and their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unsent {
    pub(super) deliveries: u32,
    pub(super) records: u64,
}

impl Unsent {
    /// These.
    pub(super) fn of(handouts: &[Handout]) -> Unsent {
        let deliveries = u32::try_from(handouts.len()).unwrap_or(u32::MAX);
        Unsent { deliveries, records: handouts.iter().map(Handout::count).sum() }
    }

    /// No more is to be added.
    pub(super) fn is_full(self) -> bool {
        self.deliveries >= UNSENT_DELIVERIES_MAX || self.records >= UNSENT_RECORDS_MAX
    }
}

/// One consumer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) host: Arc<str>,
    /// Epoch now.
    pub(super) epoch: u64,
    /// Epoch when it was opened; resumes raised it since.
    pub(super) first_epoch: u64,
    /// Epoch that its stream asked to resume, when that was gone.
    pub(super) instead_of: Option<u64>,
    pub(super) link: Link,
    pub(super) credit: Credit,
    pub(super) in_flight_max: u32,
    pub(super) in_flight: u32,
    /// Bytes of the records in its hands, and most of them; a single record may be larger.
    pub(super) in_flight_bytes: u64,
    pub(super) in_flight_bytes_max: u64,
    /// What was handed out and is not known to be on its way.
    pub(super) unsent: Unsent,
    pub(super) paused: bool,
    pub(super) draining: bool,
    /// It said so when it opened, or did it once.
    pub(super) reports_started: bool,
    /// First grant of each delivery in its hands.
    pub(super) grants: BTreeMap<u64, u32>,
    /// Records that only it may have next: (lane, offset). May be out of date.
    pub(super) own: BTreeSet<(u32, u64)>,
    /// It gets nothing but this record, alone: (lane, offset).
    pub(super) alone: Option<(u32, u64)>,
    /// A call waits for records.
    pub(super) asking: bool,
    /// The last call: its name and its deliveries.
    pub(super) attempt: (Arc<str>, Vec<u64>),
}

impl Session {
    pub(super) fn new(id: Arc<str>, epoch: u64, link: Link) -> Session {
        Session {
            id,
            client_id: "".into(),
            host: "".into(),
            epoch,
            first_epoch: epoch,
            instead_of: None,
            link,
            credit: Credit::default(),
            in_flight_max: 1,
            in_flight: 0,
            in_flight_bytes: 0,
            in_flight_bytes_max: u64::MAX,
            unsent: Unsent::default(),
            paused: false,
            draining: false,
            reports_started: false,
            grants: BTreeMap::new(),
            own: BTreeSet::new(),
            alone: None,
            asking: false,
            attempt: ("".into(), Vec::new()),
        }
    }

    /// Counts what is handed out from the moment it is put together: a round may do so on many lanes. A call takes all that it is given.
    pub(super) fn note_unsent(&mut self, deliveries: u32, records: u64) {
        if !self.is_unary() {
            self.unsent.deliveries += deliveries;
            self.unsent.records += records;
        }
    }

    /// It may be given something, if it is small enough.
    pub(super) fn is_able(&self) -> bool {
        self.is_willing()
            && !self.unsent.is_full()
            && self.has_room(1)
            && self.credit.records_left() > 0
            && (self.credit.bytes_left() > 0 || self.in_flight == 0)
    }

    /// A record of `bytes` may be added to what is in its hands.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        let fits =
            self.in_flight_bytes.saturating_add(u64::from(bytes)) <= self.in_flight_bytes_max;
        self.in_flight < self.in_flight_max && (fits || self.in_flight == 0)
    }

    /// It is given a record of `bytes`.
    pub(super) fn take(&mut self, bytes: u32) {
        self.credit.give(bytes);
        self.in_flight += 1;
        self.in_flight_bytes += u64::from(bytes);
    }

    /// So many records left its hands.
    pub(super) fn leave(&mut self, records: u32, bytes: u64) {
        self.in_flight -= records;
        self.in_flight_bytes -= bytes;
        debug_assert!(self.in_flight > 0 || self.in_flight_bytes == 0, "empty hands hold bytes");
    }

    /// It is there and wants records.
    pub(super) fn is_willing(&self) -> bool {
        let linked = match self.link {
            Link::Attached => true,
            Link::Detached(_) => false,
            Link::Unary(_) => self.asking,
        };
        linked && !self.paused && !self.draining
    }

    pub(super) fn is_unary(&self) -> bool {
        matches!(self.link, Link::Unary(_))
    }

    /// A token of `epoch` may name a delivery of this session.
    pub(super) fn had_epoch(&self, epoch: u64) -> bool {
        self.first_epoch <= epoch && epoch <= self.epoch
    }
}
