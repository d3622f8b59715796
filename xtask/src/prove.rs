//! `cargo xtask prove <claim>`: claims that take longer to check than a test may, or root, or
//! other people's programs, which not everybody has the runtime for. Hence apart from `test`; each
//! ends with one line of figures, or fails at the first difference.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

mod inspect;

mod disk_full;
mod event_log;
mod fuzz;
mod kafka_format;
mod long_form;
mod overload;
mod planted;

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
    /// Whatever a fuzzer makes up for each reader of foreign bytes (needs rustup, for a nightly compiler).
    Fuzz(fuzz::Arguments),
    /// A process that is killed under load loses no record that it acknowledged.
    LogKill(Volume),
    /// Nor does one whose file system loses power, also while it recovers (needs root).
    LogPower(Volume),
    /// Flipped bits, cut files and zeroed pages give the data or an error that names the range.
    LogDamage(Volume),
    /// A file system that forgets what was not synced, cut at every change and again at every
    /// change of the recovery that follows.
    LogCuts(Volume),
    /// Appends, reads, trims, failing calls and starts after crashes, in any order, as in a model.
    LogModel(Volume),
    /// On a full disk posts are refused, reads go on, and room alone mends it (needs root).
    DiskFull(disk_full::Arguments),
    /// Each bug in `xtask/planted` makes the test fail that its patch names.
    Planted(planted::Arguments),
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

/// How much of a proof is run.
#[derive(Args)]
struct Volume {
    /// How often; without it as often as the claim is stated for.
    #[arg(long)]
    count: Option<u64>,
    /// What the run's randomness follows from.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.claim {
        Claim::KafkaFormat(product) => kafka_format::prove(product.binary.as_deref()),
        Claim::Overload(arguments) => overload::prove(arguments),
        Claim::Fuzz(arguments) => fuzz::prove(arguments),
        Claim::LogKill(volume) => event_log::KILL.run(volume),
        Claim::LogPower(volume) => event_log::POWER.run(volume),
        Claim::LogDamage(volume) => event_log::DAMAGE.run(volume),
        Claim::LogCuts(volume) => event_log::CUTS.run(volume),
        Claim::LogModel(volume) => event_log::MODEL.run(volume),
        Claim::DiskFull(arguments) => disk_full::prove(arguments),
        Claim::Planted(arguments) => planted::prove(arguments),
        Claim::Merged { arguments, power } => long_form::merged(arguments, *power),
        Claim::Sinks(arguments) => long_form::sinks(arguments),
    }
}
