//! The log without anything before it: its example `append_rate`, as a program of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, workspace};

pub(super) struct AppendRate(PathBuf);

impl AppendRate {
    pub(super) fn build() -> Result<Self> {
        process::run(workspace::cargo().args(["build", "--release", "-p", "event-log", "--example", "append_rate"]))?;
        Ok(Self(workspace::target_folder()?.join("release/examples/append_rate")))
    }

    /// Runs with settings such as `records=100`.
    pub(super) fn run(&self, folder: &Path, settings: &[String]) -> Result<Rate> {
        let said = process::output(Command::new(&self.0).arg(folder).args(settings))?;
        Ok(Rate(serde_json::from_str(&said).with_context(|| format!("append_rate said {said}"))?))
    }
}

pub(super) struct Rate(Value);

impl Rate {
    /// Not a number where it was not measured.
    pub(super) fn figure(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(f64::NAN)
    }
}
