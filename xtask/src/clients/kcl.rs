//! Amazon's Kinesis Client Library for Java, by polling and by enhanced fan-out. It keeps leases and
//! checkpoints in DynamoDB: that is moto's, in memory, for this run alone.

use std::process::Command;

use anyhow::{Context, Result};

use super::entrance::Entrance;
use crate::{maven, process, python, server::Server, workspace};

const FOLDER: &str = "tests/clients/kcl";
const LIST: &str = "tests/clients/kcl/pom.xml";
const REQUIREMENTS: &str = "tests/clients/kcl/requirements.txt";

pub(super) fn run(entrance: &Entrance) -> Result<()> {
    let jars = maven::jars("kcl", LIST)?;
    let mut dynamo = dynamo().context("start a DynamoDB")?;
    let mut java = Command::new("java");
    // What the library logs as an error is told; the rest is what it does and why it waits.
    java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
    java.arg(jars.join("*")).arg(workspace::root().join(FOLDER).join("Kcl.java"));
    process::run(java.args([&entrance.url, &dynamo.url()]))?;
    dynamo.stop()
}

fn dynamo() -> Result<Server> {
    let folder = workspace::root().join(FOLDER);
    let mut python = Command::new(python::python_of(&python::environment(REQUIREMENTS)?));
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(folder.join("dynamodb.py"));
    Server::spawn(python, &folder)
}
