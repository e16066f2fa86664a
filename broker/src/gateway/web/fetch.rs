//! `GET /v1/topics/{topic}/partitions/{partition}/records`: reads one partition.
//!
//! Short poll, or with `max_wait` long poll: an empty reply once the wait is over, never an error. The next offset
//! stands in the body and in a header, so that `HEAD` tells it too. With `accept: application/x-ndjson` records
//! come as lines and the reply goes on for as long as somebody reads it (or up to the end of what is there, with
//! `follow=false`): one read at a time, made when the connection can take more, so that a slow reader costs one
//! reply's memory.

use std::{convert::Infallible, hash::Hasher, time::Duration, vec};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use rapidhash::fast::RapidHasher;
use riverrun_proto::{Offset, batch::OffsetRecord, limits::WAIT_MS_MAX};
use serde_json::json;

use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
    record, reply,
};
use crate::{
    config::{parse_duration, parse_size},
    quota::{Room, Share},
    service::{
        fetch::{FetchPartition, FetchRequest, Fetched, FetchedRecords, Format},
        lookup::{OffsetQuery, Position},
    },
};

/// Bytes of a reply when the caller does not say, and of one step of a stream.
const BYTES_DEFAULT: u32 = 1 << 20;
/// A whole reply ends with the record that takes its text past this.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Bytes of a whole reply beside its records.
const REST_BYTES: usize = 512;
/// A stream without records has an empty line this often, so that both ends see that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const NEXT_OFFSET: HeaderName = HeaderName::from_static("riverrun-next-offset");
const HIGH_WATERMARK: HeaderName = HeaderName::from_static("riverrun-high-watermark");
const LOG_START: HeaderName = HeaderName::from_static("riverrun-log-start-offset");

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/topics/{topic}/partitions/{partition}/records", get(fetch))
}

/// What was read from the partition.
struct Read {
    topic: String,
    partition: u32,
    log_start: u64,
    high_watermark: u64,
    records: FetchedRecords,
    /// Given back when the records were made text of.
    shares: Vec<Share>,
}

async fn fetch(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let offset = call.take("offset").unwrap_or_else(|| "earliest".to_owned());
    let wait = call.parsed("max_wait", &format!("a duration up to \"{WAIT_MS_MAX}ms\""), wait)?;
    let bytes = call.parsed("max_bytes", "a number of bytes, or a size such as `1MiB`", size)?;
    let records = call.parsed("max_records", "a number", |text| text.parse().ok())?;
    let epoch = call.parsed("leader_epoch", "a number", |text| text.parse().ok())?;
    let is_stream = accepts_lines(&call)?;
    let follow = call.parsed("follow", "true or false", |text| text.parse().ok())?;
    call.finish()?;
    if follow == Some(true) && !is_stream {
        let expected = "given with `accept: application/x-ndjson`";
        return Err(Problem::field("follow", expected, "without it"));
    }
    let offset = resolve(&door, &call, &offset).await?;
    let partition = FetchPartition {
        topic: call.name("topic").to_owned(),
        topic_id: Bytes::new(),
        partition: call.number("partition")?,
        offset,
        bytes_max: 0,
        leader_epoch: epoch.filter(|epoch| *epoch > 0),
    };
    let request = FetchRequest {
        partitions: vec![partition],
        // Whoever asks for the head wants to know how it is now.
        wait: wait.filter(|_| call.method != Method::HEAD).unwrap_or_default(),
        bytes_min: 1,
        bytes_max: bytes.unwrap_or(BYTES_DEFAULT),
        records_max: records.unwrap_or(0),
        format: Format::Structured,
        member: None,
    };
    if is_stream {
        return stream_lines(door, call, request, follow.unwrap_or(true)).await;
    }
    let read = read(&door, request, &call.caller.replies).await?;
    whole(read, &call).await
}

fn wait(text: &str) -> Option<Duration> {
    let wait = parse_duration(text).or_else(|| text.parse().ok().map(Duration::from_millis))?;
    Some(wait).filter(|wait| *wait <= Duration::from_millis(u64::from(WAIT_MS_MAX)))
}

fn size(text: &str) -> Option<u32> {
    let bytes = parse_size(text).or_else(|| text.parse().ok())?;
    u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// True when the caller wants lines.
fn accepts_lines(call: &Call) -> Result<bool, Problem> {
    let accept = call.header(header::ACCEPT)?;
    let media_types = accept.split(',').map(|one| one.split(';').next().unwrap_or("").trim());
    Ok(media_types.into_iter().any(|one| one.eq_ignore_ascii_case("application/x-ndjson")))
}

/// The offset that a number or a name stands for.
async fn resolve(door: &WebDoor, call: &Call, offset: &str) -> Result<u64, Problem> {
    let position = match offset {
        "earliest" => Position::Earliest,
        "latest" => Position::Latest,
        number => {
            return number
                .parse()
                .map_err(|_| Problem::field("offset", "a number, earliest or latest", number));
        }
    };
    let (topic, partition) = (call.name("topic").to_owned(), call.number("partition")?);
    let query = OffsetQuery { topic, partition, position };
    Ok(door.services.lookup.find(&query).await?.offset.0)
}

/// Reads once, waiting as long as the request says.
async fn read(door: &WebDoor, request: FetchRequest, room: &Room) -> Result<Read, Problem> {
    let answer = door.services.fetch.fetch(request, room).await?;
    let fetched = answer.partitions.into_iter().next();
    let Fetched { topic, partition, visible, records } =
        fetched.expect("an answer without records has all partitions");
    let records = records?;
    let visible = visible.expect("a partition that was read is there");
    let (log_start, high_watermark) = (visible.log_start.0, visible.high_watermark.0);
    Ok(Read { topic, partition, log_start, high_watermark, records, shares: answer.shares })
}

impl Read {
    /// Leaves out the records past the bound of the text, which are read by the next request. The bytes of the others' text,
    /// with the commas.
    fn cut(&mut self) -> usize {
        let FetchedRecords { records, next_offset, record_count, .. } = &mut self.records;
        let mut bytes = 0;
        for (index, record) in records.iter().enumerate() {
            bytes += record::text_bytes(record) + 1;
            if bytes >= TEXT_BYTES_MAX && index + 1 < records.len() {
                *next_offset = Offset(record.offset.0 + 1);
                *record_count = index + 1;
                records.truncate(index + 1);
                break;
            }
        }
        bytes
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NEXT_OFFSET, self.records.next_offset.0.into());
        headers.insert(HIGH_WATERMARK, self.high_watermark.into());
        headers.insert(LOG_START, self.log_start.into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers
    }
}

/// The reply with all that was read.
async fn whole(mut read: Read, call: &Call) -> Answer {
    let bytes = read.cut() + read.topic.len() + REST_BYTES;
    let headers = read.headers();
    let shares = std::mem::take(&mut read.shares);
    let mut share = reply::room_for_text(bytes, shares, &call.caller.replies).await?;
    let mut body = Vec::with_capacity(bytes);
    let names = json!({"topic": read.topic, "partition": read.partition}).to_string();
    body.extend_from_slice(names.trim_end_matches('}').as_bytes());
    body.extend_from_slice(b",\"records\":[");
    for (index, record) in read.records.records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        record::write(record, &mut body);
    }
    let rest = json!({
        "next_offset": read.records.next_offset.0,
        "leader_epoch": read.records.leader_epoch.0,
        "log_start_offset": read.log_start,
        "high_watermark": read.high_watermark,
    });
    body.extend_from_slice(b"],");
    body.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    drop(read);
    share.shrink(body.len());
    let tag = etag(&body);
    let mut response = match call.knows(&tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => reply::typed(reply::JSON, reply::held(body, share)),
    };
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// A tag that is the same for the same body.
fn etag(body: &[u8]) -> HeaderValue {
    let mut hasher = RapidHasher::default();
    hasher.write(body);
    let tag = format!("\"{:016x}\"", hasher.finish());
    HeaderValue::from_str(&tag).expect("digits between quotes")
}

/// What a stream of lines goes on with.
struct Lines {
    door: WebDoor,
    room: Room,
    request: FetchRequest,
    /// Records still wanted, where there is a bound.
    left: Option<u32>,
    follow: bool,
    /// What was read and is not written yet.
    rest: Option<(Read, vec::IntoIter<OffsetRecord>)>,
}

async fn stream_lines(
    door: WebDoor,
    call: Call,
    mut request: FetchRequest,
    follow: bool,
) -> Answer {
    let left = Some(request.records_max).filter(|most| *most > 0);
    request.bytes_max = request.bytes_max.min(BYTES_DEFAULT);
    // The first read is now, so that what is wrong with the request is told by its status.
    request.wait = Duration::ZERO;
    let room = call.caller.replies.clone();
    let first = read(&door, request.clone(), &room).await?;
    let headers = first.headers();
    let lines = Lines { door, room, request, left, follow, rest: None };
    let body = match call.method {
        Method::HEAD => Body::empty(),
        _ => {
            let state = Some((lines, Some(first)));
            Body::from_stream(stream::unfold(state, async |state| {
                let (lines, first) = state?;
                let (bytes, next) = lines.step(first).await;
                Some((Ok::<_, Infallible>(bytes), next.map(|lines| (lines, None))))
            }))
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::CONTENT_TYPE, NDJSON);
    Ok(response)
}

impl Lines {
    /// The next lines, and what the stream goes on with unless it is over.
    async fn step(mut self, first: Option<Read>) -> (Bytes, Option<Lines>) {
        match self.lines(first).await {
            Ok((bytes, is_over)) => (bytes, (!is_over).then_some(self)),
            Err(problem) => {
                let line = json!({"error": problem.to_json()}).to_string() + "\n";
                (line.into(), None)
            }
        }
    }

    async fn lines(&mut self, first: Option<Read>) -> Result<(Bytes, bool), Problem> {
        let (read, mut records) = match (self.rest.take(), first) {
            (Some(rest), _) => rest,
            (None, Some(mut first)) => {
                let records = std::mem::take(&mut first.records.records);
                (first, records.into_iter())
            }
            (None, None) => {
                self.request.wait = if self.follow { HEARTBEAT } else { Duration::ZERO };
                self.request.records_max = self.left.unwrap_or(0);
                let mut read = read(&self.door, self.request.clone(), &self.room).await?;
                let records = std::mem::take(&mut read.records.records);
                (read, records.into_iter())
            }
        };
        let mut text = Vec::new();
        let mut next = read.records.next_offset;
        while let Some(record) = records.next() {
            record::write(&record, &mut text);
            text.push(b'\n');
            self.left = self.left.map(|left| left.saturating_sub(1));
            if text.len() >= reply::STEP_TEXT_BYTES && records.len() > 0 {
                next = Offset(record.offset.0 + 1);
                break;
            }
        }
        let partition = &mut self.request.partitions[0];
        partition.offset = next.0;
        partition.leader_epoch = Some(read.records.leader_epoch.0).filter(|epoch| *epoch > 0);
        let is_at_end = partition.offset >= read.high_watermark;
        let is_over =
            self.left == Some(0) || (is_at_end && !self.follow) || self.door.shutdown.has_begun();
        if text.is_empty() {
            text.push(b'\n');
        }
        if records.len() > 0 {
            self.rest = Some((read, records));
        }
        Ok((self.count(text).await?, is_over))
    }

    /// Counts what is sent. Where there is no room now, what is still to be written is forgotten first and will be read again.
    async fn count(&mut self, text: Vec<u8>) -> Result<Bytes, Problem> {
        if let Ok(share) = self.room.try_take(text.len()) {
            return Ok(reply::held(text, share));
        }
        self.rest = None;
        reply::count(text, &self.room).await
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::Record;

    use super::*;

    #[test]
    fn a_reply_whose_text_would_be_too_long_ends_before_and_says_where() {
        // Six bytes of JSON for each.
        let value = Some(Bytes::from(vec![1; 1 << 20]));
        let one = |offset| OffsetRecord {
            offset: Offset(offset),
            record: Record { value: value.clone(), ..Record::default() },
        };
        let records = (10..14).map(one).collect();
        let records = FetchedRecords { records, next_offset: Offset(20), ..Default::default() };
        let (topic, shares) = ("t".to_owned(), Vec::new());
        let mut read =
            Read { topic, partition: 0, log_start: 0, high_watermark: 20, records, shares };
        let bytes = read.cut();
        assert!((18 << 20..19 << 20).contains(&bytes), "{bytes}");
        assert_eq!((read.records.records.len(), read.records.next_offset), (3, Offset(13)));
        read.records.records.truncate(2);
        read.records.next_offset = Offset(20);
        read.cut();
        assert_eq!((read.records.records.len(), read.records.next_offset), (2, Offset(20)));
    }
}
