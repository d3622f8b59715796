//! The doors that store something else than they are sent: an API Gateway's mapping templates, and the
//! program that takes one pin. The first byte of an input says which: `1` one record, `m` several, `c`
//! a stream to create (its name up to a space, then the body), `i` a shard's iterator by a query, `g`
//! records by a header, `p` a pin.

use base64::{Engine, prelude::BASE64_STANDARD};
use model::Record;
use serde_json::Value;

use super::door::{Door, Said, run};

const STREAM: &str = "s";
const PIN_TOPIC: &str = "Pinterest_data";
const N_PIN_FIELDS: usize = 12;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

pub fn check(data: &[u8]) {
    let Some((call, rest)) = data.split_first() else { return };
    run(async {
        let door = Door::new();
        door.create(STREAM, 1).await;
        match call {
            b'1' => check_record(&door, rest).await,
            b'm' => check_records(&door, rest).await,
            b'p' => check_pin(&door, rest).await,
            _ => check_others(&door, *call, rest).await,
        }
    });
}

/// Whether it was done; if not, the gateway or Kinesis says why.
fn is_done(said: &Said) -> bool {
    assert_eq!(said.header("content-type"), "application/json", "{said:?}");
    if said.status == 200 {
        return true;
    }
    assert_eq!(said.status, 400, "{said:?}");
    let answer = said.json();
    assert!(answer["message"].is_string() || answer["Message"].is_string(), "{answer}");
    assert!(said.header("x-amzn-errortype").ends_with("Exception"), "{said:?}");
    false
}

async fn check_record(door: &Door, body: &[u8]) {
    let said = door.ask("PUT", "/streams/s/record", JSON, body.to_vec()).await;
    assert_eq!(u64::from(is_done(&said)), door.n_records(STREAM).await);
    if said.status == 200
        && let Ok(sent) = serde_json::from_slice::<Value>(body)
    {
        let record = door.record(STREAM, 0, 0).await;
        check_key(&sent["PartitionKey"], &record);
        let stored = record.value.unwrap_or_default();
        // A string keeps its quotes.
        match &sent["Data"] {
            Value::Null => assert!(stored.is_empty() || *stored == *b"null"),
            data => assert_eq!(serde_json::from_slice::<Value>(&stored).ok().as_ref(), Some(data)),
        }
    }
}

async fn check_records(door: &Door, body: &[u8]) {
    let said = door.ask("PUT", "/streams/s/records", JSON, body.to_vec()).await;
    if !is_done(&said) {
        assert_eq!(door.n_records(STREAM).await, 0);
        return;
    }
    let answer = said.json();
    let n_told = answer["Records"].as_array().expect("receipts").len() as u64;
    assert_eq!((door.n_records(STREAM).await, answer["FailedRecordCount"].as_u64()), (n_told, Some(0)));
    let Ok(sent) = serde_json::from_slice::<Value>(body) else { return };
    let sent = sent["records"].as_array().expect("they were taken");
    assert_eq!(sent.len() as u64, n_told);
    for (offset, sent) in (0..).zip(sent) {
        let record = door.record(STREAM, 0, offset).await;
        check_key(&sent["partition-key"], &record);
        let stored = record.value.unwrap_or_default();
        match &sent["data"] {
            Value::Null => assert!(stored.is_empty() || *stored == *b"null"),
            // A string has none.
            Value::String(text) => assert_eq!(*stored, *text.as_bytes()),
            data => assert_eq!(serde_json::from_slice::<Value>(&stored).ok().as_ref(), Some(data)),
        }
    }
}

fn check_key(sent: &Value, record: &Record) {
    let key = record.key.as_deref().expect("all have keys");
    match sent {
        Value::String(text) => assert_eq!(key, text.as_bytes()),
        sent => assert_eq!(serde_json::from_slice::<Value>(key).ok().as_ref(), Some(sent)),
    }
}

/// What is answered is what is stored, and texts and whole numbers are as they were sent.
async fn check_pin(door: &Door, body: &[u8]) {
    let said = door.ask("POST", "/pin/", JSON, body.to_vec()).await;
    let answer = said.json();
    if said.status != 200 {
        assert!([400, 413, 422].contains(&said.status), "{said:?}");
        let is_told = |fault: &Value| fault["loc"].is_array() && fault["msg"].is_string() && fault["type"].is_string();
        match &answer["detail"] {
            Value::Array(faults) => assert!(!faults.is_empty() && faults.iter().all(is_told), "{answer}"),
            detail => assert!(detail.is_string(), "{answer}"),
        }
        assert_eq!(door.n_records(PIN_TOPIC).await, 0);
        return;
    }
    let mut records = Vec::new();
    for partition in 0..3 {
        let partition = model::TopicPartition::new(super::door::name(PIN_TOPIC), partition);
        if let Ok(found) = model::EventLog::fetch(&*door.log, &partition, model::Offset::ZERO, 1 << 20).await {
            records.extend(found);
        }
    }
    assert_eq!(records.len(), 1, "{answer}");
    let stored = records[0].record.value.as_deref().unwrap_or_default();
    assert!(stored.is_ascii());
    // Numbers may be larger than any type: by their texts.
    let fields = |json: &[u8]| -> Vec<(String, String)> {
        let fields: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
            serde_json::from_slice(json).unwrap_or_else(|e| panic!("{e}: {answer}"));
        let text = |raw: &str| serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned());
        fields.into_iter().map(|(name, raw)| (name, text(raw.get()))).collect()
    };
    let (stored, told) = (fields(stored), fields(&said.body));
    assert_eq!((stored.len(), &stored), (N_PIN_FIELDS, &told));
    let Ok(sent) = serde_json::from_slice::<Value>(body) else { return };
    for (name, told) in told {
        match &sent[&name] {
            Value::String(text) if !["index", "downloaded"].contains(&name.as_str()) => assert_eq!(told, *text),
            Value::Number(n) if n.is_u64() => assert_eq!(told, n.to_string()),
            _ => {}
        }
    }
}

async fn check_others(door: &Door, call: u8, rest: &[u8]) {
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let (first, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let ask = match call {
        b'c' => ("POST", format!("/streams/{first}"), vec![]),
        b'd' => ("DELETE", format!("/streams/{first}"), vec![]),
        b'i' => ("GET", format!("/streams/s/sharditerator?{first}"), vec![]),
        b'g' => ("GET", "/streams/s/records".to_owned(), vec![("shard-iterator", first)]),
        _ => return,
    };
    let Some(response) = door.try_ask(ask.0, &ask.1, &ask.2, body.to_owned()).await else { return };
    // What leads nowhere is the gateway's to refuse, in its own way.
    if response.status() == 403 || response.headers().get("content-type").is_none() {
        return;
    }
    let said = Said::of(response).await;
    if is_done(&said) && call == b'i' {
        let iterator = said.json()["ShardIterator"].as_str().map(|text| BASE64_STANDARD.decode(text));
        assert!(matches!(iterator, Some(Ok(_))), "{said:?}");
    }
}
