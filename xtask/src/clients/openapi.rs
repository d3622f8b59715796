//! schemathesis, which makes up requests by `/openapi.json` and compares the answers with it: of the whole
//! pipeline, and of one that asks for keys.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    entrance::{EVERYTHING, Key, WITH_KEYS},
    python,
};
use crate::{process, scratch::Scratch, server::Server};

/// More than are made up, and what brings the first post to the batch layer at once.
const SETTINGS: [(&str, &str); 4] = [
    ("CORKBOARD__CONSUMERS__MAX_GROUPS", "1000000"),
    ("CORKBOARD__CONSUMERS__MAX_INSTANCES_PER_GROUP", "1000000"),
    ("CORKBOARD__INGEST__MAX_TOPICS", "1000000"),
    ("CORKBOARD__LANDING__FLUSH_SIZE", "1"),
];
/// Wrong keys are tried with each operation.
const NO_LIMIT: (&str, &str) = ("CORKBOARD__AUTH__MAX_FAILURES_PER_MINUTE", "1000000");

/// Requests that are made up for an operation when there is time.
const MANY: &str = "2000";

pub(super) fn run(binary: &Path, is_long: bool) -> Result<()> {
    let more = if is_long { &["--max-examples", MANY][..] } else { &[] };
    check("open", binary, &SETTINGS, |command| command.args(more))?;
    let settings = [&SETTINGS[..], &[WITH_KEYS, NO_LIMIT]].concat();
    check("keys", binary, &settings, |command| command)
}

fn check(
    name: &str,
    binary: &Path,
    settings: &[(&str, &str)],
    add: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<()> {
    let folder = Scratch::new(&format!("openapi-{name}"))?;
    let has_keys = settings.contains(&WITH_KEYS);
    let key = has_keys.then(|| Key::add(binary, &folder, "everything", EVERYTHING)).transpose()?;
    let mut server = Server::start_in(&folder, binary, settings)?;
    let mut check = python::program("openapi/check.py")?;
    // What it remembers of its runs goes with the server's data.
    add(check.current_dir(&*folder).arg(server.url()));
    if let Some(key) = key {
        check.env("CORKBOARD_KEY", key.text);
    }
    process::run(&mut check)?;
    server.stop()
}
