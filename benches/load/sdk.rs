//! Workload `sdk`: records per second in and out through the client, one partition.

use bytes::Bytes;
use riverrun_client::{Client, Durability, Record, TopicSpec};
use riverrun_proto::{
    RecordBatch,
    batch::DecodeError,
    grpc::v1::{FetchPartition, FetchRequest, fetch_client::FetchClient},
    limits::INFLATED_BYTES_MAX,
};
use tonic::transport::Endpoint;

use crate::{
    broker::Setup,
    clock,
    error::{Error, Result},
    process,
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are measured
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Keep the log in the page cache only, in place of the default durability
    #[arg(long)]
    os: bool,
}

impl Default for Args {
    fn default() -> Args {
        Args { records: 2_000_000, bytes: 1024, os: false }
    }
}

/// Topic of the workload.
const TOPIC: &str = "sdk";
/// Records sent before those that count: connections, buffers and the first segment are then in place.
const WARM_UP: u64 = 100_000;

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("sdk").await?;
    let client = broker.client().await?;
    let durability = if args.os { Durability::Os } else { Durability::Fsync };
    client.admin().create_topic(TopicSpec::new(TOPIC).durability(durability)).await?;

    progress(&format!("sdk: {} records of {} bytes in", args.records, args.bytes));
    let busy_before = process::processor_seconds(broker.pid())?;
    let in_seconds = send(&client, args).await?;
    let busy_in = process::processor_seconds(broker.pid())? - busy_before;
    progress("sdk: and out");
    let busy_before = process::processor_seconds(broker.pid())?;
    let out_seconds = receive(&broker.address, args).await?;
    let busy_out = process::processor_seconds(broker.pid())? - busy_before;
    let memory = process::memory(broker.pid())?;
    broker.stop()?;

    let per_second = |seconds: f64| args.records as f64 / seconds;
    let megabytes = |seconds: f64| (args.records * args.bytes as u64) as f64 / 1e6 / seconds;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let level = format!("{durability:?}").to_lowercase();
    Ok(vec![
        Measurement::new(format!("in, {level}"), per_second(in_seconds), "records/s")
            .target(Target::AtLeast(800_000.0)),
        Measurement::new(format!("in, {level}"), megabytes(in_seconds), "MB/s"),
        Measurement::new("in: broker's cores", busy_in / in_seconds, "cores"),
        Measurement::new("out", per_second(out_seconds), "records/s")
            .target(Target::AtLeast(1_500_000.0)),
        Measurement::new("out", megabytes(out_seconds), "MB/s"),
        Measurement::new("out: broker's cores", busy_out / out_seconds, "cores"),
        Measurement::new("broker heap after it", mib(memory.anonymous), "MiB"),
    ])
}

/// Sends the records. Gives the time from the first to the acknowledgement of the last, in seconds.
async fn send(client: &Client, args: &Args) -> Result<f64> {
    let producer = client.producer(TOPIC).build().await?;
    let value = Bytes::from(vec![0x5a; args.bytes]);
    for _ in 0..WARM_UP {
        producer.post(Record::new(value.clone())).await?;
    }
    producer.flush().await?;
    let start = clock::now();
    for _ in 0..args.records {
        producer.post(Record::new(value.clone())).await?;
    }
    producer.flush().await?;
    let seconds = clock::seconds_since(start);
    producer.close().await?;
    Ok(seconds)
}

/// Reads the records back and looks at each. Gives the time in seconds.
async fn receive(address: &str, args: &Args) -> Result<f64> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let endpoint =
        endpoint.initial_stream_window_size(8 << 20).initial_connection_window_size(16 << 20);
    let mut fetch = FetchClient::new(endpoint.connect().await?).max_decoding_message_size(64 << 20);
    let end = WARM_UP + args.records;
    let (mut offset, mut bytes) = (WARM_UP, 0);
    let start = clock::now();
    while offset < end {
        let from = FetchPartition {
            topic: TOPIC.into(),
            offset,
            max_bytes: 4 << 20,
            ..FetchPartition::default()
        };
        let request =
            FetchRequest { partitions: vec![from], max_wait_ms: 1000, ..FetchRequest::default() };
        let reply = fetch.fetch(request).await?.into_inner();
        let Some(partition) = reply.partitions.into_iter().next() else { continue };
        if let Some(error) = partition.error {
            return Err(Error::Wrong(format!("fetch: {}", error.message)));
        }
        bytes +=
            look_at(&partition.batches, offset).map_err(|error| Error::Wrong(error.to_string()))?;
        offset = partition.next_offset;
    }
    let seconds = clock::seconds_since(start);
    let wanted = args.records * args.bytes as u64;
    if bytes == wanted {
        Ok(seconds)
    } else {
        Err(Error::Wrong(format!("{bytes} bytes came back, not {wanted}")))
    }
}

/// Bytes of the values from `offset` on.
fn look_at(batches: &Bytes, offset: u64) -> std::result::Result<u64, DecodeError> {
    let mut bytes = 0;
    for batch in RecordBatch::split(batches) {
        for record in batch?.records(INFLATED_BYTES_MAX)? {
            let record = record?;
            if record.offset.0 >= offset {
                bytes += record.record.value.map_or(0, |value| value.len() as u64);
            }
        }
    }
    Ok(bytes)
}
