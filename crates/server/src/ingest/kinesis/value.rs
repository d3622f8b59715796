//! A request's body as a tree, for all requests but those that bring records: they are few, and
//! small.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{cbor, writer::Format};

/// JSON has no blobs: there they are texts, and so are read as such.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// None where the body is not what its type says, or no map.
    pub(super) fn parse(format: Format, body: &[u8]) -> Option<Self> {
        let value = match format {
            Format::Json => serde_json::from_slice(body).ok()?,
            Format::Cbor => {
                let mut reader = cbor::Reader::new(body);
                let value = reader.value().ok()?;
                reader.is_at_end().then_some(value)?
            }
        };
        matches!(value, Self::Map(_)).then_some(value)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Value::Map(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn json_and_cbor_say_the_same() {
        let meant = Value::Map(vec![
            ("a".to_owned(), text("bc")),
            ("n".to_owned(), Value::List(vec![Value::Integer(-2), Value::Null, Value::Bool(true)])),
            ("m".to_owned(), Value::Map(vec![])),
        ]);
        let json = br#"{"a":"bc","n":[-2,null,true],"m":{}}"#;
        assert_eq!(Value::parse(Format::Json, json), Some(meant.clone()));
        let definite = b"\xa3\x61a\x62bc\x61n\x83\x21\xf6\xf5\x61m\xa0";
        assert_eq!(Value::parse(Format::Cbor, definite), Some(meant.clone()));
        // As Jackson writes it: without lengths.
        let indefinite = b"\xbf\x61a\x7f\x61b\x61c\xff\x61n\x9f\x21\xf6\xf5\xff\x61m\xbf\xff\xff";
        assert_eq!(Value::parse(Format::Cbor, indefinite), Some(meant));
    }

    #[test]
    fn times_come_with_a_tag_or_without() {
        let at = Some(Value::Map(vec![("t".to_owned(), Value::Integer(1_700_000_000_123))]));
        assert_eq!(Value::parse(Format::Cbor, b"\xa1\x61t\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b"), at);
        assert_eq!(Value::parse(Format::Cbor, b"\xa1\x61t\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b"), at);
    }

    #[test]
    fn what_is_no_map_or_cut_off_is_refused() {
        let deep = [b'\x81'; 64];
        for body in [
            &b""[..],
            b"\xa1",
            b"\xa1\x61a",
            b"\x01",
            b"\xa0\x00",
            b"\xbf",
            b"\xa1\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff",
            &deep,
        ] {
            assert_eq!(Value::parse(Format::Cbor, body), None, "{body:?}");
        }
        for body in [&b""[..], b"1", b"[]", b"{", b"{}x", b"null"] {
            assert_eq!(Value::parse(Format::Json, body), None, "{body:?}");
        }
    }
}
