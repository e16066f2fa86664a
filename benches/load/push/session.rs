//! A bare session, without the client library: only what the wire says.

use riverrun_proto::grpc::v1::{
    Credit, OpenSession, RecordFormat, SessionRequest, SessionResponse, SubscriptionSpec,
    push_client::PushClient, session_request::Frame, session_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::error::{Error, Result};

/// An open session.
pub(crate) struct Session {
    frames: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
    /// Its epoch.
    pub(crate) epoch: u64,
    /// Send a sign of life at least so often.
    pub(crate) heartbeat_ms: u64,
}

impl Session {
    /// Opens a session of subscription `name` on `topic`, with credit for `messages` records.
    pub(crate) async fn open(
        mut client: PushClient<Channel>,
        (name, topic, id): (&str, &str, String),
        messages: u64,
    ) -> Result<Session> {
        let (frames, stream) = mpsc::channel(16);
        let open = OpenSession {
            subscription: name.to_owned(),
            session_id: id,
            format: RecordFormat::Encoded.into(),
            create: Some(SubscriptionSpec {
                topics: vec![topic.to_owned()],
                ..SubscriptionSpec::default()
            }),
            ..OpenSession::default()
        };
        let credit = Credit { messages_total: messages, bytes_total: u64::MAX >> 8 };
        for frame in [Frame::Open(open), Frame::Credit(credit)] {
            send(&frames, frame).await?;
        }
        let answers = client.session(ReceiverStream::new(stream)).await?.into_inner();
        let mut session = Session { frames, answers, epoch: 0, heartbeat_ms: 0 };
        let first = session.next().await?;
        if let session_response::Frame::Opened(opened) = &first {
            session.epoch = opened.session_epoch;
            session.heartbeat_ms = u64::from(opened.heartbeat_interval_ms);
            return Ok(session);
        }
        Err(Error::Wrong(format!("not opened: {first:?}")))
    }

    /// Sends a frame.
    pub(crate) async fn send(&self, frame: Frame) -> Result<()> {
        send(&self.frames, frame).await
    }

    /// The next frame of the broker.
    pub(crate) async fn next(&mut self) -> Result<session_response::Frame> {
        let ended = || Error::Wrong("the session ended".into());
        self.answers.message().await?.and_then(|answer| answer.frame).ok_or_else(ended)
    }
}

async fn send(frames: &mpsc::Sender<SessionRequest>, frame: Frame) -> Result<()> {
    let sent = frames.send(SessionRequest { frame: Some(frame) }).await;
    sent.map_err(|_| Error::Wrong("the session ended".into()))
}
