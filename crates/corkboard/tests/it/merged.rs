//! The merged views against one query over everything that is in the log, which DuckDB answers
//! (I6): posts in random order with duplicates, all tasks at random moments, definitions that
//! change, and a process that is killed again and again, or whose disk loses its power.

mod changes;

mod disk;

mod ledger;

mod reference;

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        mpsc::{self, Sender},
    },
    thread,
};

use corkboard::emulate::{encoding::Encoding, first_posts};
use model::config::{Config, LogConfig};
use serde_json::{Value, json};

use self::{
    changes::{Definitions, OWN_VIEWS},
    disk::Disk,
    ledger::Ledger,
    reference::Reference,
};
use crate::{
    answers::{self, Answers, VIEWS},
    generated,
    http::{Client, eventually},
    kill_loop,
    posts::{Producer, Rows},
    process::Server,
    random::Random,
};

/// Vacuum deletes while the loop runs, but nothing that a question or a run still reads.
const SETTINGS: &str = "vacuum_retention_ms = 30000";

const N_PRODUCERS: u64 = 3;
/// Kills on one folder; the next ones begin with an empty one.
const KILLS_PER_FOLDER: u64 = 25;
const N_POSTS: usize = 150;
const TASKS: [&str; 6] = ["landing", "speed", "batch", "compact", "vacuum", "trim"];

struct Plan {
    n_kills: u64,
    seed: u64,
    /// Whether the power goes instead of the process.
    has_power_cuts: bool,
}

/// What was done, for those who want to know how much the claim rests on.
#[derive(Default)]
struct Figures {
    n_kills: u64,
    n_changes: u64,
    n_acknowledged: usize,
    n_found: usize,
    n_answers: u64,
    /// Answers refused until a batch run had made the tables anew.
    n_refused: u64,
    n_trimmed: u64,
    layers: BTreeSet<[bool; 3]>,
}

#[test]
fn merged_answers_are_those_of_one_query_over_everything_acknowledged() {
    let figures = prove(&Plan { n_kills: 8, seed: 20_261_121, has_power_cuts: false });
    let Figures { n_changes, n_trimmed, layers, .. } = figures;
    // Otherwise it proves less than it says.
    assert!(n_changes > 1 && n_trimmed > 0 && layers.len() > 1, "{n_changes} {n_trimmed} {layers:?}");
}

/// The long form: `cargo xtask prove merged` says how long.
#[test]
#[ignore = "as long as asked for: cargo xtask prove merged"]
fn merged_answers_hold_through_as_many_kills_as_asked_for() {
    let number = |name: &str| -> u64 { env::var(name).unwrap_or_else(|e| panic!("{name}: {e}")).parse().unwrap() };
    let plan = Plan {
        n_kills: number("CORKBOARD_PROVE_COUNT"),
        seed: number("CORKBOARD_PROVE_SEED"),
        has_power_cuts: env::var_os("CORKBOARD_PROVE_POWER").is_some(),
    };
    let figures = prove(&plan);
    println!(
        "\nmerged: {} {} with seed {}, {} changes of definitions, {} records acknowledged and {} of unknown outcome \
         found, {} answers equal to DuckDB's, {} refused until a batch run",
        figures.n_kills,
        if plan.has_power_cuts { "power cuts" } else { "kills" },
        plan.seed,
        figures.n_changes,
        figures.n_acknowledged,
        figures.n_found,
        figures.n_answers,
        figures.n_refused,
    );
}

fn prove(plan: &Plan) -> Figures {
    let mut figures = Figures::default();
    let mut reference = Reference::start();
    let mut random = Random(plan.seed);
    while figures.n_kills < plan.n_kills {
        let n_kills = KILLS_PER_FOLDER.min(plan.n_kills - figures.n_kills);
        let round = Random(random.below(u64::MAX));
        Folder::begin(plan.has_power_cuts, round, &mut figures, &mut reference).run(n_kills);
        eprintln!("{} of {} kills", figures.n_kills, plan.n_kills);
    }
    figures
}

/// Posts with everything that makes rows hard to count: the same post again, the same key with
/// other values, and what cannot be cleaned.
fn pool(seed: u64) -> Rows {
    let mut rows = Rows::default();
    for (n, post) in first_posts(seed, N_POSTS, Encoding::default()).into_iter().enumerate() {
        let changed = |text: &str, field: &str, value: Value| {
            let mut row: Value = serde_json::from_str(text).unwrap();
            row[field] = value;
            row.to_string()
        };
        rows[0].push(changed(&post.pin, "follower_count", json!(format!("{}k", n % 7))));
        rows[0].push(changed(&post.pin, "category", json!("art")));
        rows[0].push(changed(&post.pin, if n % 9 == 0 { "index" } else { "title" }, Value::Null));
        rows[1].push(changed(&post.geo, "country", json!("Norway")));
        rows[2].push(changed(&post.user, "age", json!(18 + n % 40)));
        for (rows, row) in rows.iter_mut().zip([post.pin, post.geo, post.user]) {
            rows.push(row);
        }
    }
    rows
}

/// One data folder through many kills.
struct Folder<'a> {
    scratch: tempfile::TempDir,
    disk: Option<Disk>,
    definitions: Definitions,
    log: LogConfig,
    ledger: Ledger,
    random: Random,
    figures: &'a mut Figures,
    reference: &'a mut Reference,
}

impl<'a> Folder<'a> {
    fn begin(has_power_cuts: bool, random: Random, figures: &'a mut Figures, reference: &'a mut Reference) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let disk = has_power_cuts.then(|| Disk::make(scratch.path()));
        let settings = kill_loop::BUSY.replace("[maintain]", &format!("[maintain]\n{SETTINGS}"));
        let definitions = Definitions::write(&scratch.path().join("definitions"), &settings);
        let log = Config::load(Some(("settings", &settings)), std::iter::empty()).unwrap().log;
        Self { scratch, disk, definitions, log, ledger: Ledger::default(), random, figures, reference }
    }

    fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or(self.scratch.path(), Disk::folder).join("data")
    }

    fn start(&self) -> Server {
        Server::start("up", &[("--data", &self.data()), ("--config", &self.definitions.config)])
    }

    fn run(mut self, n_kills: u64) {
        let pool = pool(self.random.below(1 << 32));
        let ledger = std::mem::take(&mut self.ledger);
        let (allow, turns) = mpsc::channel();
        let turns = Mutex::new(turns);
        thread::scope(|scope| {
            let mut producers = Vec::new();
            for n in 0..N_PRODUCERS {
                let (addresses, received) = mpsc::channel();
                producers.push(addresses);
                let random = Random(self.random.below(u64::MAX) ^ n);
                let (ledger, pool, turns) = (&ledger, &pool, &turns);
                scope.spawn(move || ledger.post(pool, random, turns, Producer::new(received)));
            }
            let end = self.figures.n_kills + n_kills;
            let mut server = self.start();
            while self.figures.n_kills < end {
                producers.iter().for_each(|p| p.send(server.address).unwrap());
                self.be_busy(&server, &ledger, &allow);
                self.kill(server, &ledger);
                if self.random.one_in(3) {
                    self.definitions.change(&mut self.random);
                    self.figures.n_changes += 1;
                }
                server = self.start();
                // Again while it still looks around.
                if self.random.one_in(4) {
                    self.kill(server, &ledger);
                    server = self.start();
                }
                self.compare(&mut server.client(), &ledger, "merged");
            }
            drop(allow);
            drop(producers);
            self.come_to_rest(server, &ledger);
        });
        let (n_acknowledged, n_found) = ledger.n_records();
        self.figures.n_acknowledged += n_acknowledged;
        self.figures.n_found += n_found;
    }

    /// Posts, and tasks that are asked for in between; ends with posts under way.
    fn be_busy(&mut self, server: &Server, ledger: &Ledger, turns: &Sender<()>) {
        let mut client = server.client();
        for _ in 0..1 + self.random.below(3) {
            let n_requests = 1 + self.random.below(12);
            let n_under_way = self.random.below(6);
            ledger.allow(turns, n_requests + n_under_way, n_requests);
            let task = *self.random.pick(&TASKS);
            if self.random.one_in(3) {
                client.run_task(task);
            } else {
                let asked = client.send("POST", &format!("/api/tasks/{task}/run"), "text/plain", b"").unwrap();
                assert_eq!(asked.status, 202, "{task}: {}", asked.text());
            }
        }
        // The same process follows what comes, and does not only begin with what is there.
        if self.random.one_in(2) {
            ledger.wait_for_all();
            self.compare(&mut client, ledger, "merged");
        }
        ledger.allow(turns, N_PRODUCERS, 1);
    }

    fn kill(&mut self, server: Server, ledger: &Ledger) {
        match &self.disk {
            Some(disk) => disk.cut(server),
            None => server.kill(),
        }
        self.figures.n_kills += 1;
        ledger.look_into(&self.data().join("log"), &self.log);
    }

    /// Every view, while nobody posts and all tasks go on.
    fn compare(&mut self, client: &mut Client, ledger: &Ledger, scope: &str) {
        let path = self.scratch.path().join("ledger.jsonl");
        ledger.write(&path);
        let expected = self.reference.ask(&path, self.definitions.for_duckdb());
        let own = OWN_VIEWS.iter().map(|v| (v.name, v.columns));
        let mut actual = Answers::new();
        for (view, columns) in VIEWS.into_iter().chain(own) {
            let answer = self.ask(client, &format!("/api/views/{view}?scope={scope}"));
            assert_eq!(answer["complete"], true, "{answer}");
            self.figures.layers.insert(kill_loop::layers_of(&answer));
            actual.insert(view.to_owned(), answers::rows(view, columns, &answer["rows"]));
        }
        let what = format!("{scope}, kill {}, {}", self.figures.n_kills, self.definitions.for_duckdb());
        self.keep_if_different(&path, &actual, &expected);
        answers::assert_equal(&what, &actual, &expected);
        self.figures.n_answers += expected.len() as u64;
    }

    /// What a difference was found in stays, in the folder that CORKBOARD_PROVE_KEEP names, for
    /// whoever looks for its cause.
    fn keep_if_different(&self, ledger: &Path, actual: &Answers, expected: &Answers) {
        if actual != expected
            && let Some(folder) = env::var_os("CORKBOARD_PROVE_KEEP").map(PathBuf::from)
        {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::copy(ledger, folder.join("ledger.jsonl")).unwrap();
            std::fs::write(folder.join("actual.json"), json!(actual).to_string()).unwrap();
            std::fs::write(folder.join("expected.json"), json!(expected).to_string()).unwrap();
        }
    }

    /// An answer; after a change of definitions it may have to wait for a batch run, and says so.
    fn ask(&mut self, client: &mut Client, path: &str) -> Value {
        let mut n_refused = 0;
        let answer = eventually(path, || {
            let response = client.get(path);
            match response.status {
                200 => return Some(response.json()),
                503 => assert!(response.text().contains("run `corkboard batch run`"), "{}", response.text()),
                status => panic!("GET {path}: {status}: {}", response.text()),
            }
            n_refused += 1;
            None
        });
        self.figures.n_refused += n_refused;
        answer
    }

    /// All layers take everything; then no task changes any answer.
    fn come_to_rest(&mut self, server: Server, ledger: &Ledger) {
        let mut client = server.client();
        generated::run_until_batch_has_all(&mut client);
        for task in ["speed", "compact", "vacuum", "trim"] {
            client.run_task(task);
        }
        self.compare(&mut client, ledger, "merged");
        client.run_task("batch");
        self.compare(&mut client, ledger, "batch");
        let log = client.json("/api/log");
        let starts = log["partitions"].as_array().unwrap().iter().map(|p| p["start"].as_u64().unwrap());
        self.figures.n_trimmed += starts.sum::<u64>();
        server.terminate().succeeded();
    }
}
