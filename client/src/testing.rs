//! A broker for tests: real sockets, logs in memory, faults on demand.
//!
//! It keeps the rules a producer relies on: sequence numbers with a memory of five batches, epochs that
//! fence, appends in the order sent. It has no groups; whole-house tests run the real broker. [`push`]
//! is its twin for subscribers.

#![expect(clippy::cast_possible_truncation, reason = "test logs are short")]

pub(crate) mod push;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use prost::Message as _;
use riverrun_proto::{
    RecordBatch,
    grpc::v1::{self, admin_server, produce_server},
    limits,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue, transport::Server};

use crate::backoff::Randomness;

/// Batches remembered per producer and partition.
const REMEMBERED: usize = 5;

/// What may go wrong with one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The stream breaks before the batch is written.
    BreakBefore,
    /// The stream breaks after the batch is written, so that the answer is lost.
    BreakAfter,
    /// The batch is not written and this is the answer.
    Refuse(v1::ErrorCode),
    /// The batch is written and this is the answer.
    WriteAndFail(v1::ErrorCode),
    /// Everything about producers is forgotten first.
    Forget,
}

/// Epoch and last batches of a producer: base sequence, count, base offset.
type Known = (i16, VecDeque<(i32, u32, u64)>);

/// The state of a [`FakeBroker`].
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Values of the records, by partition.
    pub(crate) logs: Vec<Vec<Bytes>>,
    /// Producers by partition and id.
    producers: HashMap<(u32, i64), Known>,
    epochs: HashMap<i64, i16>,
    /// Epochs of producers that were forgotten: whoever goes on in one is refused, never guessed at.
    forgotten: HashSet<(i64, i16)>,
    /// Faults to come, one per batch received; `None` is none.
    pub(crate) script: VecDeque<Option<Fault>>,
    /// Random faults, when set: one batch in this many.
    pub(crate) chaos: Option<(Randomness, u64, Vec<Fault>)>,
    /// Batches received.
    pub(crate) received: u64,
    /// Faults that struck.
    pub(crate) struck: u64,
    /// Largest batch asked to be taken; others are refused as too large.
    pub(crate) batch_bytes_max: Option<usize>,
    /// Answers are held back while this is set.
    pub(crate) stalled: bool,
    /// The answer to the next raise of an epoch is lost.
    pub(crate) loses_raise: bool,
}

/// A running fake.
pub(crate) struct FakeBroker {
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) address: SocketAddr,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Model>>);

impl FakeBroker {
    /// Starts a broker with one topic of `partitions` partitions.
    pub(crate) async fn start(partitions: usize) -> FakeBroker {
        let model = Model { logs: vec![Vec::new(); partitions], ..Model::default() };
        FakeBroker::serve("127.0.0.1:0".parse().unwrap(), Arc::new(Mutex::new(model))).await
    }

    async fn serve(address: SocketAddr, model: Arc<Mutex<Model>>) -> FakeBroker {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(model.clone());
        let server = Server::builder()
            .add_service(
                produce_server::ProduceServer::new(service.clone())
                    .max_decoding_message_size(usize::MAX),
            )
            .add_service(admin_server::AdminServer::new(service))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        FakeBroker { model, address, server }
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> crate::Client {
        crate::Client::builder().seed(1).connect(&self.address.to_string()).await.unwrap()
    }

    /// Stops listening. Connections that are open stay.
    pub(crate) fn stop(&self) {
        self.server.abort();
    }

    /// Listens again at the same address, with the same logs.
    pub(crate) async fn restart(self) -> FakeBroker {
        self.server.abort();
        let _aborted = self.server.await;
        FakeBroker::serve(self.address, self.model).await
    }
}

impl Model {
    fn fault(&mut self) -> Option<Fault> {
        if let Some(scripted) = self.script.pop_front() {
            return scripted;
        }
        let (randomness, one_in, faults) = self.chaos.as_mut()?;
        let hit = randomness.next().is_multiple_of(*one_in);
        hit.then(|| faults[(randomness.next() % faults.len() as u64) as usize])
    }

    /// Writes a batch; the answer, or `None` when the stream breaks.
    fn append(&mut self, request: &v1::AppendRequest) -> Option<v1::AppendResponse> {
        self.received += 1;
        let fault = self.fault();
        self.struck += u64::from(fault.is_some());
        let id = request.request_id;
        match fault {
            Some(Fault::BreakBefore) => return None,
            Some(Fault::Refuse(code)) => return Some(failed(id, code)),
            Some(Fault::Forget) => {
                self.producers.clear();
                self.forgotten.extend(self.epochs.iter().map(|(id, epoch)| (*id, *epoch)));
            }
            Some(Fault::BreakAfter | Fault::WriteAndFail(_)) | None => {}
        }
        let written = self.write(request);
        match (fault, written) {
            (Some(Fault::BreakAfter), _) => None,
            (Some(Fault::WriteAndFail(code)), Ok(_)) => Some(failed(id, code)),
            (_, Ok((base_offset, end_offset, duplicate))) => Some(v1::AppendResponse {
                request_id: id,
                base_offset,
                end_offset,
                reached: v1::Durability::Fsync.into(),
                duplicate,
                error: None,
            }),
            (_, Err(code)) => Some(failed(id, code)),
        }
    }

    fn write(&mut self, request: &v1::AppendRequest) -> Result<(u64, u64, bool), v1::ErrorCode> {
        let Some(v1::append_request::Payload::Batch(bytes)) = &request.payload else {
            return Err(v1::ErrorCode::InvalidArgument);
        };
        if self.batch_bytes_max.is_some_and(|max| bytes.len() > max) {
            return Err(v1::ErrorCode::RecordTooLarge);
        }
        let batch = RecordBatch::decode(bytes.clone()).map_err(|_| v1::ErrorCode::CorruptBatch)?;
        if let Some(base) = self.check_sequence(request.partition, &batch)? {
            return Ok((base, base + batch.span(), true));
        }
        let log = &mut self.logs[request.partition as usize];
        let base = log.len() as u64;
        for record in batch.records(limits::INFLATED_BYTES_MAX).unwrap() {
            log.push(record.unwrap().record.value.unwrap());
        }
        Ok((base, log.len() as u64, false))
    }

    /// The first offset of an earlier copy; an error for a gap, a stale epoch, an unknown producer.
    fn check_sequence(
        &mut self,
        partition: u32,
        batch: &RecordBatch,
    ) -> Result<Option<u64>, v1::ErrorCode> {
        let header = batch.header();
        if !header.is_idempotent() {
            return Ok(None);
        }
        let (id, epoch) = (header.producer_id.0, header.producer_epoch.0);
        let (sequence, count) = (header.base_sequence, header.record_count);
        if self.epochs.get(&id).is_some_and(|newest| epoch < *newest) {
            return Err(v1::ErrorCode::ProducerFenced);
        }
        let end = self.logs[partition as usize].len() as u64;
        let forgotten = self.forgotten.contains(&(id, epoch));
        let is_known = self.producers.contains_key(&(partition, id));
        if !is_known && (sequence != 0 || forgotten) {
            return Err(v1::ErrorCode::UnknownProducerId);
        }
        let known = self.producers.entry((partition, id)).or_insert((epoch, VecDeque::new()));
        let (known_epoch, batches) = known;
        if epoch > *known_epoch {
            *known_epoch = epoch;
            batches.clear();
        }
        let same = |b: &&(i32, u32, u64)| b.0 == sequence && b.1 == count;
        if let Some((_, _, base)) = batches.iter().find(same) {
            return Ok(Some(*base));
        }
        let expected = batches.back().map_or(0, |(base, count, _)| base + *count as i32);
        if sequence != expected {
            return Err(v1::ErrorCode::OutOfOrderSequence);
        }
        batches.push_back((sequence, count, end));
        if batches.len() > REMEMBERED {
            batches.pop_front();
        }
        Ok(None)
    }
}

fn failed(request_id: u64, code: v1::ErrorCode) -> v1::AppendResponse {
    let message = format!("injected: {code:?}");
    let error = Some(v1::Error { code: code.into(), message, ..v1::Error::default() });
    v1::AppendResponse { request_id, error, ..v1::AppendResponse::default() }
}

/// A failed call with its reason.
fn refusal(code: v1::ErrorCode) -> Status {
    let message = format!("injected: {code:?}");
    let error = v1::Error { code: code.into(), message, ..v1::Error::default() };
    let reason = MetadataValue::from_bytes(&error.encode_to_vec());
    let mut status = Status::failed_precondition("injected");
    status.metadata_mut().insert_bin("riverrun-error-bin", reason);
    status
}

type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<v1::AppendPipelineResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl produce_server::Produce for Service {
    type AppendPipelineStream = ResponseStream;

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut model = self.0.lock();
        let v1::InitProducerRequest { producer_id, producer_epoch } = request.into_inner();
        let fresh = model.epochs.len() as i64 + 1;
        let newest = producer_id.and_then(|id| model.epochs.get(&id).copied());
        if newest.is_some_and(|newest| producer_epoch != Some(i32::from(newest))) {
            return Err(refusal(v1::ErrorCode::ProducerFenced));
        }
        let (id, epoch) = (producer_id.unwrap_or(fresh), newest.map_or(0, |newest| newest + 1));
        model.epochs.insert(id, epoch);
        if epoch > 0 && std::mem::take(&mut model.loses_raise) {
            return Err(Status::unavailable("injected break"));
        }
        let producer_epoch = i32::from(epoch);
        Ok(Response::new(v1::InitProducerResponse { producer_id: id, producer_epoch }))
    }

    async fn append(
        &self,
        _: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("append"))
    }

    async fn append_bulk(
        &self,
        _: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<v1::AppendBulkResponse>, Status> {
        Err(Status::unimplemented("append_bulk"))
    }

    async fn append_pipeline(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        let model = self.0.clone();
        let mut requests = request.into_inner();
        let (answers, out) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                while model.lock().stalled {
                    tokio::task::yield_now().await;
                }
                let answer = model.lock().append(&request);
                let Some(answer) = answer else {
                    let _gone = answers.send(Err(Status::unknown("injected break"))).await;
                    return;
                };
                let reply = v1::AppendPipelineResponse { responses: vec![answer] };
                if answers.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

#[tonic::async_trait]
impl admin_server::Admin for Service {
    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let count = self.0.lock().logs.len() as u32;
        let topic = |topic: String| v1::TopicMetadata {
            topic,
            topic_id: Bytes::from_static(&[7; 16]),
            partitions: (0..count)
                .map(|partition| v1::PartitionMetadata { partition, ..Default::default() })
                .collect(),
            ..v1::TopicMetadata::default()
        };
        let topics = request.into_inner().topics.into_iter().map(topic).collect();
        Ok(Response::new(v1::GetMetadataResponse { topics, ..Default::default() }))
    }

    async fn create_topic(
        &self,
        _: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("create_topic"))
    }

    async fn alter_topic(
        &self,
        _: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(Status::unimplemented("alter_topic"))
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("delete_topic"))
    }

    async fn describe_topic(
        &self,
        _: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        Err(Status::unimplemented("describe_topic"))
    }

    async fn delete_records(
        &self,
        _: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("delete_records"))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("list_groups"))
    }

    async fn describe_group(
        &self,
        _: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("describe_group"))
    }

    async fn reset_offsets(
        &self,
        _: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        Err(Status::unimplemented("reset_offsets"))
    }

    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("delete_group"))
    }
}
