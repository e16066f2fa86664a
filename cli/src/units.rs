//! Quantities as people write and read them: sizes, durations, counts.
//!
//! Sizes are exact: `KiB` is 1,024, `kB` is 1,000, and a letter case that could mean either is refused
//! rather than guessed.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const TIME_UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Parses `64MiB`, `4096`, `1 GB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    scaled(text, &SIZE_UNITS, 1).ok_or_else(|| {
        format!(
            "`{text}` is not a size; write a number of bytes, or one with KiB, MiB, GiB, kB, MB, GB"
        )
    })
}

/// Parses `500ms`, `30s`, `7d` into milliseconds; a bare number is milliseconds.
pub(crate) fn parse_millis(text: &str) -> Result<u64, String> {
    scaled(text, &TIME_UNITS, 1).ok_or_else(|| {
        format!("`{text}` is not a duration; write for instance 500ms, 30s, 15m, 12h or 7d")
    })
}

fn scaled(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let factor = match unit {
        "" => bare,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

/// `1284` as `1,284`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 record`, `1,284 records`.
pub(crate) fn records(number: u64) -> String {
    format!("{} record{}", count(number), if number == 1 { "" } else { "s" })
}

/// A size for reading: three figures, binary units.
pub(crate) fn bytes(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut index = 0;
    let mut whole = size;
    let mut tenths = 0;
    while whole >= 1024 {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        index += 1;
    }
    if index == 0 || whole >= 100 {
        return format!("{whole} {}", units[index]);
    }
    format!("{whole}.{tenths} {}", units[index])
}

/// A duration for reading: `0 s`, `3.2 s`, `4 min 5 s`, `3 h 2 min`, `7 d`.
pub(crate) fn millis(duration_ms: u64) -> String {
    let seconds = duration_ms / 1_000;
    match seconds {
        0 if duration_ms == 0 => "0 s".to_owned(),
        0 => format!("{duration_ms} ms"),
        1..60 => match duration_ms % 1_000 / 100 {
            0 => format!("{seconds} s"),
            tenths => format!("{seconds}.{tenths} s"),
        },
        60..3_600 => two(seconds, 60, "min", "s"),
        3_600..86_400 => two(seconds / 60, 60, "h", "min"),
        _ => two(seconds / 3_600, 24, "d", "h"),
    }
}

fn two(small: u64, factor: u64, big_unit: &str, small_unit: &str) -> String {
    match small % factor {
        0 => format!("{} {big_unit}", small / factor),
        rest => format!("{} {big_unit} {rest} {small_unit}", small / factor),
    }
}

/// `bytes` in `elapsed` as a rate in MB/s (millions of bytes), as disks and networks are sold; in kB/s when there
/// is less.
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> String {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    // Bytes per microsecond are megabytes per second.
    let (unit, scale) = if bytes < micros { ("kB/s", 10_000) } else { ("MB/s", 10) };
    let tenths = u128::from(bytes) * scale / u128::from(micros);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// The word of `words` nearest to `wrong`, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = words.into_iter().map(|word| (edit_distance(wrong, word), word));
    let (distance, word) = near.min()?;
    (distance <= (wrong.len().max(word.len()) / 3).max(1)).then_some(word)
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read() {
        let sizes = [("4096", 4096), ("1KiB", 1024), ("1 kB", 1000), ("64MiB", 64 << 20), ("0", 0)];
        for (text, size) in sizes {
            assert_eq!(parse_bytes(text), Ok(size), "{text}");
        }
        let times =
            [("250", 250), ("250ms", 250), ("30s", 30_000), ("15m", 900_000), ("7d", 604_800_000)];
        for (text, time) in times {
            assert_eq!(parse_millis(text), Ok(time), "{text}");
        }
    }

    #[test]
    fn unclear_quantities_are_refused() {
        for text in ["", "KiB", "1kb", "-1", "1.5MiB", "99999999999GiB", "1 x", "１"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for text in ["", "s", "1 y", "-5s", "1M", "18446744073709551615w"] {
            assert!(parse_millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_written_for_people() {
        let counts = [(0, "0"), (999, "999"), (1284, "1,284"), (1_000_000, "1,000,000")];
        for (number, text) in counts {
            assert_eq!(count(number), text);
        }
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (150 << 20, "150 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (size, text) in sizes {
            assert_eq!(bytes(size), text);
        }
        let times = [
            (0, "0 s"),
            (40, "40 ms"),
            (3_250, "3.2 s"),
            (12_000, "12 s"),
            (245_000, "4 min 5 s"),
            (10_920_000, "3 h 2 min"),
            (604_800_000, "7 d"),
        ];
        for (time, text) in times {
            assert_eq!(millis(time), text);
        }
        assert_eq!(rate(250_000_000, Duration::from_secs(1)), "250.0 MB/s");
        assert_eq!(rate(1, Duration::ZERO), "1.0 MB/s");
        assert_eq!(rate(40, Duration::from_millis(6)), "6.6 kB/s");
    }

    #[test]
    fn a_mistyped_word_is_guessed_only_when_near() {
        let words = ["durability", "retention_ms", "retention_bytes"];
        assert_eq!(nearest("durabilty", words), Some("durability"));
        assert_eq!(nearest("retention", words), Some("retention_ms"));
        assert_eq!(nearest("colour", words), None);
    }
}
