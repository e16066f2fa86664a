//! `/docs`: the description of the door as a page.
//!
//! The page, its style, its script and the description are one reply: it asks nobody for anything, and its policy forbids it to. The
//! policy names style and script by their hashes, so that nothing else in the page is ever run.

use std::sync::LazyLock;

use axum::{
    Router,
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

use super::{WebDoor, call::Call, openapi::DESCRIPTION, problem::Problem, reply};

const PAGE: &str = include_str!("docs/page.html");
const STYLE: &str = include_str!("docs/page.css");
const SCRIPT: &str = include_str!("docs/page.js");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The page with its parts in their places.
static WHOLE: LazyLock<String> = LazyLock::new(|| {
    let page = PAGE.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
    // Last, so that nothing in it is taken for a place; and it cannot end the element that it stands in.
    page.replace("{{description}}", &DESCRIPTION.replace("</", "<\\/"))
});
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("ASCII")
});

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/docs", get(docs))
}

async fn docs(call: Call) -> Result<Response, Problem> {
    call.finish()?;
    let mut response = reply::text(HTML, WHOLE.as_str());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
