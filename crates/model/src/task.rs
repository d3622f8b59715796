//! Work that the driver starts again and again: landing, speed, batch, upkeep.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
pub use tokio_util::sync::CancellationToken as Stop;

/// One kind of recurring work.
#[async_trait]
pub trait Task: Send {
    /// The name in configuration, API and metrics: lower case, constant.
    fn name(&self) -> &'static str;

    /// Does all there is to do now, starting from what the stores say (never from memory of
    /// an earlier run), and returns at the next durable position once `stop` is cancelled.
    async fn run(&mut self, stop: &Stop) -> anyhow::Result<Report>;
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether anything was committed; runs that found nothing are not kept in the history.
    pub did_work: bool,
    /// Figures by name with their unit last: `n_records`, `written_bytes`, `rejects`.
    pub figures: BTreeMap<&'static str, u64>,
    /// What a person should see: objects skipped, corruption quarantined, topics of no stream.
    pub notices: Vec<String>,
}

impl Report {
    pub fn add(&mut self, figure: &'static str, n: u64) {
        *self.figures.entry(figure).or_default() += n;
    }

    pub fn get(&self, figure: &str) -> u64 {
        self.figures.get(figure).copied().unwrap_or_default()
    }
}
