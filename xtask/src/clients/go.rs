//! Clients in Go: AWS's SDK, and Confluent's own for version 3 of Kafka's REST proxy.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use super::entrance::Entrance;
use crate::{cache, process, toolchain::Toolchain, workspace};

const LOCK: &str = "tests/clients/go/go.sum";
const GO: Toolchain =
    Toolchain { programs: &["go"], packages: &["golang-go"], otherwise: "Go 1.24 or later (https://go.dev/dl)" };

pub(super) fn kinesis(entrance: &Entrance) -> Result<()> {
    run(".", "kinesis", entrance)
}

pub(super) fn kafka_rest(entrance: &Entrance) -> Result<()> {
    run("./kafkarest", "kafkarest", entrance)
}

fn run(package: &str, program: &str, entrance: &Entrance) -> Result<()> {
    GO.ensure()?;
    let folder = cache::prepared("go", LOCK, |folder, _| process::run(go(folder).args(["mod", "download"])))?;
    let program = folder.join(program);
    // From here on nothing is fetched, and Go's own cache knows what is built already.
    let mut build = go(&folder);
    build.env("GOPROXY", "off").args(["build", "-o"]).arg(&program).arg(package);
    process::run(&mut build).with_context(|| format!("build with {}", GO.otherwise))?;
    process::run(entrance.let_in(Command::new(&program).arg(&entrance.url)))
}

/// `go` in the clients' folder, with its modules and what it builds in the cache's.
fn go(cache: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(workspace::root().join("tests/clients/go"));
    go.env("GOMODCACHE", cache.join("modules")).env("GOCACHE", cache.join("build"));
    // What is fetched can be deleted like anything else in the cache.
    go.env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false");
    go
}
