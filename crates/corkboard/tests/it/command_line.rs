//! The command line as people and scripts meet it: what it prints, how it ends, and what it
//! says when it cannot go on.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use corkboard::emulate::{encoding::Encoding, first_posts};
use serde_json::{Value, json};

use crate::{
    answers::{self, VIEWS},
    generated,
    http::{PATIENCE, eventually},
    kill_loop::{self, Ledger},
    pipeline::{self, ByHand},
    posts,
    process::{self, Server},
};

fn json_of(words: &str, paths: &process::Paths<'_>) -> Value {
    let printed = process::run(words, paths).succeeded();
    serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{words}: {e}: {printed}"))
}

/// A few generated rows as landing objects, and a batch run over them.
fn small_tables(scratch: &Path) {
    posts::land(&scratch.join("landing"), &generated::rows().map(|lines| lines[..60].to_vec()), 20);
    batch_run(scratch, "batch run");
}

fn batch_run(scratch: &Path, words: &str) -> String {
    process::run(words, &[("--landing", &scratch.join("landing")), ("--tables", &scratch.join("tables"))]).succeeded()
}

#[test]
fn every_command_explains_itself() {
    let commands = ["demo", "up", "serve", "emulate", "batch", "batch run", "view", "views", "init", "check"];
    let general = process::run("--help", &[]).succeeded();
    for command in
        commands.into_iter().chain(["default-config", "inspect", "inspect log", "inspect records", "keys", "keys add"])
    {
        let help = process::run(&format!("{command} --help"), &[]).succeeded();
        assert!(help.contains("Usage: corkboard"), "{command}: {help}");
        assert!(general.contains(command.split(' ').next().unwrap()), "{command}: {general}");
    }
    assert!(process::run("--version", &[]).succeeded().starts_with("corkboard "));
    // Misuse is told apart from failure.
    assert_eq!(process::run("viwe", &[]).code, Some(2));
    assert_eq!(process::run("view posts_per_category --scope all", &[]).code, Some(2));
}

#[test]
fn a_port_in_use_is_refused_with_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = process::run(&format!("up --listen {address}"), &[("--data", scratch.path())]).failed();
    assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
}

#[test]
fn a_folder_in_use_is_refused_with_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start("up", &[("--data", scratch.path())]);
    let error = process::run("up --listen 127.0.0.1:0", &[("--data", scratch.path())]).failed();
    assert!(error.contains("another process") && error.contains("--data"), "{error}");
    // The first one does not notice.
    server.client().produce("0a3.pin", &["{}"]).unwrap();
    server.terminate().succeeded();
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    Server::start("up", &[("--data", scratch.path())]).terminate().succeeded();
    let meta = scratch.path().join("log/meta.json");
    pipeline::edit(&meta, "\"format_version\": 2", "\"format_version\": 99");
    let before = fs::read(&meta).unwrap();
    for command in ["up --listen 127.0.0.1:0", "view posts_per_category", "inspect log"] {
        let error = process::run(command, &[("--data", scratch.path())]).failed();
        assert!(error.contains("newer version") && error.contains("99"), "{command}: {error}");
    }
    assert_eq!(fs::read(&meta).unwrap(), before);
}

#[test]
fn an_unknown_setting_is_refused_by_its_name() {
    let scratch = tempfile::tempdir().unwrap();
    let config = pipeline::settings(scratch.path(), "[landing]\nflush_sise = 7\n");
    for command in ["up", "check", "batch run", "view posts_per_category"] {
        let error = process::run(command, &[("--config", &config), ("--data", scratch.path())]).failed();
        assert!(error.contains("flush_sise") && error.contains("default-config"), "{command}: {error}");
    }
    let nowhere = scratch.path().join("nowhere.toml");
    let error = process::run("check", &[("--config", &nowhere)]).failed();
    assert!(error.contains("nowhere.toml"), "{error}");
}

#[test]
fn check_refuses_what_up_refuses() {
    let scratch = tempfile::tempdir().unwrap();
    for (settings, words) in [
        ("[tasks.bacth]\ncron = \"0 0 * * *\"\n", "bacth"),
        ("[tasks.batch]\ncron = \"0 0 30 2 *\"\n", "tasks.batch.cron"),
        ("[tasks.trim]\nevery_ms = 0\n", "tasks.trim.every_ms"),
        ("[log]\nsegment_bytes = 8589934592\n", "log.segment_bytes"),
        ("[log]\nmax_queue_bytes = 1000\n", "log.max_queue_bytes"),
        ("[server]\nlisten = \"0.0.0.0:0\"\n", "authentication"),
        ("[server]\ntls_cert_file = \"no.pem\"\ntls_key_file = \"no.key\"\n", "no.pem"),
        ("[auth]\nmode = \"keys\"\n", "keys.secret"),
    ] {
        let listen = if settings.contains("[server]") { "" } else { "[server]\nlisten = \"127.0.0.1:0\"\n" };
        let config = pipeline::settings(scratch.path(), &format!("{settings}{listen}"));
        let nowhere = scratch.path().join("nowhere");
        for (command, data) in [("check", &*nowhere), ("up", scratch.path())] {
            let error = process::run(command, &[("--config", &config), ("--data", data)]).failed();
            assert!(error.contains(words), "{command}: {error}");
        }
        assert!(!nowhere.exists(), "it only looks");
    }
}

#[test]
fn variables_of_others_may_be_no_text() {
    let no_text = OsStr::from_bytes(b"\xff");
    process::run_with("check", &[("SOME_OTHER", no_text)]).succeeded();
    let error = process::run_with("check", &[("CORKBOARD__LANDING__FLUSH_SIZE", no_text)]).failed();
    assert!(error.contains("CORKBOARD__LANDING__FLUSH_SIZE"), "{error}");
}

/// As with `… | head`.
#[test]
fn a_command_ends_quietly_when_nobody_reads_on() {
    for words in [&["default-config"][..], &["views"], &["views", "--format", "json"], &["check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_corkboard")).args(words).stdout(writer).output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{words:?}: {ended:?}");
    }
}

#[test]
fn a_command_that_only_looks_makes_no_folder() {
    let scratch = tempfile::tempdir().unwrap();
    Server::start("serve --roles ingest", &[("--data", scratch.path())]).terminate().succeeded();
    let folders = ["landing", "tables"].map(|name| scratch.path().join(name));
    folders.iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    for command in ["inspect", "inspect log", "inspect landing", "view posts_per_category"] {
        process::run(command, &[("--data", scratch.path())]).succeeded();
        assert!(!folders.iter().any(|folder| folder.exists()), "{command}");
    }
    let error = process::run("inspect manifest", &[("--data", scratch.path())]).failed();
    assert!(error.contains("no batch run yet"), "{error}");
    assert!(!folders.iter().any(|folder| folder.exists()));
}

#[test]
fn what_is_not_there_is_told_with_what_there_is() {
    let scratch = tempfile::tempdir().unwrap();
    small_tables(scratch.path());
    let tables = scratch.path().join("tables");
    let error = process::run("view posts_per_galaxy", &[("--tables", &tables)]).failed();
    assert!(error.contains("posts_per_galaxy") && error.contains("posts_per_category"), "{error}");
    let nowhere = scratch.path().join("nowhere");
    for command in ["view posts_per_category", "inspect", "batch run"] {
        let error = process::run(command, &[("--data", &nowhere)]).failed();
        assert!(error.contains("nowhere") && error.contains("--data"), "{command}: {error}");
    }
    assert!(!nowhere.exists(), "a command that only reads made a folder");
}

/// The merged answer after a restart holds all that a 2xx was sent for.
#[test]
fn a_stop_while_posts_arrive_is_orderly_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let config = kill_loop::definitions(&scratch.path().join("definitions"), pipeline::SMALL);
    let data = scratch.path().join("data");
    let start = || Server::start("up", &[("--data", &data), ("--config", &config)]);
    let ledger = Ledger::default();
    let server = start();
    thread::scope(|scope| {
        let producers: Vec<Sender<SocketAddr>> = (0..3)
            .map(|n| {
                let (addresses, received) = mpsc::channel();
                addresses.send(server.address).unwrap();
                let ledger = &ledger;
                scope.spawn(move || ledger.post(n, received));
                addresses
            })
            .collect();
        ledger.wait_for_more(100);
        let ended = server.terminate();
        assert!(ended.stderr.contains("stopping"), "{ended:?}");
        ended.succeeded();
        drop(producers);
    });
    let server = start();
    ledger.assert_is_all(&mut server.client());
    server.terminate().succeeded();
}

#[test]
fn a_server_stops_in_order_though_nobody_reads_what_it_says_any_more() {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_corkboard"))
        .args(["serve", "--roles", "ingest", "--listen", "127.0.0.1:0", "--data"])
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("listening on "), "{first}");
    drop(child.stderr.take());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    // One that did not stop has no code.
    drop(child.kill());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_demo_ends_by_itself_and_says_what_it_did() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let demo = Server::start("demo --seconds 5 --rate 200", &[("--data", &data)]);
    let mut client = demo.client();
    // Numbers are there while it runs.
    eventually("first numbers", || {
        let rows = client.json("/api/views/posts_per_category")["rows"].clone();
        (!rows.as_array().unwrap().is_empty()).then_some(())
    });
    assert!(client.page("/").contains("<html"));
    let printed = demo.wait().succeeded();
    for word in ["posts", "records/s", "freshness", "most_popular_category_per_age_group", "18-24", "data folder"] {
        assert!(printed.contains(word), "no {word:?} in {printed}");
    }
    let n_posts = json_of("view posts_of_users_joined_per_year --format json", &[("--data", &data)]);
    assert!(n_posts[0]["number_posts"].as_u64().unwrap() > 100, "{n_posts}");
}

#[test]
fn a_demo_in_a_folder_of_its_own_stops_at_ctrl_c() {
    let scratch = tempfile::tempdir().unwrap();
    let before = fs::read_dir(scratch.path()).unwrap().count();
    let demo = Server::start_in_temporary_folder("demo --rate 50", scratch.path());
    let mut client = demo.client();
    eventually("first numbers", || {
        let rows = client.json("/api/views/posts_per_category")["rows"].clone();
        (!rows.as_array().unwrap().is_empty()).then_some(())
    });
    let printed = demo.interrupt().succeeded();
    assert!(printed.contains("freshness"), "{printed}");
    let folder = printed.lines().find_map(|line| line.strip_prefix("data folder ")).unwrap();
    assert!(Path::new(folder).starts_with(scratch.path()), "{folder}");
    assert_eq!((before, fs::read_dir(scratch.path()).unwrap().count()), (0, 1));
    let kept = json_of("view posts_per_category --format json", &[("--data", Path::new(folder))]);
    assert!(!kept.as_array().unwrap().is_empty(), "{kept}");
}

/// Byte for byte through the door, the log and the landing objects.
#[test]
fn what_the_emulator_posts_is_what_is_logged_and_landed() {
    const N_POSTS: usize = 150;
    let mut pipeline = ByHand::start();
    let url = format!("http://{}", pipeline.server.address);
    let told = process::run(&format!("emulate --url {url} --user-id 0a3 --count {N_POSTS}"), &[]).succeeded();
    assert!(told.contains("150 posts, 450 records") && told.contains("errors none"), "{told}");
    pipeline.client.run_task("landing");
    let posts = first_posts(100, N_POSTS, Encoding::default());
    let lines: [Vec<&str>; 3] = [
        posts.iter().map(|p| p.pin.as_str()).collect(),
        posts.iter().map(|p| p.geo.as_str()).collect(),
        posts.iter().map(|p| p.user.as_str()).collect(),
    ];
    for (stream, expected) in posts::STREAMS.iter().zip(lines) {
        let words = format!("inspect records 0a3.{stream}-0 --count 1000 --format json");
        let records = json_of(&words, &[("--data", &pipeline.data())]);
        let logged: Vec<&str> = records.as_array().unwrap().iter().map(|r| r["value"].as_str().unwrap()).collect();
        assert!(logged == expected, "{stream}");
        let folder = pipeline.data().join(format!("landing/topics/0a3.{stream}/partition=0"));
        let object = |n: usize| fs::read_to_string(folder.join(format!("0a3.{stream}+0+{n:010}.json"))).unwrap();
        let landed: String = (0..N_POSTS).map(object).collect();
        assert!(landed.lines().eq(expected), "{stream}");
    }
    // Where nobody listens it says so, and fails.
    pipeline.server.terminate().succeeded();
    let words = format!("emulate --url {url} --user-id 0a3 --count 2");
    let error = process::run(&words, &[]).failed();
    assert!(error.contains("nothing listens on"), "{error}");
}

#[test]
fn views_are_listed_and_printed_in_every_format() {
    let scratch = tempfile::tempdir().unwrap();
    small_tables(scratch.path());
    let listed = json_of("views --format json", &[]);
    let names: BTreeSet<&str> = listed.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    let tables = scratch.path().join("tables");
    for (view, columns) in VIEWS {
        assert!(names.contains(view), "{view}");
        let csv = process::run(&format!("view {view} --format csv"), &[("--tables", &tables)]).succeeded();
        let rows = json_of(&format!("view {view} --format json"), &[("--tables", &tables)]);
        assert_eq!(csv.lines().next().unwrap(), columns.join(","));
        assert_eq!(csv.lines().count(), rows.as_array().unwrap().len() + 1, "{csv}");
        let table = process::run(&format!("view {view}"), &[("--tables", &tables)]).succeeded();
        let places: Vec<usize> =
            columns.iter().map(|c| table.find(c).unwrap_or_else(|| panic!("{c}: {table}"))).collect();
        assert!(places.is_sorted(), "the columns of {view} stand in another order: {table}");
    }
    let lines = process::run("views", &[]).succeeded();
    assert!(lines.contains("median_follower_count_per_age_group"), "{lines}");
}

#[test]
fn a_live_folder_can_be_inspected() {
    let mut pipeline = ByHand::start();
    let (data, client) = (pipeline.data(), &mut pipeline.client);
    client.produce("0a3.pin", &[r#"{"index":1,"unique_id":"a"}"#, r#"{"index":2,"unique_id":"b"}"#]).unwrap();
    client.run_task("landing");
    client.run_task("batch");
    client.produce("0a3.pin", &["3"]).unwrap();

    let at_data: [(&str, &Path); 1] = [("--data", &data)];
    let log = json_of("inspect log --verify --format json", &at_data);
    assert_eq!((&log[0]["partition"], &log[0]["end"], &log[0]["damaged"]), (&json!("0a3.pin-0"), &json!(3), &json!(0)));
    let records = json_of("inspect records 0a3.pin-0 --from 1 --count 1 --format json", &at_data);
    assert_eq!(records.as_array().unwrap().len(), 1, "{records}");
    assert_eq!(records[0]["offset"], 1, "{records}");
    let landing = json_of("inspect landing --format json", &at_data);
    assert_eq!(landing[1]["object"], "topics/0a3.pin/partition=0/0a3.pin+0+0000000001.json", "{landing}");
    let checkpoints = json_of("inspect checkpoints --format json", &at_data);
    let pin = &checkpoints[0];
    assert_eq!(
        (&pin["stream"], &pin["log_end"], &pin["landed"], &pin["batch"]),
        (&json!("pin"), &json!(3), &json!(2), &json!(2))
    );
    let manifest = json_of("inspect manifest", &at_data);
    assert_eq!(manifest["streams"]["pin"]["n_rows"], 2, "{manifest}");
    for what in ["", "log", "landing", "checkpoints"] {
        assert!(process::run(&format!("inspect {what}"), &at_data).succeeded().contains("0a3.pin"), "{what}");
    }
    let beside = json_of("view posts_per_category --format json", &at_data);
    assert_eq!(beside[0]["number_posts"], 2, "{beside}");
    pipeline.server.terminate().succeeded();
}

#[test]
fn roles_can_be_run_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = pipeline::settings(scratch.path(), pipeline::BY_HAND);
    let paths: [(&str, &Path); 2] = [("--data", &data), ("--config", &config)];
    let server = Server::start("serve --roles ingest,landing", &paths);
    let mut client = server.client();
    client.produce("0a3.pin", &[r#"{"index":1,"unique_id":"a","category":"art"}"#]).unwrap();
    client.run_task("landing");
    assert_eq!(client.get("/api/views").status, 404);
    assert_eq!(client.send("POST", "/api/tasks/batch/run", "text/plain", b"").unwrap().status, 404);
    server.terminate().succeeded();
    process::run("batch run", &paths).succeeded();
    let server = Server::start("serve --roles serving", &paths);
    let mut client = server.client();
    assert_eq!(client.json("/api/views/posts_per_category")["rows"], json!([{"category": "art", "number_posts": 1}]));
    let refused = client.send("POST", "/topics/0a3.pin", crate::http::KAFKA_JSON, br#"{"records":[{"value":1}]}"#);
    assert_eq!(refused.unwrap().status, 404);
    server.terminate().succeeded();
}

#[test]
fn changed_definitions_are_checked_and_recompute_the_batch_tables() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("mine");
    process::run(&format!("init {}", folder.display()), &[]).succeeded();
    let error = process::run(&format!("init {}", folder.display()), &[]).failed();
    assert!(error.contains("exists already"), "{error}");
    let config = folder.join("corkboard.toml");
    let with_config: [(&str, &Path); 1] = [("--config", &config)];
    let check = |paths: &process::Paths<'_>| {
        let told = process::run("check", paths).succeeded();
        told.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let checked = check(&with_config);
    assert_eq!(checked, check(&[]), "what init writes is what is compiled in");
    let defaults = process::run("default-config", &[]).succeeded();
    let written = pipeline::settings(scratch.path(), &defaults);
    assert_eq!(check(&[("--config", &written)]), checked);

    small_tables(scratch.path());
    let run = || {
        let (landing, tables) = (scratch.path().join("landing"), scratch.path().join("tables"));
        process::run("batch run", &[("--landing", &landing), ("--tables", &tables), ("--config", &config)]).succeeded()
    };
    assert!(run().contains("nothing new"));
    let before = answers::over_tables(&scratch.path().join("tables"));
    pipeline::edit(&folder.join("streams/pin.sql"), "  category\n", "  upper(category) AS category\n");
    assert_ne!(check(&with_config), checked, "another definition has another hash");
    let told = run();
    assert!(told.contains("pin: 60 records computed anew") && !told.contains("geo:"), "{told}");
    let after = answers::over_tables(&scratch.path().join("tables"));
    let in_upper_case: Value =
        serde_json::from_str(&before["most_popular_category_per_age_group"].to_string().to_uppercase()).unwrap();
    assert_eq!(after["most_popular_category_per_age_group"], in_upper_case);
    assert_eq!(after["new_users_per_year"], before["new_users_per_year"]);
    assert!(run().contains("nothing new"));

    for (file, from, to, word) in [
        ("streams/pin.sql", "FROM raw", "FROM raw LIMIT 3", "pin"),
        ("streams/geo.toml", "required = [\"ind\"]", "required = [\"end\"]", "end"),
        ("views/posts_per_category.sql", "category", "kategory", "posts_per_category"),
    ] {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        pipeline::edit(&path, from, to);
        let error = process::run("check", &with_config).failed();
        assert!(error.contains(word), "{file}: {error}");
        fs::write(&path, text).unwrap();
    }
    check(&with_config);
}
