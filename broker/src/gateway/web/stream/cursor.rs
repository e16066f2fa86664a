//! Cursors of live reads: numbers of twenty seconds since a day, so that caches between do not serve one answer for ever.

/// 2024-10-09 00:00 UTC, in milliseconds.
const START_MS: i64 = 1_728_432_000_000;
const INTERVAL_MS: i64 = 20_000;
/// How far a cursor is moved at most, in intervals: an hour.
const JITTER_MAX: u64 = 180;

/// The cursor to tell now. It is greater than the one that the reader came with.
pub(super) fn next(now_ms: i64, came: Option<&str>) -> u64 {
    let now = u64::try_from((now_ms - START_MS) / INTERVAL_MS).unwrap_or(0);
    // A number that no broker told says nothing.
    let came = came.and_then(|text| text.parse::<u64>().ok()).filter(|came| *came < 1 << 53);
    match came {
        Some(came) if came >= now => came + 1 + now_ms.unsigned_abs() % JITTER_MAX,
        Some(_) | None => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_never_stands_still() {
        let now_ms = START_MS + 100 * INTERVAL_MS + 7;
        assert_eq!(next(now_ms, None), 100);
        assert_eq!(next(now_ms, Some("99")), 100);
        for came in ["100", "101", "5000"] {
            assert!(next(now_ms, Some(came)) > came.parse().unwrap());
        }
        for foreign in ["x", "-1", "18446744073709551615", ""] {
            assert_eq!(next(now_ms, Some(foreign)), 100, "{foreign}");
        }
        assert_eq!(next(0, None), 0);
    }
}
