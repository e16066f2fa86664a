//! Which records a subscription wants: conditions on the key and on headers, all of which must hold.

use bytes::Bytes;
use riverrun_proto::{
    batch::RecordView,
    grpc::v1,
    limits::{HEADER_KEY_BYTES_MAX, KEY_BYTES_MAX},
};

use super::settings::{InvalidSetting, invalid};

/// Most conditions on headers.
const HEADERS_MAX: usize = 16;

/// Conditions; without any it wants every record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The key equals this.
    pub key_equals: Option<Bytes>,
    /// The key begins with this.
    pub key_prefix: Option<Bytes>,
    /// Conditions on headers.
    pub headers: Vec<HeaderFilter>,
}

/// A condition on headers of one name; true when any of them fulfils it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFilter {
    /// Name of the header.
    pub name: String,
    /// What its value must be.
    pub condition: HeaderCondition,
}

/// What the value of a header must be. A header without a value only fulfils [`HeaderCondition::Present`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderCondition {
    /// Anything.
    Present,
    /// This.
    Equals(Bytes),
    /// Something that begins so.
    Prefix(Bytes),
}

impl Filter {
    /// The filter that a message describes.
    ///
    /// # Errors
    /// The first part of it that is too large.
    pub fn from_given(given: &v1::SubscriptionFilter) -> Result<Filter, InvalidSetting> {
        if given.headers.len() > HEADERS_MAX {
            let expected = format!("a list of at most {HEADERS_MAX}");
            return Err(invalid("filter.headers", expected, given.headers.len()));
        }
        let key = |setting, key: &Option<Bytes>| match key {
            Some(key) => short(setting, key).map(Some),
            None => Ok(None),
        };
        Ok(Filter {
            key_equals: key("filter.key_equals", &given.key_equals)?,
            key_prefix: key("filter.key_prefix", &given.key_prefix)?,
            headers: given
                .headers
                .iter()
                .map(HeaderFilter::from_given)
                .collect::<Result<_, _>>()?,
        })
    }

    /// As the message shows it.
    pub fn to_message(&self) -> v1::SubscriptionFilter {
        v1::SubscriptionFilter {
            key_equals: self.key_equals.clone(),
            key_prefix: self.key_prefix.clone(),
            headers: self.headers.iter().map(HeaderFilter::to_message).collect(),
        }
    }

    /// Wants every record.
    pub fn is_empty(&self) -> bool {
        self.key_equals.is_none() && self.key_prefix.is_none() && self.headers.is_empty()
    }

    /// The record fulfils every condition.
    pub fn wants(&self, record: &RecordView<'_>) -> bool {
        let key = |holds: &dyn Fn(&[u8]) -> bool| record.key.is_some_and(holds);
        self.key_equals.as_ref().is_none_or(|equals| key(&|key| key == equals))
            && self.key_prefix.as_ref().is_none_or(|prefix| key(&|key| key.starts_with(prefix)))
            && self.headers.iter().all(|filter| filter.holds(record))
    }
}

impl HeaderFilter {
    fn from_given(given: &v1::HeaderFilter) -> Result<HeaderFilter, InvalidSetting> {
        use v1::header_filter::Condition;
        if !(1..=HEADER_KEY_BYTES_MAX).contains(&given.name.len()) {
            let expected = format!("1 to {HEADER_KEY_BYTES_MAX} bytes");
            let found = format!("{} bytes", given.name.len());
            return Err(invalid("filter.headers.name", expected, found));
        }
        let condition = match &given.condition {
            None => HeaderCondition::Present,
            Some(Condition::Equals(value)) => {
                HeaderCondition::Equals(short("filter.headers.equals", value)?)
            }
            Some(Condition::Prefix(value)) => {
                HeaderCondition::Prefix(short("filter.headers.prefix", value)?)
            }
        };
        Ok(HeaderFilter { name: given.name.clone(), condition })
    }

    fn to_message(&self) -> v1::HeaderFilter {
        use v1::header_filter::Condition;
        let condition = match &self.condition {
            HeaderCondition::Present => None,
            HeaderCondition::Equals(value) => Some(Condition::Equals(value.clone())),
            HeaderCondition::Prefix(value) => Some(Condition::Prefix(value.clone())),
        };
        v1::HeaderFilter { name: self.name.clone(), condition }
    }

    fn holds(&self, record: &RecordView<'_>) -> bool {
        let mut named = record.headers.filter(|header| header.key == self.name.as_bytes());
        named.any(|header| match &self.condition {
            HeaderCondition::Present => true,
            HeaderCondition::Equals(equals) => header.value.is_some_and(|value| value == equals),
            HeaderCondition::Prefix(prefix) => {
                header.value.is_some_and(|value| value.starts_with(prefix))
            }
        })
    }
}

/// A copy that keeps nothing of the frame it came in.
fn short(setting: &'static str, value: &[u8]) -> Result<Bytes, InvalidSetting> {
    if value.len() > KEY_BYTES_MAX {
        let expected = format!("at most {KEY_BYTES_MAX} bytes");
        return Err(invalid(setting, expected, format!("{} bytes", value.len())));
    }
    Ok(Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{
        Header, Record,
        batch::{BatchBuilder, BuilderOptions, Compression},
    };

    use super::*;

    #[track_caller]
    fn check(filter: &Filter, key: Option<&str>, headers: &[(&str, Option<&str>)], wanted: bool) {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let header = |(name, value): &(&str, Option<&str>)| Header {
            key: bytes(name),
            value: value.map(bytes),
        };
        let headers = headers.iter().map(header).collect();
        let record = Record { key: key.map(bytes), headers, ..Record::default() };
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        builder.push(&record).unwrap();
        let records = builder.build().unwrap().records(usize::MAX).unwrap();
        let view = records.views().next().unwrap().unwrap();
        assert_eq!(filter.wants(&view), wanted, "{record:?}");
    }

    #[test]
    fn every_condition_must_hold() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        check(&Filter::default(), None, &[], true);
        let key = Filter { key_equals: Some(bytes("ab")), ..Filter::default() };
        check(&key, Some("ab"), &[], true);
        check(&key, Some("abc"), &[], false);
        check(&key, None, &[], false);
        let prefix = Filter { key_prefix: Some(bytes("ab")), ..Filter::default() };
        check(&prefix, Some("abc"), &[], true);
        check(&prefix, Some("a"), &[], false);
        let header = |condition| HeaderFilter { name: "h".to_owned(), condition };
        let any = Filter { headers: vec![header(HeaderCondition::Present)], ..prefix };
        check(&any, Some("abc"), &[("h", None)], true);
        check(&any, Some("abc"), &[("x", Some("1"))], false);
        check(&any, Some("x"), &[("h", None)], false);
        let both = Filter {
            headers: vec![
                header(HeaderCondition::Equals(bytes("v1"))),
                header(HeaderCondition::Prefix(bytes("w"))),
            ],
            ..Filter::default()
        };
        check(&both, None, &[("h", Some("v1")), ("h", Some("w2"))], true);
        check(&both, None, &[("h", Some("v1"))], false);
        check(&both, None, &[("h", None), ("h", Some("v1")), ("h", Some("vw"))], false);
    }
}
