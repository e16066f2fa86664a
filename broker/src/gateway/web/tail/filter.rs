//! Which records of a topic are wanted.

use riverrun_proto::Record;

/// Conditions that all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct Filter {
    pub(in super::super) key: Option<String>,
    pub(in super::super) key_prefix: Option<String>,
    /// Name of a header, and its value if that matters.
    pub(in super::super) header: Option<(String, Option<String>)>,
}

impl Filter {
    /// From `name` or `name:value`.
    pub(in super::super) fn header(text: String) -> (String, Option<String>) {
        match text.split_once(':') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        }
    }

    /// The record fulfils every condition.
    pub(super) fn wants(&self, record: &Record) -> bool {
        let key = |holds: &dyn Fn(&[u8]) -> bool| record.key.as_deref().is_some_and(holds);
        let header = |(name, value): &(String, Option<String>)| {
            record.headers.iter().filter(|header| header.key == name.as_bytes()).any(|header| {
                value.as_ref().is_none_or(|value| header.value.as_deref() == Some(value.as_bytes()))
            })
        };
        self.key.as_ref().is_none_or(|equals| key(&|key| key == equals.as_bytes()))
            && self
                .key_prefix
                .as_ref()
                .is_none_or(|prefix| key(&|key| key.starts_with(prefix.as_bytes())))
            && self.header.as_ref().is_none_or(header)
    }
}
