//! `cargo xtask prove <claim>`: claims about the release binary that need other people's programs
//! to check, which are fetched, and which not everybody has the runtime for; and the long forms
//! of tests. Hence apart from `test`; each ends with one line of figures, or fails at the first
//! difference.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

mod kafka_format;
mod long_form;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    claim: Claim,
}

#[derive(Subcommand)]
enum Claim {
    /// Apache Kafka's own tools read the log's segments and indexes (needs Java and Maven).
    KafkaFormat(Product),
    /// Merged answers are DuckDB's over everything acknowledged, however often the pipeline dies.
    Merged {
        #[command(flatten)]
        arguments: long_form::Arguments,
        /// Cut the power of its disk instead of killing the process (needs root and ext4).
        #[arg(long)]
        power: bool,
    },
    /// Eight writers and two speed layers commit through a store that fails; nothing is lost or
    /// doubled.
    Sinks(long_form::Arguments),
}

/// The product's binary.
#[derive(Args)]
struct Product {
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.claim {
        Claim::KafkaFormat(product) => kafka_format::prove(product.binary.as_deref()),
        Claim::Merged { arguments, power } => long_form::merged(arguments, *power),
        Claim::Sinks(arguments) => long_form::sinks(arguments),
    }
}
