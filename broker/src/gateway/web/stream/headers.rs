//! The protocol's headers of requests.

use axum::http::{HeaderName, header};
use bytes::Bytes;

use super::{RESERVED, offset, time};
use crate::{
    gateway::web::{
        call::{Call, decoded},
        problem::Problem,
    },
    quota::Share,
    service::stream::{CreateRequest, ForkRequest},
    stream::{Mark, Producer},
};

pub(super) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
pub(super) const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
pub(super) const CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
pub(super) const CLOSED: HeaderName = HeaderName::from_static("stream-closed");
pub(super) const TTL: HeaderName = HeaderName::from_static("stream-ttl");
pub(super) const EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
pub(super) const DATA_ENCODING: HeaderName = HeaderName::from_static("stream-sse-data-encoding");
pub(super) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
pub(super) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
pub(super) const EXPECTED_SEQ: HeaderName = HeaderName::from_static("producer-expected-seq");
pub(super) const RECEIVED_SEQ: HeaderName = HeaderName::from_static("producer-received-seq");
const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
const SEQ: HeaderName = HeaderName::from_static("stream-seq");
const FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
const FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
const FORK_SUB_OFFSET: HeaderName = HeaderName::from_static("stream-fork-sub-offset");

/// Longest id of a producer, and longest word of the writers' own sequence.
const WORD_BYTES_MAX: usize = 256;
/// Largest number that every client can tell from its neighbours.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What a request creates, but its body.
pub(super) fn create(call: &Call, name: String) -> Result<CreateRequest, Problem> {
    let ttl_s = number(call, &TTL, u64::MAX)?;
    let expires = text(call, &EXPIRES_AT)?;
    let parsed = expires.map(|text| {
        time::parse(text)
            .ok_or_else(|| Problem::field(EXPIRES_AT.as_str(), "a time as RFC 3339 has it", text))
    });
    let expires_at_ms = parsed.transpose()?;
    if let (Some(_), Some(expires)) = (ttl_s, expires) {
        return Err(Problem::field(EXPIRES_AT.as_str(), "absent beside `stream-ttl`", expires));
    }
    Ok(CreateRequest {
        name,
        content_type: content_type(call)?,
        ttl_s,
        expires_at_ms,
        is_closed: is_closing(call)?,
        body: Bytes::new(),
        share: Share::default(),
        fork: fork(call)?,
    })
}

/// Media type of the body, when it says one.
pub(super) fn content_type(call: &Call) -> Result<Option<String>, Problem> {
    let Some(text) = text(call, &header::CONTENT_TYPE)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let is_token = |part: &str| !part.is_empty() && !part.contains([' ', '/', ',', '"']);
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let is_sound =
        media_type.split_once('/').is_some_and(|(one, two)| is_token(one) && is_token(two));
    match is_sound && text.len() <= WORD_BYTES_MAX {
        true => Ok(Some(text.to_owned())),
        false => {
            let expected = format!("a media type of at most {WORD_BYTES_MAX} bytes");
            Err(Problem::field("content-type", &expected, text))
        }
    }
}

/// What an append says of its writer.
pub(super) fn mark(call: &Call) -> Result<Mark, Problem> {
    let seq = text(call, &SEQ)?;
    let seq = seq.map(|text| word(&SEQ, text)).transpose()?;
    let mark = Mark { producer: producer(call)?, seq: None, is_closing: is_closing(call)? };
    Ok(Mark { seq: seq.map(|text| Bytes::copy_from_slice(text.as_bytes())), ..mark })
}

/// All of its headers, or none.
fn producer(call: &Call) -> Result<Option<Producer>, Problem> {
    let id = text(call, &PRODUCER_ID)?;
    let epoch = number(call, &PRODUCER_EPOCH, NUMBER_MAX)?;
    let seq = number(call, &PRODUCER_SEQ, NUMBER_MAX)?;
    match (id, epoch, seq) {
        (None, None, None) => Ok(None),
        (Some(id), Some(epoch), Some(seq)) => {
            let id = word(&PRODUCER_ID, id)?.to_owned();
            Ok(Some(Producer { id, epoch, seq }))
        }
        (_, _, _) => {
            let expected = "there with `producer-epoch` and `producer-seq`, or none of them";
            Err(Problem::field(PRODUCER_ID.as_str(), expected, "some of them"))
        }
    }
}

fn fork(call: &Call) -> Result<Option<ForkRequest>, Problem> {
    let offset = text(call, &FORK_OFFSET)?;
    let sub_offset = number(call, &FORK_SUB_OFFSET, NUMBER_MAX)?;
    let Some(path) = text(call, &FORKED_FROM)? else {
        let lone = offset.map(|_| FORK_OFFSET).or(sub_offset.map(|_| FORK_SUB_OFFSET));
        let Some(lone) = lone else { return Ok(None) };
        return Err(Problem::field(lone.as_str(), "beside `stream-forked-from`", "alone"));
    };
    let unsound = || Problem::field(FORKED_FROM.as_str(), "the path of a stream", path);
    let name = path.strip_prefix("/v1/stream/").and_then(|name| decoded(name, false));
    let name = name.filter(|name| !name.contains('/') && name != RESERVED && !name.is_empty());
    let parsed = offset.map(|text| {
        offset::parse(text)
            .ok_or_else(|| Problem::field(FORK_OFFSET.as_str(), "an offset of the source", text))
    });
    Ok(Some(ForkRequest {
        source: name.ok_or_else(unsound)?,
        offset: parsed.transpose()?,
        sub_offset: sub_offset.unwrap_or(0),
    }))
}

/// Only `true` means it; anything else is as if it were absent.
fn is_closing(call: &Call) -> Result<bool, Problem> {
    Ok(text(call, &CLOSED)?.is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// A number in plain digits.
fn number(call: &Call, name: &HeaderName, largest: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = text(call, name)? else { return Ok(None) };
    let is_plain = text == "0" || !text.starts_with('0');
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && is_digits && *number <= largest);
    let expected = || format!("a number in plain digits, at most {largest}");
    number.map(Some).ok_or_else(|| Problem::field(name.as_str(), &expected(), text))
}

fn word<'a>(name: &HeaderName, text: &'a str) -> Result<&'a str, Problem> {
    match (1..=WORD_BYTES_MAX).contains(&text.len()) {
        true => Ok(text),
        false => Err(Problem::field(name.as_str(), &format!("1 to {WORD_BYTES_MAX} bytes"), text)),
    }
}

fn text<'a>(call: &'a Call, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    match call.headers.contains_key(name) {
        true => call.header(name.clone()).map(Some),
        false => Ok(None),
    }
}
