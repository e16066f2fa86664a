//! The stream of a push session.
//!
//! One task reads what the client says; the reply stream asks the session what to tell next, so nothing is made before
//! the connection can take it. The answer to a bad frame is the end of this stream, by name; nobody else hears of it.

use std::{sync::Arc, time::Duration};

use futures_core::Stream;
use futures_util::stream;
use riverrun_proto::grpc::v1::{
    self, session_request::Frame as Ask, session_response::Frame as Told,
};
use tokio::{
    task::{self, AbortHandle},
    time::timeout,
};
use tonic::{Status, Streaming};

use super::{
    push_convert::{
        credit, delivered, format, heartbeat, lost, opened, revoked, settle_frame, settled, spec,
    },
    refusal::named,
    status::{Describe, status},
    traced,
};
use crate::{
    delivery::ResumePoint,
    service::{
        DeliveryService,
        delivery::{
            PushError,
            open::OpenRequest,
            session::{Out, SessionIn, SessionOut},
        },
    },
    topic::error::InvalidField,
    traces::{OpenSpan, Origin},
};

/// Time that a client has to say which session it opens.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the reply stream stands.
enum Replies {
    /// The client has not said yet what it opens.
    Opening(Box<Opening>),
    /// Open.
    Open(Box<Open>),
    /// Nothing more comes.
    Over,
}

struct Opening {
    service: Arc<DeliveryService>,
    requests: Streaming<v1::SessionRequest>,
    host: String,
    /// Of the whole session, where it is told of.
    span: Option<OpenSpan>,
}

struct Open {
    output: SessionOut,
    reader: AbortHandle,
    span: Option<OpenSpan>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The client is gone: nothing more is read from it.
        self.reader.abort();
    }
}

/// The stream of replies.
pub(super) fn run(
    service: Arc<DeliveryService>,
    requests: Streaming<v1::SessionRequest>,
    (host, origin): (String, Option<Origin>),
) -> impl Stream<Item = Result<v1::SessionResponse, Status>> + Send + 'static {
    let span = origin.and_then(|origin| origin.begin("Push/Session"));
    let opening = Replies::Opening(Box::new(Opening { service, requests, host, span }));
    stream::unfold(opening, |replies| async move {
        let mut open = match replies {
            Replies::Opening(opening) => match opening.open().await {
                Ok(open) => Box::new(open),
                Err(status) => return Some((Err(status), Replies::Over)),
            },
            Replies::Open(open) => open,
            Replies::Over => return None,
        };
        let told = open.output.next().await;
        let told = told.map(|told| told.map(response).map_err(|error| status(&error)));
        open.trace(told.as_ref());
        let replies = if matches!(told, Some(Ok(_))) { Replies::Open(open) } else { Replies::Over };
        Some((told?, replies))
    })
}

impl Open {
    /// Writes into the span what the session is told; the end is its end.
    fn trace(&mut self, told: Option<&Result<v1::SessionResponse, Status>>) {
        if let (Some(span), Some(Ok(response))) = (&self.span, told) {
            return traced::note_told(span.notes(), response);
        }
        if let Some(span) = self.span.take() {
            traced::end_part(span, told.and_then(|told| told.as_ref().err()));
        }
    }
}

impl Opening {
    async fn open(mut self) -> Result<Open, Status> {
        let span = self.span.take();
        match self.opened().await {
            Ok((output, reader)) => Ok(Open { output, reader, span }),
            Err(refused) => {
                span.into_iter().for_each(|span| traced::end_part(span, Some(&refused)));
                Err(refused)
            }
        }
    }

    async fn opened(self) -> Result<(SessionOut, AbortHandle), Status> {
        let Opening { service, mut requests, host, span: _ } = self;
        let first = timeout(OPEN_TIMEOUT, requests.message()).await;
        let first = first.unwrap_or(Ok(None)).map_err(named)?;
        let frame = first.and_then(|request| request.frame);
        let request = match frame {
            Some(Ask::Open(open)) => open_request(open, host),
            Some(_) => Err(invalid("open", "the first frame and only there", "another frame")),
            None => Err(invalid("open", "the first frame", "nothing")),
        };
        let request = request.map_err(|error| status(&error))?;
        let opened = service.open_session(request).await;
        let (input, output) = opened.map_err(|error| status(&error))?;
        let reader = task::spawn(read(input, requests)).abort_handle();
        Ok((output, reader))
    }
}

/// Reads what the client says until it says nothing more.
async fn read(input: SessionIn, mut requests: Streaming<v1::SessionRequest>) {
    loop {
        let next = timeout(input.silence_max(), requests.message()).await;
        let request = match next {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) => return input.half_closed(),
            // The stream broke; what it could not be read for is told if anybody hears it.
            Ok(Err(refused)) => {
                let reason = named(refused).message().to_owned();
                return input.refuse(PushError::Broken { reason: reason.into() });
            }
            Err(_) => {
                let silent_ms = input.silence_max().as_millis();
                return input.silent(PushError::Silent { silent_ms });
            }
        };
        if let Err(error) = take(&input, request).await {
            return input.refuse(error);
        }
    }
}

async fn take(input: &SessionIn, request: v1::SessionRequest) -> Result<(), PushError> {
    match request.frame {
        Some(Ask::Credit(wire)) => {
            let (records_total, bytes_total) = credit(wire)?;
            input.credit(records_total, bytes_total);
        }
        Some(Ask::Settle(wire)) => {
            let (settle_id, items, sync) = settle_frame(wire)?;
            input.settle(settle_id, items, sync).await;
        }
        Some(Ask::Pause(_)) => input.pause(true),
        Some(Ask::Resume(_)) => input.pause(false),
        Some(Ask::Drain(_)) => input.drain(),
        Some(Ask::Heartbeat(_)) => {}
        Some(Ask::Open(_)) => {
            return Err(invalid("open", "the first frame and only there", "a further one"));
        }
        None => return Err(invalid("frame", "set", "nothing")),
    }
    Ok(())
}

fn invalid(field: &'static str, expected: &str, found: &str) -> PushError {
    InvalidField { field, expected: expected.into(), found: found.into() }.into()
}

/// What opens a session.
pub(crate) fn open_request(wire: v1::OpenSession, host: String) -> Result<OpenRequest, PushError> {
    let resume = wire
        .resume_from
        .map(|from| ResumePoint { epoch: from.session_epoch, last_seq: from.last_delivery_seq });
    Ok(OpenRequest {
        subscription: wire.subscription,
        session_id: wire.session_id,
        resume,
        in_flight_max: wire.max_in_flight,
        in_flight_bytes_max: 0,
        format: format(wire.format)?,
        client_id: wire.client_id,
        host,
        create: wire.create.map(spec).transpose()?,
        reports_started: wire.reports_started,
    })
}

/// What a session is told.
pub(crate) fn response(out: Out) -> v1::SessionResponse {
    let frame = match out {
        Out::Opened(told) => Told::Opened(opened(&told)),
        Out::Deliver(told) => Told::Deliver(delivered(told)),
        Out::Settled(told) => Told::Settled(settled(told)),
        Out::Revoked(place, runs, reason) => Told::Revoked(revoked(&place, &runs, reason)),
        Out::Lost(place, runs) => Told::Lost(lost(&place, &runs)),
        Out::Heartbeat(told) => Told::Heartbeat(heartbeat(&told)),
        Out::Goaway(error, released) => {
            Told::Goaway(v1::Goaway { error: Some(error.describe()), released })
        }
    };
    v1::SessionResponse { frame: Some(frame) }
}
