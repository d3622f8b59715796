//! The bodies of PutRecord and PutRecords: texts and blobs stay where they came in, so that 500
//! records cost few allocations.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    cbor::{Malformed, Reader, Scalar},
    error::KinesisError,
    writer::Format,
};
use crate::ingest::json::Text;

/// Further ones are counted, and not kept.
pub(in crate::ingest) const MAX_ENTRIES: usize = 500;

/// Members of both requests; those of one alone are absent in the other.
#[derive(Default)]
pub(in crate::ingest) struct PutBody<'b> {
    pub(in crate::ingest) stream_name: Option<Text<'b>>,
    pub(in crate::ingest) stream_arn: Option<Text<'b>>,
    pub(in crate::ingest) records: Option<Entries<'b>>,
    pub(in crate::ingest) ordering: Option<Text<'b>>,
    /// PutRecord's own.
    pub(in crate::ingest) record: Entry<'b>,
}

#[derive(Default)]
pub(in crate::ingest) struct Entry<'b> {
    pub(in crate::ingest) data: Option<Data<'b>>,
    pub(in crate::ingest) partition_key: Option<Text<'b>>,
    pub(in crate::ingest) explicit_hash_key: Option<Text<'b>>,
}

#[derive(Default)]
pub(in crate::ingest) struct Entries<'b> {
    pub(in crate::ingest) kept: Vec<Entry<'b>>,
    pub(in crate::ingest) n: usize,
}

/// A record's data, as it came in.
pub(in crate::ingest) enum Data<'b> {
    Base64(Cow<'b, str>),
    Bytes(Cow<'b, [u8]>),
    /// As it is to be kept.
    Kept(Bytes),
}

impl Data<'_> {
    /// As many bytes at most.
    pub(super) fn len_bound(&self) -> usize {
        match self {
            Self::Base64(text) => text.len().div_ceil(4) * 3,
            Self::Bytes(bytes) => bytes.len(),
            Self::Kept(bytes) => bytes.len(),
        }
    }
}

impl<'b> PutBody<'b> {
    pub(super) fn parse(format: Format, body: &'b [u8]) -> Result<Self, KinesisError> {
        match format {
            Format::Json => serde_json::from_slice(body).map_err(|e| KinesisError::serialization(e.to_string())),
            Format::Cbor => {
                let mut fault = None;
                let read = Self::of_cbor(body, &mut fault);
                match (read, fault) {
                    (_, Some(fault)) => Err(fault),
                    (Ok(body), None) => Ok(body),
                    (Err(Malformed), None) => Err(KinesisError::serialization("the body is not CBOR")),
                }
            }
        }
    }

    /// A member of another type than it should be goes to `fault`.
    fn of_cbor(body: &'b [u8], fault: &mut Option<KinesisError>) -> Result<Self, Malformed> {
        let (mut put, mut reader) = (Self::default(), Reader::new(body));
        let is_map = reader.map(|reader, name| {
            match name {
                "StreamName" => put.stream_name = text(reader, fault)?,
                "StreamARN" => put.stream_arn = text(reader, fault)?,
                "SequenceNumberForOrdering" => put.ordering = text(reader, fault)?,
                "Records" if reader.null() => put.records = None,
                "Records" => put.records = Some(entries(reader, fault)?),
                name => put.record.member(name, reader, fault)?,
            }
            Ok(())
        })?;
        if is_map && reader.is_at_end() { Ok(put) } else { Err(Malformed) }
    }
}

impl<'b> Entry<'b> {
    fn json_member<A: MapAccess<'b>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "Data" => self.data = map.next_value()?,
            "PartitionKey" => self.partition_key = map.next_value()?,
            "ExplicitHashKey" => self.explicit_hash_key = map.next_value()?,
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn member(
        &mut self,
        name: &str,
        reader: &mut Reader<'b>,
        fault: &mut Option<KinesisError>,
    ) -> Result<(), Malformed> {
        match name {
            "Data" => self.data = data(reader, fault)?,
            "PartitionKey" => self.partition_key = text(reader, fault)?,
            "ExplicitHashKey" => self.explicit_hash_key = text(reader, fault)?,
            _ => {
                reader.value()?;
            }
        }
        Ok(())
    }
}

fn entries<'b>(reader: &mut Reader<'b>, fault: &mut Option<KinesisError>) -> Result<Entries<'b>, Malformed> {
    let mut entries = Entries::default();
    let is_list = reader.list(|reader| {
        entries.n += 1;
        if entries.n > MAX_ENTRIES {
            reader.value()?;
            return Ok(());
        }
        let mut entry = Entry::default();
        if !reader.map(|reader, name| entry.member(name, reader, fault))? {
            fault.get_or_insert(KinesisError::serialization("Expected null"));
        }
        entries.kept.push(entry);
        Ok(())
    })?;
    if !is_list {
        fault.get_or_insert(KinesisError::serialization("Expected list or null"));
    }
    Ok(entries)
}

fn text<'b>(reader: &mut Reader<'b>, fault: &mut Option<KinesisError>) -> Result<Option<Text<'b>>, Malformed> {
    match reader.scalar()? {
        Scalar::Text(text) => return Ok(Some(Text(text))),
        Scalar::Other(super::value::Value::Null) => {}
        Scalar::Bytes(_) | Scalar::Other(_) => {
            fault.get_or_insert(KinesisError::serialization("a member that is a text has another type"));
        }
    }
    Ok(None)
}

fn data<'b>(reader: &mut Reader<'b>, fault: &mut Option<KinesisError>) -> Result<Option<Data<'b>>, Malformed> {
    match reader.scalar()? {
        Scalar::Bytes(bytes) => return Ok(Some(Data::Bytes(bytes))),
        Scalar::Other(super::value::Value::Null) => {}
        Scalar::Text(_) | Scalar::Other(_) => {
            fault.get_or_insert(KinesisError::serialization("Data is not a byte string"));
        }
    }
    Ok(None)
}

// By hand, since what serde derives would take lists for maps, too.
impl<'de: 'b, 'b> Deserialize<'de> for PutBody<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = PutBody<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PutBody<'de>, A::Error> {
                let mut put = PutBody::default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "StreamName" => put.stream_name = map.next_value()?,
                        "StreamARN" => put.stream_arn = map.next_value()?,
                        "SequenceNumberForOrdering" => put.ordering = map.next_value()?,
                        "Records" => put.records = map.next_value()?,
                        name => put.record.json_member(name, &mut map)?,
                    }
                }
                Ok(put)
            }
        }
        deserializer.deserialize_map(BodyVisitor)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Entry<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry<'de>, A::Error> {
                let mut entry = Entry::default();
                while let Some(Text(name)) = map.next_key()? {
                    entry.json_member(&name, &mut map)?;
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Data<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|Text(text)| Self::Base64(text))
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Entries<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Entries::default();
                while entries.n < MAX_ENTRIES {
                    let Some(entry) = seq.next_element()? else { return Ok(entries) };
                    entries.kept.push(entry);
                    entries.n += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    entries.n += 1;
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::ingest::kinesis::value::Value;

    #[test]
    fn texts_stay_slices_of_the_body() {
        let body =
            br#"{"Records":[{"Data":"aGk=","PartitionKey":"k","X":[1]},{"PartitionKey":"\u0041"}],"StreamName":"s"}"#;
        let put = PutBody::parse(Format::Json, body).unwrap();
        let records = put.records.unwrap();
        assert_eq!((records.n, put.stream_name.unwrap().0.as_ref()), (2, "s"));
        assert!(matches!(&records.kept[0].data, Some(Data::Base64(Cow::Borrowed("aGk=")))));
        assert!(matches!(&records.kept[0].partition_key, Some(Text(Cow::Borrowed("k")))));
        assert!(matches!(&records.kept[1].partition_key, Some(Text(Cow::Owned(key))) if key == "A"));
        assert!(records.kept[1].data.is_none());
    }

    #[test]
    fn cbor_brings_bytes_in_one_piece_or_in_several() {
        let body = b"\xbf\x67Records\x9f\xbf\x64Data\x42hi\x6cPartitionKey\x61k\xff\xa1\x64Data\x5f\x41h\x41i\xff\xff\x6aStreamName\x61s\xff";
        let put = PutBody::parse(Format::Cbor, body).unwrap();
        let records = put.records.unwrap();
        assert_eq!((records.n, put.stream_name.unwrap().0.as_ref()), (2, "s"));
        assert!(matches!(&records.kept[0].data, Some(Data::Bytes(Cow::Borrowed(b"hi")))));
        assert!(matches!(&records.kept[1].data, Some(Data::Bytes(Cow::Owned(data))) if data == b"hi"));
        let single = b"\xa3\x64Data\x41x\x6cPartitionKey\x61k\x69StreamARN\x61a";
        let put = PutBody::parse(Format::Cbor, single).unwrap();
        assert!(matches!(put.record.data, Some(Data::Bytes(Cow::Borrowed(b"x")))));
        assert_eq!(put.stream_arn.unwrap().0, "a");
    }

    #[test]
    fn too_many_are_counted_and_not_kept() {
        let entries = vec!["{}"; 600].join(",");
        let body = format!(r#"{{"Records":[{entries}]}}"#);
        let records = PutBody::parse(Format::Json, body.as_bytes()).unwrap().records.unwrap();
        assert_eq!((records.n, records.kept.len()), (600, MAX_ENTRIES));
        let mut body = b"\xa1\x67Records\x99\x02\x58".to_vec();
        body.extend([0xa0; 600]);
        let records = PutBody::parse(Format::Cbor, &body).unwrap().records.unwrap();
        assert_eq!((records.n, records.kept.len()), (600, MAX_ENTRIES));
    }

    #[test]
    fn null_is_nothing_in_both_formats() {
        let members = ["StreamName", "Records", "Data", "PartitionKey"];
        let json = members.map(|name| format!(r#""{name}":null"#)).join(",");
        let mut cbor = vec![0xbf];
        for name in members {
            cbor.push(0x60 | name.len() as u8);
            cbor.extend(name.as_bytes());
            cbor.push(0xf6);
        }
        cbor.push(0xff);
        for (format, body) in [(Format::Json, format!("{{{json}}}").into_bytes()), (Format::Cbor, cbor)] {
            let put = PutBody::parse(format, &body).unwrap();
            assert!(put.stream_name.is_none() && put.records.is_none(), "{format:?}");
            assert!(put.record.data.is_none() && put.record.partition_key.is_none(), "{format:?}");
        }
    }

    #[test]
    fn other_types_are_refused() {
        for body in [r#"{"StreamName":1}"#, r#"{"Records":{}}"#, r#"{"Records":[1]}"#, r#"{"Data":[]}"#, "[]", ""] {
            let error = PutBody::parse(Format::Json, body.as_bytes()).err().unwrap();
            assert_eq!(error.name, "SerializationException", "{body}");
        }
        for body in [
            &b"\xa1\x6aStreamName\x01"[..],
            b"\xa1\x67Records\xa0",
            b"\xa1\x67Records\x81\x01",
            b"\xa1\x64Data\x61x",
            b"\x80",
            b"",
        ] {
            let error = PutBody::parse(Format::Cbor, body).err().unwrap();
            assert_eq!(error.name, "SerializationException", "{body:?}");
        }
    }
    /// Bodies that are right but for a few bytes.
    fn mutated(right: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        let mutation = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(any::<u8>(), 0..4));
        prop::collection::vec(mutation, 0..4).prop_map(move |mutations| {
            let mut body = right.clone();
            for (at, n_removed, added) in mutations {
                let start = at.index(body.len() + 1);
                let end = body.len().min(start + n_removed);
                body.splice(start..end, added);
            }
            body
        })
    }

    const JSON: &[u8] = br#"{"StreamName":"s","Records":[{"Data":"aGk=","PartitionKey":"k\u0041"},{"Data":"","PartitionKey":"l","ExplicitHashKey":"7"}]}"#;
    const CBOR: &[u8] =
        b"\xbf\x67Records\x9f\xbf\x64Data\x42hi\x6cPartitionKey\x61k\xff\xff\x6aStreamName\x7f\x61s\xff\x61t\xc1\x1b\0\0\0\0\0\0\0\x01\xff";

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(json in mutated(JSON.to_vec()), cbor in mutated(CBOR.to_vec())) {
            for (format, body) in [(Format::Json, json), (Format::Cbor, cbor)] {
                let put = PutBody::parse(format, &body);
                let value = Value::parse(format, &body);
                // What is read as records is a map of whatever else.
                if put.is_ok() && format == Format::Cbor {
                    prop_assert!(value.is_some());
                }
                let _ = Value::parse(Format::Cbor, &body);
            }
        }
    }
}
