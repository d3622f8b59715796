//! `cargo xtask bench <name>`: figures of the release binary as a person would run it, on this
//! machine and its disk. A bench is one line in `BENCHES` and one module below.

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::figures::Figures;
use crate::scratch;

mod figures;

mod spread;

mod usage;

mod posts;

mod http;

mod load;

mod batch;

mod growth;

mod history;

mod running;

mod views;

mod freshness;

mod append_rate;

mod ingest;

mod doors;

mod files;

mod behind;

mod start;

mod sustain;

mod build;

mod log;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which bench to run; none lists them.
    name: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// A fraction or a multiple of the usual amount of work.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// So many posts instead of the usual number; each is a record in three topics.
    #[arg(long)]
    posts: Option<u64>,
    /// How often short runs are repeated; the median counts.
    #[arg(long)]
    repeats: Option<usize>,
    /// So many records a second come in beside what is measured.
    #[arg(long)]
    rate: Option<f64>,
    /// How long a bench that goes by time may take.
    #[arg(long)]
    seconds: Option<u64>,
    /// Of a bench whose rows have names (`doors`): only those with this text in their name, beside what
    /// they are compared with.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run this binary instead of building one.
    #[arg(long)]
    binary: Option<std::path::PathBuf>,
}

impl Arguments {
    fn posts(&self, usual: u64) -> u64 {
        self.posts.unwrap_or_else(|| self.scaled(usual))
    }

    fn repeats(&self, usual: usize) -> usize {
        self.repeats.unwrap_or(usual).max(1)
    }

    fn seconds(&self, usual: u64) -> u64 {
        self.seconds.unwrap_or_else(|| self.scaled(usual))
    }

    fn scaled(&self, usual: u64) -> u64 {
        (usual as f64 * self.scale).ceil() as u64
    }
}

struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Arguments) -> Result<Figures>,
}

const BENCHES: [Bench; 10] = [
    Bench { name: "log", about: "the log alone: durable appends, and a cold start of a large one", run: log::run },
    Bench {
        name: "ingest",
        about: "records over HTTP until they are durable, beside a route that does nothing and the log alone",
        run: ingest::run,
    },
    Bench {
        name: "doors",
        about: "every way to bring records in, beside version 2 of Kafka REST and, for Kinesis, another maker's",
        run: doors::run,
    },
    Bench {
        name: "batch",
        about: "raw JSON to clean tables and thirteen answers, beside DuckDB doing the same; then again with 1 % more",
        run: batch::run,
    },
    Bench {
        name: "freshness",
        about: "from a record's acknowledgement to the merged view that counts it, while others come in",
        run: freshness::run,
    },
    Bench {
        name: "views",
        about: "each merged view while posts come in; afterwards they must be what a batch run answers",
        run: views::run,
    },
    Bench { name: "growth", about: "the batch job's time by the number of posts, up to 10 million", run: growth::run },
    Bench {
        name: "start",
        about: "from start to first acknowledgement with a large log, and memory when idle",
        run: start::run,
    },
    Bench {
        name: "sustain",
        about: "everything at once for ten minutes: rate, memory, and whether every layer keeps up",
        run: sustain::run,
    },
    Bench {
        name: "build",
        about: "the release build from nothing, and after an edit; takes 20 minutes",
        run: build::run,
    },
];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(name) = &arguments.name else {
        for bench in BENCHES {
            println!("{:10} {}", bench.name, bench.about);
        }
        return Ok(());
    };
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| format!("there is no bench {name:?}; `cargo xtask bench` lists them"))?;
    ensure!(arguments.scale > 0.0, "--scale is a positive number");
    let figures = (bench.run)(arguments)?;
    if arguments.json {
        println!("{}", figures.to_json(bench.name));
    } else {
        print!("{}", figures.to_table());
    }
    Ok(())
}
