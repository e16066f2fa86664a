//! What may happen, decided naively.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    delivery::{
        Ask, Found, Handout, LaneImage, Now, Open, Opened, Order, Outcome, Run, SessionRef,
        Settings, SettleStatus,
    },
    test_random::Random,
};

type At = (u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Done,
    Dying,
}

#[derive(Clone, Debug)]
struct Record {
    found: Option<Found>,
    status: Status,
    failures: u32,
    attempts: u32,
    crashes: u32,
    not_before: Duration,
    hand: Option<Hand>,
}

#[derive(Clone, Debug)]
struct Hand {
    id: &'static str,
    epoch: u64,
    seq: u64,
    granted_at: Duration,
    deadline: Duration,
    started: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) name: SessionRef,
    pub(super) records_total: u64,
    pub(super) bytes_total: u64,
    pub(super) records_given: u64,
    pub(super) bytes_given: u64,
    in_flight_max: u32,
    in_flight_bytes_max: u64,
    reports_started: bool,
    pub(super) attached: bool,
    lost_until: Option<Duration>,
    pub(super) paused: bool,
    pub(super) draining: bool,
    asking: bool,
}

pub(super) struct Reference {
    settings: Settings,
    records: BTreeMap<At, Record>,
    sessions: BTreeMap<&'static str, Session>,
    /// Taken back by the end of a lease or a crash: (seq, lane, offset).
    late: BTreeSet<(u64, u32, u64)>,
    /// Everything ever handed out: (seq, lane, offset).
    given: BTreeSet<(u64, u32, u64)>,
    /// Sessions that got something since the last round.
    served: BTreeSet<&'static str>,
    log_start: Vec<u64>,
}

impl Reference {
    pub(super) fn new(settings: Settings, lanes: u32) -> Reference {
        Reference {
            settings,
            records: BTreeMap::new(),
            sessions: BTreeMap::new(),
            late: BTreeSet::new(),
            given: BTreeSet::new(),
            served: BTreeSet::new(),
            log_start: vec![0; lanes as usize],
        }
    }

    pub(super) fn append(&mut self, lane: u32, found: Option<Found>) {
        let offset = self.records.range((lane, 0)..(lane + 1, 0)).count() as u64;
        let status = if found.is_some() { Status::Open } else { Status::Done };
        let (failures, attempts, crashes, hand) = (0, 0, 0, None);
        let not_before = Duration::ZERO;
        let record = Record { found, status, failures, attempts, crashes, not_before, hand };
        self.records.insert((lane, offset), record);
    }

    pub(super) fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.get(id)
    }

    pub(super) fn session_mut(&mut self, id: &str) -> &mut Session {
        self.sessions.get_mut(id).unwrap()
    }

    pub(super) fn status(&self, lane: u32, offset: u64) -> Status {
        self.records[&(lane, offset)].status
    }

    pub(super) fn failures(&self, lane: u32, offset: u64) -> u32 {
        self.records[&(lane, offset)].failures
    }

    pub(super) fn open(&mut self, id: &'static str, open: &Open, name: SessionRef, now: Now) {
        if open.resume.is_none() && self.sessions.contains_key(id) {
            match self.sessions[id].draining {
                true => self.close(id),
                false => self.crash(id, now),
            }
        }
        let session = self.sessions.entry(id).or_insert_with(|| fresh(name));
        session.name = name;
        session.in_flight_max = open.in_flight_max;
        session.in_flight_bytes_max = open.in_flight_bytes_max;
        session.reports_started |= open.reports_started;
        (session.attached, session.lost_until) = (true, None);
        (session.paused, session.draining) = (false, false);
    }

    pub(super) fn ask(&mut self, id: &'static str, ask: &Ask, opened: &Opened) {
        let held = self.held_by(id);
        let session = self.sessions.entry(id).or_insert_with(|| fresh(opened.session));
        session.name = opened.session;
        for handout in &opened.replay {
            assert!(handout.replayed);
            for offset in handout.runs.iter().flat_map(|run| run.offsets()) {
                let hand = self.records[&(handout.lane.partition, offset)].hand.as_ref().unwrap();
                assert_eq!((hand.id, hand.seq), (id, handout.seq));
            }
        }
        if opened.replay.is_empty() {
            session.asking = true;
            session.in_flight_max = u32::try_from(held).unwrap() + ask.records_max;
            session.records_total = session.records_given + u64::from(ask.records_max);
            session.bytes_total = session.bytes_given + ask.bytes_max;
        }
    }

    pub(super) fn stop_asking(&mut self, id: &str) {
        self.session_mut(id).asking = false;
    }

    pub(super) fn credit(&mut self, id: &str, records: u64, bytes: u64) {
        let session = self.session_mut(id);
        session.records_total = session.records_total.max(records);
        session.bytes_total = session.bytes_total.max(bytes);
    }

    pub(super) fn limit(&mut self, id: &str, in_flight_max: u32) {
        self.session_mut(id).in_flight_max = in_flight_max.max(1);
    }

    pub(super) fn lost(&mut self, id: &'static str, now: Now) {
        if self.sessions[id].draining {
            return self.close(id);
        }
        let until = now.elapsed + self.settings.resume_grace;
        let session = self.session_mut(id);
        (session.attached, session.lost_until) = (false, Some(until));
    }

    /// All that the session holds comes back, uncounted.
    pub(super) fn close(&mut self, id: &str) {
        for at in self.held_at(id) {
            self.records.get_mut(&at).unwrap().hand = None;
        }
        self.sessions.remove(id);
    }

    pub(super) fn drained(&mut self, name: SessionRef) {
        let id = self.id_of(name);
        assert!(self.sessions[id].draining);
        assert_eq!(self.held_by(id), 0);
        self.sessions.remove(id);
    }

    pub(super) fn tick(&mut self, now: Now) {
        let mut expired: Vec<At> = Vec::new();
        for (at, record) in &self.records {
            if record.hand.as_ref().is_some_and(|hand| hand.deadline <= now.elapsed) {
                expired.push(*at);
            }
        }
        expired.iter().for_each(|at| self.note_late(*at));
        for at in expired {
            if self.records[&at].hand.is_some() {
                self.fail(at, None, now);
            }
        }
        let over = self
            .sessions
            .iter()
            .filter(|(_, session)| session.lost_until.is_some_and(|until| until <= now.elapsed));
        let over: Vec<&'static str> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.crash(id, now));
    }

    fn crash(&mut self, id: &'static str, now: Now) {
        let all = !self.sessions[id].reports_started;
        let held = self.held_at(id);
        held.iter().for_each(|at| self.note_late(*at));
        for at in held {
            let Some(hand) = self.records[&at].hand.clone() else { continue };
            if all || hand.started {
                self.records.get_mut(&at).unwrap().crashes += 1;
                self.fail(at, None, now);
            } else {
                self.take_back(at);
            }
        }
        self.sessions.remove(id);
    }

    /// A late ack of what is in hands now may count.
    fn note_late(&mut self, at: At) {
        if let Some(hand) = &self.records[&at].hand {
            self.late.insert((hand.seq, at.0, at.1));
        }
    }

    fn fail(&mut self, at: At, delay: Option<Duration>, now: Now) {
        let failures = self.records[&at].failures + 1;
        let max = self.settings.failures_max;
        self.records.get_mut(&at).unwrap().failures = failures;
        if max > 0 && failures >= max {
            let record = self.records.get_mut(&at).unwrap();
            (record.hand, record.status) = (None, Status::Dying);
            return;
        }
        self.take_back(at);
        let backoff = self.settings.backoff(at.1, failures);
        self.records.get_mut(&at).unwrap().not_before = now.elapsed + delay.unwrap_or(backoff);
    }

    /// The record comes back, and those of its key behind it.
    fn take_back(&mut self, at: At) {
        let order = self.order_key(at);
        let behind: Vec<At> = match order {
            None => Vec::new(),
            Some(key) => {
                let all = self.records.range(at..(at.0 + 1, 0)).map(|(at, _)| *at);
                all.filter(|other| self.order_key(*other) == Some(key)).collect()
            }
        };
        for other in behind.into_iter().chain([at]) {
            self.records.get_mut(&other).unwrap().hand = None;
        }
    }

    /// What the record is kept in order by.
    fn order_key(&self, at: At) -> Option<u64> {
        let found = self.records[&at].found?;
        match self.settings.order {
            Order::Unordered => None,
            Order::KeyFifo => found.key,
            Order::PartitionFifo | Order::Exclusive => Some(0),
        }
    }

    pub(super) fn handed_out(
        &mut self,
        name: SessionRef,
        handout: &Handout,
        now: Now,
    ) -> &'static str {
        let id = self.id_of(name);
        let lane = handout.lane.partition;
        let mut bytes = 0;
        for offset in handout.runs.iter().flat_map(|run| run.offsets()) {
            let at = (lane, offset);
            let counts = handout.counts.iter().find(|count| count.offset == offset);
            let counts = counts.map_or((1, 0), |count| (count.attempts, count.failures));
            self.check_free(at, id, now);
            self.check_order(at, id);
            self.check_credit(at, id);
            let record = self.records.get_mut(&at).unwrap();
            record.attempts += 1;
            assert_eq!(counts, (record.attempts, record.failures), "counts of {at:?}");
            let deadline = now.elapsed + self.settings.ack_wait;
            let (epoch, seq, granted_at) = (handout.epoch, handout.seq, now.elapsed);
            let started = false;
            record.hand = Some(Hand { id, epoch, seq, granted_at, deadline, started });
            let found = record.found.unwrap();
            self.given.insert((seq, lane, offset));
            self.served.insert(id);
            bytes += u64::from(found.bytes);
            let session = self.session_mut(id);
            session.records_given += 1;
            session.bytes_given += u64::from(found.bytes);
        }
        assert_eq!(bytes, handout.bytes);
        id
    }

    /// A call that got something no longer waits.
    pub(super) fn end_round(&mut self) {
        for id in std::mem::take(&mut self.served) {
            self.session_mut(id).asking = false;
        }
    }

    fn was_given(&self, lane: u32, offset: u64, seq: u64) -> bool {
        self.given.contains(&(seq, lane, offset))
    }

    fn check_free(&self, at: At, id: &str, now: Now) {
        let record = &self.records[&at];
        assert_eq!(record.status, Status::Open, "{at:?} to {id}");
        assert!(record.hand.is_none(), "{at:?} to {id} is in the hands of {:?}", record.hand);
        assert!(at.1 >= self.log_start[at.0 as usize]);
        assert!(record.not_before <= now.elapsed, "{at:?} too early");
        let due = record.found.unwrap().not_before_ms;
        assert!(due.is_none_or(|due_ms| due_ms <= now.wall_ms), "{at:?} before its time");
    }

    fn check_order(&self, at: At, id: &str) {
        if self.settings.order == Order::Exclusive {
            let others = self.records.values().filter_map(|record| record.hand.as_ref());
            assert!(others.into_iter().all(|hand| hand.id == id), "not exclusive");
        }
        let Some(key) = self.order_key(at) else { return };
        let same = self.records.range((at.0, 0)..(at.0 + 1, 0)).filter(|(other, record)| {
            record.status == Status::Open && self.order_key(**other) == Some(key)
        });
        let mut held = 0;
        for (other, record) in same {
            if let Some(hand) = &record.hand {
                assert_eq!(hand.id, id, "{at:?}: its key is in two hands, {other:?}");
                held += 1;
            }
            // A record with a time takes its place when it is due, which is not looked at here.
            let timed = record.found.unwrap().not_before_ms.is_some();
            let own_time = self.records[&at].found.unwrap().not_before_ms.is_some();
            if *other < at && !timed && !own_time {
                assert!(record.hand.is_some(), "{at:?} before {other:?} of its key");
            }
        }
        let pipeline = match self.settings.order {
            Order::Exclusive => usize::MAX,
            Order::Unordered | Order::KeyFifo | Order::PartitionFifo => {
                self.settings.key_pipeline as usize
            }
        };
        assert!(held < pipeline, "{at:?}: {held} of its key are in hands");
    }

    fn check_credit(&self, at: At, id: &str) {
        let session = &self.sessions[id];
        let held: Vec<At> = self.held_at(id);
        assert!(session.attached || session.asking, "{id} is not there");
        assert!(!session.paused && !session.draining);
        assert!(held.len() < session.in_flight_max as usize, "{id} holds too many");
        assert!(session.records_given < session.records_total, "{id} has no credit");
        let bytes = u64::from(self.records[&at].found.unwrap().bytes);
        let fits = session.bytes_given + bytes <= session.bytes_total;
        assert!(fits || held.is_empty(), "{id} has no credit for {bytes} bytes");
        let bytes_held =
            held.iter().map(|at| u64::from(self.records[at].found.unwrap().bytes)).sum::<u64>();
        let fits = bytes_held + bytes <= session.in_flight_bytes_max;
        assert!(fits || held.is_empty(), "{id} holds too many bytes");
        let alone = |at: &At| self.records[at].crashes >= 2;
        assert!(!held.iter().any(alone), "{id} holds a suspect");
        assert!(!alone(&at) || held.is_empty(), "{at:?} is not alone");
    }

    pub(super) fn replayed(&self, id: &str, lane: u32, offset: u64, seq: u64) {
        let hand = self.records[&(lane, offset)].hand.as_ref().unwrap();
        assert_eq!((hand.id, hand.seq), (id, seq));
    }

    /// An outcome of what delivery `seq` gave. Where more than one answer is right, `image` tells which it was.
    pub(super) fn settle(
        &mut self,
        at: (u32, Run),
        seq: u64,
        (outcome, image): (&Outcome, &LaneImage),
        now: Now,
    ) -> SettleStatus {
        let (lane, run) = at;
        let offsets: Vec<u64> = run.offsets().filter(|at| self.was_given(lane, *at, seq)).collect();
        let backwards = matches!(outcome, Outcome::Nack { .. } | Outcome::Release);
        let ordered: Vec<u64> =
            if backwards { offsets.into_iter().rev().collect() } else { offsets };
        let mut worst = SettleStatus::Ok;
        for offset in ordered {
            let at = (lane, offset);
            let status = match self.is_held_by(lane, offset, seq) {
                true => self.apply(at, outcome, now),
                false => {
                    let ack = *outcome == Outcome::Ack;
                    let may = self.settle_late(lane, offset, seq, ack);
                    match (may[0], may.len()) {
                        (SettleStatus::Ok, 2) if !image.is_settled(offset) => may[1],
                        (SettleStatus::Ok, _) => {
                            self.done(lane, offset);
                            SettleStatus::Ok
                        }
                        (status, _) => status,
                    }
                }
            };
            worst = worst.max(status);
        }
        worst
    }

    fn apply(&mut self, at: At, outcome: &Outcome, now: Now) -> SettleStatus {
        let lease_max = self.settings.lease_max;
        let record = self.records.get_mut(&at).unwrap();
        match outcome {
            Outcome::Ack => (record.status, record.hand) = (Status::Done, None),
            Outcome::Nack { delay, .. } => self.fail(at, *delay, now),
            Outcome::Reject { .. } => (record.status, record.hand) = (Status::Dying, None),
            Outcome::Release => self.take_back(at),
            Outcome::Started => {
                let hand = record.hand.as_mut().unwrap();
                hand.started = true;
                let id = hand.id;
                self.session_mut(id).reports_started = true;
            }
            Outcome::Extend { lease } => {
                let hand = record.hand.as_mut().unwrap();
                let (limit, want) = (hand.granted_at + lease_max, now.elapsed + *lease);
                if hand.deadline >= limit && want > limit {
                    return SettleStatus::LeaseLimit;
                }
                hand.deadline = want.min(limit);
            }
        }
        SettleStatus::Ok
    }

    /// What may be answered to a token that is not that of the holder.
    fn settle_late(&self, lane: u32, offset: u64, seq: u64, ack: bool) -> Vec<SettleStatus> {
        let at = (lane, offset);
        let record = &self.records[&at];
        match (record.status, ack) {
            (Status::Done, true) => return vec![SettleStatus::Ok],
            (Status::Done | Status::Dying, _) => return vec![SettleStatus::AlreadySettled],
            (Status::Open, false) => return vec![SettleStatus::StaleLease],
            (Status::Open, true) => {}
        }
        if !self.late.contains(&(seq, lane, offset)) {
            return vec![SettleStatus::StaleLease];
        }
        match self.order_key(at) {
            None => vec![SettleStatus::Ok],
            Some(key) => {
                let mut same =
                    self.records.range((lane, 0)..(lane + 1, 0)).filter(|(at, record)| {
                        record.status == Status::Open && self.order_key(**at) == Some(key)
                    });
                let held = same.clone().any(|(_, record)| record.hand.is_some());
                let timed = same.clone().any(|(_, one)| one.found.unwrap().not_before_ms.is_some());
                let first = same.next().is_some_and(|(first, _)| *first == at);
                match (held, timed, first) {
                    (true, _, _) | (false, false, false) => vec![SettleStatus::StaleLease],
                    (false, false, true) => vec![SettleStatus::Ok],
                    (false, true, _) => vec![SettleStatus::Ok, SettleStatus::StaleLease],
                }
            }
        }
    }

    pub(super) fn done(&mut self, lane: u32, offset: u64) {
        let record = self.records.get_mut(&(lane, offset)).unwrap();
        (record.status, record.hand) = (Status::Done, None);
    }

    pub(super) fn dead_stored(&mut self, lane: u32, offset: u64) {
        let record = self.records.get_mut(&(lane, offset)).unwrap();
        if record.status == Status::Dying {
            record.status = Status::Done;
        }
    }

    pub(super) fn retain(&mut self, lane: u32, log_start: u64) {
        self.log_start[lane as usize] = log_start;
        for (_, record) in self.records.range_mut((lane, 0)..(lane, log_start)) {
            (record.status, record.hand) = (Status::Done, None);
        }
    }

    pub(super) fn advance(&mut self, lane: u32, offset: u64) {
        for (_, record) in self.records.range_mut((lane, 0)..(lane, offset)) {
            if record.status == Status::Open && record.hand.is_none() {
                record.status = Status::Done;
            }
        }
    }

    pub(super) fn seek(&mut self, lane: u32, offset: u64) {
        self.late.retain(|(_, other, _)| *other != lane);
        self.given.retain(|(_, other, _)| *other != lane);
        for (at, record) in self.records.range_mut((lane, 0)..(lane + 1, 0)) {
            let open = at.1 >= offset && record.found.is_some();
            record.status = if open { Status::Open } else { Status::Done };
            (record.failures, record.attempts, record.crashes, record.hand) = (0, 0, 0, None);
            record.not_before = Duration::ZERO;
        }
    }

    pub(super) fn restart(&mut self) {
        self.sessions.clear();
        self.late.clear();
        self.given.clear();
        for record in self.records.values_mut() {
            (record.attempts, record.crashes, record.hand) = (0, 0, None);
            // A stored time is in whole milliseconds.
            record.not_before = record.not_before.saturating_sub(Duration::from_millis(2));
        }
    }

    pub(super) fn compare(&self, lane: u32, image: &LaneImage) {
        let of_lane = self.records.range((lane, 0)..(lane + 1, 0));
        for ((_, offset), record) in of_lane {
            let settled = image.is_settled(*offset);
            if record.found.is_some() {
                assert_eq!(settled, record.status == Status::Done, "{lane}:{offset}");
            }
            if record.status == Status::Open {
                let failures = image.failures.get(offset).map_or(0, |failed| failed.failures);
                assert_eq!(failures, record.failures, "{lane}:{offset}");
            }
            assert_eq!(image.dead.contains_key(offset), record.status == Status::Dying);
        }
    }

    pub(super) fn held_count(&self, lane: u32) -> u64 {
        let of_lane = self.records.range((lane, 0)..(lane + 1, 0));
        of_lane.filter(|(_, record)| record.hand.is_some()).count() as u64
    }

    pub(super) fn held_by(&self, id: &str) -> u64 {
        self.held_at(id).len() as u64
    }

    fn held_at(&self, id: &str) -> Vec<At> {
        let held = self
            .records
            .iter()
            .filter(|(_, record)| record.hand.as_ref().is_some_and(|hand| hand.id == id));
        held.map(|(at, _)| *at).collect()
    }

    /// What a session holds, with its id.
    pub(super) fn hands_of(&self, id: &str) -> Vec<(&'static str, u32, u64)> {
        let hands = self.records.iter().filter_map(|(at, record)| {
            let hand = record.hand.as_ref().filter(|hand| hand.id == id)?;
            Some((hand.id, at.0, at.1))
        });
        hands.collect()
    }

    /// Something of delivery `seq` is in hands.
    pub(super) fn is_held(&self, lane: u32, seq: u64) -> bool {
        let mut of_lane = self.records.range((lane, 0)..(lane + 1, 0));
        of_lane.any(|(_, record)| record.hand.as_ref().is_some_and(|hand| hand.seq == seq))
    }

    /// Something of delivery `seq` was taken back by the end of a lease or a crash.
    pub(super) fn is_late(&self, lane: u32, seq: u64) -> bool {
        self.late.range((seq, lane, 0)..(seq, lane + 1, 0)).next().is_some()
    }

    fn is_held_by(&self, lane: u32, offset: u64, seq: u64) -> bool {
        let hand = &self.records[&(lane, offset)].hand;
        hand.as_ref().is_some_and(|hand| hand.seq == seq)
    }

    /// A record in somebody's hands, with its token.
    pub(super) fn pick_held(
        &self,
        random: &mut Random,
    ) -> Option<(u32, u64, &'static str, u64, u64)> {
        let held = self.records.iter().filter_map(|(at, record)| {
            record.hand.as_ref().map(|hand| (at.0, at.1, hand.id, hand.epoch, hand.seq))
        });
        let held: Vec<_> = held.collect();
        // Records of one key are settled in order, as a handler does.
        let first = |token: &&(u32, u64, &'static str, u64, u64)| {
            let Some(key) = self.order_key((token.0, token.1)) else { return true };
            let mut before = held.iter().filter(|other| other.0 == token.0 && other.1 < token.1);
            !before.any(|other| self.order_key((other.0, other.1)) == Some(key))
        };
        let firsts: Vec<_> = held.iter().filter(first).collect();
        (!firsts.is_empty()).then(|| **random.pick(&firsts))
    }

    pub(super) fn first_held(&self) -> Option<(u32, u64, &'static str, u64, u64)> {
        self.records.iter().find_map(|(at, record)| {
            record.hand.as_ref().map(|hand| (at.0, at.1, hand.id, hand.epoch, hand.seq))
        })
    }

    pub(super) fn open_count(&self) -> usize {
        self.records.values().filter(|record| record.status != Status::Done).count()
    }

    pub(super) fn open_in(&self, lane: u32) -> usize {
        let of_lane = self.records.range((lane, 0)..(lane + 1, 0));
        of_lane.filter(|(_, record)| record.status != Status::Done).count()
    }

    /// The session of this name, while it is there.
    pub(super) fn find(&self, name: SessionRef) -> Option<&'static str> {
        let found = self.sessions.iter().find(|(_, session)| session.name == name);
        found.map(|(id, _)| *id)
    }

    fn id_of(&self, name: SessionRef) -> &'static str {
        self.find(name).expect("the session is known")
    }
}

fn fresh(name: SessionRef) -> Session {
    Session {
        name,
        records_total: 0,
        bytes_total: 0,
        records_given: 0,
        bytes_given: 0,
        in_flight_max: 0,
        in_flight_bytes_max: u64::MAX,
        reports_started: false,
        attached: false,
        lost_until: None,
        paused: false,
        draining: false,
        asking: false,
    }
}
