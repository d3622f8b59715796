//! What a log says of requests with a key: any header in the place of the mark that such a request
//! leaves on its records. Every line but the first is the mark of one record; the first line says through
//! which door the request comes then.
//!
//! A fuzzer does not guess prints: `~` stands for those of the request itself, `@` for the time now.
//! Whatever the log says, the request is answered, and asked again it is answered the same and stores
//! nothing, by the same process and by one that has to read the log first.

use model::{EventLog, Header, Record, Timestamp};
use serde_json::Value;

use super::door::{Door, SIGNATURE, Said, run};

const MARK: &str = "corkboard-idempotency";
const TOPIC: &str = "t";
const KEY: (&str, &str) = ("idempotency-key", "k");
const MAX_MARKS: usize = 16;

pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let door = lines.next().unwrap_or_default();
    let through = match door {
        b"kafka" => Through::Kafka,
        b"v3" => Through::Batch,
        b"kinesis" => Through::Kinesis,
        _ => return,
    };
    run(async {
        let empty = new_door().await;
        assert_eq!(ask(&empty, through).await.status, through.done());
        let prints = prints(&empty).await;
        let now = Timestamp::now().0.to_string();
        let door = new_door().await;
        for mark in lines.take(MAX_MARKS) {
            let header = Header { key: MARK.to_owned(), value: Some(filled(mark, &prints, &now).into()) };
            let record = Record { headers: vec![header], ..Record::of_value("0") };
            door.append(TOPIC, 0, vec![record]).await;
        }
        check_answers(&door, through).await;
    });
}

#[derive(Clone, Copy)]
enum Through {
    Kafka,
    Batch,
    Kinesis,
}

impl Through {
    fn done(self) -> u16 {
        match self {
            Self::Kafka | Self::Kinesis => 200,
            Self::Batch => 207,
        }
    }
}

async fn new_door() -> Door {
    let door = Door::new();
    door.create(TOPIC, 1).await;
    door
}

/// Asks for two records.
async fn ask(door: &Door, through: Through) -> Said {
    match through {
        Through::Kafka => {
            let headers = [("content-type", "application/vnd.kafka.json.v2+json"), KEY];
            door.ask("POST", "/topics/t", &headers, r#"{"records":[{"value":1},{"value":2}]}"#).await
        }
        Through::Batch => {
            let cluster = door.log.describe().await.expect("a log in memory").id.id;
            let path = format!("/v3/clusters/{cluster}/topics/t/records:batch");
            let entry = |n: u8| format!(r#"{{"id":"{n}","value":{{"type":"JSON","data":{n}}}}}"#);
            let body = format!(r#"{{"entries":[{},{}]}}"#, entry(1), entry(2));
            door.ask("POST", &path, &[("content-type", "application/json"), KEY], body).await
        }
        Through::Kinesis => {
            let headers = [
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", "Kinesis_20131202.PutRecords"),
                ("authorization", SIGNATURE),
                KEY,
            ];
            let record = |data: &str| format!(r#"{{"PartitionKey":"p","Data":"{data}"}}"#);
            let body = format!(r#"{{"StreamName":"t","Records":[{},{}]}}"#, record("MQ=="), record("Mg=="));
            door.ask("POST", "/", &headers, body).await
        }
    }
}

/// Those that the request left in an empty log.
async fn prints(door: &Door) -> String {
    let record = door.record(TOPIC, 0, 0).await;
    let mark = record.headers.iter().find(|header| header.key == MARK).expect("the request had a key");
    let text = std::str::from_utf8(mark.value.as_deref().unwrap_or_default()).expect("marks are text");
    let words: Vec<&str> = text.split(' ').collect();
    words[5..7].join(" ")
}

fn filled(mark: &[u8], prints: &str, now: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(mark.len());
    for byte in mark {
        match byte {
            b'~' => filled.extend(prints.as_bytes()),
            b'@' => filled.extend(now.as_bytes()),
            byte => filled.push(*byte),
        }
    }
    filled
}

async fn check_answers(door: &Door, through: Through) {
    let n_before = door.n_records(TOPIC).await;
    let first = ask(door, through).await;
    let n_after = door.n_records(TOPIC).await;
    if first.status != through.done() {
        // The key was used for something else.
        assert!([400, 422].contains(&first.status), "{first:?}");
        assert_eq!(n_after, n_before);
    } else {
        check_receipts(door, through, &first).await;
    }
    for door in [door, &Door::over(door.log.clone())] {
        let again = ask(door, through).await;
        assert_eq!((again.status, again.json()), (first.status, first.json()));
        assert_eq!(door.n_records(TOPIC).await, n_after);
    }
}

/// Receipts lead to records; what was stored now is what was sent.
async fn check_receipts(door: &Door, through: Through, said: &Said) {
    let answer = said.json();
    let (list, offset) = match through {
        Through::Kafka => ("offsets", "offset"),
        Through::Batch => ("successes", "offset"),
        // Its numbers are opaque.
        Through::Kinesis => return,
    };
    let receipts = answer[list].as_array().unwrap_or_else(|| panic!("{answer} has no {list}"));
    assert_eq!(receipts.len(), 2, "{answer}");
    for (n, receipt) in (1_u8..).zip(receipts) {
        let offset = receipt[offset].as_u64().unwrap_or_else(|| panic!("{receipt} has no offset"));
        let value = door.record(TOPIC, 0, offset).await.value.unwrap_or_default();
        let stored: Value = serde_json::from_slice(&value).expect("all are JSON");
        assert!(stored == n || stored == 0, "{receipt}: {stored}");
    }
}
