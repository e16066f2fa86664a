//! `GET /v1/ws/echo`: a socket that gives back what comes. Only in builds for tests: suites that measure how the protocol is kept talk to
//! an echo, and this one reads, writes, bounds and closes with the code of every other socket.

use axum::{Router, extract::State, routing::get};

use super::{Session, Upgrade, WebDoor, bounded, run};
use crate::gateway::web::{call::Call, problem::Answer};

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/ws/echo", get(open))
}

async fn open(State(door): State<WebDoor>, call: Call, upgrade: Upgrade) -> Answer {
    call.finish()?;
    let upgrade = bounded(upgrade)?;
    Ok(run(&door, upgrade, Session::echo(door.clone(), call)))
}
