//! The state machine of a push subscription: records become visible, are handed out, and are acknowledged.

use std::{sync::Arc, time::Duration};

use riverrun_broker::delivery::{
    Delivery, Found, Handout, LaneImage, LaneKey, Now, Open, Order, Outcome, Run, Scanned,
    SessionRef, Settings, SettleItem, SettleStatus, Told, Visible,
};
use riverrun_proto::TopicId;
use uuid::Uuid;

use crate::Round;

/// Records of a round.
pub(crate) const RECORDS: usize = 1_000;
/// Bytes of each.
const RECORD_BYTES: u32 = 100;
const NOW: Now = Now { elapsed: Duration::ZERO, wall_ms: 1_700_000_000_000 };

/// One subscription, one lane, one session that takes everything.
struct Bench {
    delivery: Delivery,
    lane: LaneKey,
    session: SessionRef,
    /// Records that are visible.
    end: u64,
    /// Of the records of a round, so many are handed out.
    expected: u64,
    by_key: bool,
}

impl Bench {
    fn new(order: Order) -> Bench {
        let settings = Settings { order, ..Settings::default() };
        let mut delivery = Delivery::new(Arc::new(settings), 1);
        let lane = LaneKey::new(TopicId(Uuid::nil()), 0);
        delivery.add_lane(lane, LaneImage::at(0), NOW);
        let open = Open {
            in_flight_bytes_max: u64::MAX,
            id: "session".into(),
            client_id: "client".into(),
            host: "host".into(),
            in_flight_max: 10_000,
            reports_started: false,
            resume: None,
        };
        let session = delivery.open_session(open, NOW).expect("a first session").session;
        delivery.credit(session, u64::MAX >> 2, u64::MAX >> 2, NOW);
        let by_key = order == Order::KeyFifo;
        Bench { delivery, lane, session, end: 0, expected: RECORDS as u64, by_key }
    }

    /// Makes the records of a round visible, and takes what is handed out.
    fn hand_out(&mut self) -> Vec<Handout> {
        self.end += RECORDS as u64;
        let (end, lane) = (self.end, self.lane);
        let visible = Visible { log_start: 0, high_watermark: end, log_end: end };
        self.delivery.set_visible(&lane, visible, NOW);
        let mut handouts = Vec::new();
        while let Some(scan) = self.delivery.next_scan() {
            // A key for each record of a round, where keys mean something.
            let by_key = self.by_key;
            let key = |offset| by_key.then_some(offset % RECORDS as u64);
            let found = |offset| Found {
                offset,
                key: key(offset),
                bytes: RECORD_BYTES,
                not_before_ms: None,
            };
            let records: Vec<Found> =
                (scan.from..scan.until).take(scan.records_max).map(found).collect();
            let next = scan.from + records.len() as u64;
            let scanned = Scanned { id: scan.id, from: scan.from, next, records };
            self.delivery.scanned(&lane, &scanned, NOW);
            let effects = self.delivery.take_effects();
            handouts.extend(effects.told.into_iter().filter_map(|(_, told)| match told {
                Told::Handout(handout) => Some(handout),
                Told::Revoked(..) | Told::Lost(..) => None,
            }));
        }
        let count: u64 = handouts.iter().map(Handout::count).sum();
        let deliveries = u32::try_from(handouts.len()).expect("a round is short");
        self.delivery.sent(self.session, deliveries, count, NOW);
        assert_eq!(count, self.expected, "everything is handed out that may be");
        handouts
    }

    fn settle(&mut self, items: &[SettleItem]) {
        let results = self.delivery.settle(Some(self.session), items, NOW);
        assert!(results.iter().all(|result| result.status == SettleStatus::Ok), "all are taken");
        drop(self.delivery.take_effects());
    }

    /// A round, acknowledged in order.
    fn settle_in_order(&mut self) {
        for handout in self.hand_out() {
            let items: Vec<SettleItem> =
                handout.runs.iter().map(|run| ack(&handout, *run)).collect();
            self.settle(&items);
        }
    }

    fn check_settled(&self) {
        let counts = self.delivery.counts(&self.lane).expect("the lane is there");
        assert_eq!(counts.floor, self.end, "everything is settled");
    }
}

fn ack(handout: &Handout, run: Run) -> SettleItem {
    let (lane, epoch, seq) = (handout.lane, handout.epoch, handout.seq);
    SettleItem { lane, run, epoch, seq, outcome: Outcome::Ack }
}

/// Acknowledged in order, a run at a time, as the client sends it.
pub(crate) fn in_order() -> Round {
    let mut bench = Bench::new(Order::Unordered);
    Box::new(move || {
        bench.settle_in_order();
        bench.check_settled();
    })
}

/// The same by key.
pub(crate) fn by_key() -> Round {
    let mut bench = Bench::new(Order::KeyFifo);
    Box::new(move || {
        bench.settle_in_order();
        bench.check_settled();
    })
}

/// The same while one key of a thousand is stuck: its first record stays in hand.
pub(crate) fn by_key_with_one_stuck() -> Round {
    let mut bench = Bench::new(Order::KeyFifo);
    for handout in bench.hand_out() {
        let after = |run: &Run| Run::new(run.start.max(1), run.end);
        let runs = handout.runs.iter().map(after).filter(|run| run.start < run.end);
        let items: Vec<SettleItem> = runs.map(|run| ack(&handout, run)).collect();
        bench.settle(&items);
    }
    bench.expected -= 1;
    Box::new(move || bench.settle_in_order())
}

/// Acknowledged one by one, every second one first.
pub(crate) fn in_disorder() -> Round {
    let mut bench = Bench::new(Order::Unordered);
    Box::new(move || {
        let handouts = bench.hand_out();
        for parity in [1, 0] {
            for handout in &handouts {
                let offsets = handout.runs.iter().flat_map(|run| run.offsets());
                let items: Vec<SettleItem> = offsets
                    .filter(|offset| offset % 2 == parity)
                    .map(|offset| ack(handout, Run::one(offset)))
                    .collect();
                bench.settle(&items);
            }
        }
        bench.check_settled();
    })
}
