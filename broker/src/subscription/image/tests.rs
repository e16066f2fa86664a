use std::collections::BTreeSet;

use super::*;
use crate::{
    delivery::Run,
    subscription::{
        delta::LaneDelta,
        model::{Model, Step, key, topic},
    },
    test_random::Random,
};

const LANES: [(u64, u32); 3] = [(1, 0), (1, 1), (2, 0)];

fn subscription(number: u64, topic_ids: Vec<TopicId>) -> Subscription {
    let (name, settings) = (format!("s{number}").into(), SubscriptionSettings::default());
    Subscription { number, name, created_ms: 5, topic_ids, settings, paused: false }
}

fn created(number: u64) -> Body {
    let starts = vec![(topic(3), vec![0, 40])];
    Body::Created { subscription: subscription(number, vec![topic(3), topic(4)]), starts }
}

fn fold(bodies: &[(u64, Body)]) -> Subscriptions {
    let mut state = Subscriptions::default();
    bodies.iter().for_each(|(number, body)| state.apply_body(*number, body).unwrap());
    state
}

fn entries(bodies: &[(u64, Body)], entry_bytes: usize) -> Vec<Bytes> {
    let mut writer = EntryWriter::new(entry_bytes);
    bodies.iter().for_each(|(number, body)| writer.push(*number, body));
    writer.finish()
}

/// Steps of one lane, merged as the store merges them.
fn merged(steps: &[Step]) -> Vec<LanePart> {
    let mut deltas = vec![LaneDelta::default()];
    for step in steps {
        let last = deltas.last_mut().unwrap();
        let next = match step {
            Step::Change(change) => last.add(change.clone()),
            Step::Intend(offset, intent) => {
                last.intend(*offset, *intent);
                None
            }
        };
        deltas.extend(next);
    }
    deltas.into_iter().flat_map(LaneDelta::into_parts).collect()
}

#[track_caller]
fn check_snapshot(state: &Subscriptions, random: &mut Random) {
    let entry_bytes = *random.pick(&[1, 100, 5_000, 1 << 20]);
    let mut again = fold(&[(7, created(7))]);
    for entry in state.snapshot(entry_bytes) {
        again.apply(&entry).unwrap();
    }
    assert_eq!(again, *state, "a snapshot describes everything, whatever was before");
}

/// Random steps that the model allows; they happen to it, and `ever` gets all that was settled at any time.
fn happen(
    model: &mut Model,
    ever: &mut BTreeSet<u64>,
    key: LaneKey,
    random: &mut Random,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..random.below(60) {
        let step = Step::random(key, random);
        if model.allows(&step) {
            model.apply(&step);
            ever.extend(&model.settled);
            steps.push(step);
        }
    }
    steps
}

/// Random changes merged, written, cut at every entry, and read: the same as one by one in plain sets.
#[test]
fn what_is_read_is_the_sum_of_what_happened() {
    Random::each(20, |random| {
        let mut state = fold(&[(1, created(1)), (2, created(2))]);
        let mut models = LANES.map(|(_, partition)| Model::at(40 * u64::from(partition)));
        for _ in 0..6 {
            let mut bodies = Vec::new();
            let mut ever = models.each_ref().map(|model| model.settled.clone());
            for (lane, (number, partition)) in LANES.into_iter().enumerate() {
                let key = key(3, partition);
                let steps = happen(&mut models[lane], &mut ever[lane], key, random);
                bodies.push((number, Body::Lane { key, parts: merged(&steps) }));
            }
            for entry in entries(&bodies, *random.pick(&[1, 300, 1 << 20])) {
                state.apply(&entry).unwrap();
                check_cut(&state, &ever);
            }
            for ((number, partition), model) in LANES.into_iter().zip(&models) {
                let lane = state.lane(number, &key(3, partition)).cloned().unwrap_or_default();
                assert_eq!(Model::of(&lane), model.bounded());
                assert!(!lane.image.done.contains(lane.image.floor));
            }
            check_snapshot(&state, random);
        }
    });
}

/// A crash may keep only the first entries: nothing is settled then that never was.
#[track_caller]
fn check_cut(state: &Subscriptions, ever: &[BTreeSet<u64>; 3]) {
    for ((number, partition), ever) in LANES.into_iter().zip(ever) {
        let lane = state.lane(number, &key(3, partition)).cloned().unwrap_or_default();
        let settled = Model::of(&lane).settled;
        assert!(settled.is_subset(ever), "{:?}", settled.difference(ever).collect::<Vec<_>>());
    }
}

#[test]
fn subscriptions_come_change_and_go() {
    let mut after = subscription(1, vec![topic(4), topic(5)]);
    after.paused = true;
    let done = |key: LaneKey, start: u64| {
        let parts = vec![LanePart::Done(crate::delivery::Piece::Run(start..start + 1))];
        Body::Lane { key, parts }
    };
    let cancelled = |topic_id, forget_below, start: u64| {
        let pieces = vec![crate::delivery::Piece::Run(start..start + 2)];
        (0, Body::Cancelled { key: key(topic_id, 0), forget_below, pieces })
    };
    let state = fold(&[
        (1, created(1)),
        (1, done(key(3, 1), 60)),
        (1, done(key(4, 0), 0)),
        (2, created(2)),
        (1, Body::Altered(after.clone())),
        (2, Body::Deleted),
        (3, created(3)),
        (0, Body::TopicsForgotten(vec![topic(3)])),
        cancelled(4, 0, 10),
        cancelled(4, 11, 20),
        cancelled(5, 90, 10),
    ]);
    assert_eq!(**state.by_name("s1").unwrap(), after);
    assert_eq!((state.count(), state.next_number(), state.by_name("s2")), (2, 4, None));
    assert_eq!(state.get(3).unwrap().topic_ids, [topic(4)]);
    assert_eq!(state.lane(1, &key(3, 1)), None);
    assert_eq!(state.lane(1, &key(4, 0)).unwrap().image.floor, 1);
    assert_eq!(state.lane(3, &key(3, 1)), None);
    let runs: Vec<_> = state.cancelled(&key(4, 0)).unwrap().runs().collect();
    assert_eq!((runs, state.cancelled(&key(5, 0))), (vec![11..12, 20..22], None));
    check_snapshot(&state, &mut Random::new(1));
}

#[test]
fn changes_that_contradict_the_state_change_nothing() {
    let mut state = fold(&[(1, created(1)), (2, created(2)), (2, Body::Deleted)]);
    let before = state.clone();
    let mut twice = created(9);
    if let Body::Created { subscription, .. } = &mut twice {
        subscription.name = "s1".into();
    }
    let foreign = Body::Created {
        subscription: subscription(9, vec![topic(4)]),
        starts: vec![(topic(3), vec![4])],
    };
    let parts = vec![LanePart::Scheduled { hour: 1, run: Run::one(1) }];
    for (number, body) in [
        (1, created(1)),
        (0, created(0)),
        (9, twice),
        (9, foreign),
        (2, Body::Deleted),
        (2, Body::Altered(subscription(2, Vec::new()))),
        (2, Body::Lane { key: key(3, 0), parts: parts.clone() }),
        (1, Body::Lane { key: key(8, 0), parts }),
        (1, Body::LaneBegun { key: key(8, 0), floor: 1, dead_count: 0 }),
    ] {
        assert!(state.apply_body(number, &body).is_err(), "{body:?}");
        assert_eq!(state, before, "{body:?}");
    }
}
