//! `GET /v1/subscriptions/{s}/events`: a push session whose records come as server-sent events and are settled by
//! `POST .../settle`.
//!
//! ```text
//! id: SESSION:EPOCH:SEQ:OFFSET  the session, and the last record of it: what `EventSource` sends back in `Last-Event-ID`
//!
//! event: subscribed             the session is open: its id, whether the leases of an earlier stream go on, and its limits
//! event: record                 a record as `receive` tells it, with its lease
//! event: revoked, event: lost   what the session no longer holds
//! event: goaway                 the session ends, with the reason
//! event: problem                an error after which the stream ends
//! :                             a sign of life
//! ```
//!
//! There is no credit to renew: a session holds at most so many records and bytes, and what is settled makes room. The stream
//! is its sign of life. When it is lost the session is, and may be resumed for a moment, as over gRPC.

mod point;
mod session;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, Method, StatusCode, header::ORIGIN},
    routing::get,
};
use uuid::Uuid;

use self::{point::Point, session::Session};
use super::{
    WebDoor,
    call::Call,
    events,
    object::Object,
    problem::{Answer, Problem},
    subscription_json::{SpecIn, StartIn},
};
use crate::{
    gateway::grpc::push_convert::CREDIT_MAX,
    service::{
        delivery::{
            create::Spec,
            open::{IN_FLIGHT_MAX, OpenRequest},
        },
        fetch::Format,
    },
};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/subscriptions/{subscription}/events", get(open))
}

async fn open(State(door): State<WebDoor>, mut call: Call) -> Answer {
    check_site(&call)?;
    let last = last_point(&call)?;
    let request = wanted(&mut call, last.as_ref())?;
    let delivery = &door.services.delivery;
    // Whoever was replaced is told so when it comes again by itself, and does not replace the other in turn.
    delivery.check_open(&request)?;
    if call.method == Method::HEAD {
        return Ok(events::response(Body::empty()));
    }
    let id = request.session_id.clone();
    let (input, output) = delivery.open_session(request).await?;
    input.credit(CREDIT_MAX, CREDIT_MAX);
    let session = Session::new((id, last), (input, output), call.caller.replies.clone());
    Ok(events::response(session.into_body()))
}

/// Refuses a request that a page of another site makes without an `origin` header, as for an image: unlike other reading, this changes
/// something. Requests with `origin` were judged by the guard.
fn check_site(call: &Call) -> Result<(), Problem> {
    let site = call.header(FETCH_SITE)?;
    if !matches!(site, "cross-site" | "same-site") || !call.header(ORIGIN)?.is_empty() {
        return Ok(());
    }
    let message =
        format!("a page of another site (`sec-fetch-site: {site}`) may not open a session");
    Err(Problem::new(StatusCode::FORBIDDEN, "ORIGIN_NOT_ALLOWED", message))
}

/// Where the caller stands, if it was here before.
fn last_point(call: &Call) -> Result<Option<Point>, Problem> {
    match call.header(events::LAST_EVENT_ID)? {
        "" => Ok(None),
        text => match text.parse() {
            Ok(point) => Ok(Some(point)),
            Err(()) => {
                let expected = "the id of an event of a subscription";
                Err(Problem::field("last-event-id", expected, text))
            }
        },
    }
}

fn wanted(call: &mut Call, last: Option<&Point>) -> Result<OpenRequest, Problem> {
    let session_id = match (call.take("session_id"), last) {
        (Some(given), Some(point)) if given != point.session_id => {
            let expected = format!("that of the session `{given}`, which `session_id` names");
            return Err(Problem::field("last-event-id", &expected, point));
        }
        (Some(given), _) => given,
        (None, Some(point)) => point.session_id.clone(),
        (None, None) => Uuid::new_v4().simple().to_string(),
    };
    let in_flight_max = number(call, "max_in_flight", u64::from(IN_FLIGHT_MAX))?;
    let in_flight_bytes_max = number(call, "max_bytes", CREDIT_MAX)?.unwrap_or_default();
    let reports_started =
        call.parsed("reports_started", "true or false", |text| text.parse().ok())?;
    let client_id = call.take("client_id").unwrap_or_default();
    let create = call.take("topics").map(|topics| spec(&topics)).transpose()?;
    // Who was here before does not bring back what was deleted meanwhile.
    let create = create.filter(|_| last.is_none());
    call.finish()?;
    Ok(OpenRequest {
        subscription: call.name("subscription").to_owned(),
        session_id,
        resume: last.map(Point::resume),
        in_flight_max: in_flight_max.map_or(0, |max| u32::try_from(max).unwrap_or(u32::MAX)),
        in_flight_bytes_max,
        format: Format::Structured,
        client_id,
        host: call.caller.address.ip().to_string(),
        create,
        reports_started: reports_started.unwrap_or_default(),
    })
}

/// A parameter that is a number from 1 on.
fn number(call: &mut Call, name: &str, max: u64) -> Result<Option<u64>, Problem> {
    let expected = format!("a number from 1 to {max}");
    call.parsed(name, &expected, |text| {
        text.parse().ok().filter(|number| (1..=max).contains(number))
    })
}

/// What makes the subscription when it does not exist.
fn spec(topics: &str) -> Result<Spec, Problem> {
    let topics = topics.split(',').map(str::to_owned).collect();
    SpecIn { topics, start: StartIn::default(), settings: Object::default() }.into_spec()
}
