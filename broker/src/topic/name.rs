//! Names of topics: what is allowed.

use riverrun_proto::limits::NAME_BYTES_MAX;
use thiserror::Error;

/// A name that no topic may have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "topic name must be 1 to {NAME_BYTES_MAX} characters of [A-Za-z0-9._-], not `.` or `..`, and not begin \
     with `__`, found `{}`", .name.escape_debug()
)]
pub struct InvalidTopicName {
    /// What came, cut to a readable length.
    pub name: String,
}

/// Checks a name that a client wants to give to a topic.
///
/// # Errors
/// [`InvalidTopicName`] repeats the rule and the name.
pub fn check_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    let reserved = name == "." || name == ".." || name.starts_with("__");
    if is_plain_name(name) && !reserved {
        return Ok(());
    }
    Err(InvalidTopicName { name: name.chars().take(NAME_BYTES_MAX + 1).collect() })
}

/// True for 1 to 249 characters of `[A-Za-z0-9._-]`; also the rule for groups.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "orders", "A-b_c.9", "_x", "...", long.as_str()] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", ".", "..", "__state", "a b", "a/b", "ä", "a\0", "a\n", too_long.as_str()] {
            assert!(check_topic_name(bad).is_err(), "{bad:?}");
        }
        let text = check_topic_name("a\nb").unwrap_err().to_string();
        assert!(text.contains("found `a\\nb`"), "{text}");
    }
}
