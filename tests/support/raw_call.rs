//! A gRPC call whose body is any bytes, and the whole answer to it.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use riverrun_proto::grpc::v1;
use tokio::net::TcpStream;
use tonic::{Status, codegen::http};

use super::client::in_time;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// How the call ended, with its trailers.
    pub(crate) status: Status,
    /// The bytes of the reply.
    pub(crate) body: Vec<u8>,
}

/// Calls `path` with these headers beside the usual ones, on a connection of its own.
pub(crate) async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    in_time(exchange(address, path, headers, body.into())).await.expect("an answer")
}

async fn exchange(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, h2::Error> {
    let socket = TcpStream::connect(address).await.expect("connects");
    let mut builder = h2::client::Builder::new();
    builder.max_send_buffer_size(64 << 20);
    let (sender, connection) = builder.handshake::<_, Bytes>(socket).await?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut stream) =
        sender.ready().await?.send_request(request.body(()).expect("a request"), false)?;
    // The broker may refuse before it has read all.
    let _ = stream.send_data(body, true);
    let (head, mut reply) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = reply.data().await {
        let bytes = bytes?;
        reply.flow_control().release_capacity(bytes.len())?;
        body.extend(bytes);
    }
    let trailers = reply.trailers().await?.unwrap_or_default();
    driver.abort();
    let status = Status::from_header_map(&trailers).or(Status::from_header_map(&head.headers));
    Ok(Answer { status: status.expect("every answer has a status"), body })
}

impl Answer {
    /// The one message of a call that went well.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status.code(), tonic::Code::Ok, "{:?}", self.status);
        M::decode(&self.body[5..]).expect("is a message")
    }

    /// Checks that the call was refused by name, in the status and in our error alike.
    #[track_caller]
    pub(crate) fn check_refused(&self, code: tonic::Code, named: v1::ErrorCode, text: &str) {
        let Answer { status, body } = self;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
        let error = super::records::error(status);
        assert_eq!((error.code(), error.message.as_str()), (named, status.message()));
        assert!(body.is_empty(), "nothing but the refusal");
    }
}
