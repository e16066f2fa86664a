//! What looks like two sessions with one record, until it is known whether the first one was told to have lost it.
//!
//! Two sessions hear of things in any order. A word to the first one (`revoke`, `close`) or a fault within the lag explains it.

use std::collections::HashMap;

use super::{Anomaly, Findings, Rules};
use crate::history::Part;

/// A record in the hands of a session: subscription, session, place.
pub(super) type Hold = (u32, u32, Part, u64);

/// What it would be.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) anomaly: Anomaly,
    pub(super) t_ns: u64,
    pub(super) witness: String,
}

/// All of them, by the first holder.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<Hold, Suspect>);

impl Suspects {
    pub(super) fn add(&mut self, hold: Hold, suspect: Suspect) {
        self.0.entry(hold).or_insert(suspect);
    }

    /// The holder was told at `t_ns` that it lost one record, or all of them.
    pub(super) fn explain(&mut self, hold: Hold, t_ns: u64, rules: &Rules) {
        let lag = rules.lag_ns();
        if self.0.get(&hold).is_some_and(|suspect| t_ns.saturating_sub(suspect.t_ns) <= lag) {
            self.0.remove(&hold);
        }
    }

    /// Everything of a session (`None`: of all) is explained by what happened at `t_ns`.
    pub(super) fn explain_all(&mut self, session: Option<(u32, u32)>, t_ns: u64, rules: &Rules) {
        let lag = rules.lag_ns();
        self.0.retain(|hold, suspect| {
            let is_meant = session.is_none_or(|session| session == (hold.0, hold.1));
            !is_meant || t_ns.saturating_sub(suspect.t_ns) > lag
        });
    }

    /// What nothing explained is an anomaly.
    pub(super) fn finish(&mut self, findings: &mut Findings) {
        for (_, suspect) in self.0.drain() {
            findings.add(suspect.anomaly, || suspect.witness);
        }
    }
}
