//! Which records a subscription delivers.

use bytes::Bytes;
use riverrun_proto::grpc::v1;

/// Which records are delivered. All conditions that are set must hold; without any, all records are.
///
/// ```
/// use riverrun_client::SubscriptionFilter;
/// let filter = SubscriptionFilter::new().key_prefix("eu-").header_equals("type", "paid");
/// # assert_eq!(filter.key_prefix.as_deref(), Some(&b"eu-"[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionFilter {
    /// The key equals this.
    pub key_equals: Option<Bytes>,
    /// The key begins with this.
    pub key_prefix: Option<Bytes>,
    /// Conditions on headers by name, at most 16. One holds when any header of that name fulfils it.
    pub headers: Vec<(String, HeaderTest)>,
}

/// What a header's value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// Anything; the header must be there.
    Present,
    /// Exactly this.
    Equals(Bytes),
    /// Something that begins with this.
    Prefix(Bytes),
}

impl SubscriptionFilter {
    /// All records.
    pub fn new() -> SubscriptionFilter {
        SubscriptionFilter::default()
    }

    /// Only records with this key.
    pub fn key_equals(mut self, key: impl Into<Bytes>) -> SubscriptionFilter {
        self.key_equals = Some(key.into());
        self
    }

    /// Only records whose key begins with this.
    pub fn key_prefix(mut self, prefix: impl Into<Bytes>) -> SubscriptionFilter {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// Only records with this header.
    pub fn header(mut self, name: impl Into<String>, test: HeaderTest) -> SubscriptionFilter {
        self.headers.push((name.into(), test));
        self
    }

    /// Only records with a header of this name and value.
    pub fn header_equals(
        self,
        name: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> SubscriptionFilter {
        self.header(name, HeaderTest::Equals(value.into()))
    }

    pub(super) fn from_wire(wire: v1::SubscriptionFilter) -> SubscriptionFilter {
        use v1::header_filter::Condition;
        let header = |header: v1::HeaderFilter| {
            let test = match header.condition {
                None => HeaderTest::Present,
                Some(Condition::Equals(value)) => HeaderTest::Equals(value),
                Some(Condition::Prefix(value)) => HeaderTest::Prefix(value),
            };
            (header.name, test)
        };
        SubscriptionFilter {
            key_equals: wire.key_equals,
            key_prefix: wire.key_prefix,
            headers: wire.headers.into_iter().map(header).collect(),
        }
    }

    pub(super) fn to_wire(&self) -> v1::SubscriptionFilter {
        use v1::header_filter::Condition;
        let header = |(name, test): &(String, HeaderTest)| v1::HeaderFilter {
            name: name.clone(),
            condition: match test {
                HeaderTest::Present => None,
                HeaderTest::Equals(value) => Some(Condition::Equals(value.clone())),
                HeaderTest::Prefix(value) => Some(Condition::Prefix(value.clone())),
            },
        };
        v1::SubscriptionFilter {
            key_equals: self.key_equals.clone(),
            key_prefix: self.key_prefix.clone(),
            headers: self.headers.iter().map(header).collect(),
        }
    }
}
