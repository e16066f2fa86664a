//! `GET /v1/ws`: a WebSocket on which records are produced, topics are tailed and subscriptions are worked, as JSON texts, or as the
//! protobuf messages of `socket.proto` where the client names that protocol. What they mean does not depend on how they are written.
//!
//! ```text
//! client                                                     broker
//! {"op":"produce","id":1,"topic":T,"records":[...]}      ->  {"op":"produced","id":1,"records":[{partition, offset}]}
//! {"op":"tail","id":"a","topic":T,"from":"earliest"}     ->  {"op":"tailing","id":"a","cursor":C}
//!                                                            {"op":"records","id":"a","cursor":C,"records":[...],"gaps":[...]} ...
//! {"op":"end","id":"a"}                                  ->  {"op":"ended","id":"a","cursor":C}
//! {"op":"subscribe","id":"w","subscription":S,...}       ->  {"op":"subscribed","id":"w","session_id":...}
//! {"op":"credit","id":"w","credit":{"records_total":N}}  ->  {"op":"jobs","id":"w","records":[{..., "lease":L}]} ...
//! {"op":"settle","id":"w","items":[{"lease":L,...}]}     ->  {"op":"settled",...}, {"op":"revoked",...} where there is something to say
//! {"op":"drain","id":"w"}                                ->  {"op":"ended","id":"w"} once everything is settled
//! what is refused or failed                              ->  {"op":"problem","id":...,"error":{...}}; a tail is over then
//! ```
//!
//! An `id` is the client's own name for what it asked. What is asked is done one after the other; tails and subscriptions go on
//! beside. Frames wait for the socket, and whoever writes them waits for the frames: a tail holds one message at most for a client
//! that does not read, and the connection's `write_timeout` cuts it. A `cursor` is one of server-sent events too.
//!
//! Not here: compression.

mod ask;
#[cfg(feature = "echo")]
mod echo;
mod frame;
mod jobs;
mod json;
mod protobuf;
mod session;
mod tailing;

use axum::{
    Router,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};

use self::session::Session;
pub(super) use self::{ask::Codec, frame::Found};
use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
};

/// Most bytes of one message of a client. Every connection may hold one that is not counted yet.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes read at once, held by every connection.
const READ_BYTES: usize = 4 << 10;

/// What a request says of the upgrade, or why it is none.
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) fn routes() -> Router<WebDoor> {
    let routes = Router::new().route("/v1/ws", get(open));
    #[cfg(feature = "echo")]
    let routes = routes.merge(echo::routes());
    routes
}

async fn open(State(door): State<WebDoor>, call: Call, upgrade: Upgrade) -> Answer {
    call.finish()?;
    let mut upgrade = bounded(upgrade)?;
    let (codec, protocol) = match spoken(&call) {
        Some((codec, protocol)) => (codec, Some(protocol)),
        None => (Codec::Json, None),
    };
    if let Some(protocol) = protocol {
        upgrade.set_selected_protocol(HeaderValue::from_static(protocol));
    }
    let session = Session::new(door.clone(), call, codec);
    Ok(run(&door, upgrade, session))
}

/// The first protocol that the client names and the door speaks. Others are passed over, as RFC 6455 wants it.
fn spoken(call: &Call) -> Option<(Codec, &'static str)> {
    let named = call.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut named = named.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    named.find_map(|name| Codec::named(name.trim_ascii()))
}

/// The upgrade with its bounds.
fn bounded(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, "NO_WEBSOCKET", rejection.body_text())
    })?;
    Ok(upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX))
}

/// The reply that turns the connection into the session. The door waits for it when the broker stops.
fn run(door: &WebDoor, upgrade: WebSocketUpgrade, session: Session) -> Response {
    let open = door.sockets.token();
    upgrade.on_upgrade(async move |socket| {
        session.run(socket).await;
        drop(open);
    })
}
