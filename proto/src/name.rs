//! Names of topics and groups: what is allowed in them.
//!
//! The letters are those that every door, file listing and metric accepts; a name still never becomes a path.

use std::fmt;

use crate::limits::NAME_BYTES_MAX;

/// What a name is of; it begins the error's sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameKind::Topic => "topic",
            NameKind::Group => "group",
        })
    }
}

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing came.
    #[error("`{kind}` is empty, a name has 1 to `{NAME_BYTES_MAX}` characters")]
    Empty {
        /// What the name is of.
        kind: NameKind,
    },
    /// Too much came.
    #[error("`{kind}` has `{bytes}` bytes, at most `{NAME_BYTES_MAX}` are allowed")]
    TooLong {
        /// What the name is of.
        kind: NameKind,
        /// Bytes that came.
        bytes: usize,
    },
    /// `.` and `..` mean something else everywhere.
    #[error("`{kind}` is `{name}`, which is reserved")]
    Dots {
        /// What the name is of.
        kind: NameKind,
        /// What came.
        name: &'static str,
    },
    /// A character is not allowed.
    #[error("`{kind}` has {character:?} at byte `{position}`, allowed are `A-Za-z0-9._-`")]
    Character {
        /// What the name is of.
        kind: NameKind,
        /// The first such character.
        character: char,
        /// Where it stands, in bytes from 0.
        position: usize,
    },
}

/// Checks that `name` is 1 to 249 of `A-Za-z0-9._-`, and neither `.` nor `..`.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_name(kind: NameKind, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { kind, bytes: name.len() });
    }
    let dots = [".", ".."].into_iter().find(|dots| *dots == name);
    if let Some(name) = dots {
        return Err(NameError::Dots { kind, name });
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    match name.char_indices().find(|(_, character)| !allowed(*character)) {
        Some((position, character)) => Err(NameError::Character { kind, character, position }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        let outcome = match check_name(NameKind::Topic, name) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(outcome, expected, "{name:?}");
    }

    #[test]
    fn names() {
        check("orders", "ok");
        check("A-z_0.9", "ok");
        check("...", "ok");
        check(&"x".repeat(249), "ok");
        check(&"x".repeat(250), "`topic` has `250` bytes, at most `249` are allowed");
        check("", "`topic` is empty, a name has 1 to `249` characters");
        check(".", "`topic` is `.`, which is reserved");
        check("..", "`topic` is `..`, which is reserved");
        check("../x", "`topic` has '/' at byte `2`, allowed are `A-Za-z0-9._-`");
        check("a b", "`topic` has ' ' at byte `1`, allowed are `A-Za-z0-9._-`");
        check("a\0", "`topic` has '\\0' at byte `1`, allowed are `A-Za-z0-9._-`");
        check("a\r\n", "`topic` has '\\r' at byte `1`, allowed are `A-Za-z0-9._-`");
        check("zü", "`topic` has 'ü' at byte `1`, allowed are `A-Za-z0-9._-`");
    }
}
