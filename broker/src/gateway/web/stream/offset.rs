//! Positions as the protocol has them: opaque words that sort as the positions do.
//!
//! ```text
//! 0000000000000003_0000000000000012     epoch of the record before, and offset of the record after
//! ```
//!
//! The epoch makes a word exact: it never resumes past an end that the log lost. It never goes back along a log, so the
//! words sort. Offsets have 16 digits; a log of a million records per second gets there after three hundred years.

use crate::service::stream::Position;

const DIGITS: usize = 16;

/// Its word.
pub(super) fn text(Position { epoch, offset }: Position) -> String {
    format!("{epoch:0DIGITS$}_{offset:0DIGITS$}")
}

/// Reads what [`text`] writes, and nothing else.
pub(super) fn parse(text: &str) -> Option<Position> {
    let is_number =
        |digits: &str| digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    let (epoch, offset) =
        text.split_once('_').filter(|(one, two)| is_number(one) && is_number(two))?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_sort_as_positions_do() {
        let position = |epoch, offset| Position { epoch, offset };
        let all =
            [position(0, 0), position(1, 9), position(1, 10), position(2, 10), position(10, 11)];
        let words = all.map(text);
        assert_eq!(words[0], "0000000000000000_0000000000000000");
        assert!(words.is_sorted());
        assert_eq!(words.each_ref().map(|word| parse(word).unwrap()), all);
    }

    #[test]
    fn nothing_else_is_a_word() {
        let zeros = "0".repeat(16);
        for broken in ["", "-1", "now", "0", "0_0", "a", "0,1", "../x", "+", "_"] {
            assert_eq!(parse(broken), None, "{broken}");
            assert_eq!(parse(&format!("{zeros}_{zeros}{broken}")).is_none(), !broken.is_empty());
        }
        assert_eq!(parse(&format!("{zeros}_+{}", "0".repeat(15))), None);
    }
}
