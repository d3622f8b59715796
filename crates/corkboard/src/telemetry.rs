//! Log lines: for people on a terminal, as JSON where `--log-format json` asks for it.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Log lines go to standard error; `CORKBOARD_LOG` says which (`info`, `debug`,
/// `engine=debug,warn`).
pub fn start(format: LogFormat, default_level: &str) {
    // What they have to say is in the errors that they return.
    let quiet = "delta_kernel=off,buoyant_kernel=off,buoyant_kernel_engine=off,deltalake_core=error,datafusion=error";
    let filter =
        EnvFilter::try_from_env("CORKBOARD_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{default_level},{quiet}")));
    let lines = fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}
