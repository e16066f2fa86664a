//! Random events against a naive reference: what may happen is decided a second time, with plain sets and full scans.

mod reference;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use riverrun_proto::TopicId;
use uuid::Uuid;

use self::reference::{Reference, Status};
use crate::{
    delivery::{
        Ask, Delivery, Found, GoneReason, LaneImage, LaneKey, Now, Open, Order, Outcome, Reason,
        ResumePoint, RevokeReason, Run, Scan, ScanFailure, ScanFailureCause, Scanned, SessionRef,
        Settings, SettleItem, SettleStatus, Told, Visible,
    },
    test_random::Random,
};

const LANES: u32 = 2;
const WALL_MS: i64 = 1_700_000_000_000;
const IDS: [&str; 6] = ["a", "b", "c", "d", "u", "v"];

fn key(lane: u32) -> LaneKey {
    LaneKey::new(TopicId(Uuid::nil()), lane)
}

struct World<'a> {
    random: &'a mut Random,
    settings: Settings,
    delivery: Delivery,
    now: Now,
    reference: Reference,
    logs: Vec<Vec<Option<Found>>>,
    log_start: Vec<u64>,
    images: Vec<LaneImage>,
    scans: Vec<Scan>,
    /// Every token ever given, with the session's id.
    tokens: Vec<(&'static str, u32, u64, u64, u64)>,
    dead: BTreeSet<(u32, u64)>,
    /// What clients take to be theirs, by what they were told: (session's id, lane, offset).
    believed: BTreeSet<(&'static str, u32, u64)>,
    /// Deliveries that wait to be sent, and their records.
    unsent: Vec<(SessionRef, u64)>,
    paused: bool,
    asks: u64,
}

#[test]
fn random_events_keep_every_promise() {
    // `SEEDS=` runs more than the usual.
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    Random::each(seeds.unwrap_or(150), |random| {
        let orders = [Order::Unordered, Order::KeyFifo, Order::PartitionFifo, Order::Exclusive];
        let order = *random.pick(&orders);
        run(random, order);
    });
}

fn run(random: &mut Random, order: Order) {
    let number = |random: &mut Random, from: &[u32]| *random.pick(from);
    let settings = Settings {
        order,
        ack_wait: Duration::from_millis(1_000 + random.below(3_000)),
        lease_max: Duration::from_secs(10),
        failures_max: number(random, &[0, 1, 2, 5]),
        backoff_min: Duration::from_millis(random.below(500)),
        backoff_max: Duration::from_secs(3),
        open_max: number(random, &[3, 8, 40, 1_000]),
        key_pipeline: number(random, &[1, 1, 2, 4]),
        key_open_max: number(random, &[1, 2, 5, 100]),
        resume_grace: Duration::from_millis(500),
        ..Settings::default()
    };
    let now = Now { elapsed: Duration::ZERO, wall_ms: WALL_MS };
    let mut world = World {
        reference: Reference::new(settings.clone(), LANES),
        delivery: Delivery::new(Arc::new(settings.clone()), 1),
        random,
        settings,
        now,
        logs: vec![Vec::new(); LANES as usize],
        log_start: vec![0; LANES as usize],
        images: vec![LaneImage::at(0); LANES as usize],
        scans: Vec::new(),
        tokens: Vec::new(),
        dead: BTreeSet::new(),
        believed: BTreeSet::new(),
        unsent: Vec::new(),
        paused: false,
        asks: 0,
    };
    (0..LANES).for_each(|lane| world.delivery.add_lane(key(lane), LaneImage::at(0), now));
    for _ in 0..400 {
        world.step();
        world.look();
    }
    world.finish();
}

impl World<'_> {
    fn step(&mut self) {
        match self.random.below(40) {
            0..=4 => self.append(),
            5..=9 => self.answer_scan(),
            10..=12 => self.open(),
            13..=16 => self.credit(),
            17..=25 => self.settle(),
            26..=27 => self.settle_again(),
            28..=31 => self.pass(),
            32 => self.lose_session(),
            33 => self.end_session(),
            34 => self.pause_session(),
            35 => self.ask(),
            36 => self.answer_dead(),
            _ => self.rare(),
        }
    }

    fn rare(&mut self) {
        match self.random.below(12) {
            0 => self.restart(),
            1 => self.seek(),
            2..=3 => self.retain(),
            4..=5 => {
                self.paused = !self.paused;
                self.delivery.set_paused(self.paused, self.now);
            }
            6 => self.advance(),
            7..=8 => self.limit(),
            9 => self.send_all(),
            _ => self.pass(),
        }
    }

    /// What waits is on its way.
    fn send_all(&mut self) {
        for (name, records) in std::mem::take(&mut self.unsent) {
            self.delivery.sent(name, 1, records, self.now);
        }
    }

    fn append(&mut self) {
        let lane = self.lane();
        for _ in 0..=self.random.below(6) {
            let offset = self.logs[lane as usize].len() as u64;
            let record = (!self.random.chance(8)).then(|| self.record(offset));
            self.logs[lane as usize].push(record);
            self.reference.append(lane, record);
        }
        self.show(lane);
    }

    fn record(&mut self, offset: u64) -> Found {
        let key = (!self.random.chance(5)).then(|| 1 + self.random.below(4));
        let far = 1 + self.random.below(20_000_000);
        let near = 1 + self.random.below(4_000);
        // Where several records of a key are in hands, one that was due late stands behind later ones; the reference
        // orders by offset.
        let single = self.settings.key_pipeline == 1 && self.settings.order != Order::Exclusive;
        let timed = single || self.settings.order == Order::Unordered;
        let delay = match self.random.below(20) {
            0 if timed => Some(far),
            1 if timed => Some(near),
            _ => None,
        };
        let not_before_ms = delay.map(|delay| self.now.wall_ms + i64::try_from(delay).unwrap());
        let bytes = u32::try_from(1 + self.random.below(50)).unwrap();
        Found { offset, key, bytes, not_before_ms }
    }

    fn show(&mut self, lane: u32) {
        let end = self.logs[lane as usize].len() as u64;
        let log_start = self.log_start[lane as usize];
        let visible = Visible { log_start, high_watermark: end, log_end: end };
        self.delivery.set_visible(&key(lane), visible, self.now);
    }

    fn retain(&mut self) {
        let lane = self.lane();
        let (start, end) = (self.log_start[lane as usize], self.logs[lane as usize].len() as u64);
        self.log_start[lane as usize] = (start + self.random.below(6)).min(end);
        self.reference.retain(lane, self.log_start[lane as usize]);
        self.show(lane);
    }

    fn answer_scan(&mut self) {
        while let Some(scan) = self.delivery.next_scan() {
            self.scans.push(scan);
        }
        if self.scans.is_empty() {
            return;
        }
        let scan = self.scans.swap_remove(0);
        if self.random.chance(10) {
            let retry_at = self.now.elapsed + Duration::from_millis(self.random.below(300));
            let cause = ScanFailureCause::Partition;
            let failure = ScanFailure { cause, error: "eio".into(), retry_at };
            self.delivery.scan_failed(&scan.lane, scan.id, failure, self.now);
            return;
        }
        let lane = scan.lane.partition;
        let from = scan.from.max(self.log_start[lane as usize]);
        let next = if from >= scan.until {
            scan.until
        } else {
            from + 1 + self.random.below(scan.until - from)
        };
        let log = &self.logs[lane as usize];
        let all = (from..next).filter_map(|offset| log[usize::try_from(offset).unwrap()]);
        let scanned = Scanned { id: scan.id, from: scan.from, next, records: all.collect() };
        self.delivery.scanned(&scan.lane, &scanned, self.now);
    }

    fn open(&mut self) {
        let id = *self.random.pick(&IDS[..4]);
        let old = self.reference.session(id).map(|session| session.name);
        let resume = match old {
            Some(old) if self.random.chance(2) => {
                let seqs = self.tokens.iter().filter(|token| token.0 == id).map(|token| token.4);
                let seqs: Vec<u64> = seqs.collect();
                let last_seq = if seqs.is_empty() { 0 } else { *self.random.pick(&seqs) };
                Some(ResumePoint { epoch: old.epoch(), last_seq })
            }
            _ => None,
        };
        let open = Open {
            id: id.into(),
            client_id: "".into(),
            host: "".into(),
            in_flight_max: u32::try_from(1 + self.random.below(12)).unwrap(),
            in_flight_bytes_max: self.random.below(400),
            reports_started: self.random.chance(2),
            resume,
        };
        let opened = self.delivery.open_session(open.clone(), self.now).unwrap();
        assert_eq!(opened.resumed, resume.is_some());
        self.reference.open(id, &open, opened.session, self.now);
        if resume.is_none() {
            self.believed.retain(|(who, ..)| *who != id);
        }
        for handout in &opened.replay {
            self.unsent.push((opened.session, handout.count()));
            assert!(handout.seq > resume.unwrap().last_seq);
            for offset in handout.runs.iter().flat_map(|run| run.offsets()) {
                self.reference.replayed(id, handout.lane.partition, offset, handout.seq);
            }
        }
    }

    fn ask(&mut self) {
        let id = *self.random.pick(&IDS[4..]);
        let again = self.random.chance(3);
        self.asks += u64::from(!again);
        let ask = Ask {
            id: id.into(),
            client_id: "".into(),
            host: "".into(),
            records_max: u32::try_from(1 + self.random.below(8)).unwrap(),
            bytes_max: 1 + self.random.below(200),
            attempt: format!("{id}{}", self.asks).into(),
        };
        let opened = self.delivery.receive(ask.clone(), self.now).unwrap();
        self.reference.ask(id, &ask, &opened);
        if self.random.chance(3) {
            self.look();
            self.delivery.stop_asking(opened.session, self.now);
            self.reference.stop_asking(id);
        }
    }

    fn credit(&mut self) {
        let Some((id, name)) = self.stream() else { return };
        let session = self.reference.session(id).unwrap();
        let records = session.records_total + self.random.below(6);
        let bytes = (session.bytes_total + self.random.below(200)).saturating_sub(20);
        self.reference.credit(id, records, bytes);
        self.delivery.credit(name, records, bytes, self.now);
    }

    fn limit(&mut self) {
        let Some((id, name)) = self.stream() else { return };
        let in_flight_max = u32::try_from(self.random.below(8)).unwrap();
        self.reference.limit(id, in_flight_max);
        self.delivery.limit_session(name, in_flight_max, self.now);
    }

    fn pause_session(&mut self) {
        let Some((id, name)) = self.stream() else { return };
        let pause = self.random.chance(3);
        self.reference.session_mut(id).paused = pause;
        match pause {
            true => self.delivery.pause_session(name, self.now),
            false => self.delivery.resume_session(name, self.now),
        }
    }

    fn lose_session(&mut self) {
        let Some((id, name)) = self.stream() else { return };
        self.reference.lost(id, self.now);
        self.delivery.lost(name, self.now);
    }

    fn end_session(&mut self) {
        let Some((id, name)) = self.stream() else { return };
        if self.random.chance(2) {
            self.reference.session_mut(id).draining = true;
            self.delivery.drain(name, self.now);
        } else {
            self.reference.close(id);
            self.delivery.closed(name, self.now);
        }
    }

    /// Settles a few records that somebody holds, in order.
    fn settle(&mut self) {
        let Some((lane, offset, id, epoch, seq)) = self.reference.pick_held(self.random) else {
            return;
        };
        let end = offset + 1 + self.random.below(4);
        let delay = match self.random.below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(self.random.below(2_000))),
            _ => None,
        };
        let outcome = match self.random.below(17) {
            0..=8 => Outcome::Ack,
            9..=10 => Outcome::Nack { delay, reason: "no".into() },
            11..=12 => Outcome::Release,
            13 => Outcome::Reject { reason: "never".into() },
            14 => Outcome::Extend { lease: Duration::from_millis(self.random.below(4_000)) },
            _ => Outcome::Started,
        };
        let run = Run::new(offset, end);
        let status = self.send(id, (lane, run), (epoch, seq), outcome.clone());
        let image = self.delivery.lane_image(&key(lane), self.now).unwrap();
        let expected = self.reference.settle((lane, run), seq, (&outcome, &image), self.now);
        assert_eq!(status, expected, "{outcome:?} of {lane}:{run} by {id}");
    }

    /// Settles with a token of any age; often a range.
    fn settle_again(&mut self) {
        if self.tokens.is_empty() {
            return;
        }
        let recent = self.tokens.len().saturating_sub(40);
        let from = if self.random.chance(2) { recent } else { 0 };
        let (id, lane, offset, epoch, seq) = *self.random.pick(&self.tokens[from..]);
        let run = Run::new(offset, offset + 1 + self.random.below(2) * self.random.below(8));
        if self.reference.is_held(lane, seq) {
            return;
        }
        let outcome = match self.random.chance(4) {
            true => Outcome::Nack { delay: None, reason: "late".into() },
            false => Outcome::Ack,
        };
        let status = self.send(id, (lane, run), (epoch, seq), outcome.clone());
        let image = self.delivery.lane_image(&key(lane), self.now).unwrap();
        let worst = self.reference.settle((lane, run), seq, (&outcome, &image), self.now);
        // Of what was settled, given back or came back because of its key, only that it is not confirmed is known.
        let known = self.reference.is_late(lane, seq);
        let same = match known {
            true => status == worst,
            false => (status == SettleStatus::Ok) <= (worst == SettleStatus::Ok),
        };
        assert!(same, "{status:?} and not {worst:?}: {lane}:{run} of {seq} by {id}");
    }

    fn send(
        &mut self,
        id: &'static str,
        at: (u32, Run),
        token: (u64, u64),
        outcome: Outcome,
    ) -> SettleStatus {
        let (lane, run) = at;
        let (epoch, seq) = token;
        let item = SettleItem { lane: key(lane), run, epoch, seq, outcome };
        let session = self.delivery.session_of(id);
        self.delivery.settle(session, &[item], self.now)[0].status
    }

    fn pass(&mut self) {
        let step = Duration::from_millis(self.random.below(1_500));
        let end = self.now.elapsed + step;
        // Each deadline is met alone, so that the reference sees them in order.
        while let Some(at) = self.delivery.next_deadline().filter(|at| *at <= end) {
            self.tick(at.max(self.now.elapsed));
            self.look();
        }
        self.tick(end);
    }

    fn tick(&mut self, at: Duration) {
        let wall_ms = WALL_MS + i64::try_from(at.as_millis()).unwrap();
        self.now = Now { elapsed: at, wall_ms };
        self.delivery.tick(self.now);
        self.reference.tick(self.now);
    }

    fn answer_dead(&mut self) {
        let Some((lane, offset)) = self.dead.pop_first() else { return };
        if self.random.chance(3) {
            let retry_at = self.now.elapsed + Duration::from_millis(self.random.below(900));
            self.delivery.dead_failed(&key(lane), offset, ("full".into(), retry_at), self.now);
        } else {
            self.delivery.dead_stored(&key(lane), offset, self.now);
            self.reference.dead_stored(lane, offset);
        }
    }

    fn seek(&mut self) {
        let lane = self.lane();
        let end = self.logs[lane as usize].len() as u64;
        let offset = self.random.below(end + 1);
        self.delivery.seek(&key(lane), offset, self.now);
        self.reference.seek(lane, offset.max(self.log_start[lane as usize]));
        self.dead.retain(|(at, _)| *at != lane);
        self.tokens.retain(|token| token.1 != lane);
    }

    fn advance(&mut self) {
        let lane = self.lane();
        let end = self.logs[lane as usize].len() as u64;
        let offset = self.random.below(end + 1);
        self.delivery.advance(&key(lane), offset, self.now);
        self.reference.advance(lane, offset);
    }

    fn restart(&mut self) {
        self.look();
        self.delivery = Delivery::new(Arc::new(self.settings.clone()), self.delivery_epoch());
        self.scans.clear();
        self.tokens.clear();
        self.dead.clear();
        self.believed.clear();
        self.unsent.clear();
        self.paused = false;
        self.reference.restart();
        for lane in 0..LANES {
            let image = self.images[lane as usize].clone();
            self.delivery.add_lane(key(lane), image, self.now);
            self.show(lane);
        }
    }

    fn delivery_epoch(&self) -> u64 {
        self.tokens.iter().map(|token| token.3).max().unwrap_or(0) + 1_000
    }

    /// Holds what happened against the reference.
    fn look(&mut self) {
        let effects = self.delivery.take_effects();
        for change in &effects.changes {
            let lane = match change {
                crate::delivery::Change::Done { lane, .. }
                | crate::delivery::Change::Failed { lane, .. }
                | crate::delivery::Change::DeadPending { lane, .. }
                | crate::delivery::Change::Dead { lane, .. }
                | crate::delivery::Change::Seek { lane, .. }
                | crate::delivery::Change::Scheduled { lane, .. }
                | crate::delivery::Change::ScheduleCame { lane, .. } => lane.partition,
            };
            self.images[lane as usize].apply(change);
        }
        for (name, reason) in &effects.gone {
            if *reason == GoneReason::Drained {
                self.reference.drained(*name);
            }
        }
        for dead in &effects.dead {
            let at = (dead.lane.partition, dead.offset);
            assert_eq!(self.reference.status(at.0, at.1), Status::Dying, "{at:?}");
            assert_eq!(dead.failures, self.reference.failures(at.0, at.1), "{at:?}");
            self.dead.insert(at);
        }
        for (name, told) in &effects.told {
            self.hear(*name, told);
        }
        self.reference.end_round();
        self.compare();
    }

    /// A session hears something, in order.
    fn hear(&mut self, name: SessionRef, told: &Told) {
        match told {
            Told::Handout(handout) => {
                let lane = handout.lane.partition;
                let id = self.reference.handed_out(name, handout, self.now);
                for offset in handout.runs.iter().flat_map(|run| run.offsets()) {
                    self.tokens.push((id, lane, offset, handout.epoch, handout.seq));
                    self.believed.insert((id, lane, offset));
                }
                self.unsent.push((name, handout.count()));
            }
            Told::Revoked(lane, run, reason) => {
                if *reason == RevokeReason::SettledElsewhere {
                    // Records without a key have no order either.
                    let order = self.settings.order;
                    assert!(matches!(order, Order::Unordered | Order::KeyFifo));
                }
                self.disbelieve(name, lane, *run);
            }
            Told::Lost(lane, run) => self.disbelieve(name, lane, *run),
        }
    }

    fn disbelieve(&mut self, name: SessionRef, lane: &LaneKey, run: Run) {
        let Some(id) = self.reference.find(name) else { return };
        run.offsets().for_each(|offset| {
            self.believed.remove(&(id, lane.partition, offset));
        });
    }

    fn compare(&self) {
        for lane in 0..LANES {
            let counts = self.delivery.counts(&key(lane)).unwrap();
            let image = &self.images[lane as usize];
            assert_eq!(counts.floor, image.floor);
            assert_eq!(counts.in_flight, self.reference.held_count(lane));
            assert_eq!(counts.dead, image.dead_count);
            self.reference.compare(lane, image);
            let open = self.delivery.open_bytes(&key(lane)).unwrap();
            assert!(open < 1 << 20);
        }
        for view in self.delivery.sessions() {
            let session = self.reference.session(&view.id).expect("the reference has it");
            assert_eq!(session.name, view.session);
            let held = self.reference.held_by(&view.id);
            assert_eq!(u64::from(view.in_flight), held, "{view:?}");
            for (id, lane, offset) in self.reference.hands_of(&view.id) {
                let knows = self.believed.contains(&(id, lane, offset));
                assert!(knows, "{id} does not know that it holds {lane}:{offset}");
            }
        }
    }

    /// With time and credit, everything is delivered and settled.
    fn finish(&mut self) {
        self.paused = false;
        self.delivery.set_paused(false, self.now);
        self.look();
        for id in IDS {
            if let Some(name) = self.delivery.session_of(id) {
                self.delivery.closed(name, self.now);
                self.reference.close(id);
                self.look();
            }
        }
        let open = Open {
            id: "end".into(),
            client_id: "".into(),
            host: "".into(),
            in_flight_max: 1_000,
            in_flight_bytes_max: 1 << 40,
            reports_started: true,
            resume: None,
        };
        let opened = self.delivery.open_session(open.clone(), self.now).unwrap();
        self.reference.open("end", &open, opened.session, self.now);
        self.reference.credit("end", 1 << 40, 1 << 40);
        self.delivery.credit(opened.session, 1 << 40, 1 << 40, self.now);
        for _ in 0..20_000 {
            self.look();
            if (0..LANES).all(|lane| self.is_finished(lane)) {
                return;
            }
            let before = self.reference.open_count();
            while !self.dead.is_empty() {
                self.answer_dead();
            }
            self.answer_scan();
            self.look();
            self.send_all();
            self.look();
            while let Some((lane, offset, _, epoch, seq)) = self.reference.first_held() {
                let run = Run::one(offset);
                let status = self.send("end", (lane, run), (epoch, seq), Outcome::Ack);
                assert_eq!(status, SettleStatus::Ok);
                self.reference.done(lane, offset);
                self.look();
            }
            if self.reference.open_count() == before {
                let next = self.delivery.next_deadline().unwrap_or(self.now.elapsed);
                self.tick(next.max(self.now.elapsed));
            }
        }
        let reasons = (0..LANES).map(|lane| self.delivery.explain(&key(lane), self.now));
        let next = self.delivery.next_deadline();
        panic!("stuck at {:?}, next {next:?}: {:?}", self.now, reasons.collect::<Vec<_>>());
    }

    fn is_finished(&self, lane: u32) -> bool {
        let counts = self.delivery.counts(&key(lane)).unwrap();
        let finished = counts.lag == 0;
        if finished {
            assert_eq!(self.delivery.explain(&key(lane), self.now), Some(Reason::Nothing));
            assert_eq!(self.reference.open_in(lane), 0);
            assert_eq!((counts.blocked, counts.retrying, counts.ready), (0, 0, 0));
        }
        finished
    }

    fn lane(&mut self) -> u32 {
        u32::try_from(self.random.below(u64::from(LANES))).unwrap()
    }

    fn stream(&mut self) -> Option<(&'static str, SessionRef)> {
        let id = *self.random.pick(&IDS[..4]);
        self.reference
            .session(id)
            .filter(|session| session.attached)
            .map(|session| (id, session.name))
    }
}
