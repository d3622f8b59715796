//! Long forms of tests of this workspace: the same code as in the test command, by an ignored test
//! that its environment tells how long to go on.

use anyhow::{Context, Result};

use crate::{process, python, workspace};

/// Of which kind, and how many.
pub(super) struct Length {
    pub(super) count: u64,
    pub(super) seed: u64,
    /// Whether the power is cut instead of processes being killed.
    pub(super) power: bool,
}

/// Runs the ignored test, and shows its closing line, which begins with the claim's name.
pub(super) fn prove(claim: &str, test: &str, length: &Length) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--release", "--workspace", "--test", "it"]);
    cargo.args([test, "--", "--ignored", "--exact", "--nocapture"]);
    cargo.env("CORKBOARD_PYTHON", python::interpreter()?).env("PYTHONDONTWRITEBYTECODE", "1");
    cargo.env("CORKBOARD_PROVE_COUNT", length.count.to_string());
    cargo.env("CORKBOARD_PROVE_SEED", length.seed.to_string());
    cargo.env_remove("CORKBOARD_PROVE_POWER");
    if length.power {
        cargo.env("CORKBOARD_PROVE_POWER", "1");
    }
    let output = process::output(&mut cargo)?;
    let closing = output.lines().rev().find(|line| line.starts_with(&format!("{claim}: ")));
    println!("{}", closing.with_context(|| format!("{test} did not run to its end:\n{output}"))?);
    Ok(())
}
