//! Messages that gRPC or the batch codec must refuse, byte by byte as an attacker would make them.

use prost::Message;
use riverrun_proto::{
    batch::Compression,
    grpc::v1::{self, ErrorCode::InvalidArgument},
};
use tonic::Code;

use crate::support::{
    broker::TestBroker,
    client::address,
    frames::{be32, message},
    raw_call::call,
    records::{append, batch_around, code},
};

const APPEND: &str = "/riverrun.v1.Produce/Append";
const BULK: &str = "/riverrun.v1.Produce/AppendBulk";
const PIPELINE: &str = "/riverrun.v1.Produce/AppendPipeline";
const LIMIT: usize = 64 << 10;

/// A broker with a small message limit and a topic `t`.
async fn house() -> TestBroker {
    let broker = TestBroker::start_with(|config| config.grpc.message_bytes_max = LIMIT).await;
    broker.stubs().await.create("t", 1, v1::TopicConfig::default()).await;
    broker
}

/// A message that says of itself that it has `length` bytes.
fn declared(length: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &be32(length)[..], body].concat()
}

/// The body, with its true length.
fn framed(body: &[u8]) -> Vec<u8> {
    declared(u32::try_from(body.len()).unwrap(), body)
}

/// Checks that only these values came in, and that no byte of a refused one is still counted.
async fn check_log(broker: &TestBroker, values: &[&str]) {
    assert_eq!(broker.stubs().await.read("t").await, values);
    assert_eq!(broker.inside().services().produce.in_flight_bytes(), 0);
}

#[tokio::test]
async fn messages_past_the_limit_are_refused_by_name() {
    let broker = house().await;
    let exact = u32::try_from(LIMIT).unwrap();
    let invalid = Code::InvalidArgument;
    for path in [APPEND, BULK, PIPELINE] {
        for length in [exact + 1, u32::MAX] {
            let body = declared(length, b"and little more");
            let answer = call(address(&broker), path, &[], body).await;
            let text = format!("found {length} bytes");
            answer.check_refused(invalid, InvalidArgument, &text);
            answer.check_refused(invalid, InvalidArgument, "`grpc.message_bytes_max`");
        }
        // One that keeps the limit but ends too early.
        let answer = call(address(&broker), path, &[], declared(exact, b"cut")).await;
        answer.check_refused(invalid, InvalidArgument, "EOF");
    }
    let answer = call(address(&broker), APPEND, &[], framed(&vec![0; LIMIT + 1])).await;
    answer.check_refused(invalid, InvalidArgument, "`grpc.message_bytes_max`");
    broker.stubs().await.append("t", &["after"]).await;
    check_log(&broker, &["after"]).await;
}

#[tokio::test]
async fn compressed_messages_are_refused() {
    let broker = house().await;
    let mut body = message(&append("t", &["a"]));
    body[0] = 1;
    for path in [APPEND, BULK, PIPELINE] {
        let answer = call(address(&broker), path, &[], body.clone()).await;
        answer.check_refused(Code::InvalidArgument, InvalidArgument, "compressed-flag");
        for encoding in ["gzip", "zstd", "deflate", "no such"] {
            let headers = [("grpc-encoding", encoding)];
            let answer = call(address(&broker), path, &headers, body.clone()).await;
            answer.check_refused(Code::Unimplemented, InvalidArgument, encoding);
        }
    }
    body[0] = 2;
    let answer = call(address(&broker), APPEND, &[], body).await;
    answer.check_refused(Code::InvalidArgument, InvalidArgument, "invalid compression flag");
    check_log(&broker, &[]).await;
}

#[tokio::test]
async fn cut_messages_are_refused_and_unknown_fields_are_let_be() {
    let broker = house().await;
    let whole = append("t", &["a"]).encode_to_vec();
    // Groups in groups, 1,000 deep, of a field nobody knows.
    let deep = [[0xa3, 0x06].repeat(1_000), [0xa4, 0x06].repeat(1_000)].concat();
    // Then text that is no UTF-8, a group without end, a length past the end, a varint without end.
    let bad: [&[u8]; 6] = [
        &whole[..whole.len() - 1],
        &deep,
        &[0x12, 1, 0xff],
        &[0x0b],
        &[0x12, 0xff, 0xff, 3],
        &[0x08, 0xff],
    ];
    for body in bad {
        let answer = call(address(&broker), APPEND, &[], framed(body)).await;
        answer.check_refused(Code::InvalidArgument, InvalidArgument, "request cannot be read");
    }
    // Field 1,000 as a number, 1,001 as bytes.
    let unknown = [&whole[..], &[0xc0, 0x3e, 7, 0xca, 0x3e, 2, 1, 2]].concat();
    let answer = call(address(&broker), APPEND, &[], framed(&unknown)).await;
    let receipt: v1::AppendResponse = answer.message();
    assert_eq!((receipt.base_offset, receipt.end_offset), (0, 1));
    check_log(&broker, &["a"]).await;
}

#[tokio::test]
async fn what_came_before_a_broken_message_of_a_pipeline_is_answered() {
    let broker = house().await;
    let body = [message(&append("t", &["a"])), declared(u32::MAX, &[])].concat();
    let answer = call(address(&broker), PIPELINE, &[], body).await;
    assert_eq!(answer.status.code(), Code::InvalidArgument, "{:?}", answer.status);
    assert_eq!(code(&answer.status), InvalidArgument);
    let replies = v1::AppendPipelineResponse::decode(&answer.body[5..]).unwrap();
    assert_eq!(replies.responses.len(), 1);
    assert_eq!((replies.responses[0].end_offset, replies.responses[0].error.clone()), (1, None));
    check_log(&broker, &["a"]).await;
}

/// A zstd frame of so many blocks, each of 128 KiB of one byte, in four bytes a block.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    // Magic, no options, a window of 128 KiB.
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    // Block size, repeated byte, not the last.
    let block = [1 << 1, 0, 1 << 4, 0];
    let last = [1 << 1 | 1, 0, 1 << 4, 0];
    [&head[..], &block.repeat(blocks - 1), &last].concat()
}

#[tokio::test]
async fn batches_that_inflate_past_the_bound_are_refused() {
    let broker = house().await;
    // 1 MiB of nonsense is inflated and then refused; 1 GiB is not inflated.
    for (blocks, text) in [(8, "record"), (8_192, "inflate")] {
        let payload = Some(v1::append_request::Payload::Batch(batch_around(
            Compression::Zstd,
            &zstd_bomb(blocks),
        )));
        let request = v1::AppendRequest { payload, ..append("t", &["unused"]) };
        let answer = call(address(&broker), APPEND, &[], message(&request)).await;
        answer.check_refused(Code::InvalidArgument, v1::ErrorCode::CorruptBatch, text);
    }
    broker.stubs().await.append("t", &["after"]).await;
    check_log(&broker, &["after"]).await;
}
