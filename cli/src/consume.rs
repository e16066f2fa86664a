//! `riverrun consume`: records to standard output, from a position or as a member of a group.
//!
//! Records are formatted from the fetched buffers into one output buffer; what is full or idle is written
//! out. As a member, offsets are stored only for what was written out: idle, once a second under
//! load, and at the end.

use std::{
    collections::HashMap,
    io::IsTerminal,
    time::{Duration, Instant, UNIX_EPOCH},
};

use futures_util::FutureExt;
use riverrun_client::{
    Admin, Batch, Client, Consumer, ConsumerBuilder, Error, ErrorCode, Offset, OffsetAt,
    OffsetToCommit, Seek, Start, TopicPartition,
};

use crate::{
    clock,
    connect::{connect, report_state},
    failure::{Class, Failure, Stop},
    output::{Output, OutputArgs},
    position::Position,
    printer::{Form, Printer},
    signals::interrupted,
    template::{LETTERS, Row, Template},
    units,
};

/// Offsets are stored this often while records keep coming.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// With `--no-follow`: how often it is looked whether the end is reached.
const END_INTERVAL: Duration = Duration::from_millis(20);
/// With `--no-follow`: silence after which a member without partitions asks whether it will get any.
const EMPTY_INTERVAL: Duration = Duration::from_secs(1);

/// What `consume` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    topic: String,
    /// Read as a member of this group: go on at its stored offsets, share the partitions, store progress
    #[arg(long, short)]
    group: Option<String>,
    /// Read only this partition
    #[arg(long, short, value_name = "N", conflicts_with = "group")]
    partition: Option<u32>,
    /// Where to begin: earliest, latest, offset:N or time:T; with a group, where it has no stored offset
    #[arg(long, value_name = "POSITION", default_value = "earliest")]
    from: Position,
    /// End after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// End at the end the topic has now, instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// How a record is written
    #[arg(long, short, value_name = "FORMAT", default_value = "%v\\n")]
    #[arg(value_parser = Template::parse, help = format!("How a record is written: {LETTERS}"))]
    format: Template,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &str, args: ConsumeArgs) -> Result<(), Stop> {
    if args.group.is_some() && matches!(args.from, Position::Offset(_)) {
        let advice = "move the group with `riverrun group reset --to-offset`";
        return Err(
            Failure::usage(format!("`--from offset:N` is not for a group; {advice}")).into()
        );
    }
    let client = connect(server).await?;
    let mut reader = Reader::start(&client, args).await?;
    let reporter = report_state(&client);
    let read = tokio::select! {
        read = reader.read() => read,
        () = interrupted() => Ok(()),
    };
    // What was written out before an error is still stored as read.
    let ended = match read {
        Ok(()) => reader.settle().await,
        Err(stop) => Err(stop),
    };
    drop(reporter);
    reader.close().await;
    ended
}

/// Reads, writes out, stores offsets.
struct Reader {
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
    committed_at: Instant,
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
    async fn start(client: &Client, args: ConsumeArgs) -> Result<Reader, Stop> {
        let admin = client.admin();
        let partitions = partitions(&admin, &args).await?;
        let ends = if args.no_follow { Some(ends(&admin, &partitions).await?) } else { None };
        let mut consumer = builder(client, &args, &partitions).build().await?;
        if let Position::Offset(offset) = args.from {
            for partition in &partitions {
                check_end(offset, partition, ends.as_ref())?;
                consumer.seek(partition, Seek::Offset(Offset(offset))).await?;
            }
        }
        let form = match args.output.output {
            Output::Table => Form::Template(args.format),
            Output::Json => Form::Json,
        };
        let started = clock::instant();
        Ok(Reader {
            admin,
            consumer,
            printer: Printer::stdout(form)?,
            group: args.group,
            ends,
            left: args.max.unwrap_or(u64::MAX),
            pending: HashMap::new(),
            committed_at: started,
            totals: Totals { started, record_count: 0, byte_count: 0 },
        })
    }

    /// Until the end, an error, or for ever.
    async fn read(&mut self) -> Result<(), Stop> {
        while self.left > 0 {
            let batch = match self.consumer.next_batch().now_or_never() {
                Some(batch) => Some(batch?),
                None => {
                    // Nothing at hand: what was read is written out now.
                    self.settle().await?;
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
                self.settle().await?;
            }
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<Waited, Stop> {
        if self.ends.is_none() {
            return Ok(Waited::Batch(self.consumer.next_batch().await?));
        }
        if self.is_at_end().await? {
            return Ok(Waited::End);
        }
        Ok(self.consumer.poll(END_INTERVAL).await?.map_or(Waited::Nothing, Waited::Batch))
    }

    /// Whether everything this reader has to read was read.
    async fn is_at_end(&mut self) -> Result<bool, Stop> {
        let Some(ends) = &self.ends else { return Ok(false) };
        let assignment = self.consumer.assignment();
        if assignment.is_empty() {
            return self.gets_nothing().await;
        }
        let is_read = |partition: &TopicPartition| {
            let end = ends.get(partition).copied().unwrap_or_default();
            self.consumer.position(partition).is_some_and(|position| position >= end)
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
            if self.printer.push(&Row { topic, partition, record }) {
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
    async fn settle(&mut self) -> Result<(), Stop> {
        tokio::task::block_in_place(|| self.printer.flush())?;
        self.committed_at = clock::instant();
        if self.pending.is_empty() {
            return Ok(());
        }
        let offsets: Vec<OffsetToCommit> =
            std::mem::take(&mut self.pending).into_values().collect();
        match self.consumer.commit_offsets(&offsets).await {
            Err(error) if was_taken_away(&error) => {
                eprintln!(
                    "riverrun: some offsets were not stored: {error}; their records come again"
                );
                Ok(())
            }
            stored => Ok(stored?),
        }
    }

    async fn close(self) {
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

/// The partitions to read, or, for a group, to share.
async fn partitions(admin: &Admin, args: &ConsumeArgs) -> Result<Vec<TopicPartition>, Stop> {
    let topic = admin.topic(&args.topic).await?;
    let all = topic.partitions.iter().map(|partition| partition.partition.0);
    let wanted = |number: &u32| args.partition.is_none_or(|only| only == *number);
    let partitions: Vec<TopicPartition> =
        all.filter(wanted).map(|number| TopicPartition::new(args.topic.as_str(), number)).collect();
    if partitions.is_empty() {
        let (name, count) = (&args.topic, topic.partitions.len());
        let number = args.partition.unwrap_or_default();
        let message = format!("topic `{name}` has no partition {number}; it has {count}, from 0");
        return Err(Failure::new(Class::Refused, message).into());
    }
    Ok(partitions)
}

/// Where each partition ends now.
async fn ends(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, Offset>, Stop> {
    let found = admin.lookup_offsets(partitions, OffsetAt::Latest).await?;
    let mut ends = HashMap::with_capacity(found.len());
    for (partition, end) in found {
        ends.insert(partition, end?);
    }
    Ok(ends)
}

/// Refuses to begin behind the end: waiting for records there is not what `--no-follow` means.
fn check_end(
    offset: u64,
    partition: &TopicPartition,
    ends: Option<&HashMap<TopicPartition, Offset>>,
) -> Result<(), Failure> {
    match ends.and_then(|ends| ends.get(partition)) {
        Some(end) if offset > end.0 => {
            let message =
                format!("offset {offset} lies past the end of `{partition}`, which is {end}");
            Err(Failure::new(Class::Refused, message))
        }
        Some(_) | None => Ok(()),
    }
}

fn builder(client: &Client, args: &ConsumeArgs, partitions: &[TopicPartition]) -> ConsumerBuilder {
    let start = match args.from {
        Position::Earliest | Position::Offset(_) => Start::Earliest,
        Position::Latest => Start::Latest,
        Position::TimeMs(ms) => {
            let after = Duration::from_millis(ms.unsigned_abs());
            Start::Time(if ms < 0 { UNIX_EPOCH - after } else { UNIX_EPOCH + after })
        }
    };
    let builder = client.consumer(&args.topic).start_missing(start);
    // Large answers: a terminal or pipe is fed from them for a while.
    let builder = builder.max_bytes(16 << 20, 4 << 20).prefetch_bytes(16 << 20);
    match &args.group {
        Some(group) => builder.group(group),
        None => builder.assign(partitions.iter().cloned()),
    }
}
