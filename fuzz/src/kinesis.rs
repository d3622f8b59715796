//! Calls of the Kinesis protocol, one a line: the action, a space, the body. The first byte of an input
//! says how they are sent: `c` as the bytes that they are, as CBOR (one call, to the end), `r` as
//! JSON as it stands; anything else as JSON to one process and as CBOR to another, whose answers must
//! say the same. What was acknowledged must be read again as it was sent.
//!
//! A fuzzer cannot guess what the door has sealed: `<iterator>`, `<token>`, `<number>` and `<arn>` stand
//! for what the door said last.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use model::Record;
use serde_json::{Value, json};

use super::{
    cbor,
    door::{Door, SIGNATURE, Said, run},
};

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";
const MAX_CALLS: usize = 6;
/// Of a subscription, which goes on for minutes.
const MAX_EVENTS: usize = 4;
/// What stands for what was said under which names.
const SEALED: [(&str, &[&str]); 4] = [
    ("<iterator>", &["ShardIterator", "NextShardIterator"]),
    ("<token>", &["NextToken"]),
    ("<number>", &["SequenceNumber"]),
    ("<arn>", &["ConsumerARN"]),
];
/// What two processes say differently: their times, and what they made of times and chance.
const OWN: [&str; 10] = [
    "ConsumerARN",
    "EndingSequenceNumber",
    "MillisBehindLatest",
    "NextShardIterator",
    "NextToken",
    "ResourceARN",
    "SequenceNumber",
    "ShardIterator",
    "StartingSequenceNumber",
    "StreamId",
];

pub fn check(data: &[u8]) {
    let Some((mode, calls)) = data.split_first() else { return };
    let lines = || calls.split(|byte| *byte == b'\n').take(MAX_CALLS).map(split_call);
    run(async {
        match mode {
            b'c' => {
                let (action, body) = split_call(calls);
                Process::new().await.call(action, CBOR, body.to_vec()).await;
            }
            b'r' => {
                let mut process = Process::new().await;
                for (action, body) in lines() {
                    process.call_json(action, body).await;
                }
            }
            _ => {
                let (mut one, mut other) = (Process::new().await, Process::new().await);
                for (action, body) in lines() {
                    let Ok(asked) = serde_json::from_slice::<Value>(body) else { return };
                    if !agree(action, &asked, &mut one, &mut other).await {
                        return;
                    }
                }
            }
        }
    });
}

fn split_call(line: &[u8]) -> (&str, &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let action = std::str::from_utf8(&line[..end]).unwrap_or_default();
    (action, line.get(end + 1..).unwrap_or_default())
}

/// Whether the call can be made in both formats; then the answers say the same.
async fn agree(action: &str, asked: &Value, one: &mut Process, other: &mut Process) -> bool {
    // CBOR is not read deeper.
    if depth(asked) > 12 {
        return false;
    }
    let Some(body) = cbor::of_json(&other.sealed(asked), action.starts_with("Put")) else { return false };
    let by_json = one.call_json(action, asked.to_string().as_bytes()).await;
    let by_cbor = other.call(action, CBOR, body).await;
    match (by_json, by_cbor) {
        (Some((status, by_json)), Some((other_status, by_cbor))) => {
            let (by_json, by_cbor) = (common(by_json), common(by_cbor));
            assert_eq!((status, &by_json), (other_status, &by_cbor), "{action} {asked}");
            true
        }
        (None, None) => true,
        (by_json, by_cbor) => panic!("{action} {asked}: {by_json:?} by JSON, {by_cbor:?} by CBOR"),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What both processes must say: of exceptions the name, since texts speak of times and formats.
fn common(mut answer: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Object(members) => {
                members.retain(|name, _| !OWN.contains(&name.as_str()) && !name.ends_with("Timestamp"));
                members.values_mut().for_each(strip);
            }
            _ => {}
        }
    }
    if let Some(name) = answer.get("__type") {
        return name.clone();
    }
    strip(&mut answer);
    answer
}

struct Process {
    door: Door,
    said: BTreeMap<&'static str, String>,
}

impl Process {
    /// With a stream of two shards, some records, and a topic that no stream was asked for yet.
    async fn new() -> Self {
        let door = Door::new();
        door.create("s", 2).await;
        door.create("other", 1).await;
        for partition in 0..2 {
            let record = |n: u8| Record { key: Some("k".into()), ..Record::of_value(vec![n; 3]) };
            door.append("s", partition, (0..3).map(record).collect()).await;
        }
        Self { door, said: BTreeMap::new() }
    }

    fn sealed(&self, asked: &Value) -> Value {
        let mut asked = asked.clone();
        self.unseal(&mut asked);
        asked
    }

    fn unseal(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(said) = self.said.get(text.as_str()) {
                    text.clone_from(said);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.unseal(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.unseal(member)),
            _ => {}
        }
    }

    fn remember(&mut self, answer: &Value) {
        match answer {
            Value::Array(items) => items.iter().for_each(|item| self.remember(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    for (sign, names) in SEALED {
                        if let (true, Some(text)) = (names.contains(&name.as_str()), value.as_str()) {
                            self.said.insert(sign, text.to_owned());
                        }
                    }
                    self.remember(value);
                }
            }
            _ => {}
        }
    }

    /// The body as it stands, unless something in it stands for something else.
    async fn call_json(&mut self, action: &str, body: &[u8]) -> Option<(u16, Value)> {
        let asked = serde_json::from_slice::<Value>(body).ok();
        let sealed = asked.as_ref().map(|asked| self.sealed(asked));
        let body = if sealed == asked { body.to_vec() } else { sealed.as_ref()?.to_string().into_bytes() };
        let (status, answer) = self.call(action, JSON, body).await?;
        if let (200, Some(asked)) = (status, sealed) {
            match action {
                "PutRecord" => self.check_stored(&asked, &asked, &answer).await,
                "PutRecords" => {
                    let (sent, told) = (&asked["Records"], &answer["Records"]);
                    let (sent, told) = (sent.as_array().expect("it was taken"), told.as_array().expect("receipts"));
                    assert_eq!((sent.len(), &answer["FailedRecordCount"]), (told.len(), &json!(0)));
                    for (sent, told) in sent.iter().zip(told) {
                        self.check_stored(&asked, sent, told).await;
                    }
                }
                _ => {}
            }
        }
        Some((status, answer))
    }

    /// The status and the answer, an empty one as null; None for an answer that is a stream of events,
    /// and for what is no header's value.
    async fn call(&mut self, action: &str, media_type: &str, body: Vec<u8>) -> Option<(u16, Value)> {
        let target = format!("Kinesis_20131202.{action}");
        let headers = [("content-type", media_type), ("x-amz-target", &target), ("authorization", SIGNATURE)];
        let response = self.door.try_ask("POST", "/", &headers, body).await?;
        if response.headers()["content-type"] == "application/vnd.amazon.eventstream" {
            let mut events = response.into_body();
            for _ in 0..MAX_EVENTS {
                let Some(event) = events.frame().await else { break };
                check_event(&event.expect("events come").into_data().expect("and are data"));
            }
            return None;
        }
        let said = Said::of(response).await;
        assert_eq!(said.header("content-type"), media_type, "{said:?}");
        assert_eq!((said.header("x-amzn-requestid").len(), said.header("x-amz-id-2").len()), (36, 96));
        let answer = match media_type {
            _ if said.body.is_empty() => Value::Null,
            CBOR => cbor::to_json(&said.body),
            _ => said.json(),
        };
        match said.status {
            200 => self.remember(&answer),
            // Nothing is wrong with this log, so whatever is wrong is the client's.
            400 => {
                let name = answer["__type"].as_str().unwrap_or_else(|| panic!("{action}: {answer} has no name"));
                assert_eq!(said.header("x-amzn-errortype"), name);
                assert!(name.ends_with("Exception"), "{action}: {answer}");
            }
            status => panic!("{action}: {status} {answer}"),
        }
        Some((said.status, answer))
    }

    /// Reads what a receipt speaks of, through the door.
    async fn check_stored(&mut self, asked: &Value, sent: &Value, receipt: &Value) {
        let mut ask = json!({
            "ShardId": receipt["ShardId"],
            "ShardIteratorType": "AT_SEQUENCE_NUMBER",
            "StartingSequenceNumber": receipt["SequenceNumber"],
        });
        for name in ["StreamName", "StreamARN"] {
            ask[name] = asked[name].clone();
        }
        let (status, iterator) = self.ask("GetShardIterator", ask).await;
        assert_eq!(status, 200, "{receipt}: {iterator}");
        let (status, read) =
            self.ask("GetRecords", json!({ "ShardIterator": iterator["ShardIterator"], "Limit": 1 })).await;
        assert_eq!(status, 200, "{receipt}: {read}");
        let record = &read["Records"][0];
        assert_eq!(record["SequenceNumber"], receipt["SequenceNumber"]);
        assert_eq!(record["PartitionKey"], sent["PartitionKey"]);
        let data = BASE64_STANDARD.decode(sent["Data"].as_str().expect("it was taken")).expect("it was taken");
        assert_eq!(record["Data"], BASE64_STANDARD.encode(data));
    }

    /// On the side: what it says is not remembered.
    async fn ask(&mut self, action: &str, body: Value) -> (u16, Value) {
        let said = std::mem::take(&mut self.said);
        let answer = self.call(action, JSON, body.to_string().into_bytes()).await.expect("no events");
        self.said = said;
        answer
    }
}

/// Lengths and checksums of a message, or of several.
fn check_event(mut events: &[u8]) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
    while !events.is_empty() {
        let (message, rest) = events.split_at(number(events) as usize);
        let (content, checksum) = message.split_at(message.len() - 4);
        assert_eq!(number(&message[8..]), crc32fast::hash(&message[..8]));
        assert_eq!(number(checksum), crc32fast::hash(content));
        assert!(number(&message[4..]) as usize <= message.len() - 16);
        events = rest;
    }
}
