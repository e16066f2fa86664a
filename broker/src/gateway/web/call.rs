//! What a request says outside its body: names in its path, parameters of its query, and who calls.
//!
//! Every parameter must be one that the route knows and may stand there once, so that a misspelt one is told and
//! never ignored: a handler takes what it knows and then calls [`Call::finish`].

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
};

use super::{connection::Caller, problem::Problem};
use crate::traces::Notes;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    names: Vec<(String, String)>,
    parameters: Vec<(String, String)>,
    /// Of the span of the request, where it is told of.
    notes: Option<Notes>,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Call, Problem> {
        let names = RawPathParams::from_request_parts(parts, state).await;
        let names = names
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", error))?;
        let names = names.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let caller = parts.extensions.get::<Caller>().expect("set for every connection").clone();
        let parameters = parameters(parts.uri.query().unwrap_or_default())?;
        let call = Call {
            caller,
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            names: names.collect(),
            parameters,
            notes: parts.extensions.get().cloned(),
        };
        call.note_names();
        Ok(call)
    }
}

impl Call {
    /// Adds to the span of the request what its path names.
    fn note_names(&self) {
        let Some(notes) = &self.notes else { return };
        if self.has_name("topic") {
            notes.topic(self.name("topic"));
        }
        if self.has_name("partition") {
            notes.partitions(1);
        }
    }

    /// The span of the request, where it is told of.
    pub(super) fn notes(&self) -> Option<&Notes> {
        self.notes.as_ref()
    }

    /// A name in the path of the route.
    pub(super) fn name(&self, name: &'static str) -> &str {
        let found = self.names.iter().find(|(known, _)| known == name);
        &found.expect("the route has it").1
    }

    /// Whether the path of the route has this name.
    pub(super) fn has_name(&self, name: &'static str) -> bool {
        self.names.iter().any(|(known, _)| known == name)
    }

    /// The caller has what this tag stands for, or wants it only when there is nothing at all.
    pub(super) fn knows(&self, tag: &HeaderValue) -> bool {
        let mut given = self.headers.get_all(header::IF_NONE_MATCH).iter();
        given.any(|known| names(known.as_bytes(), tag.as_bytes()))
    }

    /// A number in the path of the route.
    pub(super) fn number(&self, name: &'static str) -> Result<u32, Problem> {
        let text = self.name(name);
        text.parse().map_err(|_| Problem::field(name, "a number", text))
    }

    /// Takes a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let found = self.parameters.iter().position(|(known, _)| known == name)?;
        Some(self.parameters.swap_remove(found).1)
    }

    /// Takes a parameter that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        parse(&text).ok_or_else(|| Problem::field(name, expected, text)).map(Some)
    }

    /// Refuses the request when it has a parameter that was not taken.
    pub(super) fn finish(&self) -> Result<(), Problem> {
        let Some((name, _)) = self.parameters.first() else { return Ok(()) };
        Err(Problem::field("query", "parameters that the route has", name))
    }

    /// A header as text; empty when it is absent.
    pub(super) fn header(&self, name: HeaderName) -> Result<&str, Problem> {
        let Some(value) = self.headers.get(&name) else { return Ok("") };
        value.to_str().map_err(|_| Problem::field(name.as_str(), "ASCII text", "other bytes"))
    }
}

/// Whether a list of tags has this one. Weak ones, which a cache between may have made, are as good here.
fn names(tags: &[u8], tag: &[u8]) -> bool {
    tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|one| {
        let strong = one.strip_prefix(b"W/").unwrap_or(one);
        one == b"*" || strong == tag
    })
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decoded(name, true), decoded(value, true)) else {
            return Err(Problem::field("query", "percent-encoded UTF-8", pair));
        };
        if found.iter().any(|(known, _)| *known == name) {
            return Err(Problem::field("query", "parameters that stand there once", name));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Text with `%41` put back, and `+` as a blank in a query.
pub(super) fn decoded(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_among_others_weak_or_by_the_star() {
        for yes in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "\"b\",W/\"a\"", "*"] {
            assert!(names(yes.as_bytes(), b"\"a\""), "{yes}");
        }
        for no in ["", "a", "\"b\"", "\"a", "W/", "w/\"a\"", "\"*\""] {
            assert!(!names(no.as_bytes(), b"\"a\""), "{no}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_stand_once() {
        let found = parameters("a=b+c&d=%C3%a9%26&e").unwrap();
        let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, [("a", "b c"), ("d", "é&"), ("e", "")]);
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=1&a=2"] {
            assert!(parameters(broken).is_err(), "{broken}");
        }
    }
}
