//! `/v1/stream/{topic}`: the Durable Streams protocol over topics.
//!
//! ```text
//! PUT     creates a stream, or finds one that is as the request says    201, 200
//! POST    appends, closes, or both at once                              204, 200 with a producer
//! GET     reads: what is there, by long poll, or as server-sent events  200, 204, 304
//! HEAD    the end of the data, and what the stream is                   200
//! DELETE  deletes it                                                    204
//! ```
//!
//! `/v1/stream/{topic}/{partition}` reads and appends to one partition of any topic. What a request means is decided by
//! the service; here are only the words of the protocol: headers, offsets as text, cursors. Parameters that nobody knows
//! are passed over, as the protocol wants it.

mod cursor;
mod headers;
mod offset;
mod problem;
mod read;
mod sse;
mod time;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};

use self::headers::{CLOSED, EXPIRES_AT, NEXT_OFFSET, PRODUCER_EPOCH, PRODUCER_SEQ, TTL};
use super::{WebDoor, body, call::Call, problem::Problem};
use crate::{
    service::stream::{AppendRequest, Appended, Created, Found, StreamError},
    stream::Turn,
};

/// The name under which the protocol keeps what is no stream.
const RESERVED: &str = "__ds";

pub(super) fn routes() -> Router<WebDoor> {
    let whole = put(create).post(append).get(read::read).head(head).delete(remove);
    let partition = get(read::read).head(head).post(append);
    let subscriptions = put(reserved).get(reserved).delete(reserved);
    Router::new()
        .route("/v1/stream/{topic}", whole)
        .route("/v1/stream/{topic}/{partition}", partition)
        .route("/v1/stream/__ds/subscriptions/{subscription}", subscriptions)
}

async fn create(State(door): State<WebDoor>, call: Call, body: Body) -> Response {
    let created = async {
        let name = name(&call)?;
        let mut request = headers::create(&call, name)?;
        (request.body, request.share) = body::whole(&call, body, &door).await?;
        let room = &call.caller.replies;
        problem::told(door.services.streams.create(request, room).await)
    };
    answer(created.await.map(|created| told_created(&call, &created)))
}

fn told_created(call: &Call, Created { found, is_new, tail }: &Created) -> Response {
    let status = if *is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = status.into_response();
    let told = response.headers_mut();
    put_content_type(told, found);
    put_tail(told, &offset::text(tail.position), tail.is_closed);
    let host = call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let location = format!("http://{}/v1/stream/{}", host.unwrap_or_default(), found.topic.name);
    if *is_new && let Ok(location) = HeaderValue::from_str(&location) {
        told.insert(header::LOCATION, location);
    }
    response
}

async fn append(State(door): State<WebDoor>, call: Call, body: Body) -> Response {
    let appended = async {
        let (name, partition) = (name(&call)?, partition(&call)?);
        let mark = headers::mark(&call)?;
        let content_type = headers::content_type(&call)?;
        let (bytes, share) = body::whole(&call, body, &door).await?;
        let is_data = !bytes.is_empty();
        let request = AppendRequest { name, partition, content_type, body: bytes, mark, share };
        let appended = door.services.streams.append(request, &call.caller.in_flight).await;
        Ok((problem::told(appended)?, is_data))
    };
    answer(appended.await.map(|(appended, is_data)| told_appended(&appended, is_data)))
}

fn told_appended(appended: &Appended, is_data: bool) -> Response {
    let Appended { tail, is_closed, turn, is_duplicate } = appended;
    let is_counted = turn.is_some() && is_data && !is_duplicate;
    let status = if is_counted { StatusCode::OK } else { StatusCode::NO_CONTENT };
    let mut response = status.into_response();
    let told = response.headers_mut();
    put_tail(told, &offset::text(*tail), *is_closed);
    if let Some(Turn { epoch, seq }) = turn {
        told.insert(PRODUCER_EPOCH, (*epoch).into());
        told.insert(PRODUCER_SEQ, (*seq).into());
    }
    response
}

async fn head(State(door): State<WebDoor>, call: Call) -> Response {
    let known = async {
        let found = find(&door, &call)?;
        let tail = door.services.streams.tail(&found, &call.caller.replies).await;
        Ok((problem::told(tail)?, found))
    };
    answer(known.await.map(|(tail, found)| {
        let mut response = StatusCode::OK.into_response();
        let told = response.headers_mut();
        put_content_type(told, &found);
        put_tail(told, &offset::text(tail.position), tail.is_closed);
        told.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let facts = found.facts();
        if let Some(ttl_s) = facts.and_then(|facts| facts.ttl_s) {
            told.insert(TTL, ttl_s.into());
        }
        let expires = facts.and_then(|facts| facts.expires_at_ms).map(time::text);
        if let Some(Ok(expires)) = expires.map(|text| HeaderValue::from_str(&text)) {
            told.insert(EXPIRES_AT, expires);
        }
        response
    }))
}

async fn remove(State(door): State<WebDoor>, call: Call) -> Response {
    let removed = async {
        let name = name(&call)?;
        problem::told(door.services.streams.delete(&name).await)
    };
    answer(removed.await.map(|()| StatusCode::NO_CONTENT.into_response()))
}

/// Subscriptions of the protocol: not served.
async fn reserved() -> Response {
    answer(Err(no_subscriptions().into()))
}

fn no_subscriptions() -> Problem {
    let message =
        "subscriptions of the Durable Streams protocol are not served; use `/v1/subscriptions`";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "STREAM_SUBSCRIPTIONS", message)
}

/// The stream in the path.
fn find(door: &WebDoor, call: &Call) -> Result<Found, Refused> {
    problem::told(door.services.streams.find(&name(call)?, partition(call)?))
}

fn name(call: &Call) -> Result<String, Problem> {
    match call.name("topic") {
        RESERVED => Err(no_subscriptions()),
        name => Ok(name.to_owned()),
    }
}

fn partition(call: &Call) -> Result<u32, Problem> {
    match call.has_name("partition") {
        true => call.number("partition"),
        false => Ok(0),
    }
}

/// A refusal, as a reply of its own.
#[derive(Debug)]
struct Refused(Box<Response>);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused(Box::new(problem.into_response()))
    }
}

/// The reply with what a browser wants to see on every one. A refusal is of now: no cache keeps it.
fn answer(answer: Result<Response, Refused>) -> Response {
    let mut response = answer.unwrap_or_else(|Refused(mut response)| {
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        *response
    });
    let headers = response.headers_mut();
    let policy = |text| HeaderValue::from_static(text);
    headers.insert("cross-origin-resource-policy", policy("same-origin"));
    // Content of any type comes from here, pages too: a browser must not take one for the door's own.
    headers.insert(header::CONTENT_SECURITY_POLICY, policy("sandbox; default-src 'none'"));
    response
}

fn put_content_type(headers: &mut HeaderMap, found: &Found) {
    if let Ok(content_type) = HeaderValue::from_str(&found.content_type()) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
}

fn put_tail(headers: &mut HeaderMap, next: &str, is_closed: bool) {
    let next = HeaderValue::from_str(next).expect("digits and a line");
    headers.insert(NEXT_OFFSET, next);
    if is_closed {
        headers.insert(CLOSED, HeaderValue::from_static("true"));
    }
}
