//! The clocks of the comparison. One monotonic clock that all processes of the machine share, so that a time noted in one can be compared in
//! another.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::{
    thread::clock_nanosleep_absolute,
    time::{ClockId, Timespec, clock_gettime},
};

/// Time since the machine was started, in nanoseconds.
pub(crate) fn nanos() -> u64 {
    nanos_of(clock_gettime(ClockId::Monotonic))
}

/// Processor time of this process, in seconds.
pub(crate) fn own_processor_seconds() -> f64 {
    nanos_of(clock_gettime(ClockId::ProcessCPUTime)) as f64 / 1e9
}

/// Seconds since `start`, which [`nanos`] gave.
pub(crate) fn seconds_since(start: u64) -> f64 {
    nanos().saturating_sub(start) as f64 / 1e9
}

/// Sleeps until [`nanos`] gives `due`. Blocks the thread.
pub(crate) fn sleep_until(due: u64) {
    let seconds = i64::try_from(due / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(due % 1_000_000_000).unwrap_or(0);
    let due = Timespec { tv_sec: seconds, tv_nsec: nanos };
    while clock_nanosleep_absolute(ClockId::Monotonic, &due).is_err() {}
}

/// Sleeps for this time. Blocks the thread.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Now in UTC, as `2026-11-20` and `14:05`.
pub(crate) fn date_and_time() -> (String, String) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hour:02}:{minute:02}"))
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last of its year, in eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn nanos_of(time: Timespec) -> u64 {
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }
}
