//! Bad input never stops anything: it is refused with the place named, or kept and shown with
//! its reason, or passed over with its name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    answers,
    http::{KAFKA_BINARY, KAFKA_JSON, eventually},
    pipeline::ByHand,
    posts::{self, Rows},
    process::{self, Server},
};

/// A post that is whole, number `n`.
fn post(n: usize) -> [String; 3] {
    [
        json!({"index": n, "unique_id": format!("id-{n}"), "follower_count": "3k", "category": "art"}).to_string(),
        json!({"ind": n, "timestamp": "2020-01-02 03:04:05", "latitude": 1.5, "longitude": -2, "country": "Peru"})
            .to_string(),
        json!({"ind": n, "first_name": "Ann", "last_name": "Lee", "age": 30, "date_joined": "2016-05-04T03:02:01"})
            .to_string(),
    ]
}

fn some_posts(n_posts: usize) -> Rows {
    let posts: Vec<[String; 3]> = (0..n_posts).map(post).collect();
    [0, 1, 2].map(|stream| posts.iter().map(|post| post[stream].clone()).collect())
}

fn truncate_newest_commit(table: &Path) {
    let mut commits: Vec<PathBuf> =
        fs::read_dir(table.join("_delta_log")).unwrap().map(|e| e.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    commits.sort();
    let newest = commits.last().unwrap();
    let bytes = fs::read(newest).unwrap();
    fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
}

/// An error that says which table, and what to do.
fn assert_helps(error: &str, table: &str) {
    for word in [table, "restore it", "move it away"] {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
}

#[test]
fn malformed_bodies_are_refused_with_the_field_named() {
    let mut pipeline = ByHand::start();
    let deep = format!("{{\"records\":[{{\"value\":{}1{}}}]}}", "[".repeat(100), "]".repeat(100));
    for (media_type, body, status, word) in [
        (KAFKA_JSON, r#"{"records":[{"value":1}"#, 400, "line 1"),
        (KAFKA_JSON, "not json", 400, "line 1"),
        (KAFKA_JSON, "", 422, "empty"),
        (KAFKA_JSON, r#"{"recs":[{"value":1}]}"#, 422, "recs"),
        (KAFKA_JSON, r#"{"records":[{"valu":1}]}"#, 422, "valu"),
        (KAFKA_JSON, r#"{"records":[]}"#, 422, "records"),
        (KAFKA_JSON, r#"{"records":7}"#, 400, "records"),
        (KAFKA_JSON, r#"{"records":[{"value":1,"partition":"x"}]}"#, 400, "records[0].partition"),
        (KAFKA_JSON, deep.as_str(), 400, "records[0].value"),
        (KAFKA_BINARY, r#"{"records":[{"value":"%%%"}]}"#, 400, "%%%"),
        ("text/plain", r#"{"records":[{"value":1}]}"#, 415, "Media Type"),
    ] {
        let answer = pipeline.client.send("POST", "/topics/0a3.pin", media_type, body.as_bytes()).unwrap();
        let text = answer.text();
        assert_eq!(answer.status, status, "{body}: {text}");
        assert!(text.contains(word), "{body}: {text}");
    }
    let body = br#"{"records":[{"value":1}]}"#;
    let answer = pipeline.client.send("POST", "/topics/no%20name", KAFKA_JSON, body).unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    pipeline.client.produce("0a3.pin", &[&post(1)[0]]).unwrap();
    assert_eq!(pipeline.rows("posts_per_category"), json!([{"category": "art", "number_posts": 1}]));
}

/// The same rejects whichever layer shows them: the tail, the real-time table, the batch table.
#[test]
fn what_is_no_pin_is_kept_and_shown_with_its_reason_in_every_layer() {
    let mut pipeline = ByHand::start();
    let good = post(1);
    let values = [r#"{"index":7,"title":"no id"}"#, good[0].as_str(), good[1].as_str(), "12", r#""hello""#, "[]"];
    pipeline.client.produce("0a3.pin", &values).unwrap();
    let not_json = br#"{"records":[{"value":"AP8="},{"value":null}]}"#;
    assert_eq!(pipeline.client.send("POST", "/topics/0a3.pin", KAFKA_BINARY, not_json).unwrap().status, 200);

    let rejects = pipeline.rows("pin_rejected");
    let told: Vec<(u64, &str)> = rejects
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["_offset"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    // The newest first.
    for (told, (offset, word)) in told.iter().zip([
        (7, "null"),
        (6, ""),
        (5, "empty array"),
        (4, "string"),
        (3, "number"),
        (2, "has no value"),
        (0, "unique_id has no value"),
    ]) {
        assert!(told.0 == offset && told.1.contains(word), "{told:?} is not {offset}, {word}");
    }
    assert_eq!(told.len(), 7, "{rejects}");
    assert_eq!(rejects[6]["raw"], values[0]);
    assert_eq!(rejects[0]["_topic"], "0a3.pin");

    eventually("the real-time table", || {
        pipeline.client.run_task("speed");
        let boundary = pipeline.client.json("/api/views/pin_rejected");
        (boundary["realtime_through"] == json!({"0a3.pin-0": 8})).then_some(())
    });
    assert_eq!(pipeline.rows("pin_rejected"), rejects);
    pipeline.client.run_task("landing");
    let report = pipeline.client.run_task("batch");
    assert_eq!((&report["figures"]["n_rejects"], &report["figures"]["n_rows"]), (&json!(7), &json!(1)), "{report}");
    assert_eq!(pipeline.rows("pin_rejected"), rejects);
    assert_eq!(pipeline.client.json("/api/views/pin_rejected?scope=batch")["rows"], rejects);
    assert_eq!(pipeline.client.json("/api/views/pin_rejected?scope=realtime")["rows"], json!([]));
    assert_eq!(pipeline.rows("posts_per_category"), json!([{"category": "art", "number_posts": 1}]));
}

#[test]
fn a_topic_of_no_stream_is_kept_landed_and_told() {
    let mut pipeline = ByHand::start();
    pipeline.client.produce("likes", &[r#"{"a":1}"#, "2"]).unwrap();
    let log = pipeline.client.json("/api/log");
    let likes = log["partitions"].as_array().unwrap().iter().find(|p| p["topic"] == "likes").unwrap();
    assert_eq!((&likes["stream"], &likes["end"]), (&Value::Null, &json!(2)), "{log}");
    pipeline.client.run_task("landing");
    let landed = pipeline.data().join("landing/topics/likes/partition=0");
    assert_eq!(fs::read_to_string(landed.join("likes+0+0000000000.json")).unwrap(), "{\"a\":1}\n");
    assert_eq!(fs::read_to_string(landed.join("likes+0+0000000001.json")).unwrap(), "2\n");
    let report = pipeline.client.run_task("batch");
    let notices = report["notices"].as_array().unwrap();
    assert!(notices.iter().any(|n| n.as_str().unwrap().contains("topic likes belongs to no stream")), "{report}");
    let told = process::run("batch run", &[("--data", &pipeline.data())]);
    assert!(told.stderr.contains("likes"), "{told:?}");
}

#[test]
fn torn_and_foreign_objects_are_told_by_name_and_passed_over() {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    posts::land(&landing, &some_posts(10), 1);
    let pins = landing.join("topics/0a3.pin/partition=0");
    for (name, bytes) in [
        ("0a3.pin+0+0000000003.json", &b"{\"index\":3,\"uni"[..]),
        ("0a3.pin+0+0000000005.json", b""),
        ("0a3.pin+0+0000000007.json", b"{\"index\":7,\"title\":\"\xff\"}\n"),
        ("notes.txt", b"hello"),
        ("0a3.geo+0+0000000000.json", b"{}\n"),
    ] {
        fs::write(pins.join(name), bytes).unwrap();
    }
    fs::write(landing.join("topics/.DS_Store"), "x").unwrap();
    let run = || process::run("batch run", &[("--landing", &landing), ("--tables", &tables)]);
    let told = run();
    for (name, reason) in [
        ("0a3.pin+0+0000000003.json", "its last line has no end"),
        ("0a3.pin+0+0000000005.json", "it is empty"),
        ("0a3.pin+0+0000000007.json", "it is not UTF-8"),
        ("notes.txt", "no landing object"),
        ("0a3.geo+0+0000000000.json", "no landing object"),
        (".DS_Store", "no landing object"),
    ] {
        let is_told = told.stderr.lines().any(|line| line.contains(name) && line.contains(reason));
        assert!(is_told, "{name}, {reason}: {told:?}");
    }
    told.succeeded();
    let counted = answers::over_tables(&tables);
    assert_eq!(counted["posts_per_category"], json!([["art", 7]]));
    assert_eq!(counted["posts_of_users_joined_per_year"], json!([[2016, 10]]));
    assert!(run().succeeded().contains("nothing new"));
    // What is restored counts in the next run over everything.
    fs::write(pins.join("0a3.pin+0+0000000003.json"), post(3)[0].clone() + "\n").unwrap();
    process::run("batch run --whole", &[("--landing", &landing), ("--tables", &tables)]).succeeded();
    assert_eq!(answers::over_tables(&tables)["posts_per_category"], json!([["art", 8]]));
}

#[test]
fn a_corrupt_table_is_refused_with_what_to_do_and_the_others_answer() {
    let mut pipeline = ByHand::start();
    for (stream, value) in posts::STREAMS.iter().zip(post(1)) {
        pipeline.client.produce(&format!("0a3.{stream}"), &[&value]).unwrap();
    }
    pipeline.client.run_task("landing");
    pipeline.client.run_task("batch");
    let tables = pipeline.data().join("tables");
    let ByHand { scratch, server, .. } = pipeline;
    server.terminate().succeeded();
    truncate_newest_commit(&tables.join("batch/pin"));
    truncate_newest_commit(&tables.join("views/new_users_per_year"));

    let data = scratch.path().join("data");
    assert_helps(&process::run("batch run", &[("--data", &data)]).failed(), "batch/pin");
    assert_helps(&process::run("view posts_per_category", &[("--data", &data)]).failed(), "batch/pin");
    assert_helps(&process::run("view new_users_per_year", &[("--tables", &tables)]).failed(), "new_users_per_year");
    let batch_view = process::run("view posts_per_category --format csv", &[("--tables", &tables)]).succeeded();
    assert_eq!(batch_view.replace('\r', ""), "category,number_posts\nart,1\n");

    // A server starts with it, takes records in, and answers what needs no such table.
    let config = scratch.path().join("settings.toml");
    let server = Server::start("up", &[("--data", &data), ("--config", &config)]);
    let mut client = server.client();
    client.produce("0a3.user", &[&post(2)[2]]).unwrap();
    let answer = client.get("/api/views/posts_per_category");
    assert!(answer.status >= 500, "{}", answer.text());
    assert_helps(&answer.text(), "batch/pin");
    let joined = client.json("/api/views/posts_of_users_joined_per_year");
    assert_eq!(joined["rows"], json!([{"joining_year": 2016, "number_posts": 2}]));
    client.run_task("landing");
    server.terminate().succeeded();

    // What the message says to do helps.
    for table in ["batch/pin", "views/new_users_per_year"] {
        fs::rename(tables.join(table), scratch.path().join(table.replace('/', "-"))).unwrap();
    }
    process::run("batch run", &[("--data", &data)]).succeeded();
    let counted = answers::over_tables(&tables);
    assert_eq!(counted["posts_per_category"], json!([["art", 1]]));
    assert_eq!(counted["posts_of_users_joined_per_year"], json!([[2016, 2]]));
}

#[test]
fn a_table_of_a_newer_protocol_is_refused_with_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
    posts::land(&landing, &some_posts(2), 1);
    let paths: [(&str, &Path); 2] = [("--landing", &landing), ("--tables", &tables)];
    process::run("batch run", &paths).succeeded();
    for table in ["batch/pin", "views/posts_per_category"] {
        let first = tables.join(table).join("_delta_log/00000000000000000000.json");
        let text = fs::read_to_string(&first).unwrap();
        let newer: Vec<String> = text
            .lines()
            .map(|line| {
                let mut action: Value = serde_json::from_str(line).unwrap();
                if action.get("protocol").is_some() {
                    action = json!({"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}});
                }
                action.to_string()
            })
            .collect();
        fs::write(&first, newer.join("\n")).unwrap();
    }
    posts::land(&landing, &some_posts(3), 1);
    for error in [
        process::run("batch run", &paths).failed(),
        process::run("view posts_per_category", &[("--tables", &tables)]).failed(),
    ] {
        assert!(error.contains("newer") && error.contains("restore it"), "{error}");
    }
    process::run("view new_users_per_year", &[("--tables", &tables)]).succeeded();
}
