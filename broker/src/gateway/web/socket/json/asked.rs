//! What a client asks, from JSON.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use uuid::Uuid;

use super::super::ask::{self, Ask, Asked, Id};
use crate::{
    delivery::ResumePoint,
    gateway::{
        grpc::push_convert::CREDIT_MAX,
        web::{
            body,
            object::Object,
            problem::Problem,
            produce::{self, Records, To},
            receive::{self, ItemIn},
            subscription_json::SpecIn,
            tail::{Filter, Wanted},
        },
    },
    service::{delivery::open::OpenRequest, fetch::Format, produce::Acks},
};

/// What a client may ask.
const OPS: &str = "produce, tail, end, subscribe, credit, settle, pause, resume or drain";

/// What every message has. What else it has follows from `op`.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with an `op`")]
struct Head {
    op: String,
    #[serde(default)]
    id: Value,
}

/// `produce`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProduceIn<'a> {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id", default)]
    _id: IgnoredAny,
    topic: String,
    #[serde(borrow)]
    records: Records<'a>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    acks: AcksIn,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AcksIn {
    Leader,
    #[default]
    All,
}

/// `tail`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TailIn {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    topic: String,
    #[serde(default)]
    from: From,
    cursor: Option<String>,
    partitions: Option<Vec<u32>>,
    key: Option<String>,
    key_prefix: Option<String>,
    header: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Earliest,
    #[default]
    Latest,
}

/// `subscribe`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeIn {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    subscription: String,
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    max_in_flight: u32,
    #[serde(default)]
    reports_started: bool,
    create: Option<Object<SpecIn>>,
    resume: Option<Object<ResumeIn>>,
    credit: Option<Object<Credit>>,
}

/// Where an earlier session of the same id broke off.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeIn {
    session_epoch: u64,
    last_delivery_seq: u64,
}

/// Totals since the session was opened.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    records_total: u64,
    /// Without a bound when absent.
    bytes_total: Option<u64>,
}

/// `credit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreditIn {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    credit: Object<Credit>,
}

/// `settle`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleIn {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    #[serde(default)]
    settle_id: u64,
    items: Vec<Object<ItemIn>>,
    #[serde(default)]
    sync: bool,
}

/// What has nothing but an id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
}

/// Reads a message.
pub(in super::super) fn read(text: &str, host: &str) -> Asked {
    let head = match body::parse::<Head>(text.as_bytes()) {
        Ok(head) => head,
        Err(problem) => return Asked { id: None, ask: Err(problem) },
    };
    match Id::new(&head.id) {
        Ok(id) => Asked { id, ask: ask(&head.op, text, host) },
        Err(problem) => Asked { id: None, ask: Err(problem) },
    }
}

/// The id of a message.
pub(in super::super) fn id(text: &str) -> Option<Id> {
    let head = body::parse::<Head>(text.as_bytes()).ok()?;
    Id::new(&head.id).ok().flatten()
}

fn ask(op: &str, text: &str, host: &str) -> Result<Ask, Problem> {
    let plain = |ask| body::object::<Plain>(text.as_bytes()).map(|_| ask);
    match op {
        "produce" => produce(text),
        "tail" => tail(text),
        "end" => plain(Ask::End),
        "subscribe" => subscribe(text, host),
        "credit" => {
            let CreditIn { credit: Object(credit), .. } = body::object(text.as_bytes())?;
            let (records, bytes) = credit.totals()?;
            Ok(Ask::Credit(records, bytes))
        }
        "settle" => {
            let SettleIn { settle_id, items, sync, .. } = body::object(text.as_bytes())?;
            if sync && settle_id == 0 {
                return Err(Problem::field("settle_id", "set together with `sync`", settle_id));
            }
            let items = receive::settle_items(items)?;
            Ok(Ask::Settle(ask::Settle { settle_id, items, sync }))
        }
        "pause" => plain(Ask::Pause),
        "resume" => plain(Ask::Resume),
        "drain" => plain(Ask::Drain),
        other => Err(Problem::field("op", OPS, other)),
    }
}

fn produce(text: &str) -> Result<Ask, Problem> {
    let asked: ProduceIn<'_> = body::object(text.as_bytes())?;
    let acks = match asked.acks {
        AcksIn::Leader => Acks::Leader,
        AcksIn::All => Acks::All,
    };
    let to = To { partition: asked.partition, acks };
    let records = produce::converted(asked.records)?;
    Ok(Ask::Produce(ask::Produce { topic: asked.topic, to, records }))
}

fn tail(text: &str) -> Result<Ask, Problem> {
    let tail: TailIn = body::object(text.as_bytes())?;
    let TailIn { topic, from, cursor, partitions, key, key_prefix, header, .. } = tail;
    let filter = Filter { key, key_prefix, header: header.map(Filter::header) };
    let cursor = cursor.map(|text| ("cursor", text));
    let from_start = from == From::Earliest;
    Ok(Ask::Tail(Wanted { topic, cursor, from_start, partitions, filter }))
}

fn subscribe(text: &str, host: &str) -> Result<Ask, Problem> {
    let asked: SubscribeIn = body::object(text.as_bytes())?;
    let session_id = match asked.session_id.as_str() {
        "" => Uuid::new_v4().simple().to_string(),
        given => given.to_owned(),
    };
    let resume = asked.resume.map(|Object(resume)| ResumePoint {
        epoch: resume.session_epoch,
        last_seq: resume.last_delivery_seq,
    });
    let credit = asked.credit.map(|Object(credit)| credit.totals()).transpose()?;
    let request = OpenRequest {
        subscription: asked.subscription,
        session_id,
        resume,
        in_flight_max: asked.max_in_flight,
        in_flight_bytes_max: 0,
        format: Format::Structured,
        client_id: asked.client_id,
        host: host.to_owned(),
        create: asked.create.map(|Object(spec)| spec.into_spec()).transpose()?,
        reports_started: asked.reports_started,
    };
    Ok(Ask::Subscribe(Box::new(ask::Subscribe { request, credit })))
}

impl Credit {
    /// Both totals.
    fn totals(self) -> Result<(u64, u64), Problem> {
        let Credit { records_total, bytes_total } = self;
        let bytes_total = bytes_total.unwrap_or(CREDIT_MAX);
        for (field, total) in
            [("credit.records_total", records_total), ("credit.bytes_total", bytes_total)]
        {
            if total > CREDIT_MAX {
                return Err(Problem::field(field, &format!("at most {CREDIT_MAX}"), total));
            }
        }
        Ok((records_total, bytes_total))
    }
}
