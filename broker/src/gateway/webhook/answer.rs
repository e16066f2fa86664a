//! What an answer says of a record, of its endpoint, and of the time to come.
//!
//! | Answer | The record | The endpoint |
//! | --- | --- | --- |
//! | 2xx | is done | is well |
//! | 410 | is given back, and the subscription is paused | |
//! | 429, 503 with `Retry-After` | is given back, uncounted | is left alone for so long |
//! | 408, 429, 5xx, none in time, cut off | failed | failed |
//! | no connection | failed; a probe's is given back | failed |
//! | any other, redirects among them | failed | is well |

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Least wait that is taken from `Retry-After`.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The endpoint took it.
    Delivered,
    /// It did not.
    Failed {
        /// Why, as the dead letter tells it.
        reason: Arc<str>,
        /// The endpoint's word on when to come again.
        delay: Option<Duration>,
        /// Whose failure it is.
        whose: Whose,
    },
    /// The endpoint asks for time.
    Postponed {
        /// Its answer.
        reason: Arc<str>,
        /// How much.
        wait: Duration,
    },
    /// There will never be anything at this address again.
    Gone,
    /// It was not sent: too much is under way.
    NoRoom,
}

/// Whose failure it is. The record's in any case, but for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The endpoint's; it never saw the record.
    Unreached,
    /// The endpoint's too.
    Endpoint,
    /// The record's alone: the endpoint is well.
    Record,
}

impl Verdict {
    /// A failure without an answer.
    pub(super) fn failed(reason: impl Into<Arc<str>>, whose: Whose) -> Verdict {
        Verdict::Failed { reason: reason.into(), delay: None, whose }
    }

    /// What the head of an answer says, at this time.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, now_ms: i64) -> Verdict {
        if status.is_success() {
            return Verdict::Delivered;
        }
        if status == StatusCode::GONE {
            return Verdict::Gone;
        }
        let words = status.canonical_reason().unwrap_or_default();
        let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
        let reason = format!("answered {} {words}", status.as_str());
        let reason: Arc<str> = format!("{}{hint}", reason.trim_end()).into();
        let delay = retry_after(headers, now_ms);
        let asks = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if let Some(wait) = delay.filter(|_| asks.contains(&status)) {
            return Verdict::Postponed { reason, wait };
        }
        let blames = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        let is_endpoints = status.is_server_error() || blames.contains(&status);
        let whose = if is_endpoints { Whose::Endpoint } else { Whose::Record };
        Verdict::Failed { reason, delay, whose }
    }
}

/// `Retry-After`, as seconds or as a date, within bounds; `None` when it is neither.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        text.parse().map_or(WAIT_MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
        date.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now)
    };
    Some(wait.clamp(WAIT_MIN, WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-15 08:12:21 UTC.
    const NOW_MS: i64 = 784_887_141_000;

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        Verdict::of_answer(StatusCode::from_u16(status).unwrap(), &headers, NOW_MS)
    }

    #[track_caller]
    fn check_failed(status: u16, after: Option<&str>, text: &str, seen: (Option<u64>, Whose)) {
        let (delay, whose) = (seen.0.map(Duration::from_secs), seen.1);
        let expected = Verdict::Failed { reason: text.into(), delay, whose };
        assert_eq!(verdict(status, after), expected);
    }

    #[test]
    fn statuses_are_judged() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status, None), Verdict::Delivered);
        }
        assert_eq!(verdict(410, Some("5")), Verdict::Gone);
        check_failed(500, None, "answered 500 Internal Server Error", (None, Whose::Endpoint));
        check_failed(503, None, "answered 503 Service Unavailable", (None, Whose::Endpoint));
        check_failed(429, None, "answered 429 Too Many Requests", (None, Whose::Endpoint));
        check_failed(599, None, "answered 599", (None, Whose::Endpoint));
        check_failed(400, None, "answered 400 Bad Request", (None, Whose::Record));
        check_failed(502, Some("7"), "answered 502 Bad Gateway", (Some(7), Whose::Endpoint));
        let redirected = "answered 302 Found; redirects are not followed";
        check_failed(302, None, redirected, (None, Whose::Record));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_bounds() {
        for (text, seconds) in [
            ("7", 7),
            ("0", 1),
            ("86400", 3_600),
            ("99999999999999999999999", 3_600),
            ("Tue, 15 Nov 1994 08:12:31 GMT", 10),
            ("Tuesday, 15-Nov-94 08:12:31 GMT", 10),
            ("Tue Nov 15 08:12:31 1994", 10),
            ("Tue, 15 Nov 1994 08:12:21 GMT", 1),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
            ("Mon, 15 Nov 2094 08:12:31 GMT", 3_600),
        ] {
            for status in [429, 503] {
                let Verdict::Postponed { wait, .. } = verdict(status, Some(text)) else {
                    panic!("{text}: {:?}", verdict(status, Some(text)));
                };
                assert_eq!(wait, Duration::from_secs(seconds), "{text}");
            }
        }
        for text in ["", "-1", "1.5", "soon", "7 s"] {
            let verdict = verdict(503, Some(text));
            assert!(matches!(verdict, Verdict::Failed { delay: None, .. }), "{text}: {verdict:?}");
        }
    }
}
