//! `corkboard demo`: the whole pipeline on one machine, with an emulator that posts to it over
//! HTTP, a page to look at, and live numbers in the terminal.

use std::{
    io::{IsTerminal, stderr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use model::{
    Query, Scope,
    config::{Config, ScheduleConfig},
    query::{Ask, RowFormat},
    task::Stop,
};

use crate::{
    app::{App, Role},
    data::DataFolder,
    emulate::{self, EmulateArgs, Live, Summary, api_key::ApiKey},
    say::say,
    show::{self, Row},
    shutdown::Shutdown,
};

/// The view whose answer the demo closes with.
const CLOSING_VIEW: &str = "most_popular_category_per_age_group";
const REFRESH: Duration = Duration::from_millis(250);
/// Without a terminal a line comes this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A nightly batch run would not be seen in a demo.
const BATCH_EVERY_MS: u64 = 10_000;
/// Nor would landing objects that span a minute of records.
const ROTATE_INTERVAL_MS: u64 = 3_000;
const USER_ID: &str = "0a1b2c3d4e5f";

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// End by itself after so many seconds; 0 runs until Ctrl-C.
    #[arg(long, default_value_t = 0)]
    seconds: u64,

    /// Posts per second, three records each; 0 is as fast as the pipeline takes them.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
}

/// `folder` of None is a fresh temporary folder, which is kept for looking at afterwards.
pub async fn run(args: DemoArgs, mut config: Config, folder: Option<&Path>, shutdown: Shutdown) -> Result<()> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => tempfile::Builder::new().prefix("corkboard-demo-").tempdir().context("a temporary folder")?.keep(),
    };
    let api_key = ApiKey::from_environment()?;
    let every = ScheduleConfig { every_ms: Some(BATCH_EVERY_MS), ..ScheduleConfig::default() };
    config.tasks.batch = every;
    config.landing.rotate_interval_ms = config.landing.rotate_interval_ms.min(ROTATE_INTERVAL_MS);
    let app = App::open(config, &DataFolder::new(&folder), &Role::all()).await?;
    let (url, query) = (app.url()?, app.query());
    // It goes on, whether anybody reads this or not.
    let _ = say!("data folder {}\nlistening on {url}\nopen {url}/ in a browser; Ctrl-C stops", folder.display());

    // The emulator is stopped first, then the pipeline.
    let pipeline = Shutdown { orderly: Stop::new(), at_once: shutdown.at_once.clone() };
    let serving = tokio::spawn(app.run(pipeline.clone()));
    let mut options = EmulateArgs::new(&url, USER_ID);
    options.rate = args.rate;
    options.connections = 4;
    options.batch = 10;
    options.api_key = api_key;
    let live = Arc::new(Live::default());
    let posting_stop = Stop::new();
    let mut posting = tokio::spawn(emulate::run(options, posting_stop.clone(), live.clone()));

    let deadline = async {
        match args.seconds {
            0 => std::future::pending().await,
            seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
    };
    let mut ended = None;
    tokio::select! {
        () = shutdown.orderly.cancelled() => {}
        () = deadline => {}
        summary = &mut posting => ended = Some(summary),
        () = show_live(&live, query.as_ref()) => {}
    }
    posting_stop.cancel();
    let summary = match ended {
        Some(summary) => summary,
        None => posting.await,
    };
    let summary = summary.context("the emulator failed")??;
    live.take_notices().iter().for_each(|line| eprintln!("{line}"));
    let closed = close(&summary, query.as_ref(), &folder).await;
    pipeline.orderly.cancel();
    serving.await.context("the pipeline failed")??;
    closed
}

/// A line with what is going on, renewed until the caller drops this.
async fn show_live(live: &Live, query: &dyn Query) {
    let is_terminal = stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is sound"));
    let mut last_line = Instant::now();
    let mut before = (Instant::now(), 0);
    let mut tick = tokio::time::interval(if is_terminal { REFRESH } else { LINE_INTERVAL });
    loop {
        tick.tick().await;
        live.take_notices().iter().for_each(|line| bar.suspend(|| eprintln!("{line}")));
        let counters = live.counters();
        let seconds = before.0.elapsed().as_secs_f64().max(0.001);
        let rate = (counters.records - before.1) as f64 / seconds;
        before = (Instant::now(), counters.records);
        let counted = counted_posts(query).await.unwrap_or_default();
        let line = format!(
            "{} posts, {:.0} records/s, {} errors; merged view counts {} distinct pins",
            counters.posts, rate, counters.errors, counted
        );
        bar.set_message(line.clone());
        bar.tick();
        if !is_terminal && last_line.elapsed() >= LINE_INTERVAL {
            eprintln!("{line}");
            last_line = Instant::now();
        }
    }
}

async fn rows_of(query: &dyn Query, view: &str) -> Result<(Vec<Row>, Duration, String)> {
    let asked = Instant::now();
    let ask = Ask { view: view.to_owned(), scope: Scope::Merged, format: RowFormat::Json };
    let answer = query.query(&ask).await?;
    let rows = serde_json::from_slice(&answer.body).context("the answer's rows")?;
    Ok((rows, asked.elapsed(), show::reach(&answer.boundary)))
}

async fn counted_posts(query: &dyn Query) -> Result<u64> {
    let (rows, _, _) = rows_of(query, "posts_per_category").await?;
    Ok(rows.iter().filter_map(|r| r.get("number_posts")?.as_u64()).sum())
}

/// What the demo did, in a few lines.
async fn close(summary: &Summary, query: &dyn Query, folder: &Path) -> Result<()> {
    say!("\n{summary}")?;
    // Everything acknowledged is in the merged view, so the time to the answer is the freshness.
    let (rows, freshness, reach) = rows_of(query, CLOSING_VIEW).await?;
    say!("freshness: the last post was in the merged view {} ms after its 2xx", freshness.as_millis())?;
    say!("{reach}")?;
    say!("{CLOSING_VIEW}:")?;
    say!("{}", show::table(&rows))?;
    say!("the data stays in {}: corkboard view posts_per_category --data {0}", folder.display())?;
    Ok(())
}
