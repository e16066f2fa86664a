//! Bodies to records: one of all bytes, or one per value of JSON.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::StreamError;
use crate::stream::StreamFacts;

/// Most values of one body.
const VALUES_MAX: usize = 10_000;

/// The records of a body that is not empty. An array of JSON is as many values, flattened once.
pub(super) fn values(facts: &StreamFacts, body: &Bytes) -> Result<Vec<Bytes>, StreamError> {
    if !facts.is_json() {
        return Ok(vec![body.clone()]);
    }
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let Values { values, beyond } = match is_array {
        true => parse(body)?,
        false => Values { values: vec![parse(body)?], beyond: 0 },
    };
    if beyond > 0 {
        let expected = format!("at most {VALUES_MAX} values");
        return Err(StreamError::field("body", expected, values.len() + beyond));
    }
    Ok(values.into_iter().map(|value| body.slice_ref(value.get().as_bytes())).collect())
}

/// The values of an array, as many as may be taken. What is beyond is read over, so that it costs no memory.
struct Values<'a> {
    values: Vec<&'a RawValue>,
    /// How many more there are.
    beyond: usize,
}

impl<'de> Deserialize<'de> for Values<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Values<'de>, D::Error> {
        deserializer.deserialize_seq(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Values<'de>, A::Error> {
        let (mut values, mut beyond) = (Vec::new(), 0);
        while values.len() < VALUES_MAX {
            let Some(value) = array.next_element()? else { return Ok(Values { values, beyond }) };
            values.push(value);
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            beyond += 1;
        }
        Ok(Values { values, beyond })
    }
}

/// The records of the body of an append.
pub(super) fn appended(
    facts: &StreamFacts,
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<Vec<Bytes>, StreamError> {
    let Some(found) = content_type.filter(|text| !text.is_empty()) else {
        return Err(StreamError::field("content-type", "that of the stream", "nothing"));
    };
    if !facts.is_of(found) {
        let (expected, found) = (facts.content_type.clone(), found.chars().take(200).collect());
        return Err(StreamError::ContentType { expected, found });
    }
    let values = values(facts, body)?;
    match values.is_empty() {
        true => Err(StreamError::field("body", "a value of JSON, or an array of some", "[]")),
        false => Ok(values),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, StreamError> {
    serde_json::from_slice(body).map_err(|error| {
        let mut reason = error.to_string();
        reason.truncate(reason.floor_char_boundary(500));
        StreamError::Json { reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &'static str, expected: Option<&[&'static str]>) {
        let facts =
            StreamFacts { content_type: "Application/JSON; a=b".into(), ..StreamFacts::bytes() };
        let found = values(&facts, &Bytes::from_static(body.as_bytes())).ok();
        let expected = expected.map(|all| all.iter().map(|one| Bytes::from(*one)).collect());
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn arrays_are_flattened_once_and_values_kept_as_they_are_written() {
        check(r#" {"a": [1,  2.50]} "#, Some(&[r#"{"a": [1,  2.50]}"#]));
        check("[1, [2], \"x\", null]", Some(&["1", "[2]", "\"x\"", "null"]));
        check("[[1,2]]", Some(&["[1,2]"]));
        check("[]", Some(&[]));
        check("{ invalid }", None);
        check("[1,]", None);
        check("1 2", None);
    }

    #[test]
    fn values_beyond_the_most_are_counted_and_not_kept() {
        let array = |count| Bytes::from(format!("[{}1]", "1,".repeat(count - 1)));
        let most = array(VALUES_MAX);
        let all: Values<'_> = serde_json::from_slice(&most).unwrap();
        assert_eq!((all.values.len(), all.beyond), (VALUES_MAX, 0));
        let many = array(VALUES_MAX + 3);
        let some: Values<'_> = serde_json::from_slice(&many).unwrap();
        assert_eq!((some.values.len(), some.beyond), (VALUES_MAX, 3));
        let facts = StreamFacts { content_type: "application/json".into(), ..StreamFacts::bytes() };
        let refused = values(&facts, &many).unwrap_err().to_string();
        assert_eq!(refused, "`body` must be at most 10000 values, found `10003`");
        let broken = format!("[{}x]", "1,".repeat(VALUES_MAX + 3));
        let refused = values(&facts, &broken.into()).unwrap_err();
        assert!(matches!(refused, StreamError::Json { .. }), "{refused}");
    }

    #[test]
    fn an_append_says_its_type_and_has_something() {
        let facts = StreamFacts { content_type: "application/json".into(), ..StreamFacts::bytes() };
        let append = |content_type, body| appended(&facts, content_type, &Bytes::from_static(body));
        assert!(append(Some("APPLICATION/JSON"), b"1").is_ok());
        assert!(matches!(append(Some("text/plain"), b"1"), Err(StreamError::ContentType { .. })));
        assert!(matches!(append(None, b"1"), Err(StreamError::Field(_))));
        assert!(matches!(append(Some("application/json"), b"[]"), Err(StreamError::Field(_))));
    }
}
