//! The project's own commands, run as `cargo xtask <command>`: what a change must pass, and
//! what a claim about speed rests on. Nothing here is part of the product.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod process;

mod workspace;

mod cache;

mod toolchain;

mod python;

mod maven;

mod server;

mod tidy;

mod clients;

mod test;

mod bench;

mod prove;

mod ci;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints, tidy and licences: what a change must pass before its tests are run.
    Ci,
    /// All tests, with whatever they need set up first.
    Test(test::Arguments),
    /// Other people's clients against the release binary, as `test` runs them too.
    Clients(clients::Arguments),
    /// The rules that no compiler checks: floors, names, heads, sizes.
    Tidy,
    /// Figures of the release binary on this machine. Without a name: the list of benches.
    Bench(bench::Arguments),
    /// Claims that take longer to check than a test may, or root, or other people's programs.
    Prove(prove::Arguments),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Ci => ci::run(),
        Command::Test(arguments) => test::run(arguments),
        Command::Clients(arguments) => clients::run(arguments),
        Command::Tidy => tidy::run(),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Prove(arguments) => prove::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_of_test_is_not_passed_on() {
        let parsed = Arguments::try_parse_from(["xtask", "test", "--long", "--no-fail-fast"]).expect("anything goes");
        let Command::Test(parsed) = parsed.command else { panic!("it was `test`") };
        assert_eq!((parsed.long, parsed.to_cargo), (true, vec!["--no-fail-fast".to_owned()]));
    }

    #[test]
    fn what_follows_test_is_passed_on() {
        for (arguments, to_cargo, to_tests) in [
            (&["-p", "engine", "name", "--", "--nocapture"][..], &["-p", "engine", "name"][..], &["--nocapture"][..]),
            (&["--", "--list", "--"], &[], &["--list", "--"]),
            (&["--no-fail-fast"], &["--no-fail-fast"], &[]),
            (&[], &[], &[]),
        ] {
            let parsed = Arguments::try_parse_from([&["xtask", "test"], arguments].concat()).expect("anything goes");
            let Command::Test(parsed) = parsed.command else { panic!("it was `test`") };
            assert_eq!(parsed.to_cargo, to_cargo);
            assert_eq!(parsed.to_tests, to_tests);
        }
    }
}
