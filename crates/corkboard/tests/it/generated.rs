//! Rows that the emulator makes, answered by DuckDB: what holds for real rows must hold where
//! there are none. `tests/data/README.md` says how the answers come about.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use corkboard::emulate::{encoding::Encoding, first_posts};
use serde_json::Value;

use crate::{
    answers::{self, Answers, VIEWS},
    delta,
    http::{Client, eventually},
    pipeline::{self, ByHand},
    posts::{self, Producer, Rows, STREAMS, USER_ID},
    process::{self, Server},
};

/// The seed that everybody's run begins with.
const SEED: u64 = 100;
const N_POSTS: usize = 1000;
/// So many posts later a pin is posted again, with another number of followers.
const CHANGED_EVERY: usize = 41;
const MODES: [&str; 3] = ["off", "exact", "key"];

/// The first posts of the emulator, some of them twice as it happens, and a few more that only
/// `key` takes for the same: their pins have changed.
pub(crate) fn rows() -> Rows {
    let posts = first_posts(SEED, N_POSTS, Encoding::default());
    let mut rows = Rows::default();
    for (n, post) in posts.iter().enumerate() {
        for (lines, line) in rows.iter_mut().zip([&post.pin, &post.geo, &post.user]) {
            lines.push(line.clone());
        }
        if n % CHANGED_EVERY == 0 {
            let mut pin: Value = serde_json::from_str(&posts[n / 2].pin).unwrap();
            pin["follower_count"] = "9M".into();
            pin["category"] = "art".into();
            rows[0].push(pin.to_string());
        }
    }
    rows
}

fn answers_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/generated_answers.json")
}

/// The answers kept beside the tests, by deduplication.
fn kept_answers() -> BTreeMap<String, Answers> {
    serde_json::from_slice(&fs::read(answers_file()).unwrap()).unwrap()
}

/// The answers that DuckDB gives now.
fn reference_answers() -> BTreeMap<String, Answers> {
    let scratch = tempfile::tempdir().unwrap();
    for (stream, lines) in STREAMS.iter().zip(rows()) {
        fs::write(scratch.path().join(format!("{USER_ID}.{stream}.jsonl")), lines.join("\n") + "\n").unwrap();
    }
    let answer = |dedup: &str| {
        let mut reference = Command::new(delta::python());
        reference.env("PYTHONDONTWRITEBYTECODE", "1");
        reference.arg(delta::reference("reference.py")).args(["rows", "--dedup", dedup]);
        for stream in STREAMS {
            reference.arg(format!("--{stream}")).arg(scratch.path().join(format!("{USER_ID}.{stream}.jsonl")));
        }
        let output = reference.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    MODES.iter().map(|dedup| ((*dedup).to_owned(), answer(dedup))).collect()
}

/// One row per line, so that a change can be read.
fn readable(answers: &BTreeMap<String, Answers>) -> String {
    let view = |(view, rows): (&String, &Value)| {
        let rows: Vec<String> = rows.as_array().unwrap().iter().map(|row| format!("      {row}")).collect();
        format!("    {:?}: [\n{}\n    ]", view, rows.join(",\n"))
    };
    let mode = |(dedup, answers): (&String, &Answers)| {
        let views: Vec<String> = answers.iter().map(view).collect();
        format!("  {dedup:?}: {{\n{}\n  }}", views.join(",\n"))
    };
    let modes: Vec<String> = answers.iter().map(mode).collect();
    format!("{{\n{}\n}}\n", modes.join(",\n"))
}

/// Lands and takes in until the batch tables hold everything.
pub(crate) fn run_until_batch_has_all(client: &mut Client) {
    eventually("a batch run over everything", || {
        client.run_task("landing");
        client.run_task("batch");
        let boundary = client.json("/api/views/median_follower_count_per_post_year_and_age_group");
        (boundary["batch_through"] == boundary["tail_through"]).then_some(())
    });
}

#[test]
fn the_kept_answers_are_those_of_the_reference() {
    let answers = reference_answers();
    if std::env::var_os("CORKBOARD_WRITE_ANSWERS").is_some() {
        fs::write(answers_file(), readable(&answers)).unwrap();
    }
    let kept = kept_answers();
    for dedup in MODES {
        assert_eq!(answers[dedup].len(), VIEWS.len());
        answers::assert_equal(dedup, &answers[dedup], &kept[dedup]);
    }
    // Otherwise the three modes would not be told apart by the tests that use them.
    let counts = |dedup: &str| &kept[dedup]["posts_per_category"];
    assert!(counts("off") != counts("exact") && counts("exact") != counts("key"));
}

#[test]
fn batch_runs_answer_as_duckdb_does_in_every_deduplication() {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    posts::land(&landing, &rows(), 100);
    let kept = kept_answers();
    for dedup in MODES {
        process::run(&format!("batch run --dedup {dedup}"), &[("--landing", &landing), ("--tables", &tables)])
            .succeeded();
        answers::assert_equal(dedup, &answers::over_tables(&tables), &kept[dedup]);
    }
}

#[test]
fn rows_in_many_batch_runs_answer_as_rows_in_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    let rows = rows();
    // Whole objects: they are never written again with other lines.
    for n_landed in [70, 77, 490, rows[0].len()] {
        posts::land(&landing, &rows.clone().map(|lines| lines[..n_landed.min(lines.len())].to_vec()), 7);
        process::run("batch run", &[("--landing", &landing), ("--tables", &tables)]).succeeded();
    }
    answers::assert_equal("four runs", &answers::over_tables(&tables), &kept_answers()["key"]);
}

/// So many rows do not fit into the least memory.
#[test]
fn a_batch_run_in_the_least_memory_answers_as_one_in_plenty() {
    let scratch = tempfile::tempdir().unwrap();
    let landing = scratch.path().join("landing");
    let posts = first_posts(SEED, 100_000, Encoding::default());
    let mut rows = Rows::default();
    for (n, post) in posts.into_iter().enumerate() {
        for (lines, line) in rows.iter_mut().zip([post.pin, post.geo, post.user]) {
            // A post of its own each, so that every one counts.
            let mut row: Value = serde_json::from_str(&line).unwrap();
            for key in ["index", "ind"] {
                if let Some(number) = row.get_mut(key) {
                    *number = n.into();
                }
            }
            if let Some(id) = row.get_mut("unique_id") {
                *id = format!("post {n}").into();
            }
            lines.push(row.to_string());
        }
    }
    posts::land(&landing, &rows, 10_000);
    let [plenty, least] = ["2G", "32M"].map(|memory| {
        let tables = scratch.path().join(memory);
        process::run(&format!("batch run --memory {memory}"), &[("--landing", &landing), ("--tables", &tables)])
            .succeeded();
        answers::over_tables(&tables)
    });
    answers::assert_equal("32M", &least, &plenty);
    let less = process::run("batch run --memory 31M", &[("--landing", &landing), ("--tables", &landing)]).failed();
    assert!(less.contains("--memory") && less.contains("32 MiB"), "{less}");
}

#[test]
fn a_batch_run_before_anything_has_landed_does_no_harm() {
    let mut pipeline = ByHand::start();
    pipeline.client.run_task("batch");
    for (topic, values) in posts::requests(&rows(), 500) {
        pipeline.client.produce(&topic, &values).unwrap();
    }
    pipeline.client.run_task("batch");
    let expected = &kept_answers()["key"];
    answers::assert_equal("nothing landed", &answers::over_http(&mut pipeline.client, "merged"), expected);
    pipeline.client.run_task("landing");
    assert_eq!(pipeline.client.run_task("batch")["did_work"], true);
    answers::assert_equal("all landed", &answers::over_http(&mut pipeline.client, "batch"), expected);
}

/// The server dies while requests are under way, so that some of them are stored, not
/// acknowledged, and posted once more.
#[test]
fn posts_over_http_answer_as_duckdb_does_with_a_batch_run_and_a_kill_in_the_middle() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = pipeline::settings(scratch.path(), pipeline::SMALL);
    let start = || Server::start("up", &[("--data", &data), ("--config", &config)]);
    let rows = rows();
    let requests = posts::requests(&rows, 5);
    let eighth = requests.len() / 8;
    // The producer goes no further than this, so that it is at work whenever something happens.
    let n_allowed = AtomicUsize::new(2 * eighth);
    let n_acknowledged = AtomicUsize::new(0);
    let until = |n: usize| eventually("posts", || (n_acknowledged.load(Ordering::SeqCst) >= n).then_some(()));

    let server = thread::scope(|scope| {
        let (addresses, received) = mpsc::channel();
        let mut server = start();
        addresses.send(server.address).unwrap();
        scope.spawn(|| {
            let mut producer = Producer::new(received);
            for (n, (topic, values)) in requests.iter().enumerate() {
                eventually("leave to go on", || (n < n_allowed.load(Ordering::SeqCst)).then_some(()));
                producer.produce(topic, values).unwrap();
                n_acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        until(eighth);
        let mut client = server.client();
        client.run_task("landing");
        assert_eq!(client.run_task("batch")["did_work"], true);
        for kill_at in [3, 5, 7] {
            n_allowed.store((kill_at + 1) * eighth, Ordering::SeqCst);
            until(kill_at * eighth);
            server.kill();
            server = start();
            addresses.send(server.address).unwrap();
        }
        n_allowed.store(requests.len(), Ordering::SeqCst);
        until(requests.len());
        server
    });

    let mut client = server.client();
    let expected = &kept_answers()["key"];
    answers::assert_equal("merged", &answers::over_http(&mut client, "merged"), expected);
    run_until_batch_has_all(&mut client);
    answers::assert_equal("merged after all", &answers::over_http(&mut client, "merged"), expected);
    answers::assert_equal("batch after all", &answers::over_http(&mut client, "batch"), expected);
    let realtime = answers::over_http(&mut client, "realtime");
    assert!(realtime.values().all(|rows| rows.as_array().unwrap().is_empty()), "{realtime:?}");
    for (view, columns) in VIEWS {
        let csv = client.get(&format!("/api/views/{view}?format=csv")).text();
        assert_eq!(csv.lines().next(), Some(columns.join(",").as_str()));
        let arrow = client.get(&format!("/api/views/{view}?format=arrow"));
        assert_eq!((arrow.status, &arrow.body[..4]), (200, &[0xff; 4][..]), "an Arrow stream begins so");
    }
}
