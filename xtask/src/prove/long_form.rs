//! Long forms of tests of this workspace: the same code as in the test command, by an ignored test
//! that its environment tells how long to go on.

use anyhow::{Context, Result};
use clap::Args;

use crate::{process, python, workspace};

#[derive(Args)]
pub(super) struct Arguments {
    /// How many kills, or commits of each writer.
    #[arg(long, visible_alias = "kills", default_value_t = 500)]
    count: u64,
    /// What the run's randomness follows from.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

/// `power`: the power of a disk is cut instead of processes being killed.
pub(super) fn merged(arguments: &Arguments, power: bool) -> Result<()> {
    let test = "merged::merged_answers_hold_through_as_many_kills_as_asked_for";
    prove("merged", test, arguments, &[("CORKBOARD_PROVE_POWER", power.then_some("1"))])
}

pub(super) fn sinks(arguments: &Arguments) -> Result<()> {
    prove("sinks", "exactly_once::sinks_hold_through_as_many_commits_as_asked_for", arguments, &[])
}

/// Runs the ignored test, and shows its closing line, which begins with the claim's name.
fn prove(claim: &str, test: &str, arguments: &Arguments, more: &[(&str, Option<&str>)]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--release", "--workspace", "--test", "it"]);
    cargo.args([test, "--", "--ignored", "--exact", "--nocapture"]);
    cargo.env("CORKBOARD_PYTHON", python::interpreter()?).env("PYTHONDONTWRITEBYTECODE", "1");
    cargo.env("CORKBOARD_PROVE_COUNT", arguments.count.to_string());
    cargo.env("CORKBOARD_PROVE_SEED", arguments.seed.to_string());
    for (name, value) in more {
        match value {
            Some(value) => cargo.env(name, value),
            None => cargo.env_remove(name),
        };
    }
    let output = process::output(&mut cargo)?;
    let closing = output.lines().rev().find(|line| line.starts_with(&format!("{claim}: ")));
    println!("{}", closing.with_context(|| format!("{test} did not run to its end:\n{output}"))?);
    Ok(())
}
