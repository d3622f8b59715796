//! Clients in Python: `requests` as the emulators use it, a library for Kafka's REST proxy, and boto3. The
//! environment is also that of AWS's command line.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::entrance::Entrance;
use crate::{process, python, workspace};

const REQUIREMENTS: &str = "tests/clients/requirements.txt";

pub(super) fn environment() -> Result<PathBuf> {
    python::environment(REQUIREMENTS)
}

pub(super) fn emulators(entrance: &Entrance) -> Result<()> {
    run("emulators.py", entrance)
}

pub(super) fn kafka_bridge(entrance: &Entrance) -> Result<()> {
    run("kafka_bridge.py", entrance)
}

pub(super) fn boto3(entrance: &Entrance) -> Result<()> {
    run("kinesis_boto3.py", entrance)
}

pub(super) fn run(file: &str, entrance: &Entrance) -> Result<()> {
    process::run(entrance.let_in(program(file)?.arg(&entrance.url)))
}

/// A program below `tests/clients`, to be given its arguments.
pub(super) fn program(file: &str) -> Result<Command> {
    let mut python = Command::new(python::python_of(&environment()?));
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(workspace::root().join("tests/clients").join(file));
    Ok(python)
}
