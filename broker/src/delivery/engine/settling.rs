//! Outcomes come in.

use std::sync::Arc;

use super::{Delivery, hands::Failing};
use crate::delivery::{
    change::FailureCause,
    effects::RevokeReason,
    entry::{NONE, State},
    lane::Closed,
    now::Now,
    open::SessionRef,
    run::Run,
    settings::Order,
    settle::{Outcome, SettleItem, SettleResult, SettleStatus},
};

/// The worst status so far, and where.
#[derive(Debug)]
struct Verdict {
    status: SettleStatus,
    run: Option<Run>,
    /// Offsets judged.
    all: Option<Run>,
}

impl Verdict {
    fn new() -> Verdict {
        Verdict { status: SettleStatus::Ok, run: None, all: None }
    }

    fn add(&mut self, offset: u64, status: SettleStatus) {
        widen(&mut self.all, offset);
        if status > self.status {
            (self.status, self.run) = (status, None);
        }
        if status == self.status {
            widen(&mut self.run, offset);
        }
    }

    fn result(self) -> SettleResult {
        let run = self.run.filter(|_| self.status != SettleStatus::Ok && self.run != self.all);
        SettleResult { status: self.status, run }
    }
}

impl Delivery {
    /// Takes outcomes of records that `session` was given, one answer for each. `None` is a consumer whose session is
    /// gone: it may still acknowledge late what nobody else got since.
    pub fn settle(
        &mut self,
        session: Option<SessionRef>,
        items: &[SettleItem],
        now: Now,
    ) -> Vec<SettleResult> {
        let slot = session.and_then(|session| self.sessions.slot_of(session));
        let results = items.iter().map(|item| self.settle_item(slot, item, now)).collect();
        self.conclude(now);
        results
    }

    fn settle_item(&mut self, slot: Option<u32>, item: &SettleItem, now: Now) -> SettleResult {
        let whole = |status| SettleResult { status, run: None };
        if item.run.is_empty() {
            return whole(SettleStatus::Invalid);
        }
        let Some(lane) = self.lanes.index_of(&item.lane) else {
            return whole(SettleStatus::UnknownPartition);
        };
        let session = slot.and_then(|slot| self.sessions.get(slot));
        let session = session.filter(|session| session.had_epoch(item.epoch));
        let grant = session.and_then(|session| session.grants.get(&item.seq)).copied();
        let grant = grant.filter(|grant| self.grants.get(*grant).lane == lane);
        let result = match grant {
            Some(grant) => self.settle_granted(grant, lane, item, now),
            None => self.settle_late(lane, item),
        };
        self.refresh_lane(lane, now);
        result
    }

    /// Settles what of a delivery in hands lies in the item's run.
    fn settle_granted(
        &mut self,
        root: u32,
        lane: u32,
        item: &SettleItem,
        now: Now,
    ) -> SettleResult {
        let grant = self.grants.get(root);
        let whole = grant.runs.iter().map(|run| run.intersect(item.run));
        let runs: Vec<Run> = whole.filter(|run| !run.is_empty()).collect();
        if runs.is_empty() {
            return self.settle_late(lane, item);
        }
        let all: u64 = runs.iter().map(|run| run.count()).sum();
        let plain = !grant.split && self.settings.order == Order::Unordered;
        if item.outcome == Outcome::Ack && plain && self.ack_runs(root, lane, &runs) == all {
            return SettleResult { status: SettleStatus::Ok, run: None };
        }
        if let Outcome::Extend { lease } = item.outcome {
            return self.extend(root, lane, &runs, now.elapsed.saturating_add(lease)).result();
        }
        let mut offsets: Vec<u64> = runs.iter().flat_map(|run| run.offsets()).collect();
        if matches!(item.outcome, Outcome::Nack { .. } | Outcome::Release) {
            // The last first, so that none comes back because of an earlier one of its key.
            offsets.reverse();
        }
        let mut verdict = Verdict::new();
        for offset in offsets {
            let status = match self.is_held(root, lane, offset) {
                true => self.settle_held(lane, offset, &item.outcome, now),
                false => self.settle_returned(lane, offset, item),
            };
            verdict.add(offset, status);
        }
        verdict.result()
    }

    /// The quick way for acknowledgements without an order. Returns how many records it settled.
    fn ack_runs(&mut self, root: u32, index: u32, runs: &[Run]) -> u64 {
        let closed = self.lanes.get_mut(index).close_granted(root, runs);
        let mut count = 0;
        for run in &closed.runs {
            count += run.count();
            self.lanes.get_mut(index).settle(*run);
        }
        self.tally.acked += count;
        if count > 0 {
            self.leave_grant_all(index, root, count, &closed);
        }
        count
    }

    /// Many records left their grant.
    fn leave_grant_all(&mut self, lane: u32, grant: u32, count: u64, closed: &Closed) {
        let count = u32::try_from(count).expect("a delivery is bounded");
        let slot = self.grants.get(grant).session;
        let ended = self.grants.leave(grant, count);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if let Some(ended) = ended {
            session.grants.remove(&ended.seq);
        }
        session.leave(count, closed.bytes);
        if session.alone.is_some_and(|(at, offset)| at == lane && closed.alone.contains(&offset)) {
            session.alone = None;
        }
        self.sessions.refresh(slot);
    }

    /// `offset` is in hands by the delivery of `root`.
    pub(super) fn is_held(&self, root: u32, lane: u32, offset: u64) -> bool {
        self.lanes.get(lane).open.get(offset).is_some_and(|entry| {
            entry.state() == State::InFlight && self.grants.root(entry.grant) == root
        })
    }

    fn settle_held(&mut self, lane: u32, offset: u64, outcome: &Outcome, now: Now) -> SettleStatus {
        match outcome {
            Outcome::Ack => {
                self.close_held(lane, offset);
                self.lanes.get_mut(lane).settle(Run::one(offset));
                self.tally.acked += 1;
            }
            Outcome::Nack { delay, reason } => {
                let (cause, reason) = (FailureCause::Nack, Arc::clone(reason));
                self.fail(lane, offset, Failing { cause, reason, delay: *delay }, now);
            }
            Outcome::Reject { reason } => {
                let (cause, reason) = (FailureCause::Rejected, Arc::clone(reason));
                self.fail(lane, offset, Failing { cause, reason, delay: None }, now);
            }
            Outcome::Release => self.give_back(lane, offset),
            Outcome::Started => self.start(lane, offset),
            Outcome::Extend { .. } => {}
        }
        SettleStatus::Ok
    }

    fn start(&mut self, lane: u32, offset: u64) {
        let lane = self.lanes.get_mut(lane);
        let Some(entry) = lane.open.update(offset, |entry| entry.set_started(true)) else { return };
        let slot = self.grants.get(entry.grant).session;
        if let Some(session) = self.sessions.get_mut(slot) {
            session.reports_started = true;
        }
    }

    /// Moves the end of the lease of records in hands.
    fn extend(&mut self, root: u32, lane: u32, runs: &[Run], want: std::time::Duration) -> Verdict {
        let grant = self.grants.get(root);
        let limit = grant.granted_at.saturating_add(self.settings.lease_max);
        let offsets: Vec<u64> = runs.iter().flat_map(|run| run.offsets()).collect();
        let all = grant.left as usize == offsets.len() && !grant.split;
        let whole = all && offsets.iter().all(|offset| self.is_held(root, lane, *offset));
        let mut verdict = Verdict::new();
        let deadline = want.min(limit);
        let mut child = None;
        for offset in offsets {
            let status = match self.lanes.get(lane).open.get(offset) {
                Some(entry) if self.is_held(root, lane, offset) => {
                    let old = self.grants.get(entry.grant).deadline;
                    if old >= limit && want > limit {
                        SettleStatus::LeaseLimit
                    } else if whole {
                        SettleStatus::Ok
                    } else {
                        let to = *child.get_or_insert_with(|| self.grants.split(root, deadline));
                        self.move_to_grant(lane, offset, to);
                        SettleStatus::Ok
                    }
                }
                Some(_) | None => self.status_of_other(lane, offset, false),
            };
            verdict.add(offset, status);
        }
        if whole && verdict.status == SettleStatus::Ok {
            self.grants.extend(root, deadline);
        }
        verdict
    }

    fn move_to_grant(&mut self, lane: u32, offset: u64, to: u32) {
        let lane = self.lanes.get_mut(lane);
        let Some(entry) = lane.open.update(offset, |entry| entry.grant = to) else { return };
        let grant = self.grants.get_mut(to);
        grant.left += 1;
        Run::push(&mut grant.runs, Run::one(offset));
        self.grants.leave(entry.grant, 1);
    }

    /// Judges an outcome by a token whose delivery is not in the session's hands.
    fn settle_late(&mut self, lane: u32, item: &SettleItem) -> SettleResult {
        let ack = item.outcome == Outcome::Ack;
        let late = self.late.get(item.seq, item.epoch).filter(|late| late.lane == lane);
        let runs: Vec<Run> = match late {
            Some(late) => late.given.iter().map(|run| run.intersect(item.run)).collect(),
            None => Vec::new(),
        };
        let mut verdict = Verdict::new();
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            let status = self.settle_returned(lane, offset, item);
            verdict.add(offset, status);
        }
        if verdict.all.is_some() {
            return verdict.result();
        }
        let lane = self.lanes.get(lane);
        let start = item.run.start.max(lane.floor);
        let settled = item.run.end <= start || lane.done.run_end(start) >= item.run.end;
        let status = match (settled, ack) {
            (true, true) => SettleStatus::Ok,
            (true, false) => SettleStatus::AlreadySettled,
            (false, _) if lane.intake.is_unread(item.run.start) => SettleStatus::NotDelivered,
            (false, _) => SettleStatus::StaleLease,
        };
        SettleResult { status, run: None }
    }

    /// Judges an outcome for one record of a delivery that is not in hands by it any more.
    fn settle_returned(&mut self, lane: u32, offset: u64, item: &SettleItem) -> SettleStatus {
        let ack = item.outcome == Outcome::Ack;
        let late = self.late.get(item.seq, item.epoch);
        let taken = late.is_some_and(|late| late.is_taken(offset));
        match ack && taken {
            true => self.ack_late(lane, offset),
            false => self.status_of_other(lane, offset, ack),
        }
    }

    /// The status for a record that is not in the hands its token says, and that no late acknowledgement is for.
    fn status_of_other(&self, lane: u32, offset: u64, ack: bool) -> SettleStatus {
        let lane = self.lanes.get(lane);
        let settled = lane.is_settled(offset);
        match (settled || lane.dead.contains_key(&offset), ack) {
            (true, true) if settled => SettleStatus::Ok,
            (true, _) => SettleStatus::AlreadySettled,
            (false, _) => SettleStatus::StaleLease,
        }
    }

    /// Acknowledges a record whose lease had ended.
    fn ack_late(&mut self, index: u32, offset: u64) -> SettleStatus {
        let lane = self.lanes.get(index);
        let Some(entry) = lane.open.get(offset) else {
            return self.status_of_other(index, offset, true);
        };
        let keyed = entry.key != NONE;
        let first = keyed && lane.keys.nth(entry.key, 0) == Some(offset);
        let free = !keyed || (first && lane.keys.held(entry.key) == 0);
        match entry.state() {
            State::InFlight if keyed => return SettleStatus::StaleLease,
            State::InFlight => {
                let slot = self.grants.get(entry.grant).session;
                self.close_held(index, offset);
                self.revoke(slot, index, offset, RevokeReason::SettledElsewhere);
            }
            State::Ready | State::RetryWait | State::Blocked if !free => {
                return SettleStatus::StaleLease;
            }
            State::Ready | State::RetryWait | State::Blocked => {
                self.lanes.get_mut(index).close(offset, &self.settings);
            }
        }
        self.lanes.get_mut(index).settle(Run::one(offset));
        self.tally.acked += 1;
        SettleStatus::Ok
    }
}

fn widen(run: &mut Option<Run>, offset: u64) {
    let run = run.get_or_insert(Run::one(offset));
    *run = Run::new(run.start.min(offset), run.end.max(offset + 1));
}
