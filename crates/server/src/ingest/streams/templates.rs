//! What an API Gateway's mapping templates make of a request: an action of Kinesis and its body.
//!
//! Pure functions. What is missing in a request is empty in the call, and so for Kinesis to refuse, as
//! with the templates; only what is no JSON at all is refused here. Where a template would write an
//! object as Java prints maps (`records[].data`), it is written as JSON.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use crate::ingest::json::{Compactor, Object};

/// Shards of a stream that is created without saying how many.
const DEFAULT_SHARDS: u32 = 5;
/// What one call of `PutRecords` may bring.
const MAX_RECORDS: usize = 500;

/// One call of the Kinesis API. `body` is JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) action: &'static str,
    pub(super) body: String,
}

impl Call {
    fn new(action: &'static str, body: &serde_json::Value) -> Self {
        Self { action, body: body.to_string() }
    }
}

/// The request's body cannot be mapped; the text says why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

pub(super) fn list() -> Call {
    Call::new("ListStreams", &json!({}))
}

pub(super) fn describe(stream: &str) -> Call {
    Call::new("DescribeStream", &json!({ "StreamName": stream }))
}

pub(super) fn delete(stream: &str) -> Call {
    Call::new("DeleteStream", &json!({ "StreamName": stream }))
}

pub(super) fn create(stream: &str, body: &Bytes) -> Result<Call, Unreadable> {
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
    Ok(Call::new("CreateStream", &json!({ "StreamName": stream, "ShardCount": shards })))
}

pub(super) fn shard_iterator(stream: &str, shard: &str) -> Call {
    let body = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    Call::new("GetShardIterator", &body)
}

pub(super) fn get_records(iterator: &str) -> Call {
    Call::new("GetRecords", &json!({ "ShardIterator": iterator }))
}

/// The data is the JSON text of `Data`, so a string keeps its quotes.
pub(super) fn put_record(stream: &str, body: &Bytes, max_depth: usize) -> Result<Call, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'b> {
        #[serde(borrow)]
        data: Option<&'b RawValue>,
        #[serde(borrow)]
        partition_key: Option<&'b RawValue>,
    }
    let request: Body<'_> = parse(text_of(body)?)?;
    let mut compactor = Compactor::new(body, max_depth);
    let mut out = Out::new("PutRecord", stream, body.len());
    out.text.push(',');
    out.data(&match request.data {
        Some(raw) => compactor.compact(raw.get()).map_err(|e| Unreadable(format!("Data {e}")))?,
        None => Bytes::new(),
    });
    out.key(request.partition_key);
    Ok(out.end("}"))
}

/// The data of each record is its string `data` without quotes, or the JSON text of anything else.
pub(super) fn put_records(stream: &str, body: &Bytes, max_depth: usize) -> Result<Call, Unreadable> {
    #[derive(Deserialize)]
    struct Body<'b> {
        #[serde(borrow, default, deserialize_with = "at_most")]
        records: Vec<Object<Element<'b>>>,
    }
    let request: Body<'_> = parse(text_of(body)?)?;
    let mut compactor = Compactor::new(body, max_depth);
    let mut out = Out::new("PutRecords", stream, body.len());
    out.text.push_str(r#","Records":["#);
    for (i, Object(element)) in request.records.iter().enumerate() {
        out.text.push_str(if i > 0 { ",{" } else { "{" });
        let string = element.data.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        out.data(&match (element.data, string) {
            (_, Some(string)) => string.into(),
            (Some(raw), None) => {
                compactor.compact(raw.get()).map_err(|e| Unreadable(format!("records[{i}].data {e}")))?
            }
            (None, None) => Bytes::new(),
        });
        out.key(element.partition_key);
        out.text.push('}');
    }
    Ok(out.end("]}"))
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
                if elements.len() == MAX_RECORDS {
                    return Err(A::Error::custom(format_args!("records has more than {MAX_RECORDS} elements")));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }
    deserializer.deserialize_seq(Elements)
}

/// A call's body as it is written.
struct Out {
    action: &'static str,
    text: String,
}

impl Out {
    fn new(action: &'static str, stream: &str, n_bytes: usize) -> Self {
        let mut text = String::with_capacity(n_bytes / 2 * 3 + 256);
        text.push_str(r#"{"StreamName":"#);
        text.push_str(&json!(stream).to_string());
        Self { action, text }
    }

    fn data(&mut self, data: &[u8]) {
        self.text.push_str(r#""Data":""#);
        BASE64_STANDARD.encode_string(data, &mut self.text);
        self.text.push('"');
    }

    /// A string as it is; of anything else its text, as a string.
    fn key(&mut self, key: Option<&RawValue>) {
        self.text.push_str(r#","PartitionKey":"#);
        match key.map(RawValue::get) {
            None => self.text.push_str("\"\""),
            Some(raw) if raw.starts_with('"') => self.text.push_str(raw),
            Some(raw) => self.text.push_str(&json!(raw).to_string()),
        }
    }

    fn end(mut self, closing: &str) -> Call {
        self.text.push_str(closing);
        Call { action: self.action, body: self.text }
    }
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

    fn body(call: Result<Call, Unreadable>) -> Value {
        serde_json::from_str(&call.expect("a call").body).expect("JSON")
    }

    fn data(value: &Value) -> String {
        let bytes = BASE64_STANDARD.decode(value.as_str().expect("a string")).expect("base64");
        String::from_utf8(bytes).expect("UTF-8")
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
            let call = put_record("streaming-0a3-geo", &request.clone().into(), DEPTH);
            assert_eq!(call.as_ref().map(|c| c.action), Ok("PutRecord"));
            let sent = body(call);
            assert_eq!(sent["StreamName"], "streaming-0a3-geo", "{request}");
            assert_eq!(data(&sent["Data"]), stored, "{request}");
            assert_eq!(sent["PartitionKey"], key, "{request}");
            assert_eq!(sent.as_object().map(serde_json::Map::len), Some(3));
        }
    }

    #[test]
    fn several_records_have_names_in_lower_case_and_strings_without_quotes() {
        let request = r#"{"records":[{"data":"some data","partition-key":"partition-1"},
            {"data":{"ind": 1},"partition-key":"k\u00e9"},{"data":[1, 2]},{"Data":"ignored","PartitionKey":"ignored"}]}"#;
        let sent = body(put_records("s", &request.into(), DEPTH));
        let records = sent["Records"].as_array().expect("records");
        let all: Vec<(String, &str)> =
            records.iter().map(|r| (data(&r["Data"]), r["PartitionKey"].as_str().expect("a key"))).collect();
        let expected = [("some data", "partition-1"), (r#"{"ind":1}"#, "ké"), ("[1,2]", ""), ("", "")];
        assert_eq!(all, expected.map(|(data, key)| (data.to_owned(), key)));
        assert_eq!(body(put_records("s", &"{}".into(), DEPTH)), json!({ "StreamName": "s", "Records": [] }));
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
            assert_eq!(call.action, action);
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
