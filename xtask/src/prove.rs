//! `cargo xtask prove <claim>`: claims about the release binary that need other people's programs
//! to check, which are fetched, and which not everybody has the runtime for. Hence apart from
//! `test`; each ends with one line of figures, or fails at the first difference.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

mod kafka_format;

#[derive(Args)]
pub(crate) struct Arguments {
    claim: Claim,
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Claim {
    /// Apache Kafka's own tools read the log's segments and indexes (needs Java and Maven).
    KafkaFormat,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.claim {
        Claim::KafkaFormat => kafka_format::prove(arguments.binary.as_deref()),
    }
}
