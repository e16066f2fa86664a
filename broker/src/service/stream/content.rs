//! Bodies to records: one of all bytes, or one per value of JSON.

use bytes::Bytes;
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
    let values: Vec<&RawValue> = match is_array {
        true => parse(body)?,
        false => vec![parse(body)?],
    };
    if values.len() > VALUES_MAX {
        return Err(StreamError::field(
            "body",
            format!("at most {VALUES_MAX} values"),
            values.len(),
        ));
    }
    Ok(values.into_iter().map(|value| Bytes::copy_from_slice(value.get().as_bytes())).collect())
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

fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, StreamError> {
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
    fn an_append_says_its_type_and_has_something() {
        let facts = StreamFacts { content_type: "application/json".into(), ..StreamFacts::bytes() };
        let append = |content_type, body| appended(&facts, content_type, &Bytes::from_static(body));
        assert!(append(Some("APPLICATION/JSON"), b"1").is_ok());
        assert!(matches!(append(Some("text/plain"), b"1"), Err(StreamError::ContentType { .. })));
        assert!(matches!(append(None, b"1"), Err(StreamError::Field(_))));
        assert!(matches!(append(Some("application/json"), b"[]"), Err(StreamError::Field(_))));
    }
}
