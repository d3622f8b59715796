//! Long forms of the event log's own tests: the same code, told by the environment to go on for
//! longer. The test says its figures in one line.

use anyhow::{Context, Result, bail};

use super::Volume;
use crate::{process, workspace};

const FIGURES: &str = "figures: ";

pub(super) struct Proof {
    name: &'static str,
    test: &'static str,
    /// The count that the claim is stated for.
    count: u64,
}

pub(super) const KILL: Proof =
    Proof { name: "log-kill", test: "kill::a_killed_process_loses_nothing_that_it_acknowledged", count: 2000 };

pub(super) const POWER: Proof = Proof {
    name: "log-power",
    test: "power_cut::a_power_cut_below_a_real_file_system_loses_nothing_acknowledged",
    count: 1000,
};

pub(super) const DAMAGE: Proof =
    Proof { name: "log-damage", test: "rot::rotten_files_give_the_data_or_name_the_range", count: 10_000 };

/// Its count bounds the second cuts after each first one, and is more than a recovery makes changes.
pub(super) const CUTS: Proof =
    Proof { name: "log-cuts", test: "power::a_power_cut_at_any_moment_loses_nothing_acknowledged", count: 100 };

pub(super) const MODEL: Proof =
    Proof { name: "log-model", test: "model_based::any_order_of_steps_keeps_what_the_model_keeps", count: 20_000 };

impl Proof {
    /// In the release profile, as the product is.
    pub(super) fn run(&self, volume: &Volume) -> Result<()> {
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--quiet", "--release", "--package", "event-log", "--test", "it", "--"]);
        // What needs root is ignored by the test command.
        cargo.args(["--exact", "--nocapture", "--include-ignored", self.test]);
        cargo.env("EVENT_LOG_PROOF_COUNT", volume.count.unwrap_or(self.count).to_string());
        match volume.seed {
            Some(seed) => cargo.env("EVENT_LOG_PROOF_SEED", seed.to_string()),
            None => cargo.env_remove("EVENT_LOG_PROOF_SEED"),
        };
        let said = process::output(&mut cargo).with_context(|| format!("{} does not hold", self.name))?;
        println!("{}: {}", self.name, figures(&said)?);
        Ok(())
    }
}

fn figures(said: &str) -> Result<&str> {
    // The test harness may have begun a line of its own before.
    let mut figures = said.lines().filter_map(|line| Some(line.split_once(FIGURES)?.1));
    match (figures.next(), figures.next()) {
        (Some(figures), None) => Ok(figures),
        _ => bail!("the test did not say its figures once: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn figures_are_said_once() {
        let said = "running 1 test\ntest kill ... figures: 3 kills\nok\n";
        assert_eq!(figures(said).expect("once"), "3 kills");
        for said in ["running 0 tests\n", "figures: 1\nfigures: 2\n"] {
            assert!(figures(said).is_err(), "{said}");
        }
    }
}
