//! Against a collector that is a real server, with a real broker in between.

use std::{collections::BTreeMap, io::Write as _};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span as Wire,
};
use riverrun_broker::{Broker, Config};
use riverrun_client::{Client, Start, TopicSpec};
use riverrun_proto::grpc::v1::{
    self, append_request::Payload, fetch_client::FetchClient, produce_client::ProduceClient,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};
use tonic::{Request, Response, transport::Server};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Hands on what it is sent, and says that it did not take so many of each request.
struct Collector {
    took: mpsc::Sender<Wire>,
    rejected: i64,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter();
        let scopes = spans.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).for_each(|span| drop(self.took.try_send(span)));
        let part =
            ExportTracePartialSuccess { rejected_spans: self.rejected, ..Default::default() };
        Ok(Response::new(ExportTraceServiceResponse { partial_success: Some(part) }))
    }
}

/// Settings of a collector at this address that wants to hear of every call.
fn settings(endpoint: &str) -> TracesConfig {
    TracesConfig { otlp_endpoint: format!("http://{endpoint}"), sample_millionths: 1_000_000 }
}

/// A collector on the threads of `runtime`, its address, and what it takes.
fn collector(runtime: &Runtime, rejected: i64) -> (String, mpsc::Receiver<Wire>) {
    let (took, taken) = mpsc::channel(1_000);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = TraceServiceServer::new(Collector { took, rejected });
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    (address, taken)
}

fn broker(exporter: &Exporter) -> (Broker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.listen = config.grpc.listen;
    config.disk.free_bytes_min = 1 << 20;
    (Broker::start_traced(config, exporter.traces()).unwrap(), dir)
}

fn append(value: &str) -> v1::AppendRequest {
    let record = v1::Record { value: Some(value.to_owned().into()), ..v1::Record::default() };
    let records = v1::Records { records: vec![record] };
    let payload = Some(Payload::Records(records));
    v1::AppendRequest { topic: "orders".into(), payload, ..v1::AppendRequest::default() }
}

/// A call whose caller has a span of its own.
fn called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request
}

/// Waits until the last span is gone.
fn drain(exporter: Exporter) {
    let Exporter { traces, ended } = exporter;
    drop(traces);
    ended.recv().unwrap_err();
}

async fn channel(broker: &Broker) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address())).unwrap();
    endpoint.connect().await.unwrap()
}

/// Calls every door, and every kind of call.
async fn call_all(broker: &Broker) {
    let client = Client::connect(&broker.address().to_string()).await.unwrap();
    client.admin().create_topic(TopicSpec::new("orders").partitions(1)).await.unwrap();
    let mut produce = ProduceClient::new(channel(broker).await);
    produce.append(called(append("one"))).await.unwrap();
    let nowhere = v1::AppendRequest { partition: 7, ..append("two") };
    produce.append(called(nowhere)).await.unwrap_err();
    let mut fetch = FetchClient::new(channel(broker).await);
    let partition = v1::FetchPartition { topic: "orders".into(), ..Default::default() };
    let request = v1::FetchRequest { partitions: vec![partition], ..Default::default() };
    fetch.fetch(called(request)).await.unwrap();
    let producer = client.producer("orders").build().await.unwrap();
    producer.send("by the pipeline").await.unwrap().await.unwrap();
    producer.close().await.unwrap();
    let consumer = client.consumer("orders").start_missing(Start::Earliest);
    let mut consumer = consumer.build().await.unwrap();
    consumer.next_batch().await.unwrap();
    consumer.close().await.unwrap();
    let mut request = Vec::new();
    write!(
        request,
        "POST /v1/topics/orders/records HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: text/plain\r\ncontent-length: 5\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n\r\nthree"
    )
    .unwrap();
    let mut socket = TcpStream::connect(broker.web_address().unwrap()).await.unwrap();
    socket.write_all(&request).await.unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

/// Attributes as text, by name.
fn told(span: &Wire) -> BTreeMap<&str, String> {
    let value = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => panic!("{value:?}"),
    };
    let told = span.attributes.iter().map(|one| {
        let found = one.value.as_ref().and_then(|any| any.value.as_ref()).unwrap();
        (one.key.as_str(), value(found))
    });
    told.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check(span: &Wire, is_called: bool, expected: &[(&str, &str)]) {
    assert_eq!(hex(&span.parent_span_id), if is_called { CALLER } else { "" });
    assert_eq!(hex(&span.trace_id) == TRACE, is_called);
    assert_eq!(span.flags, if is_called { 0x301 } else { 0x101 });
    assert!(span.end_time_unix_nano > span.start_time_unix_nano, "{span:?}");
    let told = told(span);
    for (key, value) in expected {
        assert_eq!(told.get(key).map(String::as_str), Some(*value), "{key} of {told:?}");
    }
    let bytes: u64 = told["riverrun.bytes"].parse().unwrap();
    assert!(bytes > 0, "{told:?}");
}

#[test]
fn spans_of_a_real_produce_and_fetch_reach_a_real_collector_with_their_caller_as_parent() {
    let runtime = Runtime::new().unwrap();
    let (address, mut taken) = collector(&runtime, 0);
    let exporter = Exporter::start(&settings(&address)).unwrap();
    let (broker, _dir) = broker(&exporter);
    let meter = exporter.traces().meter().unwrap();
    runtime.block_on(call_all(&broker));
    broker.stop();
    drain(exporter);
    let mut spans: BTreeMap<String, Vec<Wire>> = BTreeMap::new();
    let mut count = 0;
    while let Ok(span) = taken.try_recv() {
        count += 1;
        spans.entry(span.name.clone()).or_default().push(span);
    }
    assert_eq!((meter.exported.get(), meter.lost.get()), (count, 0));
    let orders = ("messaging.destination.name", "orders");
    let one = ("riverrun.partitions", "1");
    let ok = ("rpc.grpc.status_code", "0");
    let [taken, refused] = &spans["riverrun.v1.Produce/Append"][..] else { panic!("{spans:?}") };
    check(taken, true, &[orders, one, ok, ("rpc.method", "Append")]);
    let unknown = ("error.type", "ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION");
    check(refused, true, &[orders, unknown]);
    assert!(refused.status.is_some() && taken.status.is_none());
    check(&spans["riverrun.v1.Fetch/Fetch"][0], true, &[orders, one, ok]);
    check(&spans["riverrun.v1.Produce/AppendPipeline"][0], false, &[orders, one, ok]);
    check(&spans["riverrun.v1.Fetch/FetchPipeline"][0], false, &[orders, one, ok]);
    let web = &spans["POST /v1/topics/{topic}/records"][0];
    let route = ("http.route", "/v1/topics/{topic}/records");
    check(web, true, &[orders, one, route, ("http.response.status_code", "200")]);
}

/// Appends `count` records by as many calls.
async fn append_all(broker: &Broker, count: usize) {
    let client = Client::connect(&broker.address().to_string()).await.unwrap();
    client.admin().create_topic(TopicSpec::new("orders").partitions(1)).await.unwrap();
    let mut produce = ProduceClient::new(channel(broker).await);
    for _ in 0..count {
        produce.append(append("one")).await.unwrap();
    }
}

#[test]
fn a_dead_collector_costs_spans_which_are_counted_and_no_call() {
    let runtime = Runtime::new().unwrap();
    let dead = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = dead.local_addr().unwrap().to_string();
    drop(dead);
    let exporter = Exporter::start(&settings(&address)).unwrap();
    let (broker, _dir) = broker(&exporter);
    let meter = exporter.traces().meter().unwrap();
    runtime.block_on(append_all(&broker, 20));
    broker.stop();
    drain(exporter);
    assert_eq!(meter.exported.get(), 0);
    assert!(meter.lost.get() >= 20, "{}", meter.lost.get());
}

#[test]
fn a_collector_that_never_answers_holds_up_nobody() {
    let runtime = Runtime::new().unwrap();
    // Connections are taken by the system, and nothing is ever read.
    let silent = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let exporter = Exporter::start(&settings(&silent.local_addr().unwrap().to_string())).unwrap();
    let (broker, _dir) = broker(&exporter);
    runtime.block_on(append_all(&broker, 20));
    broker.stop();
    exporter.end();
}

#[test]
fn what_a_collector_says_it_did_not_take_is_lost() {
    let runtime = Runtime::new().unwrap();
    let (address, _taken) = collector(&runtime, i64::MAX);
    let exporter = Exporter::start(&settings(&address)).unwrap();
    let (broker, _dir) = broker(&exporter);
    let meter = exporter.traces().meter().unwrap();
    runtime.block_on(append_all(&broker, 3));
    broker.stop();
    drain(exporter);
    assert_eq!(meter.exported.get(), 0);
    assert!(meter.lost.get() >= 3, "{}", meter.lost.get());
}
