//! `cargo xtask prove <claim>`: claims that take longer to check than a test may, or other people's
//! programs, which not everybody has. Hence apart from `test`; each ends with one line of figures,
//! or fails at the first difference.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

mod fuzz;
mod kafka_format;
mod overload;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    claim: Claim,
}

#[derive(Subcommand)]
enum Claim {
    /// Apache Kafka's own tools read the log's segments and indexes (needs Java and Maven).
    KafkaFormat(Product),
    /// Eight times more clients than can be served, and clients that only want room.
    Overload(overload::Arguments),
    /// Whatever a fuzzer makes up for each reader of foreign bytes (needs a nightly compiler and cargo-fuzz).
    Fuzz(fuzz::Arguments),
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
        Claim::Overload(arguments) => overload::prove(arguments),
        Claim::Fuzz(arguments) => fuzz::prove(arguments),
    }
}
