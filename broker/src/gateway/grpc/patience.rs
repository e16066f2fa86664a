//! How long a call may be held: never so long that its answer comes after the caller's deadline.
//!
//! gRPC tells the deadline as `grpc-timeout`, the time left when the call was sent. A long poll that is held to
//! that end is cancelled by both sides, and its caller cannot tell an empty poll from a broker that hangs.

use std::time::Duration;

use riverrun_proto::limits::WAIT_MS_MAX;
use tonic::{Request, metadata::MetadataMap};

/// Time that an answer gets to reach its caller.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// Most digits of a `grpc-timeout`.
const DIGITS_MAX: usize = 8;

/// The wait in milliseconds that `asked` of a call comes to. One that is refused anyway is left as it is, so that
/// the refusal names it.
pub(super) fn wait_ms<T>(request: &Request<T>, asked: u32) -> u32 {
    let Some(left) = time_left(request.metadata()).filter(|_| asked <= WAIT_MS_MAX) else {
        return asked;
    };
    let most = left.saturating_sub(ON_THE_WAY).as_millis();
    u32::try_from(most).map_or(asked, |most| asked.min(most))
}

/// The time until the caller's deadline, when it has one that can be read.
fn time_left(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_100_ms_before_the_deadline() {
        let cases = [
            ("2S", 60_000, 1_900),
            ("2S", 1_900, 1_900),
            ("2S", 500, 500),
            ("1M", 60_000, 59_900),
            ("99999999H", 60_000, 60_000),
            ("150m", 1_000, 50),
            ("90000u", 1_000, 0),
            ("7n", 1_000, 0),
            ("0S", 1_000, 0),
            ("1S", 60_001, 60_001),
            ("123456789S", 60_000, 60_000),
            ("1x", 700, 700),
            ("S", 700, 700),
            ("+1S", 700, 700),
            ("", 700, 700),
        ];
        for (timeout, asked, expected) in cases {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            assert_eq!(wait_ms(&request, asked), expected, "{timeout} {asked}");
        }
        assert_eq!(wait_ms(&Request::new(()), 700), 700, "without a deadline");
    }
}
