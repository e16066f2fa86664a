//! JSON objects, and nothing that passes for one.
//!
//! What serde derives for a struct reads an array too, by the order of the fields: `["orders", 3]` would make a topic of three
//! partitions. Nobody means that, and the description of the door does not have it.

use std::{fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

/// What is read from an object only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object<T>, D::Error> {
        from.deserialize_map(OnlyObjects(PhantomData))
    }
}

struct OnlyObjects<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyObjects<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair<'a> {
        name: &'a str,
        #[serde(borrow, default)]
        rest: Option<&'a RawValue>,
    }

    #[test]
    fn an_object_is_read_and_borrowed_from_and_an_array_is_refused() {
        let Object(pair) = serde_json::from_str::<Object<Pair<'_>>>(r#"{"name":"a","rest":[1]}"#)
            .expect("an object");
        assert_eq!((pair.name, pair.rest.map(RawValue::get)), ("a", Some("[1]")));
        for (json, part) in [
            (r#"["a",1]"#, "expected an object"),
            ("[]", "expected an object"),
            ("null", "expected an object"),
            (r#"{"name":"a","more":1}"#, "unknown field `more`"),
        ] {
            let error = serde_json::from_str::<Object<Pair<'_>>>(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
