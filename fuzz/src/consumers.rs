//! Calls to an instance of a group of consumers, one a line: a word, a space, the body.
//!
//! What it reads is what the log has; a commit is found again as it was made, and after a seek it reads
//! on from there.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use model::Record;
use serde_json::{Value, json};

use super::door::{Door, Said, run};

const KAFKA_V2: &str = "application/vnd.kafka.v2+json";
const MAX_CALLS: usize = 12;
const N_RECORDS: u64 = 4;
/// The topics, and how many partitions each has.
const TOPICS: [(&str, u32); 2] = [("a", 2), ("b.pin", 1)];

/// The word of a call, its method, and its path below the instance.
const CALLS: [(&str, &str, &str); 12] = [
    ("delete", "DELETE", ""),
    ("subscribe", "POST", "/subscription"),
    ("subscription", "GET", "/subscription"),
    ("unsubscribe", "DELETE", "/subscription"),
    ("assign", "POST", "/assignments"),
    ("assignments", "GET", "/assignments"),
    ("seek", "POST", "/positions"),
    ("begin", "POST", "/positions/beginning"),
    ("end", "POST", "/positions/end"),
    ("records", "GET", "/records"),
    ("commit", "POST", "/offsets"),
    ("committed", "GET", "/offsets"),
];

pub fn check(data: &[u8]) {
    run(async {
        let mut client = Client::new().await;
        for line in data.split(|byte| *byte == b'\n').take(MAX_CALLS) {
            let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            client.call(&line[..end], line.get(end + 1..).unwrap_or_default()).await;
        }
    });
}

struct Client {
    door: Door,
    instance: String,
}

impl Client {
    async fn new() -> Self {
        let door = Door::new();
        for (topic, n_partitions) in TOPICS {
            door.create(topic, n_partitions).await;
            for partition in 0..n_partitions {
                let record = |n: u64| Record { key: Some("1".into()), ..Record::of_value(format!("{{\"n\":{n}}}")) };
                door.append(topic, partition, (0..N_RECORDS).map(record).collect()).await;
            }
        }
        Self { door, instance: "/consumers/g/instances/i".to_owned() }
    }

    async fn ask(&self, method: &str, rest: &str, body: &[u8]) -> Said {
        let headers: &[_] = match rest.split('?').next() {
            Some("/records") => &[("accept", "*/*")],
            _ if body.is_empty() => &[],
            _ => &[("content-type", KAFKA_V2)],
        };
        self.door.ask(method, &format!("{}{rest}", self.instance), headers, body.to_vec()).await
    }

    async fn call(&mut self, word: &[u8], body: &[u8]) {
        if word == b"create" {
            return self.create(body).await;
        }
        let Some((word, method, rest)) = CALLS.into_iter().find(|(known, ..)| known.as_bytes() == word) else { return };
        if word == "records" {
            return self.records(body).await;
        }
        let said = self.ask(method, rest, body).await;
        match said.status {
            200 => drop(said.json()),
            204 => assert!(said.body.is_empty(), "{said:?}"),
            _ => return said.check_refusal(),
        }
        let Ok(asked) = serde_json::from_slice::<Value>(body) else { return };
        match word {
            "commit" => self.check_committed(&asked).await,
            "seek" => self.check_sought(&asked).await,
            "assign" => self.check_assigned(&asked).await,
            _ => {}
        }
    }

    async fn create(&mut self, body: &[u8]) {
        let said = self.door.ask("POST", "/consumers/g", &[("content-type", KAFKA_V2)], body.to_vec()).await;
        if said.status != 200 {
            return said.check_refusal();
        }
        let answer = said.json();
        if let Ok(asked) = serde_json::from_slice::<Value>(body) {
            let name = if asked["id"].is_null() { &asked["name"] } else { &asked["id"] };
            assert!(name.is_null() || *name == answer["instance_id"], "{asked}: {answer}");
        }
        let uri = answer["base_uri"].as_str().unwrap_or_else(|| panic!("{answer} has no address"));
        self.instance = uri.strip_prefix("http://localhost").expect("we are there").to_owned();
        assert_eq!(self.ask("GET", "/subscription", b"").await.json(), json!({ "topics": [] }), "{answer}");
    }

    /// `query` stands behind the path.
    async fn records(&self, query: &[u8]) {
        let Ok(query) = std::str::from_utf8(query) else { return };
        let path = format!("{}/records?{query}", self.instance);
        let Some(response) = self.door.try_ask("GET", &path, &[("accept", "*/*")], Vec::new()).await else { return };
        self.check_records(Said::of(response).await).await;
    }

    /// Of each partition that is there, the first offset.
    async fn check_records(&self, said: Said) -> BTreeMap<(String, u64), u64> {
        let mut next = BTreeMap::new();
        let mut first = BTreeMap::new();
        if said.status != 200 {
            said.check_refusal();
            return first;
        }
        let is_json =
            said.header("content-type").contains("json.v2") || said.header("content-type") == "application/json";
        for record in said.json().as_array().expect("records are a list") {
            let topic = record["topic"].as_str().expect("a topic");
            let number = |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("{record} has no {name}"));
            let (partition, offset) = (number("partition"), number("offset"));
            first.entry((topic.to_owned(), partition)).or_insert(offset);
            let expected = next.entry((topic.to_owned(), partition)).or_insert(offset);
            assert_eq!(*expected, offset, "{record}");
            *expected += 1;
            let stored = self.door.record(topic, u32::try_from(partition).expect("a partition"), offset).await;
            for (name, stored) in [("key", stored.key), ("value", stored.value)] {
                let stored = stored.expect("all have both");
                let in_json = || serde_json::from_slice::<Value>(&stored).expect("all are JSON");
                let in_binary = || Value::from(BASE64_STANDARD.encode(&stored));
                let shown = &record[name];
                assert!(*shown == in_binary() || is_json && *shown == in_json(), "{record}");
            }
        }
        first
    }

    /// The last of each partition in what was asked for, by a number of it.
    fn named(list: &Value, number: &str) -> BTreeMap<(String, u64), u64> {
        let mut named = BTreeMap::new();
        for one in list.as_array().into_iter().flatten() {
            let (topic, partition) = (one["topic"].as_str(), one["partition"].as_u64());
            if let (Some(topic), Some(partition), Some(n)) = (topic, partition, one[number].as_u64()) {
                named.insert((topic.to_owned(), partition), n);
            }
        }
        named
    }

    async fn check_committed(&self, asked: &Value) {
        // What is committed is the next one to read.
        let expected: BTreeMap<_, _> =
            Self::named(&asked["offsets"], "offset").into_iter().map(|(k, n)| (k, n + 1)).collect();
        let partitions: Vec<Value> =
            expected.keys().map(|(topic, partition)| json!({ "topic": topic, "partition": partition })).collect();
        if partitions.is_empty() {
            return;
        }
        let said = self.ask("GET", "/offsets", json!({ "partitions": partitions }).to_string().as_bytes()).await;
        assert_eq!(said.status, 200, "{said:?}");
        assert_eq!(Self::named(&said.json()["offsets"], "offset"), expected);
    }

    async fn check_assigned(&self, asked: &Value) {
        let said = self.ask("GET", "/assignments", b"").await;
        let named = |list: &Value| {
            let list = list.as_array().into_iter().flatten().map(|p| (p["topic"].to_string(), p["partition"].as_u64()));
            list.collect::<std::collections::BTreeSet<_>>()
        };
        let (asked, has) = (named(&asked["partitions"]), named(&said.json()["partitions"]));
        assert!(has.is_subset(&asked), "{asked:?}: {has:?}");
    }

    async fn check_sought(&self, asked: &Value) {
        let sought = Self::named(&asked["offsets"], "offset");
        let is_of_times = |place: &(String, u64)| {
            let times = asked["timestamps"].as_array().into_iter().flatten();
            times.into_iter().any(|t| t["topic"] == *place.0 && t["partition"] == place.1)
        };
        let first = self.check_records(self.ask("GET", "/records?timeout=1", b"").await).await;
        for (place, offset) in sought {
            if let Some(first) = first.get(&place)
                && offset <= N_RECORDS
                && !is_of_times(&place)
            {
                assert_eq!(*first, offset, "{place:?}");
            }
        }
    }
}
