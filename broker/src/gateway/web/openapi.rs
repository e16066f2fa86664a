//! `/openapi.json`: the door as OpenAPI 3.1 describes it. Written by hand; a test holds it against the routes.

use axum::{Router, response::Response, routing::get};

use super::{WebDoor, call::Call, problem::Problem, reply};

const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi(call: Call) -> Result<Response, Problem> {
    call.finish()?;
    Ok(reply::text(reply::JSON, DESCRIPTION))
}
