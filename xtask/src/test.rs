//! `cargo xtask test`: sets up what the tests need, then runs all of them in the release
//! profile, which is the product's.
//!
//! Tests that need the real rows are named `real_rows_…` (in Python `test_real_rows_…`). Where
//! the rows are missing these are left out by name and counted, and never pass unrun.
//!
//! Asked for no test in particular, it ends with the clients that other people wrote (`clients`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{clients, process, python, workspace};

const REFERENCE: &str = "tests/reference";

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// With the clients that take long; stands before everything else.
    #[arg(long)]
    pub(crate) long: bool,
    /// For `cargo test`; without a package among them, all packages are tested.
    #[arg(allow_hyphen_values = true, value_terminator = "--")]
    pub(crate) to_cargo: Vec<String>,
    /// For the tests, after `--`.
    #[arg(allow_hyphen_values = true)]
    pub(crate) to_tests: Vec<String>,
}

impl Arguments {
    /// Whether only some of the packages are asked for.
    fn names_packages(&self) -> bool {
        self.to_cargo
            .iter()
            .any(|a| a.starts_with("-p") || a.starts_with("--package") || a.starts_with("--manifest-path"))
    }

    /// Whether no test is named or described in any way.
    fn ask_for_everything(&self) -> bool {
        self.to_tests.is_empty() && self.to_cargo.iter().all(|a| a == "--no-fail-fast")
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let needs = Needs { python: python::interpreter()?, real_rows: workspace::real_rows() };
    if !arguments.names_packages() {
        reference_tests(&needs)?;
    }
    let n_left_out = match needs.real_rows {
        Some(_) => 0,
        None => left_out(&needs, arguments)?,
    };
    process::run(&mut cargo_test(&needs, arguments))?;
    if arguments.ask_for_everything() {
        clients::run(&clients::Arguments { long: arguments.long, ..clients::Arguments::default() })?;
    }
    match &needs.real_rows {
        Some(folder) => println!("tests over real rows ran with {}", folder.display()),
        None => {
            println!("{n_left_out} tests need the real rows and were left out: CORKBOARD_REAL_ROWS names no folder")
        }
    }
    Ok(())
}

/// What tests find in their environment.
struct Needs {
    python: PathBuf,
    real_rows: Option<PathBuf>,
}

impl Needs {
    fn pass_to(&self, command: &mut Command) {
        command.env("CORKBOARD_PYTHON", &self.python).env("PYTHONDONTWRITEBYTECODE", "1");
        match &self.real_rows {
            Some(folder) => command.env("CORKBOARD_REAL_ROWS", folder),
            None => command.env_remove("CORKBOARD_REAL_ROWS"),
        };
    }
}

fn reference_tests(needs: &Needs) -> Result<()> {
    let mut unittest = Command::new(&needs.python);
    unittest.current_dir(workspace::root()).args(["-m", "unittest", "discover", "--start-directory", REFERENCE]);
    needs.pass_to(&mut unittest);
    process::run(&mut unittest).context("the reference in Python disagrees with itself or with the SQL files")
}

fn cargo_test(needs: &Needs, arguments: &Arguments) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--release"]);
    if !arguments.names_packages() {
        cargo.arg("--workspace");
    }
    cargo.args(&arguments.to_cargo).arg("--").args(&arguments.to_tests);
    if needs.real_rows.is_none() {
        cargo.args(["--skip", "real_rows_"]);
    }
    needs.pass_to(&mut cargo);
    cargo
}

/// How many of the tests asked for need the real rows.
fn left_out(needs: &Needs, arguments: &Arguments) -> Result<usize> {
    let mut list = workspace::cargo();
    list.args(["test", "--release", "--quiet"]);
    if !arguments.names_packages() {
        list.arg("--workspace");
    }
    list.args(&arguments.to_cargo).args(["--", "--list"]);
    needs.pass_to(&mut list);
    let in_python = if arguments.names_packages() { 0 } else { in_python(&workspace::root().join(REFERENCE))? };
    Ok(in_rust(&process::output(&mut list)?) + in_python)
}

fn in_rust(list: &str) -> usize {
    list.lines().filter(|line| line.ends_with(": test") && line.contains("real_rows_")).count()
}

fn in_python(folder: &Path) -> Result<usize> {
    let mut n_tests = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            n_tests += text.lines().filter(|line| line.trim_start().starts_with("def test_real_rows_")).count();
        }
    }
    Ok(n_tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naming_a_package_leaves_the_others_out() {
        for (argument, expected) in [("-p", true), ("--package=engine", true), ("-pengine", true), ("engine", false)] {
            let arguments = Arguments { to_cargo: vec![argument.to_owned()], ..Arguments::default() };
            assert_eq!(arguments.names_packages(), expected, "{argument}");
        }
    }

    #[test]
    fn clients_run_unless_something_is_asked_for() {
        let of = |to_cargo: &[&str], to_tests: &[&str]| {
            let strings = |all: &[&str]| all.iter().map(|a| (*a).to_owned()).collect();
            Arguments { to_cargo: strings(to_cargo), to_tests: strings(to_tests), long: false }.ask_for_everything()
        };
        assert!(of(&[], &[]) && of(&["--no-fail-fast"], &[]));
        assert!(!of(&["name"], &[]) && !of(&["-p", "server"], &[]) && !of(&[], &["--nocapture"]));
    }

    #[test]
    fn tests_that_need_real_rows_are_counted_by_name() {
        let list = "clean::real_rows_are_cleaned: test\nclean::unreal_rows: test\nreal_rows_: benchmark\n\n2 tests\n";
        assert_eq!(in_rust(list), 1);
        assert_eq!(in_python(&workspace::root().join(REFERENCE)).expect("the folder is part of the project"), 2);
    }
}
