//! Clients for a shell: curl, and AWS's command line, which is a package for Python.

use std::{env, iter, process::Command};

use anyhow::{Context, Result};

use super::{entrance::Entrance, python};
use crate::{process, toolchain::Toolchain, workspace};

const CURL: Toolchain =
    Toolchain { programs: &["curl", "bash"], packages: &["curl", "bash"], otherwise: "curl and bash" };

pub(super) fn curl(entrance: &Entrance) -> Result<()> {
    CURL.ensure()?;
    process::run(entrance.let_in(script("curl.sh").arg(&entrance.url)))
}

pub(super) fn aws_cli(entrance: &Entrance) -> Result<()> {
    let programs = python::environment()?.join("bin");
    let paths = env::var_os("PATH").unwrap_or_default();
    let paths = env::join_paths(iter::once(programs).chain(env::split_paths(&paths))).context("extend the PATH")?;
    process::run(entrance.let_in(script("aws_cli.sh").arg(&entrance.url).env("PATH", paths)))
}

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(workspace::root().join("tests/clients").join(name));
    command
}
