//! What a record costs at each door of a server that does nothing else: equal records with equal
//! keys into one topic, every one durable before its answer. Beside each setting, in the same run:
//! a route of the same listener that only reads the same bodies, version 2 of Kafka REST, and for
//! Kinesis ferrokinesis, which keeps records in memory and is sent the same bytes.

mod peer;

mod requests;

use std::{
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::{
    peer::Peer,
    requests::{Door, TOPIC, Target},
};
use super::{
    Arguments,
    figures::{Figures, GOAL, goal, goals},
    http::{self, Connection},
    ingest,
    load::{self, Loaded},
    posts::Posts,
    scratch::Scratch,
};
use crate::{server, server::Server};

const CONNECTIONS: [usize; 3] = [1, 8, 64];
const SECONDS: u64 = 5;
/// So many records are made before the clock starts, and sent over and over.
const RECORDS_IN_TURN: u64 = 2000;
/// Of the topic, which is a stream of so many shards.
const N_PARTITIONS: u32 = 4;
/// How long a stream may take to become active.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// A door's record may cost so many times what it costs at version 2 of Kafka REST.
const MOST_OF_REST2: f64 = 1.5;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let posts = Posts::from_emulator(&binary)?;
    let runs = Runs {
        noop: ingest::build_noop()?,
        peer: peer::binary()?,
        binary,
        time: Duration::from_secs(arguments.seconds(SECONDS)),
        records: records(&posts),
    };
    let mut figures = Figures::new(&[
        "door",
        "batch",
        "connections",
        "records_per_second",
        "requests_per_second",
        "p50_ms",
        "p99_ms",
        "server_cores",
        "client_cores",
        "noop_requests_per_second",
        "of_noop",
        "us_per_record",
        "cost_of_rest2",
        "rate_of_ferrokinesis",
        GOAL,
    ]);
    for n_connections in CONNECTIONS {
        for &n_per_request in Door::Rest2.batches() {
            let mut rest2 = None;
            for door in doors(n_per_request, arguments.only.as_deref().unwrap_or_default()) {
                let setting = Setting { door, n_per_request, n_connections };
                let ours = runs.door(setting)?;
                let noop = runs.noop(setting)?;
                let peer = if is_kinesis(door) { Some(runs.peer(setting)?) } else { None };
                // The first of all doors is the one that the others are compared with.
                let rest2 = *rest2.get_or_insert(ours.outcome.records_per_second());
                push_rows(&mut figures, setting, ours, &noop, peer, rest2);
            }
        }
    }
    ensure!(!figures.rows.is_empty(), "no door has the text of --only in its name");
    Ok(figures)
}

/// The doors to measure with requests of so many records: those with this text in their name, behind
/// the one that they are compared with.
fn doors(n_per_request: u64, only: &str) -> Vec<Door> {
    let takes = |door: &Door| door.batches().contains(&n_per_request);
    let is_named = |door: &Door| door.name(n_per_request).contains(only);
    let mut doors: Vec<Door> = Door::ALL.into_iter().filter(takes).filter(is_named).collect();
    if doors.first().is_some_and(|first| *first != Door::Rest2) {
        doors.insert(0, Door::Rest2);
    }
    doors
}

/// Those of pins: some 500 bytes each, and the only ones that `POST /pin/` takes.
fn records(posts: &Posts) -> Vec<Vec<u8>> {
    let record = |n| {
        let mut record = Vec::new();
        posts.write(0, n, &mut record);
        record
    };
    (0..RECORDS_IN_TURN).map(record).collect()
}

const fn is_kinesis(door: Door) -> bool {
    matches!(door, Door::KinesisJson | Door::KinesisCbor)
}

#[derive(Clone, Copy)]
struct Setting {
    door: Door,
    n_per_request: u64,
    n_connections: usize,
}

impl Setting {
    /// Whole requests, and how many records each has.
    fn requests(self, to: Target, records: &[Vec<u8>]) -> Vec<(Vec<u8>, u64)> {
        let request = |(i, records): (usize, &[Vec<u8>])| {
            (self.door.request(to, i as u64 * self.n_per_request, records), self.n_per_request)
        };
        records.chunks_exact(self.n_per_request as usize).enumerate().map(request).collect()
    }

    fn goals(self, ours: &Loaded, of_rest2: f64, times_peer: Option<f64>) -> Value {
        let mut met = vec![goal("no refusals", ours.outcome.n_refused == 0)];
        if self.door != Door::Rest2 {
            met.push(goal("cost ≤ 1.5 of v2", of_rest2 <= MOST_OF_REST2));
        }
        match times_peer {
            Some(times) if self.n_per_request > 1 => met.push(goal("rate ≥ 2 of ferrokinesis", times >= 2.0)),
            Some(times) if self.n_connections >= 8 => met.push(goal("rate ≥ 1 of ferrokinesis", times >= 1.0)),
            _ => {}
        }
        goals(met)
    }
}

/// Programs that are measured, each anew for every setting: what one leaves behind does not slow
/// the next.
struct Runs {
    binary: PathBuf,
    noop: PathBuf,
    peer: PathBuf,
    time: Duration,
    records: Vec<Vec<u8>>,
}

impl Runs {
    fn door(&self, setting: Setting) -> Result<Loaded> {
        let server = Server::start_doors(&self.binary)?;
        let mut connection = Connection::open(&server.address)?;
        let cluster = cluster(&mut connection)?;
        let to = Target { host: &server.address, cluster: &cluster };
        create_stream(&mut connection, to)?;
        let requests = setting.requests(to, &self.records);
        let loaded = self.load(&server.address, server.id(), setting, &requests)?;
        // Doors that answer for each record may refuse some under a status that says nothing of it.
        let n_stored = n_stored(&Connection::open(&server.address)?.text("/metrics")?);
        let (name, n_told) = (setting.door.name(setting.n_per_request), loaded.outcome.n_records);
        ensure!(n_stored == n_told, "{name} stored {n_stored} records of {n_told}");
        Ok(loaded)
    }

    /// The same requests to a route that does nothing.
    fn noop(&self, setting: Setting) -> Result<Loaded> {
        let scratch = Scratch::new("noop")?;
        let server = Server::spawn(Command::new(&self.noop), &scratch)?;
        let mut requests = setting.requests(Target { host: &server.address, cluster: "noop" }, &self.records);
        for (request, _) in &mut requests {
            *request = http::with_path(request, "/noop");
        }
        self.load(&server.address, server.id(), setting, &requests)
    }

    fn peer(&self, setting: Setting) -> Result<Loaded> {
        let peer = Peer::start(&self.peer)?;
        let to = Target { host: &peer.address, cluster: "none" };
        let mut connection = Connection::open(&peer.address)?;
        create_stream(&mut connection, to)?;
        let requests = setting.requests(to, &self.records);
        let (status, answer) = connection.exchange(&requests[0].0)?;
        let answer = String::from_utf8_lossy(answer);
        ensure!(status == 200 && !answer.contains("ErrorCode"), "ferrokinesis answers {status}: {answer}");
        self.load(&peer.address, peer.id(), setting, &requests)
    }

    fn load(&self, address: &str, id: u32, setting: Setting, requests: &[(Vec<u8>, u64)]) -> Result<Loaded> {
        load::over_and_over((address, id), setting.n_connections, self.time, requests)
    }
}

/// As version 3 calls the log.
fn cluster(connection: &mut Connection) -> Result<String> {
    let clusters = connection.get("/v3/clusters")?;
    Ok(clusters["data"][0]["cluster_id"].as_str().context("there is no cluster")?.to_owned())
}

/// The topic of all doors, as Kinesis makes one.
fn create_stream(connection: &mut Connection, to: Target) -> Result<()> {
    let mut ask = |action: &str, body: Value| {
        let (status, answer) = connection.exchange(&requests::action(action, to, &body.to_string()))?;
        let text = String::from_utf8_lossy(answer);
        ensure!(status == 200, "{action} answers {status}: {text}");
        Ok(text.into_owned())
    };
    ask("CreateStream", json!({ "StreamName": TOPIC, "ShardCount": N_PARTITIONS }))?;
    let begin = Instant::now();
    while !ask("DescribeStreamSummary", json!({ "StreamName": TOPIC }))?.contains("\"ACTIVE\"") {
        ensure!(begin.elapsed() < PATIENCE, "the stream does not become active");
        thread::sleep(POLL);
    }
    Ok(())
}

/// Records of the topic on stable storage, by the server's own count.
fn n_stored(metrics: &str) -> u64 {
    let name = format!("corkboard_appended_records_total{{topic=\"{TOPIC}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

/// The door's row, and the peer's below it.
fn push_rows(
    figures: &mut Figures,
    setting: Setting,
    mut ours: Loaded,
    noop: &Loaded,
    peer: Option<Loaded>,
    rest2: f64,
) {
    let rate = ours.outcome.records_per_second();
    let (of_rest2, times_peer) = (rest2 / rate, peer.as_ref().map(|peer| rate / peer.outcome.records_per_second()));
    let noop_rate = noop.outcome.requests_per_second();
    let mut row = measured(setting, "Kinesis", &mut ours);
    row.extend([json!(noop_rate), json!(ours.outcome.requests_per_second() / noop_rate)]);
    row.extend([json!(1e6 / rate), json!(of_rest2), json!(times_peer), setting.goals(&ours, of_rest2, times_peer)]);
    figures.push(row);
    if let Some(mut peer) = peer {
        let mut row = measured(setting, "ferrokinesis", &mut peer);
        let us_per_record = 1e6 / peer.outcome.records_per_second();
        row.extend([Value::Null, Value::Null, json!(us_per_record), Value::Null, Value::Null]);
        row.push(goal("no refusals", peer.outcome.n_refused == 0));
        figures.push(row);
    }
}

fn measured(setting: Setting, whose: &str, loaded: &mut Loaded) -> Vec<Value> {
    let name = setting.door.name(setting.n_per_request).replace("Kinesis", whose);
    let outcome = &mut loaded.outcome;
    let [p50_ms, p99_ms] = outcome.p50_and_p99_ms();
    let rates = [outcome.records_per_second(), outcome.requests_per_second(), p50_ms, p99_ms];
    let mut row = vec![json!(name), json!(setting.n_per_request), json!(setting.n_connections)];
    row.extend(rates.into_iter().chain([loaded.server_cores, loaded.client_cores]).map(Value::from));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{load::Outcome, posts::tests::posts};

    #[test]
    fn requests_hold_all_records_in_order() {
        let records = records(&posts());
        let to = Target { host: "h:1", cluster: "c" };
        for door in Door::ALL {
            for &n_per_request in door.batches() {
                let requests = Setting { door, n_per_request, n_connections: 1 }.requests(to, &records);
                assert_eq!(requests.len() as u64, RECORDS_IN_TURN / n_per_request);
                let (request, n_records) = &requests[1];
                let end = request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends") + 4;
                let head = String::from_utf8_lossy(&request[..end]);
                assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", request.len() - end)), "{head}");
                assert_eq!(*n_records, n_per_request);
                if matches!(door, Door::KinesisCbor | Door::Stream3) {
                    continue;
                }
                let body: Value = serde_json::from_slice(&request[end..]).expect("it is JSON");
                let lists = ["records", "entries", "Records"].map(|name| body[name].as_array().map(Vec::len));
                let n_listed = lists.into_iter().flatten().next().unwrap_or(1);
                assert_eq!(n_listed as u64, n_per_request, "{door:?}");
            }
        }
    }

    #[test]
    fn a_choice_of_doors_keeps_what_they_are_compared_with() {
        assert_eq!(doors(500, ""), [Door::Rest2, Door::KinesisJson, Door::KinesisCbor]);
        assert_eq!(doors(1, "").len(), Door::ALL.len());
        assert_eq!(doors(10, "v3"), [Door::Rest2, Door::Batch3]);
        assert_eq!(doors(100, "v3"), [Door::Rest2, Door::Stream3]);
        assert_eq!(doors(1, "v2"), [Door::Rest2]);
        assert_eq!(doors(500, "gateway"), []);
    }

    #[test]
    fn stored_records_are_those_of_the_topic() {
        let metrics = "corkboard_appended_records_total{topic=\"x\"} 7\n\
            corkboard_appended_records_total{topic=\"Pinterest_data\"} 1200\n";
        assert_eq!((n_stored(metrics), n_stored("")), (1200, 0));
    }

    fn loaded(n_records: u64) -> Loaded {
        let outcome = Outcome { n_requests: 10, n_records, seconds: 1.0, ..Outcome::default() };
        Loaded { outcome, server_cores: 1.0, client_cores: 0.5 }
    }

    #[test]
    fn a_door_is_held_against_version_2_and_the_peer() {
        let mut figures = Figures::new(&["c"; 15]);
        let setting = Setting { door: Door::KinesisJson, n_per_request: 500, n_connections: 8 };
        push_rows(&mut figures, setting, loaded(1000), &loaded(10), Some(loaded(600)), 2000.0);
        let goals = |row: usize| figures.rows[row][14].clone();
        assert_eq!(
            goals(0),
            json!([
                { "goal": "no refusals", "met": true },
                { "goal": "cost ≤ 1.5 of v2", "met": false },
                { "goal": "rate ≥ 2 of ferrokinesis", "met": false },
            ])
        );
        assert_eq!(goals(1), json!([{ "goal": "no refusals", "met": true }]));
        assert_eq!(figures.rows[1][0], "ferrokinesis PutRecords");
        assert_eq!((&figures.rows[0][11], &figures.rows[0][12]), (&json!(1000.0), &json!(2.0)));
    }
}
