//! `cargo xtask prove <claim>`: claims about the release binary that need other people's programs
//! to check, which are fetched, and which not everybody has the runtime for; and the long forms
//! of tests. Hence apart from `test`; each ends with one line of figures, or fails at the first
//! difference.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

mod kafka_format;

mod long_form;

/// The seed that everybody's run begins with.
const SEED: u64 = 20_261_121;

#[derive(Args)]
pub(crate) struct Arguments {
    claim: Claim,
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How many kills, or commits of each writer; each long form has its own default.
    #[arg(long, visible_alias = "kills")]
    count: Option<u64>,
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Cut the power of a disk instead of killing the process (needs root and ext4).
    #[arg(long)]
    power: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Claim {
    /// Apache Kafka's own tools read the log's segments and indexes (needs Java and Maven).
    KafkaFormat,
    /// Merged answers are DuckDB's over everything acknowledged, through 500 kills.
    Merged,
    /// Eight writers make 500 commits each, through failures, and none is lost or doubled.
    Sinks,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let count = arguments.count.unwrap_or(500);
    let length = long_form::Length { count, seed: arguments.seed, power: arguments.power };
    match arguments.claim {
        Claim::Merged => {
            long_form::prove("merged", "merged::merged_answers_hold_through_as_many_kills_as_asked_for", &length)
        }
        Claim::Sinks => {
            long_form::prove("sinks", "exactly_once::sinks_hold_through_as_many_commits_as_asked_for", &length)
        }
        Claim::KafkaFormat => kafka_format::prove(arguments.binary.as_deref()),
    }
}
