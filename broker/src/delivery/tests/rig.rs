//! A subscription with one lane over a log in memory. What happens is told in words.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use riverrun_proto::TopicId;
use uuid::Uuid;

use crate::delivery::{
    Ask, Change, Delivery, Effects, Found, Handout, LaneImage, LaneKey, Now, Open, OpenError,
    Outcome, Reason, ResumePoint, Run, Scanned, SessionRef, Settings, SettleItem, SettleStatus,
    Told, Used, Visible,
};

/// Where the clocks begin.
const WALL_MS: i64 = 1_700_000_000_000;

pub(super) fn lane() -> LaneKey {
    LaneKey::new(TopicId(Uuid::nil()), 0)
}

/// Settings without spread, so that times can be told.
pub(super) fn settings() -> Settings {
    Settings { backoff_min: Duration::ZERO, ..Settings::default() }
}

pub(super) struct Rig {
    pub(super) delivery: Delivery,
    pub(super) now: Now,
    /// Records by offset; `None` is nothing to deliver.
    pub(super) log: Vec<Option<Found>>,
    pub(super) log_start: u64,
    /// What sessions are given stays where it is: they are not read.
    pub(super) unread: bool,
    /// Scans are answered by the test itself.
    pub(super) scans_held: bool,
    pub(super) sessions: BTreeMap<&'static str, SessionRef>,
    /// The delivery by which each session got each record last.
    pub(super) tokens: BTreeMap<(&'static str, u64), (u64, u64)>,
    pub(super) image: LaneImage,
    pub(super) counts: BTreeMap<u64, (u32, u32)>,
    /// Of the session opened last: what credit was used for before.
    pub(super) used: Used,
}

impl Rig {
    pub(super) fn new(settings: Settings) -> Rig {
        Rig::restarted(
            settings,
            LaneImage::at(0),
            Now { elapsed: Duration::ZERO, wall_ms: WALL_MS },
        )
    }

    pub(super) fn restarted(settings: Settings, image: LaneImage, now: Now) -> Rig {
        let first_epoch = u64::try_from(now.wall_ms).unwrap() + 1;
        let mut delivery = Delivery::new(Arc::new(settings), first_epoch);
        delivery.add_lane(lane(), image.clone(), now);
        Rig {
            delivery,
            now,
            log: Vec::new(),
            log_start: 0,
            unread: false,
            scans_held: false,
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            image,
            counts: BTreeMap::new(),
            used: Used::default(),
        }
    }

    /// Appends records of 100 bytes, one per character: a letter is a key, `.` is none, `-` is no record.
    pub(super) fn append(&mut self, keys: &str) {
        for key in keys.chars() {
            let offset = self.log.len() as u64;
            let hash = (key != '.').then_some(u64::from(u32::from(key)));
            let found = Found { offset, key: hash, bytes: 100, not_before_ms: None };
            self.log.push((key != '-').then_some(found));
        }
        self.show();
    }

    pub(super) fn show(&mut self) {
        let end = self.log.len() as u64;
        let visible = Visible { log_start: self.log_start, high_watermark: end, log_end: end };
        self.delivery.set_visible(&lane(), visible, self.now);
        self.scan();
    }

    /// Answers scans until none is asked for.
    pub(super) fn scan(&mut self) {
        while !self.scans_held
            && let Some(scan) = self.delivery.next_scan()
        {
            let (from, until) =
                (usize::try_from(scan.from).unwrap(), usize::try_from(scan.until).unwrap());
            let mut records: Vec<Found> = self.log[from..until].iter().flatten().copied().collect();
            let next = match records.get(scan.records_max) {
                Some(first_left) => first_left.offset,
                None => scan.until,
            };
            records.truncate(scan.records_max);
            let scanned = Scanned { id: scan.id, from: scan.from, next, records };
            self.delivery.scanned(&scan.lane, &scanned, self.now);
        }
    }

    pub(super) fn open(&mut self, id: &'static str) {
        self.try_open(id, None, true, 1_000).unwrap();
    }

    pub(super) fn try_open(
        &mut self,
        id: &'static str,
        resume: Option<ResumePoint>,
        reports_started: bool,
        in_flight_max: u32,
    ) -> Result<String, OpenError> {
        let open = Open {
            id: id.into(),
            client_id: "client".into(),
            host: "host".into(),
            in_flight_max,
            in_flight_bytes_max: u64::MAX,
            reports_started,
            resume,
        };
        let opened = self.delivery.open_session(open, self.now)?;
        self.sessions.insert(id, opened.session);
        self.used = opened.used;
        let mut told = String::from(if opened.resumed { "resumed" } else { "new" });
        for handout in opened.replay {
            self.keep(id, &handout);
            self.delivery.sent(opened.session, 1, handout.count(), self.now);
            write!(told, ", {}", tell_runs(&handout.runs)).unwrap();
        }
        self.scan();
        Ok(told)
    }

    pub(super) fn credit(&mut self, id: &'static str, records_total: u64) {
        self.credit_bytes(id, records_total, u64::MAX >> 2);
    }

    pub(super) fn credit_bytes(&mut self, id: &'static str, records_total: u64, bytes_total: u64) {
        self.delivery.credit(self.sessions[id], records_total, bytes_total, self.now);
        self.scan();
    }

    pub(super) fn ask(&mut self, id: &'static str, records_max: u32, attempt: &str) -> String {
        let ask = Ask {
            id: id.into(),
            client_id: "client".into(),
            host: "host".into(),
            records_max,
            bytes_max: 1 << 20,
            attempt: attempt.into(),
        };
        let opened = self.delivery.receive(ask, self.now).unwrap();
        self.sessions.insert(id, opened.session);
        for handout in &opened.replay {
            self.keep(id, handout);
        }
        self.scan();
        let told: Vec<String> =
            opened.replay.iter().map(|handout| tell_runs(&handout.runs)).collect();
        told.join(", ")
    }

    /// Lets time pass, ticking wherever something is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.elapsed + time;
        loop {
            let next = self.delivery.next_deadline().filter(|at| *at <= end);
            let at = next.unwrap_or(end).max(self.now.elapsed);
            self.now.wall_ms += i64::try_from((at - self.now.elapsed).as_millis()).unwrap();
            self.now.elapsed = at;
            self.delivery.tick(self.now);
            self.scan();
            if next.is_none() {
                return;
            }
        }
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// Settles `start..end` by the delivery in which the session got `start` last.
    pub(super) fn settle(&mut self, id: &'static str, run: Run, outcome: Outcome) -> SettleStatus {
        let (epoch, seq) = self.tokens.get(&(id, run.start)).copied().unwrap_or((0, 0));
        let item = SettleItem { lane: lane(), run, epoch, seq, outcome };
        let session = self.sessions.get(id).copied();
        let results = self.delivery.settle(session, &[item], self.now);
        self.scan();
        results[0].status
    }

    pub(super) fn ack(&mut self, id: &'static str, start: u64, end: u64) -> SettleStatus {
        self.settle(id, Run::new(start, end), Outcome::Ack)
    }

    pub(super) fn nack(&mut self, id: &'static str, offset: u64, delay_ms: u64) -> SettleStatus {
        let delay = Some(Duration::from_millis(delay_ms));
        self.settle(id, Run::one(offset), Outcome::Nack { delay, reason: "why".into() })
    }

    pub(super) fn release(&mut self, id: &'static str, start: u64, end: u64) -> SettleStatus {
        self.settle(id, Run::new(start, end), Outcome::Release)
    }

    pub(super) fn started(&mut self, id: &'static str, offset: u64) -> SettleStatus {
        self.settle(id, Run::one(offset), Outcome::Started)
    }

    pub(super) fn lost(&mut self, id: &'static str) {
        self.delivery.lost(self.sessions[id], self.now);
        self.scan();
    }

    pub(super) fn explain(&self) -> Reason {
        self.delivery.explain(&lane(), self.now).unwrap()
    }

    pub(super) fn floor(&self) -> u64 {
        self.delivery.counts(&lane()).unwrap().floor
    }

    /// What happened since the last time, in words; changes go into the image.
    #[track_caller]
    pub(super) fn expect(&mut self, told: &str) {
        assert_eq!(self.told(), told);
    }

    pub(super) fn told(&mut self) -> String {
        let effects = self.delivery.take_effects();
        self.remember(&effects);
        let sessions = self.sessions.clone();
        let name = |session: &SessionRef| -> &'static str {
            sessions.iter().find(|(_, other)| *other == session).map_or("?", |(id, _)| id)
        };
        let mut told: Vec<String> = Vec::new();
        for (session, what) in &effects.told {
            let words = match what {
                Told::Handout(handout) => tell_runs(&handout.runs),
                Told::Revoked(_, run, reason) => format!("loses {} {reason:?}", tell_run(*run)),
                Told::Lost(_, run) => format!("lost {}", tell_run(*run)),
            };
            told.push(format!("{} {words}", name(session)));
        }
        for (session, reason) in &effects.gone {
            told.push(format!("{} gone {reason:?}", name(session)));
        }
        for dead in &effects.dead {
            told.push(format!("dead {} {:?} {}", dead.offset, dead.cause, dead.failures));
        }
        for (session, handout) in effects.handouts() {
            self.keep(name(&session), handout);
            if !self.unread {
                self.delivery.sent(session, 1, handout.count(), self.now);
            }
        }
        told.join("; ")
    }

    fn remember(&mut self, effects: &Effects) {
        effects.changes.iter().for_each(|change: &Change| self.image.apply(change));
    }

    fn keep(&mut self, id: &'static str, handout: &Handout) {
        for offset in handout.runs.iter().flat_map(|run| run.offsets()) {
            self.tokens.insert((id, offset), (handout.epoch, handout.seq));
            self.counts.insert(offset, (1, 0));
        }
        for count in &handout.counts {
            self.counts.insert(count.offset, (count.attempts, count.failures));
        }
    }
}

fn tell_runs(runs: &[Run]) -> String {
    runs.iter().map(|run| tell_run(*run)).collect::<Vec<_>>().join(" ")
}

fn tell_run(run: Run) -> String {
    match run.count() {
        1 => run.start.to_string(),
        _ => run.to_string(),
    }
}
