//! Replies, and their bytes counted until the protocol stack lets go of them.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use serde_json::Value;

use super::problem::Problem;
use crate::quota::{Room, Share};

/// Media type of JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A step of a reply that goes on ends with the record that takes its text past this, so that what a reader makes the
/// broker hold is bounded whatever its records are.
pub(super) const STEP_TEXT_BYTES: usize = 256 << 10;
/// Bytes of a reply that are not counted.
const FREE_BYTES: usize = 8 << 10;
/// What one result of many is taken to have.
const RESULT_BYTES: usize = 128;

/// Bytes and what was taken for them.
struct Counted<B> {
    bytes: B,
    _share: Share,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Counted<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A small reply, which is not counted.
pub(super) fn json(value: &Value) -> Response {
    typed(JSON, Bytes::from(value.to_string()))
}

/// A reply of any size; refused when there is no room for it.
pub(super) async fn counted(
    media_type: HeaderValue,
    bytes: Vec<u8>,
    room: &Room,
) -> Result<Response, Problem> {
    Ok(typed(media_type, count(bytes, room).await?))
}

/// Bytes that hold their share of the room until they are sent.
pub(super) async fn count(bytes: Vec<u8>, room: &Room) -> Result<Bytes, Problem> {
    let share = room.take(bytes.len()).await?;
    Ok(held(bytes, share))
}

/// Room for a text that is about to be made of what `shares` were taken for. Where there is none now they are given
/// back first: nobody waits for room while he holds some.
pub(super) async fn room_for_text(
    bytes: usize,
    shares: Vec<Share>,
    room: &Room,
) -> Result<Share, Problem> {
    if let Ok(share) = room.try_take(bytes) {
        return Ok(share);
    }
    drop(shares);
    Ok(room.take(bytes).await?)
}

/// Bytes whose room was taken before.
pub(super) fn held<B: AsRef<[u8]> + Send + 'static>(bytes: B, share: Share) -> Bytes {
    Bytes::from_owner(Counted { bytes, _share: share })
}

/// A text of the program's own.
pub(super) fn text(media_type: HeaderValue, text: &'static str) -> Response {
    typed(media_type, Bytes::from_static(text.as_bytes()))
}

/// JSON of any size, refused when there is no room for it. Small replies are not counted.
pub(super) async fn sized(value: &Value, room: &Room) -> Result<Response, Problem> {
    let bytes = value.to_string().into_bytes();
    match bytes.len() > FREE_BYTES {
        true => counted(JSON, bytes, room).await,
        false => Ok(typed(JSON, bytes.into())),
    }
}

/// Room for the results of so many items, to be taken before anything is done that they would tell of.
pub(super) async fn room_for(items: usize, room: &Room) -> Result<Share, Problem> {
    let bytes = items.saturating_mul(RESULT_BYTES);
    if bytes <= FREE_BYTES {
        return Ok(Share::default());
    }
    Ok(room.take(bytes).await?)
}

/// JSON whose room was taken before.
pub(super) fn paid(value: &Value, share: Share) -> Response {
    let bytes = value.to_string().into_bytes();
    typed(JSON, held(bytes, share))
}

/// A reply of this media type.
pub(super) fn typed(media_type: HeaderValue, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
