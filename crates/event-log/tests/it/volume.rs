//! How much of a proof is run: as much as the test command has time for, or as much as
//! `cargo xtask prove` asks for through the environment.

use std::env;

const COUNT: &str = "EVENT_LOG_PROOF_COUNT";
const SEED: &str = "EVENT_LOG_PROOF_SEED";

pub(crate) struct Volume {
    pub(crate) count: u64,
    /// All that is random follows from it, but for the moments at which other processes get on.
    pub(crate) seed: u64,
}

impl Volume {
    /// `count` rounds unless another number is asked for.
    pub(crate) fn asked_or(count: u64) -> Self {
        Self { count: asked(COUNT).unwrap_or(count), seed: asked(SEED).unwrap_or(20_261_121) }
    }
}

fn asked(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name} is {text:?}: {e}")))
}

/// The one line that `cargo xtask prove` shows of a proof that held.
pub(crate) fn say_figures(figures: &str) {
    println!("figures: {figures}");
}
