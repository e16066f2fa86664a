//! `/openapi.json`: the door as OpenAPI 3.1 describes it. Written by hand; a test holds it against the routes.

use axum::{Router, response::Response, routing::get};
use serde_json::Value;

use super::{WebDoor, call::Call, problem::Problem, reply};

/// The description.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

/// Method and path of every call.
pub(super) fn calls() -> Vec<String> {
    let described: Value = serde_json::from_str(DESCRIPTION).expect("a test reads it too");
    let paths = described["paths"].as_object().into_iter().flatten();
    let named = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flat_map(|methods| methods.keys());
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    named.collect()
}

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi(call: Call) -> Result<Response, Problem> {
    call.finish()?;
    Ok(reply::text(reply::JSON, DESCRIPTION))
}
