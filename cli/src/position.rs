//! Where reading begins: `--from earliest|latest|offset:N|time:T`.

use std::str::FromStr;

use crate::{clock, failure::Failure, time};

/// A place in a partition, as the user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The first record kept.
    Earliest,
    /// Behind the last record visible now.
    Latest,
    /// This offset, in every partition read.
    Offset(u64),
    /// The first record at or after this moment, in milliseconds since 1970-01-01 UTC.
    TimeMs(i64),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        match text.split_once(':') {
            None if text == "earliest" => Ok(Position::Earliest),
            None if text == "latest" => Ok(Position::Latest),
            Some(("offset", number)) => number
                .parse()
                .map(Position::Offset)
                .map_err(|_| format!("`{number}` is not an offset; offsets are numbers from 0")),
            Some(("time", moment)) => time::parse(moment, clock::now_ms()).map(Position::TimeMs),
            _ => Err("write earliest, latest, offset:N or time:T".to_owned()),
        }
    }
}

/// `orders` or `orders:3`.
pub(crate) fn parse_topic(text: &str) -> Result<(&str, Option<u32>), Failure> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((topic, number)) => {
            let number = number.parse().map_err(|_| {
                Failure::usage(format!(
                    "`{number}` is not a partition number; write TOPIC or TOPIC:PARTITION"
                ))
            })?;
            Ok((topic, Some(number)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read() {
        let cases = [
            ("earliest", Position::Earliest),
            ("latest", Position::Latest),
            ("offset:0", Position::Offset(0)),
            ("offset:18446744073709551615", Position::Offset(u64::MAX)),
            ("time:1970-01-01T00:00:01Z", Position::TimeMs(1_000)),
        ];
        for (text, position) in cases {
            assert_eq!(text.parse(), Ok(position), "{text}");
        }
        let hour_ago = clock::now_ms() - 3_600_000;
        let Ok(Position::TimeMs(moment)) = "time:-1h".parse() else { panic!("not a time") };
        assert!((hour_ago..hour_ago + 60_000).contains(&moment), "{moment}");
    }

    #[test]
    fn other_words_are_refused() {
        for text in
            ["", "first", "offset", "offset:", "offset:-1", "offset:x", "time:", "time:noon", "12"]
        {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
