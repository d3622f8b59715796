//! Runs every fuzz target for so long, from the seeds that are kept. What it finds on the way stays in
//! the cache, so that the next run goes on from there; a crash is shown with its input. The fuzzer and its
//! compiler are installed by the first run.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{cache, process, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
}

/// Names the fuzzer's crate and its version in one line.
const LIST: &str = "fuzz/cargo-fuzz.txt";
/// An input for which a target takes longer, or more memory, is a crash. By the wall clock: on a busy
/// machine a target may not run for seconds.
const INPUT_SECONDS: u64 = 60;
const MEMORY_MIB: u64 = 2048;
/// Longer inputs find nothing that these do not, and slow all others down.
const MAX_INPUT_BYTES: u64 = 4096;

pub(super) fn prove(arguments: &Arguments) -> Result<()> {
    let folder = workspace::root().join("fuzz");
    let targets: Vec<String> = targets(&folder)?
        .into_iter()
        .filter(|target| arguments.target.as_ref().is_none_or(|only| only == target))
        .collect();
    ensure!(!targets.is_empty(), "there is no such target below {}", folder.display());
    let fuzzer = fuzzer()?;
    let mut figures = Vec::new();
    for target in &targets {
        let n_executions = run(&fuzzer, &folder, target, arguments.seconds)?;
        println!("{target}: {n_executions} executions, no crash");
        figures.push(format!("{target} {n_executions}"));
    }
    println!(
        "fuzz: {} targets, {} s each, 0 crashes; executions: {}",
        targets.len(),
        arguments.seconds,
        figures.join(", ")
    );
    Ok(())
}

/// The files of `fuzz_targets`, by name.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets")).context("list the fuzz targets")? {
        let path = entry?.path();
        if let (Some(stem), true) = (path.file_stem(), path.extension().is_some_and(|e| e == "rs")) {
            targets.push(stem.to_string_lossy().into_owned());
        }
    }
    targets.sort_unstable();
    Ok(targets)
}

/// cargo-fuzz, built for a minute if it is not there yet.
fn fuzzer() -> Result<PathBuf> {
    let install = |folder: &Path, list: &Path| {
        let text = fs::read_to_string(list)?;
        let line = text.lines().find(|line| !line.starts_with('#')).and_then(|line| line.split_once(' '));
        let (name, version) = line.with_context(|| format!("{LIST} names no crate and its version"))?;
        process::run(workspace::cargo().args(["install", name, "--version", version, "--locked", "--root"]).arg(folder))
    };
    Ok(cache::prepared("cargo-fuzz", LIST, install)?.join("bin/cargo-fuzz"))
}

fn run(fuzzer: &Path, folder: &Path, target: &str, seconds: u64) -> Result<u64> {
    let found = workspace::cache_folder()?.join("fuzz").join(target);
    fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
    // The compiler that runs this is the stable one, which has no sanitizers.
    let mut command = Command::new("rustup");
    command.current_dir(folder).args(["run", "--install", "nightly"]).arg(fuzzer).args(["run", target]).arg(&found);
    command.arg(folder.join("corpus").join(target)).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_SECONDS}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-max_len={MAX_INPUT_BYTES}"),
        format!("-dict={}", folder.join("json.dict").display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let mut fuzzer = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("start cargo fuzz")?;
    let said = BufReader::new(fuzzer.stderr.take().expect("it was asked to be piped"));
    let mut n_executions = None;
    let mut last_lines = Vec::new();
    for line in said.lines() {
        let line = line?;
        n_executions = executions_in(&line).or(n_executions);
        last_lines.push(line);
        if last_lines.len() > SHOWN_LINES {
            last_lines.remove(0);
        }
    }
    if !fuzzer.wait()?.success() {
        bail!("{target} crashed:\n{}", last_lines.join("\n"));
    }
    n_executions.with_context(|| format!("{target} says nothing of its executions:\n{}", last_lines.join("\n")))
}

/// Of what the fuzzer says in the end: the input, the stack, how to run it again.
const SHOWN_LINES: usize = 80;

fn executions_in(line: &str) -> Option<u64> {
    line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_account_is_read() {
        assert_eq!(executions_in("stat::number_of_executed_units: 1234"), Some(1234));
        assert_eq!(executions_in("stat::average_exec_per_sec:     12"), None);
    }

    #[test]
    fn every_target_has_seeds() {
        let folder = workspace::root().join("fuzz");
        let targets = targets(&folder).expect("the folder is part of the project");
        assert!(targets.len() >= 11);
        for target in targets {
            assert!(
                fs::read_dir(folder.join("corpus").join(&target)).is_ok_and(|mut seeds| seeds.next().is_some()),
                "{target}"
            );
        }
    }
}
