//! Reads, writes out and stores offsets until the end.

use std::{
    collections::HashMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use riverrun_client::{
    Admin, Batch, Client, Consumer, Error, ErrorCode, Offset, OffsetToCommit, Seek, TopicPartition,
};

use super::{ConsumeArgs, builder, check_end, ends, partitions, trouble::Trouble};
use crate::{
    clock,
    connect::{Reporter, report_replaced},
    failure::{Class, Stop},
    output::Output,
    position::Position,
    printer::{Form, Printer},
    template::Row,
    units,
};

/// Offsets are stored this often while records keep coming.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// With `--no-follow`: how often it is looked whether the end is reached.
const END_INTERVAL: Duration = Duration::from_millis(20);
/// With `--no-follow`: silence after which a member without partitions asks whether it will get any.
const EMPTY_INTERVAL: Duration = Duration::from_secs(1);

/// Reads, writes out, stores offsets.
pub(super) struct Reader {
    admin: Admin,
    consumer: Consumer,
    printer: Printer,
    /// The group, when reading as a member.
    group: Option<String>,
    /// With `--no-follow`: where each partition ends.
    ends: Option<HashMap<TopicPartition, Offset>>,
    /// Records that may still be written.
    left: u64,
    /// Written into the buffer, and not stored yet.
    pending: HashMap<TopicPartition, OffsetToCommit>,
    /// The broker was away when offsets were to be stored; that was told of.
    behind: bool,
    committed_at: Instant,
    trouble: Trouble,
    _reporter: Reporter,
    totals: Totals,
}

/// What was read.
#[derive(Debug)]
struct Totals {
    started: Instant,
    record_count: u64,
    byte_count: u64,
}

impl Reader {
    pub(super) async fn start(client: &Client, args: ConsumeArgs) -> Result<Reader, Stop> {
        let admin = client.admin();
        let partitions = partitions(&admin, &args).await?;
        let mut trouble = Trouble::new(args.group.clone());
        let mut found = None;
        if args.no_follow {
            let mut known = HashMap::with_capacity(partitions.len());
            for (partition, end) in ends(&admin, &partitions).await? {
                match end {
                    Ok(end) => drop(known.insert(partition, end)),
                    Err(error) => trouble.note(&partition, error, true),
                }
            }
            found = Some(known);
        }
        let mut consumer = builder(client, &args, &partitions).build().await?;
        if let Position::Offset(offset) = args.from {
            for partition in &partitions {
                let end = found.as_ref().and_then(|ends| ends.get(partition)).copied();
                check_end(&admin, (partition, offset), end).await?;
                consumer.seek(partition, Seek::Offset(Offset(offset))).await?;
            }
        }
        let form = match args.output.output {
            Output::Table => Form::Template(args.format),
            Output::Json => Form::Json,
        };
        let reporter = report_replaced(&consumer);
        let started = clock::instant();
        Ok(Reader {
            admin,
            consumer,
            printer: Printer::stdout(form)?,
            group: args.group,
            ends: found,
            left: args.max.unwrap_or(u64::MAX),
            pending: HashMap::new(),
            behind: false,
            committed_at: started,
            trouble,
            _reporter: reporter,
            totals: Totals { started, record_count: 0, byte_count: 0 },
        })
    }

    /// Until the end, an error, or for ever.
    pub(super) async fn read(&mut self) -> Result<(), Stop> {
        while self.left > 0 {
            let batch = match self.consumer.next_batch().now_or_never() {
                Some(batch) => self.take(batch)?,
                None => {
                    // Nothing at hand: what was read is written out now.
                    self.settle_on_the_way().await?;
                    match self.wait().await? {
                        Waited::Batch(batch) => Some(batch),
                        Waited::Nothing => None,
                        Waited::End => return Ok(()),
                    }
                }
            };
            if let Some(batch) = batch {
                self.write(&batch)?;
            }
            if self.committed_at.elapsed() >= COMMIT_INTERVAL {
                self.settle_on_the_way().await?;
            }
        }
        Ok(())
    }

    /// Fails when a partition was not read to its end.
    pub(super) fn verdict(&self) -> Result<(), Stop> {
        Ok(self.trouble.verdict()?)
    }

    /// A batch, or the trouble of one partition, which does not end the others.
    fn take(&mut self, received: Result<Batch, Error>) -> Result<Option<Batch>, Error> {
        let error = match received {
            Ok(batch) => {
                self.trouble.healed(batch.partition());
                return Ok(Some(batch));
            }
            Err(error) => error,
        };
        let Some(partition) = error.partition().cloned() else { return Err(error) };
        let others = self
            .consumer
            .assignment()
            .iter()
            .any(|other| *other != partition && !self.trouble.has(other));
        self.trouble.note(
            &partition,
            error,
            others || (self.group.is_some() && self.ends.is_none()),
        );
        Ok(None)
    }

    async fn wait(&mut self) -> Result<Waited, Stop> {
        if self.is_at_end().await? {
            return Ok(Waited::End);
        }
        let received = match self.ends {
            // Offsets that could not be stored are tried again although nothing comes.
            None if self.behind => self.consumer.poll(COMMIT_INTERVAL).await.transpose(),
            None => Some(self.consumer.next_batch().await),
            Some(_) => self.consumer.poll(END_INTERVAL).await.transpose(),
        };
        match received {
            None => Ok(Waited::Nothing),
            Some(received) => Ok(self.take(received)?.map_or(Waited::Nothing, Waited::Batch)),
        }
    }

    /// Whether everything this reader has to read was read. Who follows alone is at the end only when no
    /// partition is left; a member may still be given others, or another offset.
    async fn is_at_end(&mut self) -> Result<bool, Stop> {
        let assignment = self.consumer.assignment();
        let Some(ends) = &self.ends else {
            return Ok(self.group.is_none() && self.trouble.has_all(&assignment));
        };
        if assignment.is_empty() {
            return self.gets_nothing().await;
        }
        let is_read = |partition: &TopicPartition| {
            let end = ends.get(partition).copied().unwrap_or_default();
            self.trouble.has(partition)
                || self.consumer.position(partition).is_some_and(|position| position >= end)
        };
        Ok(assignment.iter().all(is_read))
    }

    /// Whether this member of a settled group has no partitions, now and by plan.
    async fn gets_nothing(&mut self) -> Result<bool, Stop> {
        let Some(group) = self.group.clone() else { return Ok(true) };
        if self.totals.started.elapsed() < EMPTY_INTERVAL {
            return Ok(false);
        }
        let described = self.admin.describe_group(&group).await?;
        let id = self.consumer.member_id();
        let mut me = described.members.iter().filter(|member| member.member_id == id);
        Ok(me.next().is_some_and(|me| me.assignment.is_empty() && me.target.is_empty()))
    }

    /// Puts a batch into the buffer, as far as more records are wanted.
    fn write(&mut self, batch: &Batch) -> Result<(), Stop> {
        let topic = &*batch.partition().topic;
        let partition = batch.partition().partition.0;
        let mut next = batch.next_offset();
        for record in batch.views() {
            if self.left == 0 {
                next = record.offset;
                break;
            }
            self.left -= 1;
            self.totals.record_count += 1;
            self.totals.byte_count += record.value.map_or(0, <[u8]>::len) as u64;
            if self.printer.push(&Row::of_view(topic, partition, record)) {
                tokio::task::block_in_place(|| self.printer.flush())?;
            }
        }
        if self.group.is_some() {
            let partition = batch.partition().clone();
            let read = OffsetToCommit::new(partition.clone(), next).received_in(batch);
            self.pending.insert(partition, read);
        }
        Ok(())
    }

    /// Writes out what is buffered, then stores how far that came.
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        tokio::task::block_in_place(|| self.printer.flush())?;
        self.committed_at = clock::instant();
        if self.pending.is_empty() {
            return Ok(());
        }
        // Kept until they are stored: this may be cut short by the user, or fail while the broker is away.
        let offsets: Vec<OffsetToCommit> = self.pending.values().cloned().collect();
        match self.consumer.commit_offsets(&offsets).await {
            Err(error) if was_taken_away(&error) => eprintln!(
                "riverrun: some offsets were not stored: {error}; their records come again"
            ),
            stored => stored?,
        }
        self.pending.clear();
        self.behind = false;
        Ok(())
    }

    /// Settles; while the broker is away it tells so once and leaves the offsets for the next time.
    async fn settle_on_the_way(&mut self) -> Result<(), Stop> {
        match self.settle().await {
            Err(Stop::Failed(failure)) if failure.class == Class::Unreachable => {
                if !self.behind {
                    eprintln!("riverrun: offsets are not stored yet: {failure}; trying again");
                }
                self.behind = true;
                Ok(())
            }
            settled => settled,
        }
    }

    pub(super) async fn close(self) {
        // Leaving the group is a courtesy; a broker that is gone must not keep the user waiting.
        tokio::time::timeout(Duration::from_secs(5), self.consumer.close()).await.ok();
        if std::io::stderr().is_terminal() {
            self.totals.report();
        }
    }
}

/// What waiting brought.
enum Waited {
    Batch(Batch),
    Nothing,
    End,
}

/// A partition went to another member, or an operator moved its offset, while records of it were written.
fn was_taken_away(error: &Error) -> bool {
    error.is_fenced() || error.code() == ErrorCode::PartitionNotOwned
}

impl Totals {
    fn report(&self) {
        let elapsed = self.started.elapsed();
        eprintln!(
            "read {} ({}) in {:.2} s, {}",
            units::records(self.record_count),
            units::bytes(self.byte_count),
            elapsed.as_secs_f64(),
            units::rate(self.byte_count, elapsed),
        );
    }
}
