//! What an API Gateway's mapping templates make of a request: a call of Kinesis.
//!
//! Pure functions. What is missing in a request is empty in the call, and so for Kinesis to refuse, as
//! with the templates; only what is no JSON at all is refused here. Where a template would write an
//! object as Java prints maps (`records[].data`), it is written as JSON. What a template would write as
//! base64, for Kinesis to read it again, stays what it is.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use crate::ingest::{
    json::{Compactor, Object, Text},
    kinesis::{Call, Data, Entries, Entry, MAX_ENTRIES, PutBody},
};

/// Shards of a stream that is created without saying how many.
const DEFAULT_SHARDS: u32 = 5;
/// The request's body cannot be mapped; the text says why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

fn other(action: &'static str, body: &serde_json::Value) -> Call<'static> {
    Call::Other(action, body.to_string())
}

pub(super) fn list() -> Call<'static> {
    other("ListStreams", &json!({}))
}

pub(super) fn describe(stream: &str) -> Call<'static> {
    other("DescribeStream", &json!({ "StreamName": stream }))
}

pub(super) fn delete(stream: &str) -> Call<'static> {
    other("DeleteStream", &json!({ "StreamName": stream }))
}

pub(super) fn create<'b>(stream: &'b str, body: &'b Bytes) -> Result<Call<'b>, Unreadable> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Body {
        shard_count: serde_json::Value,
    }
    let text = text_of(body)?;
    let body: Body = if text.trim().is_empty() { Body::default() } else { parse(text)? };
    let shards = match body.shard_count {
        serde_json::Value::Null => DEFAULT_SHARDS.into(),
        serde_json::Value::String(text) if text.is_empty() => DEFAULT_SHARDS.into(),
        // A template writes what it finds, without quotes.
        serde_json::Value::String(text) => text.parse::<u32>().map_or(text.into(), Into::into),
        other => other,
    };
    Ok(other("CreateStream", &json!({ "StreamName": stream, "ShardCount": shards })))
}

pub(super) fn shard_iterator(stream: &str, shard: &str) -> Call<'static> {
    let body = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    other("GetShardIterator", &body)
}

pub(super) fn get_records(iterator: &str) -> Call<'static> {
    other("GetRecords", &json!({ "ShardIterator": iterator }))
}

/// The data is the JSON text of `Data`, so a string keeps its quotes.
pub(super) fn put_record<'b>(stream: &'b str, body: &'b Bytes, max_depth: usize) -> Result<Call<'b>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'b> {
        #[serde(borrow)]
        data: Option<&'b RawValue>,
        #[serde(borrow)]
        partition_key: Option<&'b RawValue>,
    }
    let request: Body<'_> = parse(text_of(body)?)?;
    let data = match request.data {
        Some(raw) => {
            let compact = Compactor::new(body, max_depth).compact(raw.get());
            compact.map_err(|too_deep| Unreadable(format!("Data {too_deep}")))?
        }
        None => Bytes::new(),
    };
    let record = entry(data, request.partition_key)?;
    Ok(Call::PutRecord(PutBody { stream_name: Some(Text(stream.into())), record, ..PutBody::default() }))
}

/// The data of each record is its string `data` without quotes, or the JSON text of anything else.
pub(super) fn put_records<'b>(stream: &'b str, body: &'b Bytes, max_depth: usize) -> Result<Call<'b>, Unreadable> {
    #[derive(Deserialize)]
    struct Body<'b> {
        #[serde(borrow, default, deserialize_with = "at_most")]
        records: Vec<Object<Element<'b>>>,
    }
    let request: Body<'_> = parse(text_of(body)?)?;
    let mut compactor = Compactor::new(body, max_depth);
    let mut kept = Vec::with_capacity(request.records.len());
    for (i, Object(element)) in request.records.into_iter().enumerate() {
        let data = match element.data.map(RawValue::get) {
            Some(raw) => match compactor.text(raw) {
                Some(text) => text,
                None => compactor.compact(raw).map_err(|e| Unreadable(format!("records[{i}].data {e}")))?,
            },
            None => Bytes::new(),
        };
        kept.push(entry(data, element.partition_key)?);
    }
    let records = Some(Entries { n: kept.len(), kept });
    Ok(Call::PutRecords(PutBody { stream_name: Some(Text(stream.into())), records, ..PutBody::default() }))
}

/// The key is a string, or the text of anything else.
fn entry(data: Bytes, key: Option<&RawValue>) -> Result<Entry<'_>, Unreadable> {
    let raw = key.map_or("", RawValue::get);
    let key = if raw.starts_with('"') {
        serde_json::from_str(raw).map_err(|e| could_not_parse(&e.to_string()))?
    } else {
        Text(raw.into())
    };
    Ok(Entry { data: Some(Data::Kept(data)), partition_key: Some(key), ..Entry::default() })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Element<'b> {
    #[serde(borrow)]
    data: Option<&'b RawValue>,
    #[serde(borrow)]
    partition_key: Option<&'b RawValue>,
}

/// No more elements than Kinesis takes: a body of many tiny ones would grow in memory.
fn at_most<'b, D: Deserializer<'b>>(deserializer: D) -> Result<Vec<Object<Element<'b>>>, D::Error> {
    struct Elements;

    impl<'b> Visitor<'b> for Elements {
        type Value = Vec<Object<Element<'b>>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of records")
        }

        fn visit_seq<A: SeqAccess<'b>>(self, mut sequence: A) -> Result<Vec<Object<Element<'b>>>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if elements.len() == MAX_ENTRIES {
                    return Err(A::Error::custom(format_args!("records has more than {MAX_ENTRIES} elements")));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }
    deserializer.deserialize_seq(Elements)
}

fn text_of(body: &Bytes) -> Result<&str, Unreadable> {
    std::str::from_utf8(body).map_err(|_| could_not_parse("it is not UTF-8"))
}

fn parse<'b, T: Deserialize<'b>>(text: &'b str) -> Result<T, Unreadable> {
    let parsed: Result<Object<T>, _> = serde_json::from_str(text);
    parsed.map(|Object(parsed)| parsed).map_err(|e| could_not_parse(&e.to_string()))
}

fn could_not_parse(why: &str) -> Unreadable {
    Unreadable(format!("Could not parse request body into json: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DEPTH: usize = 64;

    fn body(call: Result<Call<'_>, Unreadable>) -> Value {
        let Ok(Call::Other(_, body)) = call else { panic!("no call of that kind") };
        serde_json::from_str(&body).expect("JSON")
    }

    /// The stream, and of each record data and key; a put has nothing else.
    fn put<'c>(call: &'c Result<Call<'_>, Unreadable>) -> (&'c str, Vec<(&'c str, &'c str)>) {
        let (put, entries) = match call {
            Ok(Call::PutRecord(put)) => {
                assert!(put.records.is_none());
                (put, std::slice::from_ref(&put.record))
            }
            Ok(Call::PutRecords(put)) => {
                let Some(Entries { kept, n }) = &put.records else { panic!("no records") };
                assert!(put.record.data.is_none() && put.record.partition_key.is_none());
                assert_eq!(kept.len(), *n);
                (put, kept.as_slice())
            }
            Ok(Call::Other(..)) => panic!("no put"),
            Err(Unreadable(text)) => panic!("{text}"),
        };
        assert!(put.stream_arn.is_none() && put.ordering.is_none());
        let entry = |entry: &'c Entry<'_>| {
            let (Some(Data::Kept(data)), Some(Text(key)), None) =
                (&entry.data, &entry.partition_key, &entry.explicit_hash_key)
            else {
                panic!("data and key, and no more")
            };
            (std::str::from_utf8(data).expect("UTF-8"), &**key)
        };
        let Some(Text(stream)) = &put.stream_name else { panic!("no stream") };
        (stream, entries.iter().map(entry).collect())
    }

    /// What the public posting scripts send, each in its own way.
    #[test]
    fn one_record_is_the_json_text_of_its_data() {
        let row = r#"{"ind":497,"timestamp":"2021-10-22 12:59:06","latitude":-88.8298,"longitude":-170.188,"country":"Albania"}"#;
        let spaced = r#"{"ind": 497, "timestamp": "2021-10-22 12:59:06", "latitude": -88.8298, "longitude": -170.188, "country": "Albania"}"#;
        for (request, stored, key) in [
            (
                format!(r#"{{"StreamName": "{{self.stream_name}}", "Data": {spaced}, "PartitionKey": "partition-1"}}"#),
                row.to_owned(),
                "partition-1",
            ),
            (
                format!(
                    r#"{{"StreamName": "streaming-0a3-geo", "Data": [{spaced}], "PartitionKey": "9f1c2d3e-0000-4000-8000-1234567890ab"}}"#
                ),
                format!("[{row}]"),
                "9f1c2d3e-0000-4000-8000-1234567890ab",
            ),
            (
                format!(r#"{{"StreamName": "s", "Data": {{"value": {spaced}}}, "PartitionKey": "partition-geo"}}"#),
                format!(r#"{{"value":{row}}}"#),
                "partition-geo",
            ),
            (format!(r#"{{"StreamName": [1], "Data": {spaced}, "PartitionKey": "geo"}}"#), row.to_owned(), "geo"),
            (
                r#"{"Data": "eyJpbmQiOjQ5N30=", "PartitionKey": "test"}"#.to_owned(),
                r#""eyJpbmQiOjQ5N30=""#.to_owned(),
                "test",
            ),
            (r#"{"Data": "Zoë \"1\"", "PartitionKey": "a\"b"}"#.to_owned(), r#""Zoë \"1\"""#.to_owned(), "a\"b"),
            (r#"{"Data": 1.50, "PartitionKey": 7}"#.to_owned(), "1.50".to_owned(), "7"),
            (r#"{"Data": null}"#.to_owned(), String::new(), ""),
            ("{}".to_owned(), String::new(), ""),
        ] {
            let body = request.clone().into();
            let call = put_record("streaming-0a3-geo", &body, DEPTH);
            assert_eq!(call.as_ref().map(Call::action).ok(), Some("PutRecord"));
            assert_eq!(put(&call), ("streaming-0a3-geo", vec![(stored.as_str(), key)]), "{request}");
        }
    }

    #[test]
    fn several_records_have_names_in_lower_case_and_strings_without_quotes() {
        let request = r#"{"records":[{"data":"some data","partition-key":"partition-1"},
            {"data":{"ind": 1},"partition-key":"k\u00e9"},{"data":[1, 2]},{"Data":"ignored","PartitionKey":"ignored"}]}"#;
        let body = request.into();
        let call = put_records("s", &body, DEPTH);
        assert_eq!(call.as_ref().map(Call::action).ok(), Some("PutRecords"));
        let expected = [("some data", "partition-1"), (r#"{"ind":1}"#, "ké"), ("[1,2]", ""), ("", "")];
        assert_eq!(put(&call), ("s", expected.to_vec()));
        assert_eq!(put(&put_records("s", &"{}".into(), DEPTH)), ("s", vec![]));
    }

    #[test]
    fn a_stream_is_created_with_five_shards_unless_the_body_says_how_many() {
        for (request, shards) in [
            ("", json!(5)),
            ("{}", json!(5)),
            (r#"{"ShardCount": ""}"#, json!(5)),
            (r#"{"ShardCount": null}"#, json!(5)),
            (r#"{"ShardCount": 2, "StreamName": "other"}"#, json!(2)),
            (r#"{"ShardCount": "3"}"#, json!(3)),
            (r#"{"ShardCount": "many"}"#, json!("many")),
        ] {
            let sent = body(create("s", &request.into()));
            assert_eq!(sent, json!({ "StreamName": "s", "ShardCount": shards }), "{request}");
        }
    }

    #[test]
    fn what_has_no_body_is_made_of_path_query_and_header() {
        for (call, action, sent) in [
            (list(), "ListStreams", json!({})),
            (describe("a\"b"), "DescribeStream", json!({ "StreamName": "a\"b" })),
            (delete("s"), "DeleteStream", json!({ "StreamName": "s" })),
            (
                shard_iterator("s", "shardId-000000000000"),
                "GetShardIterator",
                json!({ "StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" }),
            ),
            (get_records("AAA="), "GetRecords", json!({ "ShardIterator": "AAA=" })),
        ] {
            assert_eq!(call.action(), action);
            assert_eq!(body(Ok(call)), sent);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let deep = format!(r#"{{"records":[{{"data":1}},{{"data":{}1{}}}]}}"#, "[".repeat(100), "]".repeat(100));
        for (request, words) in [
            ("", "Could not parse request body into json"),
            ("ind=1", "Could not parse"),
            (r#"{"Data": {"a": NaN}}"#, "line 1"),
            ("[]", "Could not parse"),
            ("\u{feff}{}", "Could not parse"),
        ] {
            let Err(Unreadable(text)) = put_record("s", &request.into(), DEPTH) else { panic!("{request} is taken") };
            assert!(text.contains(words), "{text}");
        }
        let Err(Unreadable(text)) = put_records("s", &deep.into(), DEPTH) else { panic!("deep is taken") };
        assert!(text.contains("records[1].data") && text.contains("ingest.max_json_depth"), "{text}");
        assert!(put_record("s", &Bytes::from_static(b"\xff{}"), DEPTH).is_err());
        let many = |n: usize| format!(r#"{{"records":[{}]}}"#, vec!["{}"; n].join(","));
        assert!(put_records("s", &many(500).into(), DEPTH).is_ok());
        let Err(Unreadable(text)) = put_records("s", &many(1_000_000).into(), DEPTH) else { panic!("many are taken") };
        assert!(text.contains("more than 500"), "{text}");
    }
}
