use riverrun_proto::{Offset, PartitionId};

use super::{
    super::{
        Durability, MaintainError, ReadError, partition_dir,
        tests::{COMMITTED, House, TOPIC, append, settings},
    },
    *,
};
use crate::clock::ClockHand;

const RATE: u64 = 300 << 10;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What a piece may take beyond its size: a chunk read ahead.
const AHEAD_BYTES: u64 = 256 << 10;

/// A partition of small segments with some MiB in it.
async fn filled(house: &House) -> Arc<Partition> {
    let mut settings = settings(Durability::Os);
    settings.log.segment_bytes_max = 256 << 10;
    let partition = house.opener.open(settings).unwrap();
    let value = "v".repeat(20 << 10);
    for _ in 0..200 {
        append(&partition, &[&value], COMMITTED).await.unwrap();
    }
    let end = partition.log_end();
    partition.wait_durable(end, Durability::Fsync).await.unwrap();
    assert!(partition.facts().segment_count > 10);
    partition
}

/// A scrubber, its clock, and what it counts.
struct Rig {
    scrubber: Scrubber,
    clock: Clock,
    hand: ClockHand,
    meter: Arc<ScrubMeter>,
    partitions: Vec<Arc<Partition>>,
}

impl Rig {
    fn new(partitions: Vec<Arc<Partition>>) -> Rig {
        let (clock, hand) = Clock::manual(1_700_000_000_000);
        let meter = Arc::<ScrubMeter>::default();
        let pace = ScrubPace { bytes_per_second: RATE, interval: DAY };
        let scrubber = Scrubber::new(pace, clock.clone(), meter.clone()).unwrap();
        Rig { scrubber, clock, hand, meter, partitions }
    }

    /// Takes a step, and lets the time pass that it asks for.
    async fn step(&mut self) -> Duration {
        let all = self.partitions.clone();
        let wait = self.scrubber.turn(|| all).await;
        self.hand.advance(wait);
        wait
    }

    /// Steps until so many passes are over.
    async fn until_passes(&mut self, count: u64) {
        while self.meter.passes.get() < count {
            self.step().await;
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_while_nobody_reads_and_stops_nothing_else() {
    let house = House::new();
    let partition = filled(&house).await;
    let mut rig = Rig::new(vec![partition.clone()]);
    rig.until_passes(1).await;
    assert_eq!((rig.meter.damages.get(), partition.damaged_places()), (0, 0));

    let first = partition_dir(TOPIC, PartitionId(0)).join(format!("{:020}.log", 0));
    house.disk.flip_bit(&first, 4096 + 96 + 1_000, 5);
    rig.until_passes(2).await;
    assert_eq!((rig.meter.damages.get(), partition.damaged_places()), (1, 1));
    rig.until_passes(3).await;
    assert_eq!((rig.meter.damages.get(), partition.damaged_places()), (2, 1));

    let refused = partition.read(Offset(0), 100).await.unwrap_err();
    assert!(matches!(refused, ReadError::Corrupt { .. }), "{refused}");
    partition.read(Offset(1), 100).await.unwrap();
    assert!(partition.failure().is_none());
    append(&partition, &["more"], COMMITTED).await.unwrap();

    // As after the bytes were put back.
    house.disk.flip_bit(&first, 4096 + 96 + 1_000, 5);
    rig.until_passes(4).await;
    assert_eq!((rig.meter.damages.get(), partition.damaged_places()), (2, 0));
}

#[tokio::test]
async fn in_no_span_of_time_more_is_read_than_the_rate_and_one_piece() {
    let house = House::new();
    let partition = filled(&house).await;
    for is_held_up in [false, true] {
        let mut rig = Rig::new(vec![partition.clone()]);
        let mut seen = vec![(rig.clock.elapsed(), 0)];
        while rig.meter.passes.get() == 0 {
            rig.step().await;
            if is_held_up && seen.len() == 3 {
                // The machine was busy: the time is lost, not saved up.
                rig.hand.advance(Duration::from_secs(60));
            }
            seen.push((rig.clock.elapsed(), rig.meter.bytes.get()));
        }
        for (index, (from, before)) in seen.iter().enumerate() {
            for (to, after) in &seen[index..] {
                let span = (*to - *from).as_secs_f64();
                let allowed = RATE as f64 * span + (PIECE_BYTES + AHEAD_BYTES) as f64;
                assert!((after - before) as f64 <= allowed, "{} in {span} s", after - before);
            }
        }
        let bytes = rig.meter.bytes.get();
        assert!(bytes > 3 << 20, "{bytes}");
        if !is_held_up {
            let (took, _) = seen[seen.len() - 2];
            let needed = Duration::from_secs_f64(bytes as f64 / RATE as f64) + FIRST_PASS;
            assert!(took <= needed + Duration::from_secs(1), "{took:?} for {needed:?}");
        }
    }
}

#[tokio::test]
async fn passes_begin_at_their_interval_and_the_first_one_soon() {
    let house = House::new();
    let partition = filled(&house).await;
    let mut rig = Rig::new(vec![partition]);
    assert_eq!(rig.step().await, FIRST_PASS);
    assert_eq!(rig.meter.bytes.get(), 0);
    for pass in 1..4 {
        rig.until_passes(pass).await;
        let days = u32::try_from(pass).unwrap();
        assert_eq!(
            rig.clock.elapsed(),
            FIRST_PASS + DAY * days,
            "the wait for the next one is over"
        );
    }
}

#[test]
fn nothing_is_read_where_the_settings_say_so() {
    let (clock, _) = Clock::manual(0);
    for (bytes_per_second, interval) in [(0, DAY), (RATE, Duration::ZERO)] {
        let pace = ScrubPace { bytes_per_second, interval };
        assert!(Scrubber::new(pace, clock.clone(), Arc::default()).is_none());
    }
}

#[tokio::test]
async fn a_topic_deleted_during_its_pass_is_no_damage() {
    for steps in 0..4 {
        let house = House::new();
        let partition = filled(&house).await;
        let mut rig = Rig::new(vec![partition.clone()]);
        // The wait for the first pass, and taking up the partition.
        for _ in 0..2 + steps {
            rig.step().await;
        }
        match partition.close().await {
            Ok(()) | Err(MaintainError::Closed) => {}
            Err(error) => panic!("{error}"),
        }
        house.opener.remove_topic(TOPIC).unwrap();
        rig.until_passes(1).await;
        assert_eq!((rig.meter.damages.get(), partition.damaged_places()), (0, 0), "{steps}");
    }
}
