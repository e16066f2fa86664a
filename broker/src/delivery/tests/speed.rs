//! How fast the state machine is. Not part of the suite: run with `--release -- --ignored --nocapture speed`.

use std::{sync::Arc, time::Duration};

use super::rig::{lane, settings};
use crate::{
    clock::Clock,
    delivery::{
        Delivery, Found, LaneImage, Now, Open, Order, Outcome, Run, Scanned, SessionRef, Settings,
        SettleItem, Visible,
    },
    test_random::Random,
};

const RECORDS: u64 = 3_000_000;

struct Bench {
    delivery: Delivery,
    session: SessionRef,
    credit: u64,
}

impl Bench {
    fn new(order: Order) -> Bench {
        let settings = Settings { order, ..settings() };
        let mut delivery = Delivery::new(Arc::new(settings), 1);
        delivery.add_lane(lane(), LaneImage::at(0), Now::default());
        let open = Open {
            id: "a".into(),
            client_id: "".into(),
            host: "".into(),
            in_flight_max: 1_000_000,
            reports_started: true,
            resume: None,
        };
        let session = delivery.open_session(open, Now::default()).unwrap().session;
        let visible = Visible { log_start: 0, high_watermark: RECORDS, log_end: RECORDS };
        delivery.set_visible(&lane(), visible, Now::default());
        Bench { delivery, session, credit: 0 }
    }

    fn scan(&mut self, now: Now) {
        while let Some(scan) = self.delivery.next_scan() {
            let next = scan.until.min(scan.from + scan.records_max as u64);
            let key = |offset: u64| Some(offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000);
            let found =
                |offset| Found { offset, key: key(offset), bytes: 1_000, not_before_ms: None };
            let records = (scan.from..next).map(found).collect();
            let scanned = Scanned { id: scan.id, from: scan.from, next, records };
            self.delivery.scanned(&scan.lane, &scanned, now);
        }
    }

    fn allow(&mut self, records: u64, now: Now) {
        self.credit += records;
        self.delivery.credit(self.session, self.credit, u64::MAX >> 1, now);
    }

    fn ack(&mut self, runs: &[(Run, u64)], now: Now) {
        let epoch = self.session.epoch();
        let item = |(run, seq)| SettleItem { lane: lane(), run, epoch, seq, outcome: Outcome::Ack };
        let items: Vec<SettleItem> = runs.iter().copied().map(item).collect();
        self.delivery.settle(Some(self.session), &items, now);
    }
}

fn report(name: &str, took: Duration) {
    let rate = RECORDS as f64 / took.as_secs_f64();
    eprintln!("{name}: {rate:.0} records/s");
}

#[test]
#[ignore = "a measurement"]
fn speed_of_runs() {
    let (mut bench, now) = (Bench::new(Order::Unordered), Now::default());
    let clock = Clock::real();
    let mut acked = 0;
    while acked < RECORDS {
        bench.allow(1_000, now);
        bench.scan(now);
        for (_, handout) in bench.delivery.take_effects().handouts {
            for run in handout.runs {
                acked += run.count();
                bench.ack(&[(run, handout.seq)], now);
            }
        }
    }
    report("runs", clock.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn speed_of_single_acks() {
    for (order, frame) in [(Order::Unordered, 1), (Order::Unordered, 16), (Order::KeyFifo, 16)] {
        let (mut bench, now) = (Bench::new(order), Now::default());
        let mut random = Random::new(1);
        let clock = Clock::real();
        bench.allow(1_000, now);
        let (mut held, mut acked) = (Vec::new(), 0);
        while acked < RECORDS {
            bench.scan(now);
            for (_, handout) in bench.delivery.take_effects().handouts {
                let offsets = handout.runs.iter().flat_map(|run| run.offsets());
                held.extend(offsets.map(|offset| (Run::one(offset), handout.seq)));
            }
            let mut acks = Vec::new();
            while acks.len() < frame && !held.is_empty() {
                let at = usize::try_from(random.below(held.len() as u64)).unwrap();
                acks.push(held.swap_remove(at));
            }
            acked += acks.len() as u64;
            bench.ack(&acks, now);
            bench.allow(acks.len() as u64, now);
        }
        report(&format!("single acks, {frame} in a frame, {order:?}"), clock.elapsed());
    }
}
