//! The stack of gRPC that the broker stands on, with nothing behind it: the `Produce` and `Fetch` services of `riverrun.v1`, which throw
//! batches away and make them out of nothing. Frames, windows and threads as in the broker and the client.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use riverrun_proto::grpc::v1::{
    self,
    append_request::Payload,
    fetch_client::FetchClient,
    fetch_server::{Fetch, FetchServer},
    produce_client::ProduceClient,
    produce_server::{Produce, ProduceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

use crate::{
    drive::{Figures, Meter},
    error::{Error, Result},
};

/// Largest frame, as in the broker and the client.
const FRAME_BYTES: u32 = 1 << 20;
/// Bytes in flight of a stream.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes in flight of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest message.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Batches sent before an answer to the first is needed.
const IN_FLIGHT_BYTES: usize = 32 << 20;
/// Calls in flight when reading.
const READS_IN_FLIGHT: usize = 4;
/// Answers sent together at most.
const ANSWERS: usize = 64;

pub(super) async fn measure(address: &str, far: &[u32], quick: bool) -> Result<Figures> {
    let total: usize = if quick { 64 << 20 } else { 4 << 30 };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(Error::peer)?;
    let endpoint = endpoint
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(Error::peer)?;
    let mut figures = Figures::new();
    let mut note = |name: &str, meter: &Meter<'_>| {
        let (span, gigabytes) = (meter.stop(), total as f64 / 1e9);
        figures.insert(format!("{name}_mb_per_second"), gigabytes * 1e3 / span.wall);
        figures.insert(format!("{name}_client_cpu_seconds_per_gb"), span.client / gigabytes);
        figures.insert(format!("{name}_server_cpu_seconds_per_gb"), span.server / gigabytes);
    };
    for (name, bytes) in [("produce_64k", 64 << 10), ("produce_1m", 1 << 20)] {
        let client = ProduceClient::new(channel.clone());
        let meter = Meter::start(far);
        write(client, total, bytes).await?;
        note(name, &meter);
    }
    let client = FetchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let meter = Meter::start(far);
    read(client, total, 1 << 20).await?;
    note("fetch_1m", &meter);
    Ok(figures)
}

/// Sends batches through one pipeline and waits for the answer to each.
async fn write(
    mut client: ProduceClient<tonic::transport::Channel>,
    total: usize,
    bytes: usize,
) -> Result<()> {
    let count = total / bytes;
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT_BYTES / bytes));
    let batch = Bytes::from(vec![0x5a; bytes]);
    let spent = room.clone();
    let requests = stream::iter(0..count as u64).then(move |request_id| {
        let (batch, spent) = (batch.clone(), spent.clone());
        async move {
            // Given back by the answers.
            if let Ok(permit) = spent.acquire().await {
                permit.forget();
            }
            v1::AppendRequest {
                request_id,
                topic: "blackhole".into(),
                payload: Some(Payload::Batch(batch)),
                ..v1::AppendRequest::default()
            }
        }
    });
    let mut answers = client.append_pipeline(requests).await.map_err(Error::peer)?.into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.map_err(Error::peer)? {
        answered += answer.responses.len();
        room.add_permits(answer.responses.len());
    }
    if answered == count {
        Ok(())
    } else {
        Err(Error::Wrong(format!("the blackhole answered {answered} of {count} batches")))
    }
}

/// Fetches batches, some calls at a time.
async fn read(
    client: FetchClient<tonic::transport::Channel>,
    total: usize,
    bytes: usize,
) -> Result<()> {
    let max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let calls = stream::iter(0..total / bytes).map(|_| {
        let mut client = client.clone();
        async move {
            let request = v1::FetchRequest { max_bytes, ..v1::FetchRequest::default() };
            client.fetch(request).await.map(|reply| {
                let partitions = reply.into_inner().partitions;
                partitions.iter().map(|partition| partition.batches.len()).sum::<usize>()
            })
        }
    });
    let mut replies = calls.buffered(READS_IN_FLIGHT);
    let mut got = 0;
    while let Some(reply) = replies.next().await {
        got += reply.map_err(Error::peer)?;
    }
    if got == total {
        Ok(())
    } else {
        Err(Error::Wrong(format!("the blackhole gave {got} of {total} bytes")))
    }
}

/// The far end.
pub(super) async fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    let accepted = TcpListenerStream::new(listener).map(|socket| {
        let socket = socket?;
        socket.set_nodelay(true)?;
        Ok::<_, std::io::Error>(socket)
    });
    let source = Bytes::from(vec![0x5a; MESSAGE_BYTES_MAX / 2]);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(
            ProduceServer::new(Blackhole(source.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(FetchServer::new(Blackhole(source)))
        .serve_with_incoming(accepted)
        .await
        .map_err(Error::peer)
}

/// Keeps nothing; what it gives is a slice of these bytes.
struct Blackhole(Bytes);

type Answers<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

fn unused<T>() -> std::result::Result<T, Status> {
    Err(Status::unimplemented("a blackhole"))
}

#[tonic::async_trait]
impl Produce for Blackhole {
    type AppendPipelineStream = Answers<v1::AppendPipelineResponse>;

    async fn init_producer(
        &self,
        _: Request<v1::InitProducerRequest>,
    ) -> std::result::Result<Response<v1::InitProducerResponse>, Status> {
        unused()
    }

    async fn append(
        &self,
        _: Request<v1::AppendRequest>,
    ) -> std::result::Result<Response<v1::AppendResponse>, Status> {
        unused()
    }

    async fn append_bulk(
        &self,
        _: Request<Streaming<v1::AppendRequest>>,
    ) -> std::result::Result<Response<v1::AppendBulkResponse>, Status> {
        unused()
    }

    async fn append_pipeline(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> std::result::Result<Response<Self::AppendPipelineStream>, Status> {
        let answers = request.into_inner().ready_chunks(ANSWERS).map(|requests| {
            let answer = |request: std::result::Result<v1::AppendRequest, Status>| {
                request.map(|request| v1::AppendResponse {
                    request_id: request.request_id,
                    ..v1::AppendResponse::default()
                })
            };
            let responses = requests.into_iter().map(answer).collect::<std::result::Result<_, _>>();
            responses.map(|responses| v1::AppendPipelineResponse { responses })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Fetch for Blackhole {
    type FetchPipelineStream = Answers<v1::FetchResponse>;
    type WatchStream = Answers<v1::WatchResponse>;

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> std::result::Result<Response<v1::FetchResponse>, Status> {
        let bytes = usize::try_from(request.get_ref().max_bytes).unwrap_or(usize::MAX);
        let batches = self.0.slice(..bytes.min(self.0.len()));
        let partition = v1::FetchedPartition { batches, ..v1::FetchedPartition::default() };
        Ok(Response::new(v1::FetchResponse { partitions: vec![partition] }))
    }

    async fn fetch_pipeline(
        &self,
        _: Request<Streaming<v1::FetchPipelineRequest>>,
    ) -> std::result::Result<Response<Self::FetchPipelineStream>, Status> {
        unused()
    }

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> std::result::Result<Response<Self::WatchStream>, Status> {
        unused()
    }

    async fn lookup_offsets(
        &self,
        _: Request<v1::LookupOffsetsRequest>,
    ) -> std::result::Result<Response<v1::LookupOffsetsResponse>, Status> {
        unused()
    }
}
