//! The one place where the concrete log, tables, tasks and server meet.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use engine::{
    batch::{Batch, BatchTask},
    definitions::Definitions,
    haste::Haste,
    landing::{Floors, Landing},
    maintain::{Compact, Retain, Trim, Vacuum},
    serving::Serving,
    speed::Speed,
    store::Store,
    table::Tables,
    taken::Taken,
};
use event_log::EmbeddedLog;
use model::{
    EventLog, Layers, Query, StreamDef, Task, Timestamp,
    config::{Config, ScheduleConfig, TasksConfig},
    task::Stop,
};
use server::{
    Services,
    auth::Auth,
    listener,
    metrics::Metrics,
    orchestrator::{Driver, Handle},
    router,
};
use tokio::{net::TcpListener, time::timeout};

use crate::{
    background::Background,
    data::{self, DataFolder},
    shutdown::Shutdown,
};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Takes records in.
    Ingest,
    /// Writes landing objects.
    Landing,
    /// Keeps the real-time tables.
    Speed,
    /// Makes the batch tables and views on schedule.
    Batch,
    /// Answers views.
    Serving,
    /// Compacts and vacuums tables, trims the log.
    Maintain,
}

impl Role {
    pub fn all() -> BTreeSet<Self> {
        Self::value_variants().iter().copied().collect()
    }
}

/// A pipeline that is open and listens, and is not serving yet.
pub struct App {
    log: Arc<EmbeddedLog>,
    listener: TcpListener,
    driver: Driver,
    services: Services,
    config: Arc<Config>,
    query: Arc<Serving>,
}

impl App {
    /// Opens everything below a data folder and binds the address. Nothing runs yet.
    pub async fn open(config: Config, folder: &DataFolder, roles: &BTreeSet<Role>) -> Result<Self> {
        let listener = listener::bind(&config).await?;
        let auth = Arc::new(Auth::open(&config.auth)?);
        let definitions = data::definitions(&config).await?;
        let log = Arc::new(folder.open_log(&config).await?);
        let landing = folder.open_landing()?;
        landing.sweep().await?;
        let tables = folder.open_tables(&config)?;
        data::open_store(&folder.tables())?.sweep().await?;
        let spill = folder.spill();
        // Whatever an ended process spilled is of no use to this one.
        if spill.is_dir() {
            std::fs::remove_dir_all(&spill).with_context(|| format!("cannot clear {}", spill.display()))?;
        }
        let query = Arc::new(Serving::new(
            Some(log.clone()),
            tables.clone(),
            definitions.clone(),
            None,
            config.serving.clone(),
            &spill,
        )?);
        let metrics = Arc::new(Metrics::new());
        let mut driver = Driver::new(&config.driver, log.moved(), metrics.clone());
        let parts = Parts {
            log: &log,
            landing: &landing,
            tables: &tables,
            definitions: &definitions,
            haste: Haste::default(),
            folder,
            config: &config,
        };
        for (role, task, schedule) in parts.tasks()? {
            if roles.contains(&role) {
                driver.add(task, schedule)?;
            }
        }
        let layers = parts.taken(roles, driver.handle());
        let streams: Arc<[StreamDef]> = definitions.streams.iter().map(|c| c.stream().clone()).collect();
        let config = Arc::new(config);
        let services = Services {
            log: log.clone(),
            layers,
            query: roles.contains(&Role::Serving).then(|| query.clone() as Arc<dyn Query>),
            ingest: roles.contains(&Role::Ingest),
            auth,
            tasks: driver.handle(),
            streams,
            metrics,
            unattended: Default::default(),
            config: config.clone(),
        };
        Ok(Self { log, listener, driver, services, config, query })
    }

    /// `http://127.0.0.1:8082`, or `https://…` where there is a certificate.
    pub fn url(&self) -> Result<String> {
        let scheme = if self.config.server.tls_cert_file.is_empty() { "http" } else { "https" };
        Ok(format!("{scheme}://{}", self.listener.local_addr()?))
    }

    pub fn query(&self) -> Arc<dyn Query> {
        self.query.clone()
    }

    pub fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone()
    }

    /// Serves until the stop: then refuses, answers what is under way, finishes what nobody waits for
    /// any more, lets the tasks commit, and closes the log. A second signal leaves at once; what was
    /// acknowledged is durable.
    pub async fn run(self, shutdown: Shutdown) -> Result<()> {
        let tasks_stop = Stop::new();
        let driver = tokio::spawn(self.driver.run(tasks_stop.clone(), shutdown.at_once.clone()));
        let unattended = self.services.unattended.clone();
        let router = router::router(self.services, shutdown.orderly.clone());
        let serving = listener::serve(self.listener, router, &self.config.server, shutdown.orderly.clone());
        tokio::select! {
            served = serving => served?,
            () = shutdown.at_once.cancelled() => return Ok(()),
        }
        unattended.close();
        let patience = Duration::from_millis(self.config.server.drain_timeout_ms);
        tokio::select! {
            // What is cut off is as after a crash: done, or not done.
            _ = timeout(patience, unattended.wait()) => {}
            () = shutdown.at_once.cancelled() => return Ok(()),
        }
        tasks_stop.cancel();
        driver.await.context("the driver of the tasks failed")?;
        if !shutdown.at_once.is_cancelled() {
            self.log.close().await.context("closing the log")?;
        }
        Ok(())
    }
}

/// What tasks are made of.
struct Parts<'a> {
    log: &'a Arc<EmbeddedLog>,
    landing: &'a Store,
    tables: &'a Tables,
    definitions: &'a Arc<Definitions>,
    haste: Haste,
    folder: &'a DataFolder,
    config: &'a Config,
}

/// A task, whose role it is, and when it runs.
type Planned<'c> = (Role, Box<dyn Task>, &'c ScheduleConfig);

impl Parts<'_> {
    /// Acknowledgements and answers go before batch runs and upkeep.
    fn tasks(&self) -> Result<Vec<Planned<'_>>> {
        let log: Arc<dyn EventLog> = self.log.clone();
        let background = Background::new()?;
        let TasksConfig { landing, speed, batch, compact, vacuum, trim } = &self.config.tasks;
        Ok(vec![
            (Role::Landing, Box::new(self.lander(log.clone())), landing),
            (Role::Speed, Box::new(self.speed(log.clone())), speed),
            (Role::Batch, background.task(BatchTask(self.batch())), batch),
            (Role::Maintain, background.task(self.compact()), compact),
            (Role::Maintain, background.task(self.vacuum()), vacuum),
            (Role::Maintain, background.task(self.trim(log)), trim),
        ])
    }

    fn speed(&self, log: Arc<dyn EventLog>) -> Speed {
        let Config { speed, batch, .. } = self.config;
        let (tables, definitions) = (self.tables.clone(), self.definitions.clone());
        Speed::new(log, tables, definitions, speed.clone(), batch.clone()).hurried_by(self.haste.clone())
    }

    fn lander(&self, log: Arc<dyn EventLog>) -> Landing {
        Landing::new(log, self.landing.clone(), self.config.landing.clone()).hurried_by(self.haste.clone())
    }

    /// None where no layer that takes records from the log runs in this process.
    fn taken(&self, roles: &BTreeSet<Role>, tasks: Handle) -> Option<Arc<dyn Layers>> {
        let log: Arc<dyn EventLog> = self.log.clone();
        let landing = roles.contains(&Role::Landing).then(|| self.lander(log.clone()));
        let tables = roles.contains(&Role::Speed).then(|| self.tables.clone());
        if landing.is_none() && tables.is_none() {
            return None;
        }
        let wake = Box::new(move || {
            for task in ["landing", "speed"] {
                // One that is not here, or is stopping, is found behind.
                let _ = tasks.run_now(task);
            }
        });
        let (definitions, haste) = (self.definitions.clone(), self.haste.clone());
        Some(Arc::new(Taken { log, landing, tables, definitions, haste, wake }))
    }

    fn batch(&self) -> Batch {
        Batch {
            landing: self.landing.clone(),
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
            config: self.config.batch.clone(),
            dedup: None,
            spill: self.folder.spill(),
            names: Default::default(),
        }
    }

    fn compact(&self) -> Compact {
        Compact {
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
            config: self.config.maintain.clone(),
            batch: self.config.batch.clone(),
            spill: self.folder.spill(),
        }
    }

    fn vacuum(&self) -> Vacuum {
        Vacuum {
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
            config: self.config.maintain.clone(),
        }
    }

    fn trim(&self, log: Arc<dyn EventLog>) -> Trim {
        let embedded = self.log.clone();
        let retain: Retain = Box::new(move |floors| {
            let log = embedded.clone();
            Box::pin(async move { Ok(log.retain(&floors, Timestamp::now()).await?.deleted_bytes) })
        });
        Trim {
            log,
            retain,
            landing: Floors::of(self.landing.clone()),
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
        }
    }
}
