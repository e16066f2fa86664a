//! Messages of a client.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::gateway::{
    grpc::push_convert::CREDIT_MAX,
    web::{
        body,
        problem::Problem,
        produce::Records,
        receive::ItemIn,
        subscription_json::SpecIn,
        tail::{Filter, Wanted},
    },
};

/// Most bytes of an id.
const ID_BYTES_MAX: usize = 64;

/// The client's name for what it asked, as the JSON that it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(Value);

/// What every message has. What else it has follows from `op`.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with an `op`")]
pub(super) struct Head {
    pub(super) op: String,
    #[serde(default)]
    id: Value,
}

/// `produce`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Produce<'a> {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id", default)]
    _id: IgnoredAny,
    pub(super) topic: String,
    #[serde(borrow)]
    pub(super) records: Records<'a>,
    #[serde(default)]
    pub(super) partition: Option<u32>,
    #[serde(default)]
    pub(super) acks: Acks,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Acks {
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
pub(super) struct Subscribe {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    pub(super) subscription: String,
    #[serde(default)]
    pub(super) session_id: String,
    #[serde(default)]
    pub(super) client_id: String,
    #[serde(default)]
    pub(super) max_in_flight: u32,
    #[serde(default)]
    pub(super) reports_started: bool,
    pub(super) create: Option<SpecIn>,
    pub(super) resume: Option<Resume>,
    pub(super) credit: Option<Credit>,
}

/// Where an earlier session of the same id broke off.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct Resume {
    pub(super) session_epoch: u64,
    pub(super) last_delivery_seq: u64,
}

/// Totals since the session was opened.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct Credit {
    records_total: u64,
    /// Without a bound when absent.
    bytes_total: Option<u64>,
}

/// `credit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreditIn {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    pub(super) credit: Credit,
}

/// `settle`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settle {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "id")]
    _id: IgnoredAny,
    #[serde(default)]
    pub(super) settle_id: u64,
    pub(super) items: Vec<ItemIn>,
    #[serde(default)]
    pub(super) sync: bool,
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

impl Head {
    /// The id: a string or a number; `None` where there is none.
    pub(super) fn id(&self) -> Result<Option<Id>, Problem> {
        match &self.id {
            Value::Null => Ok(None),
            Value::Number(_) => Ok(Some(Id(self.id.clone()))),
            Value::String(text) if text.len() <= ID_BYTES_MAX => Ok(Some(Id(self.id.clone()))),
            Value::String(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                let expected = format!("a number or a string of at most {ID_BYTES_MAX} bytes");
                Err(Problem::field("id", &expected, &self.id))
            }
        }
    }
}

impl Id {
    /// As it goes out.
    pub(super) fn json(&self) -> &Value {
        &self.0
    }
}

/// What a `tail` asks for.
pub(super) fn wanted(text: &str) -> Result<Wanted, Problem> {
    let tail: TailIn = body::parse(text.as_bytes())?;
    let TailIn { topic, from, cursor, partitions, key, key_prefix, header, .. } = tail;
    let filter = Filter { key, key_prefix, header: header.map(Filter::header) };
    let cursor = cursor.map(|text| ("cursor", text));
    Ok(Wanted { topic, cursor, from_start: from == From::Earliest, partitions, filter })
}

/// Refuses what has more in it than its id.
pub(super) fn check_plain(text: &str) -> Result<(), Problem> {
    body::parse::<Plain>(text.as_bytes()).map(drop)
}

impl Credit {
    /// Both totals.
    pub(super) fn totals(self) -> Result<(u64, u64), Problem> {
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
