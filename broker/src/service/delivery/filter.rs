//! Which records a subscription wants: conditions on the key and on headers, all of which must hold.

use bytes::Bytes;
use riverrun_proto::batch::RecordView;

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
    pub name: Bytes,
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
    fn holds(&self, record: &RecordView<'_>) -> bool {
        let mut named = record.headers.filter(|header| header.key == self.name);
        named.any(|header| match &self.condition {
            HeaderCondition::Present => true,
            HeaderCondition::Equals(equals) => header.value.is_some_and(|value| value == equals),
            HeaderCondition::Prefix(prefix) => {
                header.value.is_some_and(|value| value.starts_with(prefix))
            }
        })
    }
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
        let header = |condition| HeaderFilter { name: bytes("h"), condition };
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
