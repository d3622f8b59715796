//! How far each layer is behind the end of the log, as `corkboard inspect checkpoints` tells it
//! beside a running server.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long layers may take to catch up.
const PATIENCE: Duration = Duration::from_secs(1800);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Records that a layer has not taken, over all partitions of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Behind {
    pub(super) landing: u64,
    /// Real-time tables need not have what the batch tables have.
    pub(super) speed: u64,
    pub(super) batch: u64,
}

impl Behind {
    pub(super) fn look(binary: &Path, data: &Path) -> Result<Self> {
        let mut inspect = Command::new(binary);
        let output = inspect.args(["inspect", "checkpoints", "--format", "json", "--data"]).arg(data).output()?;
        ensure!(output.status.success(), "inspect fails: {}", String::from_utf8_lossy(&output.stderr));
        Self::of(&serde_json::from_slice(&output.stdout).context("inspect prints no JSON")?)
    }

    fn of(partitions: &Value) -> Result<Self> {
        let mut behind = Self::default();
        for partition in partitions.as_array().context("inspect prints no list")? {
            let position = |layer: &str| partition[layer].as_u64().unwrap_or(0);
            let end = position("log_end");
            behind.landing += end.saturating_sub(position("landed"));
            behind.speed += end.saturating_sub(position("realtime").max(position("batch")));
            behind.batch += end.saturating_sub(position("batch"));
        }
        Ok(behind)
    }
}

/// Until all records have landed and are in the real-time tables.
pub(super) fn wait_for_layers(binary: &Path, data: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        let behind = Behind::look(binary, data)?;
        if behind.landing == 0 && behind.speed == 0 {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "the layers do not catch up: {behind:?}");
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_are_behind_the_end_of_the_log() {
        let partitions = json!([
            { "partition": "a.pin-0", "log_end": 100, "landed": 90, "batch": 50, "realtime": 80 },
            { "partition": "a.geo-0", "log_end": 10, "landed": 10, "batch": 10, "realtime": null },
            { "partition": "old.geo-0", "log_end": null, "landed": 7, "batch": 7, "realtime": null },
        ]);
        let expected = Behind { landing: 10, speed: 20, batch: 50 };
        assert_eq!(Behind::of(&partitions).expect("it is a list"), expected);
        assert!(Behind::of(&json!({})).is_err());
    }
}
