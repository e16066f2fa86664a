//! What every request passes before it reaches a route: the size of its headers, the name it calls the door by,
//! and the page it comes from.
//!
//! Whoever reaches the door may use it, and a browser on the same machine reaches it for every page it shows. So:
//!
//! ```text
//! `Host` of a door on a loopback address:  an address, `localhost`, or listed in `http.hosts`   else 421
//! `Origin`, which browsers send:           the door's own, or listed in `http.cors_origins`     else 403
//! ```

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{WebDoor, problem::Problem};
use crate::config::HttpConfig;

/// What pages may read of a reply beyond what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, retry-after, location, riverrun-next-offset, riverrun-high-watermark, riverrun-log-start-offset, \
     grpc-status, grpc-message, riverrun-error-bin, \
     stream-next-offset, stream-up-to-date, stream-cursor, stream-closed, stream-ttl, stream-expires-at, \
     stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq",
);
/// How long a browser may remember what it was allowed, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// Checks a request, answers the browser's own questions, and marks the reply for it.
pub(super) async fn check(State(door): State<WebDoor>, request: Request, next: Next) -> Response {
    let http = &door.config.http;
    let origin = match admit(http, &request) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, is_preflight) {
        (Some(_), true) => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    set(headers, header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Also of a reply to nobody's page: a cache must not give it to one.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        set(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if is_preflight {
            set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            set(headers, header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            if let Some(asked) = asked {
                set(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
            }
        }
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

/// The origin to be allowed, when the request names one.
fn admit(http: &HttpConfig, request: &Request) -> Result<Option<HeaderValue>, Problem> {
    let headers = request.headers();
    let line = request.method().as_str().len() + request.uri().to_string().len();
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let bytes = line + bytes.sum::<usize>();
    if bytes > http.header_bytes_max {
        let limit = http.header_bytes_max;
        let message = format!(
            "request line and headers have {bytes} bytes, `http.header_bytes_max` is {limit}"
        );
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Problem::new(status, "HEADERS_TOO_LARGE", message));
    }
    let host = headers.get(header::HOST).map(HeaderValue::to_str);
    let host = match host {
        Some(Ok(host)) => host,
        Some(Err(_)) | None if http.listen.ip().is_loopback() => {
            return Err(Problem::field("host", "the name of the door", "nothing readable"));
        }
        Some(Err(_)) | None => "",
    };
    if http.listen.ip().is_loopback() && !is_known_host(http, host) {
        let message = format!(
            "the door is not called `{host}`; use an address or `localhost`, or list the name in `http.hosts`"
        );
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "UNKNOWN_HOST", message));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or("");
    let is_own = text.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(host));
    let is_listed = http.cors_origins.iter().any(|listed| listed == "*" || listed == text);
    if is_own || is_listed {
        return Ok(Some(origin.clone()));
    }
    let message = format!("pages of `{text}` may not call; list it in `http.cors_origins`");
    Err(Problem::new(StatusCode::FORBIDDEN, "ORIGIN_NOT_ALLOWED", message))
}

fn is_known_host(http: &HttpConfig, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    is_address
        || name.eq_ignore_ascii_case("localhost")
        || http.hosts.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_door_is_called_by_address_or_by_a_listed_name() {
        let http = HttpConfig { hosts: vec!["queue.test".into()], ..HttpConfig::default() };
        for host in ["127.0.0.1:7080", "127.0.0.1", "[::1]:7080", "LOCALHOST:1", "queue.test:80"] {
            assert!(is_known_host(&http, host), "{host}");
        }
        for host in
            ["evil.test", "evil.test:7080", "127.0.0.1.evil.test", "", "localhost.evil.test"]
        {
            assert!(!is_known_host(&http, host), "{host}");
        }
    }
}
