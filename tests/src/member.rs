//! What a member of a group writes down, so that others can tell what it did although it was paused or killed.
//!
//! ```text
//! got MEMBER PARTITION FROM TO
//! try MEMBER SERIAL PARTITION OFFSET      before a commit is sent
//! committed MEMBER SERIAL                 when it was confirmed
//! fenced MEMBER SERIAL                    when it was refused
//! ```

use std::fmt;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Records `[from, to)` were received.
    Got {
        /// Its name.
        member: String,
        /// Partition.
        partition: u32,
        /// First offset.
        from: u64,
        /// First offset past them.
        to: u64,
    },
    /// A commit is about to be sent.
    Try {
        /// Its name.
        member: String,
        /// Number of the commit.
        serial: u64,
        /// Partition.
        partition: u32,
        /// Next offset to be read.
        offset: u64,
    },
    /// It was confirmed.
    Committed {
        /// Its name.
        member: String,
        /// Number of the commit.
        serial: u64,
    },
    /// It was refused: the member is none any more, or another one owns the partition.
    Fenced {
        /// Its name.
        member: String,
        /// Number of the commit.
        serial: u64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Got { member, partition, from, to } => {
                write!(f, "got {member} {partition} {from} {to}")
            }
            Line::Try { member, serial, partition, offset } => {
                write!(f, "try {member} {serial} {partition} {offset}")
            }
            Line::Committed { member, serial } => write!(f, "committed {member} {serial}"),
            Line::Fenced { member, serial } => write!(f, "fenced {member} {serial}"),
        }
    }
}

impl Line {
    /// Reads a line; `None` when it is none.
    pub fn parse(line: &str) -> Option<Line> {
        let mut words = line.split(' ');
        let (kind, member) = (words.next()?, words.next()?.to_owned());
        let mut number = || words.next()?.parse::<u64>().ok();
        match kind {
            "got" => {
                let partition = number()?.try_into().ok()?;
                Some(Line::Got { member, partition, from: number()?, to: number()? })
            }
            "try" => {
                let serial = number()?;
                let partition = number()?.try_into().ok()?;
                Some(Line::Try { member, serial, partition, offset: number()? })
            }
            "committed" => Some(Line::Committed { member, serial: number()? }),
            "fenced" => Some(Line::Fenced { member, serial: number()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        for text in ["got a 3 5 9", "try a 1 3 9", "committed a 1", "fenced b 2"] {
            assert_eq!(Line::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "got", "got a 1 2", "try a x 1 2", "gone a 1"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
