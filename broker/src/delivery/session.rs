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

use super::credit::Credit;

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
    pub(super) link: Link,
    pub(super) credit: Credit,
    pub(super) in_flight_max: u32,
    pub(super) in_flight: u32,
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
            link,
            credit: Credit::default(),
            in_flight_max: 1,
            in_flight: 0,
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

    /// It may be given something, if it is small enough.
    pub(super) fn is_able(&self) -> bool {
        self.is_willing()
            && self.in_flight < self.in_flight_max
            && self.credit.records_left() > 0
            && (self.credit.bytes_left() > 0 || self.in_flight == 0)
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
