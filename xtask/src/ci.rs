//! `cargo xtask ci`: what a change must pass before its tests are run, quick to fail first.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{process, tidy, workspace};

type Step = fn() -> Result<()>;

const STEPS: [(&str, Step); 4] = [("fmt", fmt), ("tidy", tidy::run), ("deny", deny), ("clippy", clippy)];

pub(crate) fn run() -> Result<()> {
    for (name, step) in STEPS {
        println!("── {name}");
        let begin = Instant::now();
        step().with_context(|| format!("ci stopped at {name}"))?;
        println!("── {name}: passed in {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}

fn fmt() -> Result<()> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))
}

/// In the release profile, as everything is.
fn clippy() -> Result<()> {
    let arguments = ["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    process::run(workspace::cargo().args(arguments))
}

fn deny() -> Result<()> {
    if !process::succeeds(workspace::cargo().args(["deny", "--version"])) {
        println!("NOT CHECKED: bans, licences and sources, because cargo-deny is missing (`cargo install cargo-deny`)");
        return Ok(());
    }
    process::run(workspace::cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}
