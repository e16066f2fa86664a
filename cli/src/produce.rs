//! `riverrun produce`: every line of a file or of standard input becomes a record.
//!
//! A thread reads and splits, the client batches and sends; between them stands a short queue, so memory
//! is bounded by the client's buffer and a few chunks. Lines are taken as bytes: no decoding, no
//! trimming. It ends well only when every record was acknowledged.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use clap::ValueEnum;
use riverrun_client::{Acks, Client, Compression, Error, ErrorCode, Producer, Record};
use tokio::sync::mpsc;

use crate::{
    args::Server,
    clock,
    connect::{connect, report_refusal, report_state},
    escape,
    failure::{Class, Failure, Stop},
    lines::{Chunk, LineError, LineReader, split_key},
    progress::Progress,
    signals::interrupted,
    time, units,
};

/// Chunks read ahead of the client.
const CHUNKS_AHEAD: usize = 4;

/// A batch with this many bytes is full: large, since a whole file is at hand.
const BATCH_BYTES: usize = 1 << 20;
/// Most bytes sent and not acknowledged.
const BUFFER_BYTES: usize = 64 << 20;

/// What `produce` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ProduceArgs {
    /// Topic to write to
    topic: String,
    /// File with one record per line; standard input when left out or `-`
    file: Option<PathBuf>,
    /// Text between key and value of a line, for instance ':' or '\t'; a line without it has no key
    #[arg(long, short, value_name = "TEXT", value_parser = parse_separator)]
    key_separator: Option<Separator>,
    /// Withhold the records from push subscriptions until this time; readers that pull see them at once
    #[arg(long, value_name = "TIME", conflicts_with = "deliver_after")]
    #[arg(value_parser = time::parse_moment)]
    deliver_at: Option<SystemTime>,
    /// Withhold the records from push subscriptions for this long, each from when it is read
    #[arg(long, value_name = "DURATION", value_parser = units::parse_millis)]
    deliver_after: Option<u64>,
    /// Partition to write to; by key, or in turns without keys, when left out
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// When a record counts as written
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// Compression of the batches
    #[arg(long, value_enum, default_value = "none")]
    compression: CompressionArg,
    /// No progress and no summary
    #[arg(long, short)]
    quiet: bool,
}

/// `--acks`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AcksArg {
    /// As soon as the broker took it; it can still be lost
    None,
    /// In the broker's page cache
    Leader,
    /// At the topic's durability
    All,
}

/// `--compression`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<AcksArg> for Acks {
    fn from(arg: AcksArg) -> Acks {
        match arg {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        }
    }
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Compression {
        match arg {
            CompressionArg::None => Compression::None,
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Snappy => Compression::Snappy,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

/// Bytes between key and value; never empty.
#[derive(Clone, Debug)]
struct Separator(Vec<u8>);

fn parse_separator(text: &str) -> Result<Separator, String> {
    let bytes = escape::bytes(text)?;
    if bytes.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Separator(bytes)) }
}

/// What was written.
#[derive(Debug, Default)]
struct Totals {
    record_count: u64,
    byte_count: u64,
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, args: ProduceArgs) -> Result<(), Stop> {
    let input = open(&args)?;
    let client = connect(server).await?;
    let topic = client
        .admin()
        .topic(&args.topic)
        .await
        .map_err(|error| unknown_topic(&args.topic, error))?;
    let producer = build(&client, &args).await?;
    let reporters = (report_state(&client), report_refusal(&producer));
    let line_bytes_max = topic.config.message_bytes_max.map_or(usize::MAX, |max| max as usize);
    let progress = Progress::start(input.size_bytes, args.quiet || input.is_terminal);
    let started = clock::instant();
    let mut chunks = read_ahead(LineReader::new(input.source, line_bytes_max));
    let mut totals = Totals::default();
    let sent = tokio::select! {
        sent = send_all(&producer, &args, &mut chunks, (&mut totals, &progress)) => sent,
        () = interrupted() => Ok(()),
    };
    // What was taken before an error is still written out; whoever asks to end now does not wait for it.
    let flushed = tokio::select! {
        flushed = producer.flush() => flushed.map_err(|error| not_acknowledged(&totals, error.into())),
        () = interrupted() => Err(not_acknowledged(&totals, Failure::other("interrupted"))),
    };
    progress.finish();
    drop(reporters);
    sent?;
    flushed?;
    if !args.quiet {
        report(&totals, started.elapsed(), &topic.topic);
    }
    Ok(())
}

async fn build(client: &Client, args: &ProduceArgs) -> Result<Producer, Failure> {
    let (acks, compression) = (args.acks.into(), args.compression.into());
    let builder = client.producer(&args.topic).acks(acks).compression(compression);
    let producer = builder.batch_bytes(BATCH_BYTES).buffer_bytes(BUFFER_BYTES).build().await;
    producer.map_err(|error| unknown_topic(&args.topic, error))
}

fn unknown_topic(topic: &str, error: Error) -> Failure {
    if error.code() != ErrorCode::UnknownTopicOrPartition {
        return error.into();
    }
    Failure::new(Class::Refused, format!("{error}; create it with `riverrun topic create {topic}`"))
}

fn not_acknowledged(totals: &Totals, failure: Failure) -> Failure {
    let count = units::count(totals.record_count);
    Failure::new(
        failure.class,
        format!("of {count} records sent some were not acknowledged: {failure}"),
    )
}

/// Where lines come from.
struct Input {
    source: Box<dyn Read + Send>,
    /// Size of a regular file.
    size_bytes: Option<u64>,
    is_terminal: bool,
}

#[expect(clippy::disallowed_methods, reason = "reads the file the user names")]
fn open(args: &ProduceArgs) -> Result<Input, Failure> {
    let Some(path) = args.file.as_ref().filter(|path| path.as_os_str() != "-") else {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        return Ok(Input { source: Box::new(stdin), size_bytes: None, is_terminal });
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::other(format!("cannot read `{}`: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if metadata.is_dir() {
        return Err(failed(&"it is a directory"));
    }
    let size_bytes = metadata.is_file().then_some(metadata.len());
    Ok(Input { source: Box::new(file), size_bytes, is_terminal: false })
}

/// Reads on a thread of its own, a few chunks ahead.
fn read_ahead<R: Read + Send + 'static>(
    mut reader: LineReader<R>,
) -> mpsc::Receiver<Result<Chunk, LineError>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    // The thread ends with the source, or when nobody takes chunks any more.
    std::thread::spawn(move || {
        while let Some(chunk) = reader.next_chunk().transpose() {
            if sender.blocking_send(chunk).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn send_all(
    producer: &Producer,
    args: &ProduceArgs,
    chunks: &mut mpsc::Receiver<Result<Chunk, LineError>>,
    (totals, progress): (&mut Totals, &Progress),
) -> Result<(), Failure> {
    while let Some(chunk) = chunks.recv().await {
        let chunk = chunk.map_err(|error| refused_line(&error))?;
        // One look at the clock per chunk: its lines were read together.
        let now = clock::now();
        let before = totals.byte_count;
        for line in chunk.lines() {
            let bytes = line.len() as u64 + 1;
            let sent = producer.post(record(args, line, now).timestamp(now)).await;
            sent.map_err(|error| at_line(totals.record_count + 1, error))?;
            totals.record_count += 1;
            totals.byte_count += bytes;
        }
        totals.byte_count = before + chunk.byte_count();
        progress.advance(chunk.byte_count());
    }
    Ok(())
}

fn record(args: &ProduceArgs, line: Bytes, now: SystemTime) -> Record {
    let (key, value) = match &args.key_separator {
        Some(Separator(separator)) => split_key(&line, separator),
        None => (None, line),
    };
    let mut record = Record::new(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    if let Some(time) = args.deliver_at {
        record = record.deliver_at(time);
    }
    if let Some(ms) = args.deliver_after {
        record = record.deliver_at(now + Duration::from_millis(ms));
    }
    match args.partition {
        Some(partition) => record.partition(partition),
        None => record,
    }
}

fn refused_line(error: &LineError) -> Failure {
    match error {
        LineError::Io(error) => Failure::other(format!("cannot read the input: {error}")),
        LineError::TooLong { .. } => {
            let advice = "the topic's `message_bytes_max`; raise it with `riverrun topic alter`";
            Failure::new(Class::Refused, format!("{error}, {advice}"))
        }
    }
}

fn at_line(number: u64, error: Error) -> Failure {
    let failure = Failure::from(error);
    Failure::new(failure.class, format!("line {number}: {failure}"))
}

fn report(totals: &Totals, elapsed: Duration, topic: &str) {
    eprintln!(
        "wrote {} ({}) to `{topic}` in {:.2} s, {}",
        units::records(totals.record_count),
        units::bytes(totals.byte_count),
        elapsed.as_secs_f64(),
        units::rate(totals.byte_count, elapsed),
    );
}
