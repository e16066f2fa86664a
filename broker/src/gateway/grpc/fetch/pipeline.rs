//! The fetch pipeline: one answer for each message, in order, each from where the last one ended.
//!
//! The next answer is made while the bytes of the last one are being sent, and no earlier than the caller's window opens: one that does not
//! read costs one answer, which is counted as every answer is.

use std::sync::Arc;

use futures_core::Stream;
use futures_util::stream;
use riverrun_proto::grpc::v1;
use tonic::{Status, Streaming};

use super::{
    super::{refusal::named, traced},
    answer, fetch_request, status,
};
use crate::{
    gateway::grpc::reply::Paid,
    metrics::Refusals,
    quota::Room,
    service::{FetchService, fetch::FetchRequest},
    topic::error::InvalidField,
    traces::Origin,
};

/// A pipeline between two answers.
struct Pipeline {
    service: Arc<FetchService>,
    refusals: Arc<Refusals>,
    asks: Streaming<v1::FetchPipelineRequest>,
    /// What spans of answers begin with, where they are told of.
    origin: Option<Origin>,
    room: Room,
    paid: Paid,
    /// What to read next; `None` before the first message.
    request: Option<FetchRequest>,
}

/// Runs a pipeline: the stream of its answers.
pub(super) fn run(
    (service, refusals): (Arc<FetchService>, Arc<Refusals>),
    (asks, origin): (Streaming<v1::FetchPipelineRequest>, Option<Origin>),
    (room, paid): (Room, Paid),
) -> impl Stream<Item = Result<v1::FetchResponse, Status>> + Send {
    let pipeline = Pipeline { service, refusals, asks, origin, room, paid, request: None };
    stream::unfold(Some(pipeline), |pipeline| async move {
        let mut pipeline = pipeline?;
        match pipeline.next().await {
            Ok((response, goes_on)) => Some((Ok(response?), goes_on.then_some(pipeline))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl Pipeline {
    /// The next answer, and whether there may be more; no answer when nothing more is asked.
    async fn next(&mut self) -> Result<(Option<v1::FetchResponse>, bool), Status> {
        let Some(ask) = self.asks.message().await.map_err(named)? else { return Ok((None, false)) };
        let span = self.origin.as_ref().and_then(|origin| origin.begin("Fetch/FetchPipeline"));
        let answered = self.answer(ask).await;
        if let Some(span) = span {
            if let Ok(response) = &answered {
                traced::note_fetched(span.notes(), response);
            }
            traced::end_part(span, answered.as_ref().err());
        }
        Ok((Some(answered?), self.request.is_some()))
    }

    async fn answer(&mut self, ask: v1::FetchPipelineRequest) -> Result<v1::FetchResponse, Status> {
        let request = match (ask.begin, self.request.take()) {
            (Some(begin), None) => fetch_request(begin).map_err(|error| status(&error))?,
            (None, Some(request)) => request,
            (begin, _) => return Err(status(&misplaced(begin.is_some()))),
        };
        let fetched = self.service.fetch(request.clone(), &self.room).await;
        let fetched = fetched.map_err(|error| status(&error))?;
        self.request = request.continued(&fetched);
        self.paid.add(fetched.shares);
        Ok(answer(fetched.partitions, &self.refusals))
    }
}

fn misplaced(is_set: bool) -> InvalidField {
    let (expected, found) = match is_set {
        true => ("set in the first message of the stream only", "set again"),
        false => ("set in the first message of the stream", "nothing"),
    };
    InvalidField { field: "begin", expected: expected.into(), found: found.into() }
}
