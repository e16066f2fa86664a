//! Moments as people write them: RFC 3339 in UTC or with an offset, a date, milliseconds, or a time ago.
//!
//! Calendar arithmetic is that of the proleptic Gregorian calendar, without leap seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{clock, units};

const DAY_MS: i64 = 86_400_000;

/// Parses a moment into milliseconds since 1970-01-01 UTC; `now_ms` anchors `-15m`.
pub(crate) fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let parsed = match text.strip_prefix('-') {
        Some(ago) => units::parse_millis(ago).ok().and_then(|ms| now_ms.checked_sub_unsigned(ms)),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => parse_rfc3339(text),
    };
    parsed.ok_or_else(|| {
        format!(
            "`{text}` is not a time; write 2026-11-20T09:30:00Z, 2026-11-20, \
             milliseconds since 1970-01-01, or -15m for a quarter of an hour ago"
        )
    })
}

/// Parses a moment not before 1970, for a command line argument.
pub(crate) fn parse_moment(text: &str) -> Result<SystemTime, String> {
    let ms = parse(text, clock::now_ms())?;
    let ms = u64::try_from(ms).map_err(|_| format!("`{text}` lies before 1970"))?;
    Ok(UNIX_EPOCH + Duration::from_millis(ms))
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00Z"),
    };
    let days = parse_date(date)?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let of_day_ms = parse_time_of_day(&time[..zone_at])?;
    let offset_ms = parse_zone(&time[zone_at..])?;
    days.checked_mul(DAY_MS)?.checked_add(of_day_ms)?.checked_sub(offset_ms)
}

fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that its month does not have comes back as another date.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

fn parse_time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |part| number(part, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let all_digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let padded: String = fraction.chars().chain("00".chars()).take(3).collect();
    let millis: i64 = if all_digits { padded.parse().ok()? } else { return None };
    Some(((hour * 60 + minute) * 60 + second) * 1_000 + millis)
}

fn parse_zone(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text[1..].split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// Exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let exact = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    exact.then(|| text.parse().ok())?
}

/// Writes a moment as `2026-11-20T09:30:00.123Z`.
pub(crate) fn format(time_ms: i64) -> String {
    let (year, month, day) = civil_from_days(time_ms.div_euclid(DAY_MS));
    let of_day = time_ms.rem_euclid(DAY_MS);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Days from 1970-01-01 to a date. Years begin in March here, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

/// The date that lies `days` after 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    // 146,097 days make 400 years.
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-02", DAY_MS),
            ("2026-11-20T13:22:00Z", 1_795_180_920_000),
            ("2026-11-20 13:22:00.5Z", 1_795_180_920_500),
            ("2026-11-20T14:22:00.123456+01:00", 1_795_180_920_123),
            ("2024-02-29T23:59:59Z", 1_709_251_199_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("1795180920000", 1_795_180_920_000),
            ("-15m", 100_000),
        ];
        for (text, time_ms) in cases {
            assert_eq!(parse(text, 1_000_000), Ok(time_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let wrong = [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-30",
            "2025-02-29",
            "2026-1-1",
            "2026-11-20T25:00:00Z",
            "2026-11-20T10:00:00",
            "2026-11-20T10:00:00+1",
            "-",
            "-x",
            "99999999999999999999",
            "2026-11-20T10:00:00.Z",
            "２０２６-11-20",
        ];
        for text in wrong {
            assert!(parse(text, 0).is_err(), "{text}");
        }
    }

    #[test]
    fn every_written_moment_is_read_back() {
        // A stride that visits all months, leap years and odd times of day.
        for step in -40_000..40_000_i64 {
            let time_ms = step * 1_234_567_891;
            let text = format(time_ms);
            if text.len() == 24 && !text.starts_with('-') {
                assert_eq!(parse(&text, 0), Ok(time_ms), "{text}");
            }
        }
    }
}
