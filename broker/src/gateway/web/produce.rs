//! `POST /v1/topics/{topic}/records`: appends records.
//!
//! ```text
//! application/json       an object, or an array of them     -> partition and offset of each record
//! application/x-ndjson   an object per line, of any length  -> per partition: how many, first and next offset
//! CloudEvents (binary)   `ce-*` headers beside any body     -> as one record
//! anything else          the body is the value              -> partition and offset of the record
//! ```
//!
//! A record goes to the partition it names, else to that of its key, else to one in turn that all records of the
//! request without a key share. Records of one partition keep their order. Nothing is appended to a partition after
//! a record of it failed; the reply is that of the first failure then and lists what became of the others.

mod lines;
mod sender;

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, routing::post};
use riverrun_proto::Record;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Value, json};

pub(super) use self::sender::To;
use self::sender::{Placed, Sender};
use super::{
    WebDoor, body,
    call::Call,
    cloud_event::cloud_event,
    object::Object,
    problem::{Answer, Problem},
    record::RecordIn,
    reply,
};
use crate::{service::produce::Acks, topic::Topic};

/// Most records of a JSON array. A stream of lines has no such bound.
const RECORDS_MAX: usize = 10_000;

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/v1/topics/{topic}/records", post(produce))
}

async fn produce(State(door): State<WebDoor>, mut call: Call, body: Body) -> Answer {
    let partition = call.parsed("partition", "a number", |text| text.parse().ok())?;
    let acks = call.parsed("acks", "leader or all", |text| match text {
        "leader" => Some(Acks::Leader),
        "all" => Some(Acks::All),
        _ => None,
    })?;
    let acks = acks.unwrap_or(Acks::All);
    let key = call.take("key");
    call.finish()?;
    let topic = door.services.admin.topic(call.name("topic"))?;
    let sender = Sender::new(&door, &call, topic, To { partition, acks });
    let event = cloud_event(&call)?;
    let media_type = body::media_type(&call)?;
    let takes_key = event.is_some()
        || !matches!(media_type.as_str(), "application/json" | "application/x-ndjson");
    if key.is_some() && !takes_key {
        return Err(Problem::field("key", "left to the records", key.unwrap_or_default()));
    }
    if let Some(event) = event {
        let (value, _share) = body::whole(&call, body, &door).await?;
        let key = key.or(event.key).map(Into::into);
        let record = Record { timestamp_ms: 0, key, value: Some(value), headers: event.headers };
        return told(&sender.send(vec![(None, record)]).await, &call).await;
    }
    match media_type.as_str() {
        "application/json" => {
            let (bytes, _share) = body::whole(&call, body, &door).await?;
            told(&sender.send(records(&bytes)?).await, &call).await
        }
        "application/x-ndjson" => {
            let lines = body::Lines::new(&call, body, &door)?;
            lines::produce(&sender, lines).await
        }
        // What `curl --data` says by itself, and forms: nobody means the raw bytes by that.
        form if is_form(form) => Err(body::unsupported(
            form,
            "application/json, application/x-ndjson, or that of a raw value, such as application/octet-stream",
        )),
        _ => {
            let (value, _share) = body::whole(&call, body, &door).await?;
            let key = key.map(Into::into);
            let record = Record { timestamp_ms: 0, key, value: Some(value), headers: Vec::new() };
            told(&sender.send(vec![(None, record)]).await, &call).await
        }
    }
}

fn is_form(media_type: &str) -> bool {
    media_type == "application/x-www-form-urlencoded"
        || media_type.starts_with("multipart/")
        || media_type.starts_with("application/cloudevents")
}

/// The records of a JSON body, with the partitions they name.
fn records(bytes: &[u8]) -> Result<Vec<(Option<u32>, Record)>, Problem> {
    let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    converted(match is_array {
        true => body::parse(bytes)?,
        false => Records(vec![body::object(bytes)?]),
    })
}

/// Records as they are appended.
pub(super) fn converted(
    Records(records): Records<'_>,
) -> Result<Vec<(Option<u32>, Record)>, Problem> {
    check_count(records.len())?;
    let convert = |(index, record): (usize, RecordIn<'_>)| {
        let partition = record.partition;
        match record.into_record() {
            Ok(record) => Ok((partition, record)),
            Err(problem) => Err(problem.with("index", index)),
        }
    };
    records.into_iter().enumerate().map(convert).collect()
}

/// Refuses none, and more than are allowed.
pub(super) fn check_count(count: usize) -> Result<(), Problem> {
    match (1..=RECORDS_MAX).contains(&count) {
        true => Ok(()),
        false => Err(Problem::field("records", &format!("1 to {RECORDS_MAX}"), count)),
    }
}

/// An array of records, not more than are allowed.
#[derive(Debug)]
pub(super) struct Records<'a>(Vec<RecordIn<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Records<'a>, D::Error> {
        from.deserialize_seq(Bounded)
    }
}

struct Bounded;

impl<'a> Visitor<'a> for Bounded {
    type Value = Records<'a>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of at most {RECORDS_MAX} records")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Records<'a>, A::Error> {
        let mut records = Vec::new();
        while let Some(Object(record)) = array.next_element()? {
            if records.len() == RECORDS_MAX {
                return Err(A::Error::custom(format!(
                    "more than {RECORDS_MAX} records; send them as application/x-ndjson"
                )));
            }
            records.push(record);
        }
        Ok(Records(records))
    }
}

/// Appends records and tells where each came to lie.
pub(super) async fn append(
    (door, call): (&WebDoor, &Call),
    topic: Arc<Topic>,
    to: To,
    records: Vec<(Option<u32>, Record)>,
) -> Result<Value, Problem> {
    let placed = Sender::new(door, call, topic, to).send(records).await;
    match failed(&placed) {
        Some(problem) => Err(problem),
        None => Ok(all(&placed)),
    }
}

/// What became of records, each by each.
async fn told(placed: &[Placed], call: &Call) -> Answer {
    if let Some(problem) = failed(placed) {
        return Err(problem);
    }
    let bytes = json!({"records": all(placed)}).to_string().into_bytes();
    reply::counted(reply::JSON, bytes, &call.caller.replies).await
}

/// The first failure, with what became of all.
fn failed(placed: &[Placed]) -> Option<Problem> {
    let failure = placed.iter().find_map(|placed| placed.offset.as_ref().err())?;
    Some(failure.with_more("records", all(placed)))
}

fn all(placed: &[Placed]) -> Value {
    let one = |placed: &Placed| match &placed.offset {
        Ok(offset) => json!({"partition": placed.partition, "offset": offset}),
        Err(problem) => json!({"partition": placed.partition, "error": problem.to_json()}),
    };
    placed.iter().map(one).collect()
}
