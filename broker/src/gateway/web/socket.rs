//! `GET /v1/ws`: a WebSocket on which records are produced, topics are tailed and subscriptions are worked, as JSON texts.
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

mod asked;
mod frame;
mod jobs;
mod session;
mod tailing;

use axum::{
    Router,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    routing::get,
};

use self::session::Session;
use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
};

/// The protocol of the messages, for clients that name one.
const PROTOCOL: &str = "riverrun.v1.json";
/// Most bytes of one message of a client. Every connection may hold one that is not counted yet.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes read at once, held by every connection.
const READ_BYTES: usize = 4 << 10;

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/ws", get(open))
}

async fn open(
    State(door): State<WebDoor>,
    call: Call,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    call.finish()?;
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, "NO_WEBSOCKET", rejection.body_text())
    })?;
    // The door waits for the session when the broker stops.
    let open = door.sockets.token();
    let session = Session::new(door, call);
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        session.run(socket).await;
        drop(open);
    }))
}
