//! schemathesis, which makes up requests by `/openapi.json` and compares the answers with it: of the whole
//! pipeline, and of one that asks for keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::python;
use crate::{process, server::Server, workspace};

/// More than are made up, and what brings the first post to the batch layer at once.
const SETTINGS: [(&str, &str); 4] = [
    ("CORKBOARD__CONSUMERS__MAX_GROUPS", "1000000"),
    ("CORKBOARD__CONSUMERS__MAX_INSTANCES_PER_GROUP", "1000000"),
    ("CORKBOARD__INGEST__MAX_TOPICS", "1000000"),
    ("CORKBOARD__LANDING__FLUSH_SIZE", "1"),
];
const WITH_KEYS: (&str, &str) = ("CORKBOARD__AUTH__MODE", "keys");
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
    let folder = Folder(workspace::target_folder()?.join(format!("openapi-{name}-{}", std::process::id())));
    let key = if settings.contains(&WITH_KEYS) { Some(add_key(binary, &folder.0)?) } else { None };
    let mut server = Server::start_in(&folder.0, binary, settings)?;
    let mut check = python::program("openapi/check.py")?;
    // What it remembers of its runs goes with the server's data.
    add(check.current_dir(&folder.0).arg(server.url()));
    if let Some(key) = key {
        check.env("CORKBOARD_KEY", key);
    }
    process::run(&mut check)?;
    server.stop()
}

/// One that may do everything.
fn add_key(binary: &Path, folder: &Path) -> Result<String> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut add = Command::new(binary);
    add.args(["keys", "add", "all", "--allow", "admin,produce,consume,describe,views,tasks:*", "--data"]).arg(folder);
    let said = process::output(&mut add)?;
    let key = said.lines().find_map(|line| line.strip_prefix("key ")).context("`keys add` showed no key")?;
    Ok(key.trim().to_owned())
}

/// Goes with all that is in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
