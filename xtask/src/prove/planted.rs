//! Bugs on purpose: each file in `xtask/planted` is a patch with a bug in it and the command that
//! must notice. A bug that no test notices is a test that is missing.
//!
//! Everything happens in a copy of the tracked files, with a folder of its own for what is built,
//! so that the checkout is never seen with a bug in it.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

mod bug;
mod copy;
mod verdict;

use bug::Bug;
use copy::Copy;
use verdict::Verdict;

const FOLDER: &str = "xtask/planted";
/// Each bug is a build, and nothing here is measured: what is built again and again is not optimised,
/// what it depends on is, as in the product.
const NOT_OPTIMISED: [&str; 4] = ["model", "event-log", "engine", "server"];
/// A bug may make a test wait for ever.
const LIMIT_SECONDS: &str = "600";

#[derive(Args)]
pub(super) struct Arguments {
    /// Only bugs whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Say which bugs there are, and do nothing.
    #[arg(long)]
    list: bool,
}

pub(super) fn prove(arguments: &Arguments) -> Result<()> {
    let mut bugs = Bug::read_all(&crate::workspace::root().join(FOLDER))?;
    bugs.retain(|bug| arguments.only.is_empty() || arguments.only.iter().any(|part| bug.name.contains(part)));
    ensure!(!bugs.is_empty(), "there is no such bug in {FOLDER}");
    if arguments.list {
        for bug in &bugs {
            println!("{:32} {}", bug.name, bug.about);
        }
        return Ok(());
    }
    let target = crate::workspace::target_folder()?.join("planted");
    let copy = Copy::make(&target.join("workspace"))?;
    let tester = Tester { copy, target, python: crate::python::interpreter()? };
    tester.check_without_bugs(&bugs)?;

    let mut n_caught = 0;
    let mut rows = vec![["bug".to_owned(), "caught by".to_owned(), "seconds".to_owned()]];
    for bug in &bugs {
        let begin = Instant::now();
        let verdict = tester.check(bug).with_context(|| format!("the bug {}", bug.name))?;
        n_caught += usize::from(matches!(verdict, Verdict::Failed(_)));
        let caught_by = match verdict {
            Verdict::Failed(test) => test,
            Verdict::Passed { .. } => "NOTHING: it survived".to_owned(),
        };
        println!("{}: {caught_by}", bug.name);
        rows.push([bug.name.clone(), caught_by, format!("{:.0}", begin.elapsed().as_secs_f64())]);
    }
    print!("\n{}", table(&rows));
    println!("planted: {} planted, {n_caught} caught", bugs.len());
    ensure!(n_caught == bugs.len(), "{} bugs survived", bugs.len() - n_caught);
    Ok(())
}

struct Tester {
    copy: Copy,
    target: PathBuf,
    python: PathBuf,
}

impl Tester {
    /// A test that fails anyway proves nothing when it fails.
    fn check_without_bugs(&self, bugs: &[Bug]) -> Result<()> {
        let commands: BTreeMap<&[String], &Bug> = bugs.iter().map(|bug| (&*bug.test_arguments, bug)).collect();
        for (arguments, bug) in commands {
            println!("without bugs: cargo test {}", arguments.join(" "));
            match self.test(arguments)? {
                Verdict::Passed { n_tests: 0 } => anyhow::bail!("{} names no test: {arguments:?}", bug.name),
                Verdict::Passed { .. } => {}
                Verdict::Failed(test) => anyhow::bail!("{test} fails without any bug"),
            }
        }
        Ok(())
    }

    fn check(&self, bug: &Bug) -> Result<Verdict> {
        let _planted = self.copy.plant(bug)?;
        self.test(&bug.test_arguments)
    }

    fn test(&self, arguments: &[String]) -> Result<Verdict> {
        let (to_cargo, to_tests) = match arguments.iter().position(|argument| argument == "--") {
            Some(at) => arguments.split_at(at),
            None => (arguments, &[][..]),
        };
        let cargo = crate::workspace::cargo();
        let mut build = Command::new(cargo.get_program());
        self.prepare(&mut build, &cargo).args(["test", "--no-run"]).args(not_optimised()).args(to_cargo);
        let built = build.output().context("start cargo")?;
        ensure!(built.status.success(), "it does not build:\n{}", String::from_utf8_lossy(&built.stderr));
        let mut test = Command::new("timeout");
        test.args(["--kill-after=10", LIMIT_SECONDS]).arg(cargo.get_program());
        let test = self.prepare(&mut test, &cargo);
        // That it fails is enough: nobody reads of which input.
        test.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        test.args(["test", "--no-fail-fast"]).args(not_optimised()).args(to_cargo).args(to_tests);
        let output = test.output().context("start cargo below `timeout`")?;
        Verdict::read(&String::from_utf8_lossy(&output.stdout), output.status)
    }

    /// As the workspace's cargo, but in the copy.
    fn prepare<'c>(&self, command: &'c mut Command, cargo: &Command) -> &'c mut Command {
        for (name, value) in cargo.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(&self.copy.root).env("CARGO_TARGET_DIR", &self.target);
        // Nobody debugs these, and each bug is a build.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.env("CORKBOARD_PYTHON", &self.python).env("PYTHONDONTWRITEBYTECODE", "1")
    }
}

fn not_optimised() -> impl Iterator<Item = String> {
    NOT_OPTIMISED.iter().map(|name| format!("--config=profile.release.package.{name}.opt-level=0"))
}

fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (of_bug, of_test, of_seconds) = (width(0), width(1), width(2));
    let line =
        |[bug, test, seconds]: &[String; 3]| format!("{bug:of_bug$} | {test:of_test$} | {seconds:>of_seconds$}\n");
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_has_a_head_and_changes_something() {
        let bugs = Bug::read_all(&crate::workspace::root().join(FOLDER)).expect("each patch has its head");
        assert!(bugs.len() >= 16, "there are {}", bugs.len());
    }

    /// Whoever changed the code shall hear of it before the long proof runs.
    #[test]
    fn every_patch_applies_to_the_tree_as_it_is() {
        let root = crate::workspace::root();
        let bugs = Bug::read_all(&root.join(FOLDER)).expect("each patch has its head");
        let broken = |bug: &&Bug| copy::apply(&root, &bug.patch, &["--check"]).is_err();
        let broken: Vec<_> = bugs.iter().filter(broken).map(|bug| &bug.name).collect();
        assert!(broken.is_empty(), "adapt these to the code that they break: {broken:?}");
    }

    #[test]
    fn the_table_has_columns() {
        let row = |bug: &str, test: &str, seconds: &str| [bug.to_owned(), test.to_owned(), seconds.to_owned()];
        let table = table(&[row("bug", "caught by", "seconds"), row("torn-tail", "damage", "7")]);
        assert_eq!(table, "bug       | caught by | seconds\ntorn-tail | damage    |       7\n");
    }
}
