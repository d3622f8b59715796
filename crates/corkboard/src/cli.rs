//! The command line: one enum of sub-commands, each handed what it needs.

use std::{
    ffi::OsString,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use engine::{
    batch::{Batch, Outcome, Progress as BatchProgress},
    serving::Serving,
};
use model::{
    Dedup, Scope,
    config::{Config, ENVIRONMENT_PREFIX},
};
use server::{auth::Auth, listener, orchestrator};

use crate::{
    allocator,
    app::{App, Role},
    data::{self, DataFolder},
    demo::{self, DemoArgs},
    emulate::{self, EmulateArgs},
    init,
    inspect::{self, InspectArgs},
    keys::{self, KeysCommand},
    progress::Progress,
    say::{self, NobodyReads, say},
    show::{self, Format},
    shutdown,
    telemetry::{self, LogFormat},
};

/// The whole event pipeline of a social site in one program: posts arrive over HTTP, are kept
/// durably, cleaned once, counted by night and by the second, and served as one answer.
#[derive(Parser)]
#[command(name = "corkboard", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// The data folder [default: ./corkboard-data; demo: a fresh temporary folder]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A file of settings; see `corkboard default-config`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The address to listen on [default: 127.0.0.1:8082; port 0 picks a free one]
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<std::net::SocketAddr>,

    /// How log lines are written to standard error; CORKBOARD_LOG=debug shows more.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Common {
    fn folder(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("corkboard-data"))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Show the pipeline at work: everything embedded, an emulator posts, a page to look at.
    Demo(DemoArgs),
    /// Run the whole pipeline on this machine.
    Up,
    /// Run some roles of the pipeline.
    Serve {
        /// What this process does.
        #[arg(long, value_enum, value_delimiter = ',', required = true)]
        roles: Vec<Role>,
    },
    /// Post like the public emulator scripts do, from one request at a time to as many as go.
    Emulate(EmulateArgs),
    /// The batch layer.
    #[command(subcommand)]
    Batch(BatchCommand),
    /// Ask for a view.
    View {
        /// One of `corkboard views`.
        name: String,
        /// Which layers answer: merged, batch or realtime [default: merged; with --tables: batch]
        #[arg(long)]
        scope: Option<Scope>,
        /// How to print the rows.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// A tables folder alone, in place of the data folder.
        #[arg(long, value_name = "DIR")]
        tables: Option<PathBuf>,
    },
    /// List the views and the questions they answer.
    Views {
        /// How to print them.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write the default pipeline (streams, views, settings) as files to change.
    Init {
        /// Where to.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Check settings, streams and views as a whole.
    Check,
    /// Print every setting with its meaning and default.
    DefaultConfig,
    /// Who may use the server: make, list and remove keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look into a data folder: log, landing objects, checkpoints.
    Inspect(InspectArgs),
}

#[derive(Subcommand)]
enum BatchCommand {
    /// Clean the landing objects that are new, and make the batch views.
    Run(BatchRunArgs),
}

#[derive(Args)]
struct BatchRunArgs {
    /// A folder in the layout of the S3 sink [default: landing/ in the data folder]
    #[arg(long, value_name = "DIR", requires = "tables")]
    landing: Option<PathBuf>,

    /// Where the tables go [default: tables/ in the data folder]
    #[arg(long, value_name = "DIR", requires = "landing")]
    tables: Option<PathBuf>,

    /// Compute everything anew, not only what is new.
    #[arg(long)]
    whole: bool,

    /// Memory for cleaning, sorting and joining, in bytes or as 512M, 2G; beyond it work spills.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<usize>,

    /// Which rows of one key count: off, exact or key [default: as the streams say]
    #[arg(long)]
    dedup: Option<Dedup>,
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    // Two TLS libraries come in with the dependencies; this says which one is meant.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(on_a_worker(run(cli)));
    // Blocking work that a second signal left behind is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is::<NobodyReads>() => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// What runs on the thread that waits for it is woken through the kernel by each of the others; a server
/// then takes connections at less than half the speed.
async fn on_a_worker<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(e) => resume_unwind(e.into_panic()),
    }
}

async fn run(cli: Cli) -> Result<()> {
    let common = cli.common;
    let runs_long = matches!(cli.command, Command::Up | Command::Serve { .. });
    telemetry::start(common.log_format, if runs_long { "info" } else { "warn" });
    let folder = DataFolder::new(common.folder());
    let config = || settings(&common);
    match cli.command {
        Command::Demo(args) => {
            let shutdown = shutdown::on_signals()?;
            demo::run(args, config()?, common.data.as_deref(), shutdown).await
        }
        Command::Up => serve(config()?, &folder, Role::all().into_iter().collect()).await,
        Command::Serve { roles } => serve(config()?, &folder, roles).await,
        Command::Emulate(args) => emulate::command(args, shutdown::on_signals()?.orderly).await,
        Command::Batch(BatchCommand::Run(args)) => batch_run(args, config()?, &folder).await,
        Command::View { name, scope, format, tables } => {
            let spill = tempfile::tempdir().context("a temporary folder")?;
            let (serving, default_scope) = match &tables {
                Some(tables) => (show::over_tables(tables, &config()?, spill.path()).await?, Scope::Batch),
                None => (show::over_data(&folder, &config()?, spill.path()).await?, Scope::Merged),
            };
            show::view(&serving, &name, scope.unwrap_or(default_scope), format).await
        }
        Command::Views { format } => show::views(&views_alone(&config()?).await?, format),
        Command::Init { folder } => init::write(&folder),
        Command::Check => check(&common).await,
        Command::DefaultConfig => say::text(model::config::DEFAULT),
        Command::Keys(command) => keys::run(command, &config()?.auth),
        Command::Inspect(args) => inspect::run(args, &folder, &config()?).await,
    }
}

/// Defaults, then `--config`, then the environment, then `--listen`; files that are not named get
/// their names.
fn settings(common: &Common) -> Result<Config> {
    let text = match &common.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = text.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let mut config = Config::load(file, environment()?.into_iter())?;
    // Names of files start at the file of settings that they stand in.
    if let Some(parent) = common.config.as_deref().and_then(Path::parent) {
        let (server, auth) = (&mut config.server, &mut config.auth);
        for name in [
            &mut config.definitions.folder,
            &mut server.tls_cert_file,
            &mut server.tls_key_file,
            &mut auth.keys_file,
            &mut auth.secret_file,
        ] {
            if !name.is_empty() {
                *name = utf8(&parent.join(&*name))?;
            }
        }
    }
    let folder = common.folder();
    if config.auth.keys_file.is_empty() {
        config.auth.keys_file = utf8(&folder.join("keys.toml"))?;
    }
    if config.auth.secret_file.is_empty() {
        config.auth.secret_file = utf8(&Path::new(&config.auth.keys_file).with_extension("secret"))?;
    }
    if let Some(listen) = common.listen {
        config.server.listen = listen;
    }
    Ok(config)
}

/// Our variables. Those of others are nothing to us, and may be no text.
fn environment() -> Result<Vec<(String, String)>> {
    let is_ours = |name: &OsString| name.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes());
    let text = |text: OsString| text.into_string().map_err(|text| anyhow!("{} is not UTF-8", text.display()));
    let read = |(name, value): (OsString, OsString)| {
        let name = text(name)?;
        let value = text(value).with_context(|| name.clone())?;
        Ok((name, value))
    };
    std::env::vars_os().filter(|(name, _)| is_ours(name)).map(read).collect()
}

fn utf8(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}

async fn serve(config: Config, folder: &DataFolder, roles: Vec<Role>) -> Result<()> {
    let shutdown = shutdown::on_signals()?;
    let app = App::open(config, folder, &roles.into_iter().collect()).await?;
    // It serves, whether anybody reads this or not.
    let _ = say!("listening on {}", app.url()?);
    app.run(shutdown).await
}

/// The definitions without any data, to list them.
async fn views_alone(config: &Config) -> Result<Serving> {
    let definitions = data::definitions(config).await?;
    let tables = engine::table::Tables::new(&engine::store::Store::in_memory(), &config.maintain)?;
    Serving::new(None, tables, definitions, None, config.serving.clone(), &std::env::temp_dir())
}

async fn check(common: &Common) -> Result<()> {
    let config = settings(common)?;
    let definitions = data::definitions(&config).await?;
    // All that `up` would look at before it serves.
    listener::check(&config)?;
    Auth::open(&config.auth)?;
    orchestrator::check(&config.tasks)?;
    let nowhere = tempfile::tempdir().context("a temporary folder")?;
    DataFolder::new(nowhere.path()).open_log(&config).await?.close().await?;
    for cleaning in &definitions.streams {
        let stream = cleaning.stream();
        say!(
            "stream {}: topics {}, definition {}",
            stream.name,
            stream.topics.join(" "),
            &cleaning.definition()[..12]
        )?;
    }
    say!("{} views; all is sound", definitions.views.len())
}

async fn batch_run(args: BatchRunArgs, mut config: Config, folder: &DataFolder) -> Result<()> {
    if let Some(memory) = args.memory {
        config.batch.memory_bytes = memory;
        config.check("--memory")?;
    }
    let landing = args.landing.unwrap_or_else(|| folder.landing());
    if !landing.is_dir() {
        bail!(
            "{} is no folder: name the landing folder with --landing, or the data folder with --data",
            landing.display()
        );
    }
    allocator::keep_free_memory();
    let spill = tempfile::tempdir().context("a temporary folder")?;
    let batch = Batch {
        landing: data::open_store(&landing)?,
        tables: data::open_tables(&args.tables.unwrap_or_else(|| folder.tables()), &config)?,
        definitions: data::definitions(&config).await?,
        config: config.batch,
        dedup: args.dedup,
        spill: spill.path().to_owned(),
        names: Default::default(),
    };
    let shutdown = shutdown::on_signals()?;
    let bar = Mutex::new(Bar::default());
    let watch = |progress: BatchProgress<'_>| {
        bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(progress);
    };
    let outcome = batch.run(args.whole, &shutdown.orderly, &watch).await?;
    bar.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).finish();
    tell(&outcome)
}

fn tell(outcome: &Outcome) -> Result<()> {
    for notice in &outcome.report.notices {
        eprintln!("note: {notice}");
    }
    let Some(manifest) = &outcome.manifest else {
        return say!("nothing new: the batch views are as they were");
    };
    for (name, run) in manifest.streams.iter().filter(|(_, run)| !run.ranges.is_empty() || run.whole) {
        let how = if run.whole { "computed anew" } else { "added" };
        say!("{name}: {} records {how}, {} rows, {} rejects", run.n_records, run.n_rows, run.n_rejects)?;
        for (column, n) in &run.lost {
            say!("  {column}: {n} values could not be read and are NULL")?;
        }
    }
    say!("{} views in {:.1} s, run {}", manifest.views.len(), manifest.seconds, manifest.run)
}

/// One bar for bytes cleaned, then one for views.
#[derive(Default)]
struct Bar {
    cleaning: Option<Progress>,
    views: Option<Progress>,
}

impl Bar {
    fn show(&mut self, progress: BatchProgress<'_>) {
        match progress {
            BatchProgress::Cleaning { done_bytes, total_bytes } => {
                self.cleaning
                    .get_or_insert_with(|| Progress::start("clean", "bytes", Some(total_bytes)))
                    .set(done_bytes);
            }
            BatchProgress::View { done, total, .. } => {
                if let Some(cleaning) = self.cleaning.take() {
                    cleaning.finish();
                }
                self.views
                    .get_or_insert_with(|| Progress::start("views", "views", Some(total as u64)))
                    .set(done as u64);
            }
        }
    }

    fn finish(self) {
        self.cleaning.into_iter().chain(self.views).for_each(Progress::finish);
    }
}

/// `512M` is 512 · 2^20.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let n: usize = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes such as 512M or 2G"))?;
    n.checked_shl(shift).filter(|b| *b > 0 && b >> shift == n).ok_or_else(|| format!("{text:?} is out of range"))
}
