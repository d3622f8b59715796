//! A partition's records as `corkboard inspect` shows them, beside a running server or without.

use std::{path::Path, process::Command};

use anyhow::Result;
use serde_json::Value;

use crate::process;

/// Most records asked for at once.
const COUNT: &str = "100000";

pub(super) fn records(binary: &Path, data: &Path, partition: &str) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    loop {
        // It shows what one read gives, which may be less than was asked for.
        let mut inspect = Command::new(binary);
        inspect.args(["inspect", "records", partition, "--format", "json", "--data"]).arg(data);
        inspect.args(["--count", COUNT, "--from", &records.len().to_string()]);
        let shown: Vec<Value> = serde_json::from_str(&process::output(&mut inspect)?)?;
        if shown.is_empty() {
            return Ok(records);
        }
        records.extend(shown);
    }
}
