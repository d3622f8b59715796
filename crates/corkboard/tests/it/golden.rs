//! Real rows whose answers others have published: landed and cleaned by a batch run, and posted
//! one by one with a batch run and a SIGKILL in the middle. The rows are other people's and not
//! in this repository, so these tests are named `real_rows_…` and run where the rows are.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    answers::{self, Answers},
    delta, pipeline,
    posts::{self, Rows, STREAMS},
    process::{self, Server},
};

/// Names of the answers in `expected.json`.
const PUBLISHED: [(&str, &str); 12] = [
    ("q1", "most_popular_category_per_country"),
    ("q2a", "frequency_of_posts_per_category_per_year"),
    ("q2b", "most_popular_category_per_year"),
    ("q3a", "user_with_most_followers_per_country"),
    ("q3b", "country_of_user_with_most_followers"),
    ("q4", "most_popular_category_per_age_group"),
    ("q5", "median_follower_count_per_age_group"),
    ("q6_distinct", "new_users_per_year"),
    ("q6_rows", "posts_of_users_joined_per_year"),
    ("q7", "median_follower_count_per_joining_year"),
    ("q8", "median_follower_count_per_joining_year_and_age_group"),
    ("q9", "median_follower_count_per_post_year_and_age_group"),
];

/// A run of the original pipeline.
struct Golden {
    name: String,
    rows: Rows,
    dedup: &'static str,
    expected: Answers,
}

fn real_rows() -> PathBuf {
    let folder = std::env::var_os("CORKBOARD_REAL_ROWS").expect("CORKBOARD_REAL_ROWS names the folder with the rows");
    PathBuf::from(folder)
}

fn rows_of(folder: &Path) -> Rows {
    STREAMS.map(|stream| {
        let text = fs::read_to_string(folder.join(format!("{stream}.jsonl"))).unwrap();
        text.lines().map(str::to_owned).collect()
    })
}

fn golden(name: &str) -> Golden {
    let folder = real_rows().join("golden").join(name);
    let published: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let answer_of = |(short, view): &(&str, &str)| {
        let rows = published["recomputed_reference"].get(*short)?;
        Some(((*view).to_owned(), rows.clone()))
    };
    let expected: Answers = PUBLISHED.iter().filter_map(answer_of).collect();
    assert!(expected.len() >= 11, "{name}: {:?}", expected.keys());
    let dedup = if published["dedup_exact_rows_first"] == true { "exact" } else { "off" };
    Golden { name: name.to_owned(), rows: rows_of(&folder), dedup, expected }
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn lands_and_is_answered(golden: &Golden) {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    posts::land(&landing, &golden.rows, 1);
    let batch_run = format!("batch run --dedup {}", golden.dedup);
    let paths: [(&str, &Path); 2] = [("--landing", &landing), ("--tables", &tables)];
    process::run(&batch_run, &paths).succeeded();
    answers::assert_equal(&golden.name, &answers::over_tables(&tables), &golden.expected);

    let before = files(&tables);
    let again = process::run(&batch_run, &paths).succeeded();
    assert!(again.contains("nothing new"), "{again}");
    assert!(files(&tables) == before, "a second run changed {}", tables.display());
}

fn is_posted_and_answered(golden: &Golden) {
    let scratch = tempfile::tempdir().unwrap();
    let config = pipeline::definitions(&scratch.path().join("definitions"), golden.dedup, pipeline::SMALL);
    let data = scratch.path().join("data");
    let start = || Server::start("up", &[("--data", &data), ("--config", &config)]);
    let requests = posts::requests(&golden.rows, 1);

    let mut server = start();
    let mut client = server.client();
    for (n, (topic, values)) in requests.iter().enumerate() {
        if n == requests.len() / 2 {
            client.run_task("landing");
            assert_eq!(client.run_task("batch")["did_work"], true);
        }
        if n == requests.len() * 3 / 4 {
            server.kill();
            server = start();
            client = server.client();
        }
        client.produce(topic, values).unwrap();
    }
    answers::assert_equal(&golden.name, &answers::over_http(&mut client, "merged"), &golden.expected);
    let boundary = client.json("/api/views/posts_per_category");
    let through =
        |layer: &str| -> u64 { boundary[layer].as_object().unwrap().values().filter_map(Value::as_u64).sum() };
    assert!(through("batch_through") > 0, "no part of the answer is the batch layer's: {boundary}");
    assert_eq!(through("tail_through"), golden.rows[0].len() as u64, "{boundary}");
    // The same answers where another process reads the folder.
    let beside = answers::on_the_command_line("", &[("--data", &data), ("--config", &config)]);
    answers::assert_equal(&golden.name, &beside, &golden.expected);
}

#[test]
fn real_rows_without_duplicates_land_and_are_answered_as_published() {
    lands_and_is_answered(&golden("AdamBreeze1_806"));
}

#[test]
fn real_rows_with_duplicates_land_and_are_answered_as_published() {
    lands_and_is_answered(&golden("cmhleveret48"));
}

#[test]
fn real_rows_without_duplicates_survive_a_kill_between_posts() {
    is_posted_and_answered(&golden("AdamBreeze1_806"));
}

#[test]
fn real_rows_with_duplicates_survive_a_kill_between_posts() {
    is_posted_and_answered(&golden("cmhleveret48"));
}

/// All rows there are: the places and authors of every post, and the pins that are known.
#[test]
fn real_rows_of_the_whole_tables_are_answered_as_duckdb_does() {
    let folder = real_rows();
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    posts::land(&landing, &rows_of(&folder), 1000);
    process::run("batch run", &[("--landing", &landing), ("--tables", &tables)]).succeeded();
    let mut reference = Command::new(delta::python());
    reference.arg(delta::reference("reference.py")).arg("rows");
    for stream in STREAMS {
        reference.arg(format!("--{stream}")).arg(folder.join(format!("{stream}.jsonl")));
    }
    let output = reference.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Answers = serde_json::from_slice(&output.stdout).unwrap();
    answers::assert_equal("the whole tables", &answers::over_tables(&tables), &expected);
    delta::check(&tables, Some(&landing), "key", "batch,views");
}
