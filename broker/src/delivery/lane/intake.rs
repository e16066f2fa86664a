//! Reading a lane's records from the log: what to read next, and what becomes of what was found.
//!
//! Records of a key of which very many wait are not held but *deferred*: only their offsets are kept. When few of the key
//! are left, a *pass* reads the deferred offsets again, for all keys that asked by then. A key that asks while a pass runs
//! waits for the next one, because the pass may have gone past its records.

use std::time::Duration;

use super::Lane;
use crate::delivery::{
    bit_set::BitSet,
    change::Change,
    entry::{Entry, NONE, State},
    keys::{Deferral, KeyTable, print_of},
    now::Now,
    offset_set::OffsetSet,
    run::Run,
    run_set::RunSet,
    scan::{Found, ScanFailure, ScanFailureCause, Scanned},
    settings::{Order, Settings},
};

/// Records read ahead of the sessions' credit.
const READY_AHEAD: usize = 4_096;
/// Records of one scan.
const SCAN_RECORDS_MAX: usize = 8_192;
/// Settled offsets that are read rather than skipped, when they lie between records to be read.
const SKIP_MIN: u64 = 256;
/// Stretches looked at for the end of one scan.
const STRETCHES_MAX: usize = 64;
/// Wait after a read that gave nothing although something is visible.
const EMPTY_READ_PAUSE: Duration = Duration::from_secs(1);
/// Of three scans, so many go to a pass when there is one.
const PASS_TURNS: u8 = 2;

/// What of a lane is to be read.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Below the frontier, to be read.
    gaps: RunSet,
    /// Nothing at or past it was looked at.
    pub(crate) frontier: u64,
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
    pub(crate) log_end: u64,
    /// The scan under way.
    scanning: Option<Plan>,
    /// Number of the last scan.
    pub(crate) scan_id: u64,
    /// Why the log could not be read.
    pub(crate) failure: Option<ScanFailure>,
    /// Records looked at since the last one that was to be delivered.
    pub(crate) fruitless: u64,
    /// Records not held because too many of their key are.
    deferred: BitSet,
    /// Prints of keys that ask for a pass.
    waiting: Vec<u32>,
    pass: Option<Pass>,
    turn: u8,
}

/// A scan under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: u64,
    pub(crate) run: Run,
    pub(crate) records_max: usize,
    is_pass: bool,
}

/// The deferred records are read again.
#[derive(Debug)]
struct Pass {
    /// Prints of keys whose records it opens.
    keys: Vec<u32>,
    /// What is below was read.
    at: u64,
}

impl Intake {
    /// Everything from `unread.start` on is to be read, except what is known of in `unread`.
    pub(crate) fn new(unread: Run) -> Intake {
        let mut gaps = RunSet::default();
        gaps.insert(unread);
        Intake {
            gaps,
            frontier: unread.end,
            log_start: 0,
            high_watermark: 0,
            log_end: 0,
            scanning: None,
            scan_id: 0,
            failure: None,
            fruitless: 0,
            deferred: BitSet::default(),
            waiting: Vec::new(),
            pass: None,
            turn: 0,
        }
    }

    /// What is visible now.
    pub(crate) fn see(&mut self, log_start: u64, high_watermark: u64, log_end: u64) {
        self.log_start = log_start;
        self.high_watermark = high_watermark;
        self.log_end = log_end;
    }

    /// Bytes of memory.
    pub(crate) fn state_bytes(&self) -> usize {
        self.deferred.state_bytes() + self.gaps.state_bytes()
    }

    /// A scan is under way.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scanning.is_some()
    }

    /// Something visible was not looked at.
    pub(crate) fn has_unread(&self) -> bool {
        let gap = self.gaps.first().is_some_and(|run| run.start < self.high_watermark);
        gap || self.frontier < self.high_watermark
    }

    /// Something below the frontier was not looked at.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The lowest `count` offsets that are visible and were not looked at.
    pub(crate) fn lowest_unread(&self, done: &OffsetSet, count: usize) -> Vec<u64> {
        let new = Run::new(self.frontier, self.high_watermark);
        let gaps = self.gaps.iter().flat_map(|run| done.gaps(run.offsets()));
        gaps.take(count).flatten().chain(new.offsets()).take(count).collect()
    }

    /// Records put off because too many of their key wait.
    pub(crate) fn deferred_count(&self) -> usize {
        self.deferred.len()
    }

    /// `offset` is to be looked at.
    pub(crate) fn is_unread(&self, offset: u64) -> bool {
        offset >= self.frontier || self.gaps.contains(offset)
    }

    /// `run` is to be looked at again.
    pub(crate) fn read_again(&mut self, run: Run) {
        self.gaps.insert(Run::new(run.start, run.end.min(self.frontier)));
    }

    /// A key asks for its deferred records when few are left.
    pub(crate) fn wake(&mut self, keys: &mut KeyTable, slot: u32) {
        if let Some(deferral) = keys.deferral(slot)
            && !deferral.waiting
            && keys.len(slot) <= deferral.wake_at
        {
            keys.set_deferral(slot, Some(Deferral { waiting: true, ..deferral }));
            self.waiting.push(keys.print(slot));
        }
    }

    /// Nothing below `end` is to be looked at.
    fn forget_below(&mut self, end: u64) {
        self.gaps.remove(Run::new(0, end));
        self.frontier = self.frontier.max(end);
        while let Some(offset) = self.deferred.next(0).filter(|offset| *offset < end) {
            self.deferred.remove(offset);
        }
    }

    /// Begins a pass when keys ask for one, and gives what it reads next.
    fn pass_run(&mut self, keys: &mut KeyTable) -> Option<Run> {
        if self.pass.is_none() && !self.waiting.is_empty() {
            let prints = std::mem::take(&mut self.waiting);
            let slots = prints.iter().filter_map(|print| keys.find(*print));
            let from = slots.filter_map(|slot| keys.deferral(slot)).map(|key| key.from).min();
            self.pass = Some(Pass { keys: prints, at: from.unwrap_or(0) });
        }
        let at = self.pass.as_ref()?.at;
        match (self.deferred.next(at), self.deferred.last()) {
            (Some(from), Some(last)) => Some(Run::new(from, last + 1)),
            _ => {
                self.end_pass(keys);
                None
            }
        }
    }

    /// The pass went over everything: what is left in it has nothing deferred any more.
    fn end_pass(&mut self, keys: &mut KeyTable) {
        for print in self.pass.take().map(|pass| pass.keys).unwrap_or_default() {
            if let Some(slot) = keys.find(print) {
                keys.set_deferral(slot, None);
            }
        }
    }

    /// What is unread and lowest, without long stretches that are settled.
    fn unread_run(&mut self, done: &OffsetSet, new_too: bool) -> Option<Run> {
        while let Some(gap) = self.gaps.first() {
            let from = done.run_end(gap.start).min(gap.end);
            self.gaps.remove(Run::new(gap.start, from));
            if from < gap.end {
                let run = Run::new(from, gap.end.min(self.high_watermark));
                return (!run.is_empty()).then(|| cut_at_stretch(run, done));
            }
        }
        let run = Run::new(self.frontier, self.high_watermark);
        (new_too && !run.is_empty()).then_some(run)
    }
}

impl Lane {
    /// What to read now, if anything may be taken in.
    pub(crate) fn plan_scan(&mut self, settings: &Settings) -> Option<Plan> {
        if self.intake.scanning.is_some() || self.intake.failure.is_some() {
            return None;
        }
        let room = self.room(settings);
        if room == 0 {
            return None;
        }
        let pass = self.intake.pass_run(&mut self.keys);
        let new_too = self.takes_new(settings);
        let unread = self.intake.unread_run(&self.done, new_too);
        let turn_of_pass = self.intake.turn < PASS_TURNS;
        let (run, is_pass) = match (pass, unread) {
            (Some(run), None) => (run, true),
            (Some(run), Some(_)) if turn_of_pass => (run, true),
            (_, Some(run)) => (run, false),
            (None, None) => return None,
        };
        Some(Plan { id: self.intake.scan_id + 1, run, records_max: room, is_pass })
    }

    /// Whether there may be something to read; [`Lane::plan_scan`] knows.
    pub(crate) fn may_scan(&self, settings: &Settings) -> bool {
        let intake = &self.intake;
        let something = intake.has_unread() || intake.pass.is_some() || !intake.waiting.is_empty();
        something
            && intake.scanning.is_none()
            && intake.failure.is_none()
            && self.room(settings) > 0
    }

    /// Everything below `end` is settled, but for `kept`, which are sorted.
    pub(crate) fn advance(&mut self, end: u64, kept: &[u64]) {
        self.intake.forget_below(end);
        let mut at = self.floor;
        for offset in kept.iter().copied().chain([end]) {
            while let Some(failed) = self.failed.range(at..offset.max(at)).next().map(|(at, _)| *at)
            {
                self.forget_failures(failed);
            }
            self.settle(Run::new(at, offset));
            at = offset + 1;
        }
        self.schedule.forget_below(end);
    }

    /// The planned scan is under way.
    pub(crate) fn begin_scan(&mut self, plan: Plan) {
        self.intake.turn = (self.intake.turn + 1) % (PASS_TURNS + 1);
        self.intake.scan_id = plan.id;
        self.intake.scanning = Some(plan);
    }

    /// Records that may be taken in.
    pub(crate) fn room(&self, settings: &Settings) -> usize {
        let held = self.open.len() + self.dead.len();
        let open = Lane::open_max(settings).saturating_sub(held);
        // Half is used up before more is read, so that reads are not one for each record.
        let ready = self.open.count(State::Ready);
        let ahead = if ready > READY_AHEAD / 2 { 0 } else { READY_AHEAD - ready };
        open.min(ahead).min(SCAN_RECORDS_MAX)
    }

    /// Records that were never looked at may be taken in.
    pub(crate) fn takes_new(&self, settings: &Settings) -> bool {
        self.ack_state_bytes() < settings.ack_state_bytes_max
            && (self.schedule.state_bytes() as u64) < settings.scheduled_bytes_max
    }

    /// Takes in what a scan found; false when it was not asked for any more.
    pub(crate) fn scanned(&mut self, scanned: &Scanned, settings: &Settings, now: Now) -> bool {
        let Some(plan) = self.intake.scanning.filter(|plan| plan.id == scanned.id) else {
            return false;
        };
        self.intake.scanning = None;
        let run = Run::new(scanned.from, scanned.next).intersect(plan.run);
        if run.is_empty() {
            let retry_at = now.elapsed + EMPTY_READ_PAUSE;
            let error = "a visible record was not found".into();
            let cause = ScanFailureCause::Partition;
            self.intake.failure = Some(ScanFailure { cause, error, retry_at });
            return true;
        }
        if plan.is_pass {
            self.pass_found(run, &scanned.records, settings, now);
        } else {
            self.found(run, &scanned.records, settings, now);
        }
        true
    }

    /// The scan could not be done.
    pub(crate) fn scan_failed(&mut self, id: u64, failure: ScanFailure) -> bool {
        let asked = self.intake.scanning.is_some_and(|plan| plan.id == id);
        if asked {
            self.intake.scanning = None;
            self.intake.failure = Some(failure);
        }
        asked
    }

    /// Retention took everything below `log_start`: it is settled. Nothing of it may be open or dead.
    pub(crate) fn forget_below(&mut self, log_start: u64) {
        self.schedule.forget_below(log_start);
        self.intake.forget_below(log_start);
        while let Some(offset) = self.failed.keys().next().copied().filter(|at| *at < log_start) {
            self.forget_failures(offset);
        }
        self.settle(Run::new(self.floor, log_start));
    }

    /// Everything open is read again later, because the order changed. Nothing may be in hands.
    pub(crate) fn close_all(&mut self) {
        let offsets: Vec<u64> = self.open.range(0).map(|(offset, _)| offset).collect();
        for offset in offsets {
            self.open.remove(offset);
            self.intake.read_again(Run::one(offset));
        }
        while let Some(offset) = self.intake.deferred.next(0) {
            self.intake.deferred.remove(offset);
            self.intake.read_again(Run::one(offset));
        }
        self.keys = KeyTable::default();
        self.retry.clear();
        self.isolated.clear();
        (self.intake.pass, self.intake.waiting) = (None, Vec::new());
        // What is being read was asked for under the old order, and is as good under the new one unless it is a pass.
        self.intake.scanning = self.intake.scanning.filter(|plan| !plan.is_pass);
    }

    /// A record is not to be delivered any more; false when it is in hands or was settled.
    pub(crate) fn cancel(&mut self, offset: u64, settings: &Settings) -> bool {
        if self.is_settled(offset) || self.dead.contains_key(&offset) {
            return false;
        }
        if let Some(entry) = self.open.get(offset) {
            if entry.state() == State::InFlight {
                return false;
            }
            self.close(offset, settings);
        }
        self.schedule.forget(offset);
        self.intake.deferred.remove(offset);
        self.settle(Run::one(offset));
        true
    }

    /// Records whose time has come are read.
    pub(crate) fn wake_scheduled(&mut self, now: Now) {
        let lane = self.key;
        while let Some((hour, set)) = self.schedule.pop_hour(now.wall_ms) {
            for range in set.runs() {
                self.intake.read_again(Run::new(range.start, range.end));
            }
            self.memory.note(Change::ScheduleCame { lane, hour });
        }
        while let Some(offset) = self.schedule.pop_due(now.wall_ms) {
            self.intake.read_again(Run::one(offset));
        }
    }

    fn found(&mut self, run: Run, records: &[Found], settings: &Settings, now: Now) {
        self.intake.gaps.remove(run);
        self.intake.frontier = self.intake.frontier.max(run.end);
        let mut at = run.start;
        self.intake.fruitless += run.count();
        for found in records.iter().filter(|found| run.contains(found.offset)) {
            self.settle_rest(Run::new(at, found.offset));
            at = at.max(found.offset + 1);
            self.take_in(found, settings, now);
        }
        self.settle_rest(Run::new(at, run.end));
    }

    /// Settles what a scan did not find; dead letters are kept.
    fn settle_rest(&mut self, run: Run) {
        if run.is_empty() {
            return;
        }
        let mut at = run.start;
        let dead: Vec<u64> = self.dead.range(run.offsets()).map(|(offset, _)| *offset).collect();
        for offset in dead {
            self.settle(Run::new(at, offset));
            at = offset + 1;
        }
        let lost: Vec<u64> =
            self.failed.range(at.min(run.end)..run.end).map(|(offset, _)| *offset).collect();
        for offset in lost {
            self.forget_failures(offset);
        }
        self.settle(Run::new(at, run.end));
    }

    fn take_in(&mut self, found: &Found, settings: &Settings, now: Now) {
        let offset = found.offset;
        let known = self.is_settled(offset) || self.dead.contains_key(&offset);
        if known || self.open.get(offset).is_some() {
            return;
        }
        self.intake.fruitless = 0;
        if let Some(due_ms) = found.not_before_ms.filter(|due_ms| *due_ms > now.wall_ms) {
            self.wait_for(offset, due_ms, now);
            return;
        }
        let key = self.key_of(found, settings);
        if key != NONE && settings.order == Order::KeyFifo && self.defer(offset, key, settings) {
            return;
        }
        self.open_record(found, key, settings, now);
    }

    fn wait_for(&mut self, offset: u64, due_ms: i64, now: Now) {
        if self.schedule.holds(offset, due_ms) {
            return;
        }
        if let Some(hour) = self.schedule.add(offset, due_ms, now.wall_ms) {
            self.memory.note_scheduled(self.key, hour, offset);
        }
    }

    /// The slot of the record's key, or [`NONE`].
    fn key_of(&mut self, found: &Found, settings: &Settings) -> u32 {
        match settings.order {
            Order::Unordered => NONE,
            Order::KeyFifo => found.key.map_or(NONE, |key| self.keys.slot(print_of(key))),
            Order::PartitionFifo | Order::Exclusive => self.keys.slot(0),
        }
    }

    /// Puts a record off when too many of its key wait; false when it may be opened.
    fn defer(&mut self, offset: u64, key: u32, settings: &Settings) -> bool {
        let put_off = match self.keys.deferral(key) {
            Some(deferral) => offset >= deferral.from && !self.is_passed(offset, key),
            None => self.begin_deferral(offset, key, settings),
        };
        if put_off {
            self.intake.deferred.insert(offset);
        }
        put_off
    }

    /// The pass under way opens the records of this key, and has gone past `offset` already.
    fn is_passed(&self, offset: u64, key: u32) -> bool {
        let print = self.keys.print(key);
        let pass = self.intake.pass.as_ref();
        pass.is_some_and(|pass| offset < pass.at && pass.keys.contains(&print))
    }

    /// From `offset` on the key's records are put off, if too many wait and this one is the last.
    fn begin_deferral(&mut self, offset: u64, key: u32, settings: &Settings) -> bool {
        let last = self.keys.last(key).is_some_and(|last| offset > last);
        let put_off = last && self.is_full(key, settings);
        if put_off {
            self.put_off_from(key, offset);
        }
        put_off
    }

    fn open_record(&mut self, found: &Found, key: u32, settings: &Settings, now: Now) {
        let offset = found.offset;
        let failed = self.failed.get(&offset).map(|failed| (failed.failures, failed.not_before));
        let failures =
            failed.map_or(0, |(failures, _)| u16::try_from(failures).unwrap_or(u16::MAX));
        self.open.insert(offset, Entry::new(key, found.bytes, failures));
        if key != NONE {
            let first = self.keys.nth(key, 0);
            self.keys.insert(key, offset);
            if let Some(first) = first
                && self.keys.nth(key, 0) != Some(first)
                && self.open.get(first).is_some_and(|entry| entry.state() == State::Ready)
            {
                self.make_blocked(first);
            }
        }
        match failed {
            Some((_, not_before)) if not_before > now.elapsed => {
                self.open.update(offset, |entry| entry.set_state(State::RetryWait));
                self.retry.insert((not_before, offset));
            }
            Some(_) | None => self.offer(offset, settings),
        }
    }

    /// A part of a pass was read.
    fn pass_found(&mut self, run: Run, records: &[Found], settings: &Settings, now: Now) {
        let mut records = records.iter().peekable();
        let mut from = run.start;
        while let Some(offset) = self.intake.deferred.next(from).filter(|at| run.contains(*at)) {
            from = offset + 1;
            while records.next_if(|found| found.offset < offset).is_some() {}
            match records.next_if(|found| found.offset == offset) {
                Some(found) => self.pass_record(found, settings, now),
                None => {
                    self.intake.deferred.remove(offset);
                    self.settle_rest(Run::one(offset));
                }
            }
        }
        if let Some(pass) = &mut self.intake.pass {
            pass.at = run.end;
        }
    }

    fn pass_record(&mut self, found: &Found, settings: &Settings, now: Now) {
        let slot = found.key.and_then(|key| self.keys.find(print_of(key)));
        let (Some(pass), Some(slot)) = (&mut self.intake.pass, slot) else { return };
        let print = self.keys.print(slot);
        let Some(at) = pass.keys.iter().position(|key| *key == print) else { return };
        if self.is_full(slot, settings) {
            // It asks anew when it has drained.
            self.intake.pass.as_mut().expect("seen above").keys.swap_remove(at);
            self.put_off_from(slot, found.offset);
        } else {
            self.intake.deferred.remove(found.offset);
            self.open_record(found, slot, settings, now);
        }
    }

    /// So many records of the key wait that no more are held.
    fn is_full(&self, key: u32, settings: &Settings) -> bool {
        let len = self.keys.len(key);
        let blocked_max = Lane::open_max(settings) * 9 / 10;
        let blocked = self.open.count(State::Blocked);
        len > 0 && (len >= settings.key_open_max.max(1) as usize || blocked >= blocked_max.max(1))
    }

    fn put_off_from(&mut self, key: u32, offset: u64) {
        let wake_at = self.keys.len(key) / 2;
        let deferral = Deferral { from: offset, wake_at, waiting: false };
        self.keys.set_deferral(key, Some(deferral));
    }
}

/// The part of `run` before a long stretch of settled offsets.
fn cut_at_stretch(run: Run, done: &OffsetSet) -> Run {
    let mut at = run.start;
    for _ in 0..STRETCHES_MAX {
        let Some(start) = done.next_in(at).filter(|start| *start < run.end) else { return run };
        let end = done.run_end(start);
        if end - start >= SKIP_MIN {
            return Run::new(run.start, start);
        }
        at = end;
    }
    Run::new(run.start, at.min(run.end))
}
