//! `corkboard emulate`: posts like the scripts that Corkboard's users come from, from one request
//! at a time to as many as the server takes.
//!
//! The rows are made up (`tables`), the draws are theirs (`draws`), and so is what goes over the
//! wire (`wire`). `run` is the load generator, `command` what a person sees of it. A key comes from the
//! environment alone (`api_key`).

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use clap::{Args, FromArgMatches, ValueEnum};
use model::Stop;

use crate::{progress::Progress, say::say};

pub mod mt19937;

pub mod encoding;

pub mod tables;

pub mod draws;

pub mod wire;

pub mod api_key;

mod connection;

pub mod live;

pub mod summary;

mod run;

use api_key::ApiKey;
use draws::{DrawOrder, Draws};
use encoding::{DatetimeFormat, Encoding, Escape};
pub use live::Live;
use mt19937::Seed;
pub use run::run;
pub use summary::Summary;
use tables::{Table, Tables};
use wire::{Format, PartitionKey, Shape, Wire};

/// How often the person at the terminal hears news.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// At the end of `--help`.
const KEY_HELP: &str = "A server that asks for keys (auth.mode = \"keys\") gets the one that stands in the \
                        environment variable CORKBOARD_API_KEY, as the header x-api-key. The key needs the \
                        permission `produce` on the topics, and https:// or a loopback address.";

/// Who sets the time between posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pace {
    /// `--rate`.
    #[default]
    Rate,
    /// The sleeps that are drawn with the rows, as in the scripts.
    Seeds,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = KEY_HELP)]
pub struct EmulateArgs {
    /// Where to post: http:// or https://, with the stage as path if there is one.
    #[arg(long, default_value = "http://127.0.0.1:8082")]
    pub url: String,

    /// The user's id, the first part of every topic's and stream's name.
    #[arg(long)]
    pub user_id: String,

    /// Posts to send; 0 goes on until stopped.
    #[arg(long, default_value_t = 0)]
    pub count: u64,

    /// Posts per second, whether or not the server keeps up; 0 is as fast as it answers.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,

    /// Who sets the time between posts.
    #[arg(long, value_enum, default_value_t)]
    pub pace: Pace,

    /// Connections; with 1 every request waits for the answer to the one before it.
    #[arg(long, default_value_t = 1, value_parser = at_least_one::<1_024>)]
    pub connections: usize,

    /// Records per request.
    #[arg(long, default_value_t = 1, value_parser = at_least_one::<10_000>)]
    pub batch: usize,

    /// Seed of the draws: any integer.
    #[arg(long, default_value = "100", allow_negative_numbers = true)]
    pub seed: Seed,

    /// The order in which row and sleep are drawn.
    #[arg(long, value_enum, default_value_t)]
    pub draws: DrawOrder,

    /// Tables to post, sent in the order pin, geo, user [default: all; pin for fastapi].
    #[arg(long, value_enum, value_delimiter = ',')]
    pub tables: Option<Vec<Table>>,

    /// The interface to post to.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// What stands around a row in a Kafka record.
    #[arg(long, value_enum, default_value_t)]
    pub wrap: Shape,

    /// What stands around a row in the Data of Kinesis.
    #[arg(long, value_enum, default_value_t)]
    pub data_shape: Shape,

    /// The PartitionKey of Kinesis.
    #[arg(long, value_enum, default_value_t)]
    pub partition_key: PartitionKey,

    /// How datetimes are written.
    #[arg(long, value_enum, default_value_t)]
    pub datetime: DatetimeFormat,

    /// How JSON text is written.
    #[arg(long, value_enum, default_value_t)]
    pub escape: Escape,

    /// How often a request is sent again after a lost connection, a timeout, 408, 429 or 5xx.
    #[arg(long, default_value_t = 5)]
    pub retries: u32,

    /// Milliseconds before the first retry, doubled with each further one up to 10 s; Retry-After goes first.
    #[arg(long, default_value_t = 200)]
    pub backoff_ms: u64,

    /// Milliseconds to wait for a connection, and for an answer.
    #[arg(long, default_value_t = 30_000)]
    pub timeout_ms: u64,

    /// Never on the command line, where others could read it.
    #[arg(skip)]
    pub api_key: Option<ApiKey>,
}

/// A number from 1 to `MAX`.
fn at_least_one<const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX).contains(n));
    number.ok_or_else(|| format!("must be a number from 1 to {MAX}"))
}

impl EmulateArgs {
    /// The defaults of the command line.
    pub fn new(url: &str, user_id: &str) -> Self {
        let command = Self::augment_args(clap::Command::new("emulate"));
        let arguments = ["emulate".to_owned(), format!("--url={url}"), format!("--user-id={user_id}")];
        let matches = command.try_get_matches_from(arguments).expect("any text is a url and a user id");
        Self::from_arg_matches(&matches).expect("all required arguments are given")
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = match (&self.tables, self.format) {
            (Some(tables), _) => tables.clone(),
            (None, Format::Fastapi) => vec![Table::Pin],
            (None, _) => Table::ALL.to_vec(),
        };
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    fn wire(&self) -> Wire {
        Wire {
            format: self.format,
            encoding: Encoding { escape: self.escape, datetime: self.datetime },
            wrap: self.wrap,
            data_shape: self.data_shape,
            partition_key: self.partition_key,
            user_id: self.user_id.clone(),
        }
    }
}

/// Runs, shows how far it is on standard error, and prints the summary. Fails if any record was
/// given up.
pub async fn command(mut options: EmulateArgs, stop: Stop) -> anyhow::Result<()> {
    options.api_key = ApiKey::from_environment()?;
    let live = Arc::new(Live::default());
    let total = (options.count > 0).then_some(options.count);
    let progress = Progress::start("emulate", "posts", total);
    let tell = || {
        live.take_notices().iter().for_each(|line| progress.say(line));
        progress.set(live.counters().posts);
    };
    let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
    let mut running = std::pin::pin!(run(options, stop, live.clone()));
    let result = loop {
        tokio::select! {
            result = &mut running => break result,
            _ = refresh.tick() => tell(),
        }
    };
    tell();
    progress.finish();
    let summary = result?;
    // Whether anybody reads it or not, the exit code says how it went.
    let _ = say!("{summary}");
    match summary.n_errors() {
        0 => Ok(()),
        n => bail!("{n} records were not taken"),
    }
}

/// The three rows of a post as JSON lines, without newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostLines {
    pub row: usize,
    pub pin: String,
    pub geo: String,
    pub user: String,
}

/// What a run with this seed and the default order posts first.
pub fn first_posts(seed: u64, n: usize, encoding: Encoding) -> Vec<PostLines> {
    let tables = Tables::generate();
    let lines = |row| PostLines {
        row,
        pin: tables.pin(row, encoding),
        geo: tables.geo(row, encoding),
        user: tables.user(row, encoding),
    };
    Draws::new(DrawOrder::Default, seed).take(n).map(|draw| lines(draw.row)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        emulate: EmulateArgs,
    }

    fn parse(args: &str) -> Result<EmulateArgs, clap::Error> {
        let args = std::iter::once("emulate").chain(args.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(args).map(|cli| cli.emulate)
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        assert_eq!(parse("--user-id 0a3").unwrap().tables(), Table::ALL);
        assert_eq!(parse("--user-id 0a3 --format fastapi").unwrap().tables(), [Table::Pin]);
        assert_eq!(parse("--user-id 0a3 --tables user,pin,user").unwrap().tables(), [Table::Pin, Table::User]);
        assert_eq!(parse("--user-id 0a3 --seed -100").unwrap().seed, parse("--user-id 0a3 --seed 100").unwrap().seed);
        for wrong in ["", "--user-id 0a3 --batch 0", "--user-id 0a3 --connections 5000", "--user-id 0a3 --seed x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_posts_of_a_seed_are_whole() {
        let posts = first_posts(100, 3, Encoding::default());
        assert_eq!(posts.iter().map(|p| p.row).collect::<Vec<_>>(), [7_528, 2_863, 5_730]);
        for post in posts {
            assert!(post.pin.starts_with(&format!("{{\"index\":{},", post.row)), "{}", post.pin);
            assert!(post.geo.starts_with(&format!("{{\"ind\":{},", post.row)), "{}", post.geo);
            assert!(post.user.starts_with(&format!("{{\"ind\":{},", post.row)), "{}", post.user);
        }
    }
}
