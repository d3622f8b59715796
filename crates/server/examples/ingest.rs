//! The ingest path alone: the product's listener, router and doors over the log in a folder, without
//! any layer behind it, to look at with a profiler:
//! `cargo run --release -p server --example ingest FOLDER [ADDRESS]`.
//!
//! Settings come from the environment as for the product. Prints its address; serves until it is
//! interrupted.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use event_log::EmbeddedLog;
use model::{Stop, config::Config};
use server::{Services, auth::Auth, listener, metrics::Metrics, orchestrator::Handle, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf = arguments.next().context("name a folder for the log")?.into();
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let mut config = Config::load(None, std::env::vars())?;
    config.server.listen = address;
    let config = Arc::new(config);
    let log = Arc::new(EmbeddedLog::open(&folder, &config.log, config.ingest.max_record_bytes)?);
    let services = Services {
        log: log.clone(),
        layers: None,
        query: None,
        ingest: true,
        auth: Arc::new(Auth::open(&config.auth)?),
        tasks: Handle::default(),
        streams: Arc::new([]),
        metrics: Arc::new(Metrics::new()),
        unattended: Default::default(),
        config: config.clone(),
    };
    let port = listener::bind(&config).await?;
    println!("listening on http://{}", port.local_addr()?);
    let stop = Stop::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            // Whether it was heard or cannot be heard: this ends.
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
        }
    });
    listener::serve(port, router::router(services, stop.clone()), &config.server, stop).await?;
    Ok(log.close().await?)
}
