//! AWS's SDK for JavaScript, over HTTP/2 (its default) and HTTP/1.1.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::entrance::Entrance;
use crate::{cache, process, toolchain::Toolchain, workspace};

const FOLDER: &str = "tests/clients/javascript";
const LOCK: &str = "tests/clients/javascript/package-lock.json";
const NODE: Toolchain =
    Toolchain { programs: &["node", "npm"], packages: &["nodejs", "npm"], otherwise: "Node.js 20 or later with npm" };

pub(super) fn run(entrance: &Entrance) -> Result<()> {
    NODE.ensure()?;
    let modules = cache::prepared("javascript", LOCK, install)?.join("node_modules");
    for protocol in entrance.protocols() {
        let mut node = Command::new("node");
        node.env("NODE_PATH", &modules).env("AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED", "true");
        node.arg(workspace::root().join(FOLDER).join("kinesis.js")).args([&entrance.url, *protocol]);
        process::run(entrance.let_in(&mut node))?;
    }
    Ok(())
}

fn install(folder: &Path, lock: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for list in [lock.to_owned(), lock.with_file_name("package.json")] {
        let name = list.file_name().expect("it was named above");
        fs::copy(&list, folder.join(name)).with_context(|| format!("copy {}", list.display()))?;
    }
    let mut npm = Command::new("npm");
    process::run(npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
}
