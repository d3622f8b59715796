//! Clients in Python: `requests` as the emulators use it, a library for Kafka's REST proxy, and boto3. The
//! environment is also that of AWS's command line.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{process, python, workspace};

const REQUIREMENTS: &str = "tests/clients/requirements.txt";

pub(super) fn environment() -> Result<PathBuf> {
    python::environment(REQUIREMENTS)
}

pub(super) fn emulators(url: &str) -> Result<()> {
    run("emulators.py", url)
}

pub(super) fn kafka_bridge(url: &str) -> Result<()> {
    run("kafka_bridge.py", url)
}

pub(super) fn boto3(url: &str) -> Result<()> {
    run("kinesis_boto3.py", url)
}

fn run(file: &str, url: &str) -> Result<()> {
    process::run(program(file)?.arg(url))
}

/// A program below `tests/clients`, to be given its arguments.
pub(super) fn program(file: &str) -> Result<Command> {
    let mut python = Command::new(python::python_of(&environment()?));
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(workspace::root().join("tests/clients").join(file));
    Ok(python)
}
