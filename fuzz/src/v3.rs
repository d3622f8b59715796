//! Bodies of Kafka REST v3. The first byte of an input says of which call: `s` records in a stream,
//! `k` the same with a key, `b` a batch, `t` a topic to create, `c` its settings, `p` its partitions. The
//! second says into what pieces the body is cut.
//!
//! A stream cut into pieces is answered as the whole is, and every receipt speaks of a record that is
//! in the log as it was sent.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use futures::{StreamExt, stream};
use model::EventLog;
use serde_json::{Value, json, value::RawValue};

use super::door::{Door, Said, run};

const TOPIC: &str = "t";
const N_PARTITIONS: u32 = 3;

pub fn check(data: &[u8]) {
    let [call, cut, body @ ..] = data else { return };
    run(async {
        let door = new_door().await;
        match call {
            b's' => check_stream(door, *cut, body).await,
            b'k' => check_keyed(door, body).await,
            b'b' => check_batch(door, *cut, body).await,
            b't' => check_create(door, *cut, body).await,
            b'c' => check_settings(door, *cut, body).await,
            b'p' => check_grow(door, *cut, body).await,
            _ => {}
        }
    });
}

async fn new_door() -> Door {
    let door = Door::new();
    door.create(TOPIC, N_PARTITIONS).await;
    door
}

async fn ask(door: &Door, method: &str, rest: &str, headers: &[(&str, &str)], body: Body) -> Said {
    let cluster = door.log.describe().await.expect("a log in memory").id.id;
    let headers = [headers, &[("content-type", "application/json")]].concat();
    door.ask(method, &format!("/v3/clusters/{cluster}/{rest}"), &headers, body).await
}

/// In pieces of 1 to 16 bytes, or in one; the next one comes when the one before it was taken.
fn in_pieces(cut: u8, body: &[u8]) -> Body {
    if cut == 0 {
        return Body::from(body.to_vec());
    }
    let (mut state, mut rest, mut pieces) = (u32::from(cut), Bytes::copy_from_slice(body), Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = 1 + (state >> 16) as usize % 16;
        pieces.push(Ok::<_, Infallible>(rest.split_to(n.min(rest.len()))));
    }
    Body::from_stream(stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        piece
    }))
}

/// The receipts of a stream, or None where it was refused before it began.
async fn receipts(door: &Door, headers: &[(&str, &str)], body: Body) -> Option<Vec<Value>> {
    let said = ask(door, "POST", &format!("topics/{TOPIC}/records"), headers, body).await;
    if said.status != 200 {
        said.check_refusal();
        assert_eq!(door.n_records(TOPIC).await, 0, "{said:?}");
        return None;
    }
    let text = std::str::from_utf8(&said.body).expect("receipts are text");
    let lines = text.split_terminator("\r\n").map(serde_json::from_str);
    Some(lines.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{e}: {text}")))
}

async fn check_stream(door: Door, cut: u8, body: &[u8]) {
    let whole = receipts(&door, &[], in_pieces(0, body)).await;
    if let Some(receipts) = &whole {
        check_receipts(&door, receipts, body).await;
    }
    let other = new_door().await;
    let pieces = receipts(&other, &[], in_pieces(cut, body)).await;
    let common = |receipts: Option<Vec<Value>>| Some(receipts?.into_iter().map(common).collect::<Vec<_>>());
    assert_eq!(common(whole), common(pieces));
}

/// What a receipt says however its record came.
fn common(mut receipt: Value) -> Value {
    for name in ["partition_id", "offset", "timestamp", "cluster_id"] {
        if let Some(members) = receipt.as_object_mut() {
            members.remove(name);
        }
    }
    receipt
}

/// Asked again, the answer is the same and nothing is stored.
async fn check_keyed(door: Door, body: &[u8]) {
    let key = &[("idempotency-key", "k")];
    let Some(first) = receipts(&door, key, in_pieces(0, body)).await else { return };
    check_receipts(&door, &first, body).await;
    let n_records = door.n_records(TOPIC).await;
    let again = Door::over(door.log.clone());
    if n_records > 0 {
        assert_eq!(receipts(&again, key, in_pieces(0, body)).await, Some(first));
        assert_eq!(again.n_records(TOPIC).await, n_records);
    }
}

async fn check_receipts(door: &Door, receipts: &[Value], body: &[u8]) {
    // Where serde_json stops, so does the oracle: it cannot say for numbers beyond its types.
    let mut sent = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let mut n_stored = 0;
    for receipt in receipts {
        let is_stored = receipt["error_code"] == 200;
        check_receipt(receipt, is_stored);
        let sent = sent.next().and_then(Result::ok);
        if is_stored {
            n_stored += 1;
            check_stored(door, receipt, sent.as_ref()).await;
        }
    }
    assert_eq!(door.n_records(TOPIC).await, n_stored);
}

fn check_receipt(receipt: &Value, is_stored: bool) {
    let code = receipt["error_code"].as_u64().or(is_stored.then_some(200)).unwrap_or_default();
    assert!(code == 200 || (400..500).contains(&code), "{receipt}");
    assert!(is_stored || receipt["message"].as_str().is_some_and(|text| !text.is_empty()), "{receipt}");
}

async fn check_stored(door: &Door, receipt: &Value, sent: Option<&Value>) {
    let number = |name: &str| receipt[name].as_u64().unwrap_or_else(|| panic!("{receipt} has no {name}"));
    let partition = u32::try_from(number("partition_id")).expect("a partition");
    let record = door.record(TOPIC, partition, number("offset")).await;
    let time = receipt["timestamp"].as_str().unwrap_or_default();
    let time = DateTime::parse_from_rfc3339(time).unwrap_or_else(|e| panic!("{e}: {receipt}"));
    assert_eq!(time.timestamp_millis(), record.timestamp.0, "{receipt}");
    for (name, stored) in [("key", &record.key), ("value", &record.value)] {
        let told = &receipt[name];
        if !told.is_null() {
            assert_eq!(told["size"].as_u64(), Some(stored.as_ref().map_or(0, Bytes::len) as u64), "{receipt}");
        }
        let Some(sent) = sent else { continue };
        match (&sent[name]["data"], stored) {
            (Value::Null, None) => {}
            (data, Some(stored)) => check_data(&sent[name], data, told, stored),
            (data, None) => panic!("{data} was sent and not stored: {receipt}"),
        }
    }
    let Some(sent) = sent else { return };
    if let Some(wanted) = sent["partition_id"].as_u64() {
        assert_eq!(u64::from(partition), wanted);
    }
    assert_eq!(record.headers.iter().filter(|header| header.key != MARK).count(), n_sent(&sent["headers"]));
}

/// What a request's key leaves on its records.
const MARK: &str = "corkboard-idempotency";

fn n_sent(headers: &Value) -> usize {
    headers.as_array().map_or(0, Vec::len)
}

fn check_data(sent: &Value, data: &Value, told: &Value, stored: &[u8]) {
    match told["type"].as_str() {
        Some("BINARY") => {
            assert_eq!(BASE64_STANDARD.decode(data.as_str().unwrap_or_default()).as_deref(), Ok(stored), "{sent}");
        }
        Some("STRING") => assert_eq!(data.as_str().map(str::as_bytes), Some(stored), "{sent}"),
        Some("JSON") => {
            let stored: Value = serde_json::from_slice(stored).unwrap_or_else(|e| panic!("{e}: {sent}"));
            assert_eq!(&stored, data);
        }
        other => panic!("{sent} was stored as {other:?}"),
    }
}

async fn check_batch(door: Door, cut: u8, body: &[u8]) {
    let said = ask(&door, "POST", &format!("topics/{TOPIC}/records:batch"), &[], in_pieces(cut, body)).await;
    if said.status != 207 {
        said.check_refusal();
        assert_eq!(door.n_records(TOPIC).await, 0, "{said:?}");
        return;
    }
    let answer = said.json();
    let list = |name: &str| answer[name].as_array().unwrap_or_else(|| panic!("{answer} has no {name}")).clone();
    let (successes, failures) = (list("successes"), list("failures"));
    assert_eq!(door.n_records(TOPIC).await, successes.len() as u64);
    let sent: Option<Value> = serde_json::from_slice(body).ok();
    let entry = |receipt: &Value| {
        let entries = sent.as_ref()?["entries"].as_array().expect("they were taken");
        Some(entries.iter().find(|entry| entry["id"] == receipt["id"]).expect("receipts have the entries' names"))
    };
    for receipt in &successes {
        check_receipt(receipt, true);
        check_stored(&door, receipt, entry(receipt)).await;
    }
    failures.iter().for_each(|receipt| {
        check_receipt(receipt, false);
        entry(receipt);
    });
    let mut names: Vec<String> = [successes, failures].concat().iter().map(|r| r["id"].to_string()).collect();
    names.sort();
    names.dedup();
    if let Ok(Entries { entries }) = serde_json::from_slice(body) {
        assert_eq!(names.len(), entries.len(), "{answer}");
    }
}

#[derive(serde::Deserialize)]
struct Entries<'b> {
    #[serde(borrow)]
    entries: Vec<&'b RawValue>,
}

async fn partitions_count(door: &Door, topic: &str) -> Option<u64> {
    let said = ask(door, "GET", &format!("topics/{topic}"), &[], Body::empty()).await;
    (said.status == 200).then(|| said.json()["partitions_count"].as_u64().expect("a count"))
}

async fn check_create(door: Door, cut: u8, body: &[u8]) {
    let said = ask(&door, "POST", "topics", &[], in_pieces(cut, body)).await;
    match said.status {
        200 | 201 => {
            let answer = said.json();
            let topic = answer["topic_name"].as_str().expect("a name");
            let expected = (said.status == 201).then(|| answer["partitions_count"].as_u64()).flatten();
            assert_eq!(partitions_count(&door, topic).await, expected, "{said:?}");
            if let Ok(sent) = serde_json::from_slice::<Value>(body) {
                assert_eq!(sent["topic_name"], topic);
                if let Some(n) = sent["partitions_count"].as_u64() {
                    assert_eq!(answer["partitions_count"], n);
                }
            }
        }
        _ => {
            said.check_refusal();
            assert_eq!(door.log.describe().await.expect("a log in memory").topics.len(), 1, "{said:?}");
        }
    }
}

/// Nothing changes, whatever is asked for.
async fn check_settings(door: Door, cut: u8, body: &[u8]) {
    let settings = async || ask(&door, "GET", &format!("topics/{TOPIC}/configs"), &[], Body::empty()).await.json();
    let before = settings().await;
    let said = ask(&door, "POST", &format!("topics/{TOPIC}/configs:alter"), &[], in_pieces(cut, body)).await;
    if said.status == 204 {
        let sent: Value = serde_json::from_slice(body).unwrap_or(json!({ "data": [] }));
        let is_known = |setting: &Value| {
            let data = before["data"].as_array().expect("settings");
            data.iter().any(|known| known["name"] == setting["name"])
        };
        assert!(sent["data"].as_array().expect("it was taken").iter().all(is_known), "{sent}");
    } else {
        said.check_refusal();
    }
    assert_eq!(settings().await, before);
}

async fn check_grow(door: Door, cut: u8, body: &[u8]) {
    let said = ask(&door, "PATCH", &format!("topics/{TOPIC}"), &[], in_pieces(cut, body)).await;
    let n = partitions_count(&door, TOPIC).await.expect("the topic is there");
    if said.status == 200 {
        assert!(n > u64::from(N_PARTITIONS), "{said:?}");
        assert_eq!(said.json()["partitions_count"], n);
    } else {
        said.check_refusal();
        assert_eq!(n, u64::from(N_PARTITIONS));
    }
}
