//! The whole pipeline killed again and again while everything in it runs: posts over HTTP,
//! landing, speed layer, batch runs, compaction, trimming. After each start, and at the end,
//! every acknowledged record is counted, and counted once, whichever layers hold it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    delta, generated,
    http::{Client, eventually},
    pipeline,
    posts::Producer,
    process::Server,
    random::Random,
};

/// Small segments, objects, micro-batches and periods: many of each in one round.
pub(crate) const BUSY: &str = "
[ingest]
default_partitions = 2
max_record_bytes = 4096

[log]
segment_bytes = 16384
mark_interval_bytes = 4096
index_interval_bytes = 1024
retention_bytes = 1

[landing]
flush_size = 20
idle_flush_ms = 50

[speed]
linger_ms = 50

[maintain]
compact_min_files = 4
checkpoint_commits = 5

[tasks]
landing = { every_ms = 50 }
speed = { every_ms = 50 }
batch = { every_ms = 300 }
compact = { every_ms = 200 }
vacuum = { every_ms = 400 }
trim = { every_ms = 100 }

[driver]
min_pause_ms = 10
backoff_min_ms = 10
backoff_max_ms = 100
";

/// Every row with its place in the log.
const POSITIONS: &str = "-- title: Positions
-- question: Where does each pin stand in the log?
SELECT _topic, _partition, _offset, unique_id FROM pin ORDER BY _topic, _partition, _offset
";
const VIEW: &str = "positions";

const N_PRODUCERS: usize = 3;
const N_CATEGORIES: usize = 4;
const RECORDS_PER_REQUEST: usize = 4;

/// After each request. Without it the posts take both cores, and tasks that yield to them, with an
/// object to every twenty records, are minutes behind: the loop is about kills, not about load.
const PAUSE: Duration = Duration::from_millis(5);

type Position = (String, u64, u64);

/// What producers know: the record at each acknowledged position, and the records that a
/// request brought whose first outcome was unknown, which may stand in the log twice.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<BTreeMap<Position, String>>,
    repeated: Mutex<BTreeSet<String>>,
    n_acknowledged: AtomicUsize,
    is_over: AtomicBool,
}

/// Definitions with the view of positions, every row counted, and these settings.
pub(crate) fn definitions(folder: &Path, settings: &str) -> PathBuf {
    let config = pipeline::definitions(folder, "off", settings);
    fs::write(folder.join("views").join(VIEW).with_extension("sql"), POSITIONS).unwrap();
    config
}

impl Ledger {
    /// Posts pins until it is over or no further server comes.
    pub(crate) fn post(&self, producer: usize, addresses: Receiver<SocketAddr>) {
        let topic = format!("k{producer}.pin");
        let mut to_servers = Producer::new(addresses);
        for n in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let ids: Vec<String> = (0..RECORDS_PER_REQUEST).map(|i| format!("{topic}-{n}-{i}")).collect();
            let category = format!("c{}", n % N_CATEGORIES);
            let pin = |id: &String| json!({"index": n, "unique_id": id, "category": category}).to_string();
            let pins: Vec<String> = ids.iter().map(pin).collect();
            let values: Vec<&str> = pins.iter().map(String::as_str).collect();
            // Until it is acknowledged it may or may not be there.
            let Some(produced) = to_servers.produce(&topic, &values) else {
                self.repeated.lock().unwrap().extend(ids);
                return;
            };
            if produced.is_repeated {
                self.repeated.lock().unwrap().extend(ids.clone());
            }
            let mut acknowledged = self.acknowledged.lock().unwrap();
            for ((partition, offset), id) in produced.positions.into_iter().zip(ids) {
                let before = acknowledged.insert((topic.clone(), partition, offset), id);
                assert_eq!(before, None, "an offset was given out twice");
            }
            drop(acknowledged);
            self.n_acknowledged.fetch_add(1, Ordering::SeqCst);
            thread::sleep(PAUSE);
        }
    }

    /// Waits until `n` more requests are acknowledged.
    pub(crate) fn wait_for_more(&self, n: usize) {
        let target = self.n_acknowledged.load(Ordering::SeqCst) + n;
        eventually("posts", || (self.n_acknowledged.load(Ordering::SeqCst) >= target).then_some(()));
    }

    /// Everything acknowledged before the question is in the answer, at its place.
    pub(crate) fn assert_in(&self, client: &mut Client) -> BTreeMap<Position, String> {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let answer = client.json(&format!("/api/views/{VIEW}"));
        assert_eq!(answer["complete"], true);
        let rows = answer["rows"].as_array().unwrap();
        let mut found = BTreeMap::new();
        for row in rows {
            let number = |name: &str| row[name].as_u64().unwrap();
            let position = (row["_topic"].as_str().unwrap().to_owned(), number("_partition"), number("_offset"));
            let id = row["unique_id"].as_str().unwrap().to_owned();
            let twice = found.insert(position.clone(), id);
            assert_eq!(twice, None, "{position:?} is counted twice; {}", boundary(&answer));
        }
        for (position, id) in &acknowledged {
            assert_eq!(found.get(position), Some(id), "{position:?} is missing or altered; {}", boundary(&answer));
        }
        found
    }

    /// After the last post: nothing is there that was not posted.
    pub(crate) fn assert_is_all(&self, client: &mut Client) {
        let found = self.assert_in(client);
        let acknowledged = self.acknowledged.lock().unwrap();
        let repeated = self.repeated.lock().unwrap();
        for (position, id) in &found {
            let is_known = acknowledged.contains_key(position) || repeated.contains(id);
            assert!(is_known, "{position:?} holds {id}, which nobody posted there");
        }
        let n_posts: u64 = client.json("/api/views/posts_per_category")["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["number_posts"].as_u64().unwrap())
            .sum();
        assert_eq!(n_posts, found.len() as u64);
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// Whether the batch layer, the real-time layer and the tail have a part in an answer.
pub(crate) fn layers_of(answer: &Value) -> [bool; 3] {
    let through = |layer: &str| -> u64 {
        let offsets = answer[layer].as_object().unwrap();
        offsets.values().filter_map(Value::as_u64).sum()
    };
    let ends = [0, through("batch_through"), through("realtime_through"), through("tail_through")];
    [0, 1, 2].map(|n| ends[n] < ends[n + 1])
}

fn boundary(answer: &Value) -> String {
    let mut boundary = answer.clone();
    boundary["rows"].take();
    boundary.to_string()
}

#[test]
fn twelve_kills_lose_nothing_and_count_nothing_twice() {
    let scratch = tempfile::tempdir().unwrap();
    let config = definitions(&scratch.path().join("definitions"), BUSY);
    let data = scratch.path().join("data");
    let start = || Server::start("up", &[("--data", &data), ("--config", &config)]);
    let ledger = Ledger::default();
    let mut random = Random(20_261_121);
    let mut layers = BTreeSet::new();

    let server = thread::scope(|scope| {
        let mut producers: Vec<Sender<SocketAddr>> = Vec::new();
        for n in 0..N_PRODUCERS {
            let (addresses, received) = mpsc::channel();
            producers.push(addresses);
            let ledger = &ledger;
            scope.spawn(move || ledger.post(n, received));
        }
        let mut server = start();
        for round in 0..12 {
            producers.iter().for_each(|p| p.send(server.address).unwrap());
            ledger.wait_for_more(10 + random.below(150) as usize);
            // Some kills meet an idle batch layer, some one at work, some one that is ahead.
            if round % 4 == 3 {
                server.client().run_task("batch");
            } else if random.below(2) == 0 {
                let asked = server.client().send("POST", "/api/tasks/batch/run", "text/plain", b"").unwrap();
                assert_eq!(asked.status, 202);
            }
            ledger.wait_for_more(1 + random.below(60) as usize);
            server.kill();
            server = start();
            let mut client = server.client();
            ledger.assert_in(&mut client);
            layers.insert(layers_of(&client.json("/api/views/posts_per_category")));
        }
        producers.iter().for_each(|p| p.send(server.address).unwrap());
        ledger.wait_for_more(20);
        ledger.end();
        server
    });

    assert!(layers.len() > 1, "the kills met the same layers each time: {layers:?}");
    let mut client = server.client();
    ledger.assert_is_all(&mut client);
    generated::run_until_batch_has_all(&mut client);
    for task in ["speed", "compact", "trim"] {
        client.run_task(task);
    }
    ledger.assert_is_all(&mut client);
    let log = client.json("/api/log");
    let is_trimmed = log["partitions"].as_array().unwrap().iter().any(|p| p["start"].as_u64().unwrap() > 0);
    assert!(is_trimmed, "no segment was ever deleted, so that the loop proves less than it says: {log}");

    server.terminate().succeeded();
    let tables = data.join("tables");
    // The stranger has no answer of its own to this question.
    fs::remove_dir_all(tables.join("views").join(VIEW)).unwrap();
    delta::check(&tables, Some(&data.join("landing")), "off", "batch,realtime,views");
}
