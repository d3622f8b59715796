//! Who can reach the program, and what it takes from whom: where it listens, and keys.

use std::{collections::BTreeSet, fs};

use crate::process::{Server, run, run_with};

/// Local addresses, as the kernel shows them, of the sockets on which a process listens.
fn listening(pid: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let sockets: BTreeSet<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap());
    let mut found = BTreeSet::new();
    for line in tables.iter().flat_map(|table| table.lines().skip(1)) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields[1], fields[3], fields[9]);
        if state == "0A" && sockets.contains(&format!("socket:[{inode}]")) {
            found.insert(local.to_owned());
        }
    }
    found
}

#[test]
fn the_program_listens_where_it_says_and_nowhere_else() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start("up", &[("--data", scratch.path())]);
    // 127.0.0.1, its bytes from the last to the first.
    let expected = format!("0100007F:{:04X}", server.address.port());
    assert_eq!(listening(server.pid()), BTreeSet::from([expected]));
    server.terminate().succeeded();
    let defaults = run("default-config", &[]).succeeded();
    assert!(defaults.contains("\nlisten = \"127.0.0.1:8082\"\n"), "{defaults}");
}

#[test]
fn an_open_address_without_keys_and_tls_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    for command in ["up", "serve --roles ingest", "demo"] {
        let said = run(&format!("{command} --listen 0.0.0.0:0"), &[("--data", scratch.path())]).failed();
        assert!(said.contains("there is no authentication and no TLS"), "{command}: {said}");
    }
}

#[test]
fn the_emulator_brings_the_key_of_its_environment() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, config) = (scratch.path().join("data"), scratch.path().join("config.toml"));
    fs::write(&config, "[auth]\nmode = \"keys\"\n").unwrap();
    let added = run("keys add phone --allow produce:0a3.*", &[("--data", &data)]).succeeded();
    let key = added.lines().find_map(|line| line.strip_prefix("key ")).unwrap().trim();
    let secret = key.split_once('.').unwrap().1;
    let server = Server::start("serve --roles ingest", &[("--data", &data), ("--config", &config)]);
    let words = format!("emulate --user-id 0a3 --count 2 --retries 0 --url http://{}", server.address);
    assert!(run("emulate --help", &[]).succeeded().contains("CORKBOARD_API_KEY"));
    let without = run(&words, &[]).failed();
    assert!(without.contains("6 records were not taken"), "{without}");
    let with = run_with(&words, &[("CORKBOARD_API_KEY", key.as_ref())]);
    assert!(!with.stdout.contains(secret) && !with.stderr.contains(secret), "{with:?}");
    with.succeeded();
    let wrong = run_with(&words, &[("CORKBOARD_API_KEY", "CORKA.wrong\n.key".as_ref())]).failed();
    assert!(wrong.contains("CORKBOARD_API_KEY") && !wrong.contains("wrong"), "{wrong}");
    let ended = server.terminate();
    assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    ended.succeeded();
}
