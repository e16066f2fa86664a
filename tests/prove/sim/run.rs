//! Takes the steps of a list: clients that send, read and store, a network that loses, a machine that fails.

use bytes::Bytes;
use riverrun_broker::{
    partition::{AppendReceipt, Durability},
    quota::Room,
    service::{
        commit::{EPOCH_OUTSIDER, GroupCaller, OffsetToCommit},
        fetch::{Answer, FetchError, FetchPartition, FetchRequest, Format},
        produce::{Acks, Payload, ProduceError, ProduceRequest},
    },
    topic::{error::TopicError, producers::ProducerIdentity, registry::NewTopic},
};
use riverrun_proto::{
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1,
};
use riverrun_storage::disk::sim::{Call, Fault, FaultError, SimDisk};
use tokio::task::JoinHandle;

use super::{
    model::{Broken, Model, Name, value},
    random::Random,
    step::{End, Net, PARTITIONS, PRODUCERS, Step, end},
    world::World,
};

const TOPIC: &str = "t";
const GROUP: &str = "g";
/// Batches of one producer and partition without an answer.
const UNANSWERED_MAX: usize = 3;

type Produced = Result<Option<AppendReceipt>, ProduceError>;

/// A batch of a producer, until it is acknowledged.
#[derive(Clone, Debug)]
struct Batch {
    first: u32,
    records: u8,
    bytes: u32,
}

/// What a producer has on its way to one partition.
#[derive(Clone, Debug, Default)]
struct Lane {
    next: u32,
    unanswered: Vec<Batch>,
    /// Something went wrong: all that has no answer is sent again, in order.
    again: bool,
}

/// A call on its way.
enum Flight {
    Produce {
        producer: usize,
        partition: usize,
        batch: Batch,
        heard: bool,
        call: JoinHandle<Produced>,
    },
    Fetch {
        partition: usize,
        call: JoinHandle<Result<Answer, FetchError>>,
    },
    Commit {
        partition: usize,
        offset: u64,
        call: JoinHandle<bool>,
    },
}

/// One run.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) model: Model,
    random: Random,
    producers: Vec<ProducerIdentity>,
    lanes: Vec<[Lane; PARTITIONS]>,
    positions: [u64; PARTITIONS],
    flights: Vec<Flight>,
    /// How the machine ends when the power is cut.
    cut: End,
}

/// Does the steps of `seed`, ends the machine once more, and looks at everything.
pub(super) fn run(seed: u64, steps: &[Step]) -> Result<Model, Broken> {
    let mut run = Run::new(seed)?;
    for step in steps {
        run.step(*step)?;
    }
    run.finish()
}

impl Run {
    /// A new machine with a topic and producers.
    pub(super) fn new(seed: u64) -> Result<Run, Broken> {
        let mut world = World::new(seed)?;
        create_topic(&mut world)?.map_err(|error| format!("refused: {error}"))?;
        Run::over(world, seed)
    }

    /// Producers before a machine that has the topic.
    pub(super) fn over(mut world: World, seed: u64) -> Result<Run, Broken> {
        let mut producers = Vec::new();
        for _ in 0..PRODUCERS {
            let services = world.services();
            let call = async move { services.produce.init_producer(None).await };
            producers.push(world.call("init", call)?.map_err(|error| format!("refused: {error}"))?);
        }
        Ok(Run {
            world,
            model: Model::default(),
            random: Random::new(seed ^ 0xface),
            producers,
            lanes: vec![<[Lane; PARTITIONS]>::default(); PRODUCERS],
            positions: [0; PARTITIONS],
            flights: Vec::new(),
            cut: End::PowerLosesAll,
        })
    }

    /// Takes one step, and what follows from it.
    pub(super) fn step(&mut self, step: Step) -> Result<(), Broken> {
        self.step_alive(step)?;
        if self.world.is_dead() {
            self.restart(self.cut, None)?;
        }
        Ok(())
    }

    /// Takes one step; a machine that it ended stays so.
    pub(super) fn step_alive(&mut self, step: Step) -> Result<(), Broken> {
        self.take(step)?;
        self.world.settle();
        self.hear()
    }

    /// The same clients before a machine with another disk.
    pub(super) fn begin_on(&self, disk: SimDisk) -> Result<Run, Broken> {
        let world = World::on(disk)?;
        world.is_whole()?;
        Ok(Run {
            world,
            model: self.model.clone(),
            random: Random::new(0),
            producers: self.producers.clone(),
            lanes: self.lanes.clone(),
            positions: [0; PARTITIONS],
            flights: Vec::new(),
            cut: self.cut,
        })
    }

    fn take(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::Produce { producer, partition, records, bytes, net } => {
                self.produce((producer, partition), (records, bytes), net)
            }
            Step::Fetch { partition, again } => self.fetch(partition, again),
            Step::Commit { partition } => self.commit(partition),
            Step::Turn(shard) => self.world.turn(shard),
            Step::Flush => self.world.flush(),
            Step::Prepare => self.world.prepare(),
            Step::Wait(ms) => self.world.wait(ms),
            Step::Jump(years) => self.world.jump(years),
            Step::FailSync => self.world.disk.inject(Fault {
                call: Call::Sync,
                nth: 1,
                error: FaultError::Io,
                lasting: false,
            }),
            Step::CutAt { at, end } => {
                self.cut = end;
                self.world.disk.cut_power_at(u64::from(at));
            }
            Step::Restart { end, again } => self.restart(end, again)?,
        }
        Ok(())
    }

    fn produce(
        &mut self,
        (producer, partition): (usize, usize),
        (records, bytes): (u8, u32),
        net: Net,
    ) {
        let lane = &mut self.lanes[producer][partition];
        if lane.unanswered.len() < UNANSWERED_MAX {
            let batch = Batch { first: lane.next, records, bytes };
            lane.next += u32::from(records);
            lane.unanswered.push(batch);
        } else {
            lane.again = true;
        }
        let from = if lane.again { 0 } else { lane.unanswered.len() - 1 };
        let batches = lane.unanswered[from..].to_vec();
        lane.again = net != Net::Whole;
        if net == Net::RequestLost {
            return;
        }
        for batch in batches {
            let call = self.send(producer, partition, &batch);
            let heard = net == Net::Whole;
            self.flights.push(Flight::Produce { producer, partition, batch, heard, call });
        }
    }

    fn send(&self, producer: usize, partition: usize, batch: &Batch) -> JoinHandle<Produced> {
        let services = self.world.services();
        let request = ProduceRequest {
            topic: TOPIC.into(),
            topic_id: Bytes::new(),
            partition: u32::try_from(partition).unwrap_or(0),
            acks: Acks::All,
            durability_min: Durability::Os,
            payload: Payload::Batch(encoded(
                self.producers[producer],
                (producer, partition),
                batch,
            )),
        };
        self.world.begin(async move { services.produce.append(request, None).await })
    }

    fn fetch(&mut self, partition: usize, again: bool) {
        if again {
            self.positions[partition] = 0;
        }
        let call = self.read(partition, self.positions[partition]);
        self.flights.push(Flight::Fetch { partition, call });
    }

    fn read(&self, partition: usize, offset: u64) -> JoinHandle<Result<Answer, FetchError>> {
        let services = self.world.services();
        self.world.begin(async move {
            services
                .fetch
                .fetch(request(partition, offset), &Room::common(services.fetch.reading().clone()))
                .await
        })
    }

    fn commit(&mut self, partition: usize) {
        if self.flights.iter().any(|flight| matches!(flight, Flight::Commit { .. })) {
            return;
        }
        let services = self.world.services();
        let offset = self.positions[partition];
        let one = OffsetToCommit {
            topic: TOPIC.into(),
            partition: u32::try_from(partition).unwrap_or(0),
            offset,
            leader_epoch: None,
            metadata: String::new(),
            expected_offset: None,
        };
        self.model.commit_sent(partition, offset);
        let call = self.world.begin(async move {
            let stored = services.groups.commit(&outsider(), vec![one]).await;
            stored.is_ok_and(|all| all.iter().all(Result::is_ok))
        });
        self.flights.push(Flight::Commit { partition, offset, call });
    }

    /// Takes the answers that came.
    fn hear(&mut self) -> Result<(), Broken> {
        let mut waiting = Vec::new();
        for flight in std::mem::take(&mut self.flights) {
            match flight {
                Flight::Produce { producer, partition, batch, heard, mut call } => {
                    match self.world.answer(&mut call) {
                        None => waiting.push(Flight::Produce {
                            producer,
                            partition,
                            batch,
                            heard,
                            call,
                        }),
                        Some(answer) if heard => {
                            self.produced((producer, partition), &batch, answer?)?
                        }
                        Some(answer) => drop(answer?),
                    }
                }
                Flight::Fetch { partition, mut call } => match self.world.answer(&mut call) {
                    None => waiting.push(Flight::Fetch { partition, call }),
                    Some(answer) => drop(self.fetched(partition, answer?)?),
                },
                Flight::Commit { partition, offset, mut call } => {
                    match self.world.answer(&mut call) {
                        None => waiting.push(Flight::Commit { partition, offset, call }),
                        Some(stored) => self.committed(partition, offset, stored?),
                    }
                }
            }
        }
        waiting.append(&mut self.flights);
        self.flights = waiting;
        Ok(())
    }

    fn committed(&mut self, partition: usize, offset: u64, stored: bool) {
        if stored {
            self.model.commit_confirmed(partition, offset);
        }
    }

    /// Sends what has no answer again; nothing is in the way now.
    fn send_rest(&mut self, producer: usize, partition: usize) -> Result<(), Broken> {
        for batch in std::mem::take(&mut self.lanes[producer][partition].unanswered) {
            let call = self.send(producer, partition, &batch);
            let answer = self.world.call("produce again", call)?.map_err(|e| e.to_string())?;
            if let Err(error) = &answer {
                return Err(format!("refused: {batch:?} of {producer} again: {error}"));
            }
            self.produced((producer, partition), &batch, answer)?;
        }
        Ok(())
    }

    fn produced(
        &mut self,
        (producer, partition): (usize, usize),
        batch: &Batch,
        answer: Produced,
    ) -> Result<(), Broken> {
        let lane = &mut self.lanes[producer][partition];
        let Ok(Some(receipt)) = answer else {
            lane.again = true;
            return Ok(());
        };
        lane.unanswered.retain(|one| one.first != batch.first);
        let (base, end) = (receipt.base_offset.0, receipt.end_offset.0);
        if end - base != u64::from(batch.records) {
            return Err(format!("wrong-receipt: {base}..{end} for {} records", batch.records));
        }
        if receipt.reached != Durability::Fsync {
            return Err(format!("wrong-level: {base}..{end} reached {:?} only", receipt.reached));
        }
        for index in 0..batch.records {
            let name: Name = (producer, batch.first + u32::from(index));
            self.model.placed(partition, base + u64::from(index), name)?;
        }
        self.model.acked_count += u64::from(batch.records);
        Ok(())
    }

    /// Notes what was read; where to read on.
    fn fetched(
        &mut self,
        partition: usize,
        answer: Result<Answer, FetchError>,
    ) -> Result<Option<u64>, Broken> {
        // What is refused while the machine fails is not held against it here; the end of the run is.
        let Ok(answer) = answer else { return Ok(None) };
        let mut next = None;
        for fetched in answer.partitions {
            let Ok(records) = fetched.records else { return Ok(None) };
            for one in &records.records {
                let bytes = one.record.value.as_deref().unwrap_or_default();
                self.model.read(partition, one.offset.0, bytes)?;
                next = Some(one.offset.0 + 1);
            }
        }
        if let Some(next) = next {
            self.positions[partition] = next;
        }
        Ok(next)
    }

    /// Ends the machine, starts it, and looks whether everything is there.
    pub(super) fn restart(&mut self, end: End, again: Option<u8>) -> Result<(), Broken> {
        self.flights.clear();
        self.lanes.iter_mut().flatten().for_each(|lane| lane.again = true);
        self.world.restart(end, again)?;
        self.look()
    }

    /// Reads everything that there is.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        for partition in 0..PARTITIONS {
            let mut end = 0;
            loop {
                let services = self.world.services();
                let wanted = request(partition, end);
                let call = async move {
                    services
                        .fetch
                        .fetch(wanted, &Room::common(services.fetch.reading().clone()))
                        .await
                };
                let answer = self.world.call("fetch", call)?;
                if let Ok(answer) = &answer
                    && let Some(Err(error)) = answer.partitions.first().map(|one| &one.records)
                {
                    return Err(format!("unreadable: {partition}@{end}: {error}"));
                }
                match self.fetched(partition, answer)? {
                    Some(next) => end = next,
                    None => break,
                }
            }
            self.model.all_read(partition, end)?;
            self.positions[partition] = self.model.end(partition);
            let services = self.world.services();
            let number = u32::try_from(partition).unwrap_or(0);
            let call = async move {
                services.groups.offsets(GROUP, vec![(TOPIC.into(), number)], None).await
            };
            // Without the group nothing was ever stored.
            let found = self.world.call("offsets", call)?.unwrap_or_default();
            let found = found.first().map(|one| one.stored.clone());
            let stored = found.transpose().map_err(|error| format!("unreadable: {error}"))?;
            self.model.stored(partition, stored.flatten().map(|stored| stored.offset.0))?;
        }
        Ok(())
    }

    /// Ends the machine a last time, has everything sent that has no answer, and looks.
    fn finish(mut self) -> Result<Model, Broken> {
        let last = end(&mut self.random);
        self.restart(last, None)?;
        self.finish_sending()
    }

    /// Looks at everything, has everything sent that has no answer, and looks again.
    pub(super) fn finish_reading(mut self) -> Result<Model, Broken> {
        self.look()?;
        self.finish_sending()
    }

    fn finish_sending(mut self) -> Result<Model, Broken> {
        for producer in 0..PRODUCERS {
            for partition in 0..PARTITIONS {
                self.send_rest(producer, partition)?;
            }
        }
        self.look()?;
        self.model.note(self.world.disk.step_count());
        Ok(self.model)
    }
}

/// Makes the topic; the outer error is one of the machine.
pub(super) fn create_topic(world: &mut World) -> Result<Result<(), TopicError>, Broken> {
    let services = world.services();
    let given = v1::TopicConfig {
        segment_bytes: Some(1 << 20),
        message_bytes_max: Some(900 << 10),
        ..v1::TopicConfig::default()
    };
    let partition_count = u32::try_from(PARTITIONS).unwrap_or(1);
    let new = NewTopic { name: TOPIC.into(), partition_count, given, validate_only: false };
    world.call("create", async move { services.admin.create_topic(new).await.map(drop) })
}

/// Removes it.
pub(super) fn delete_topic(world: &mut World) -> Result<Result<(), TopicError>, Broken> {
    let services = world.services();
    let call = async move { services.admin.delete_topic(TOPIC.into(), Vec::new()).await };
    world.call("delete", call)
}

fn encoded(
    identity: ProducerIdentity,
    (producer, partition): (usize, usize),
    batch: &Batch,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let sequence = i32::try_from(batch.first).unwrap_or(0);
    builder.set_producer(identity.id, identity.epoch, sequence);
    for index in 0..batch.records {
        let name = (producer, batch.first + u32::from(index));
        let value = value(partition, name, batch.bytes / u32::from(batch.records));
        builder.push_parts(1, None, Some(&value), &[]).expect("a small record");
    }
    builder.build().expect("a batch with records").into_bytes()
}

fn request(partition: usize, offset: u64) -> FetchRequest {
    let part = FetchPartition {
        topic: TOPIC.into(),
        topic_id: Bytes::new(),
        partition: u32::try_from(partition).unwrap_or(0),
        offset,
        bytes_max: 0,
        leader_epoch: None,
    };
    FetchRequest {
        partitions: vec![part],
        wait: std::time::Duration::ZERO,
        bytes_min: 1,
        bytes_max: 0,
        records_max: 0,
        format: Format::Structured,
        member: None,
    }
}

fn outsider() -> GroupCaller {
    GroupCaller { group: GROUP.into(), member_id: String::new(), member_epoch: EPOCH_OUTSIDER }
}
