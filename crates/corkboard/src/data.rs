//! The data folder: where each part of it lies, and opening them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use engine::{definitions::Definitions, store, store::Store, table::Tables};
use event_log::EmbeddedLog;
use model::config::Config;

/// `--data`: the log, the landing objects, the tables, and room for spilling.
#[derive(Clone, Debug)]
pub struct DataFolder(PathBuf);

impl DataFolder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn landing(&self) -> PathBuf {
        self.0.join("landing")
    }

    pub fn tables(&self) -> PathBuf {
        self.0.join("tables")
    }

    pub fn spill(&self) -> PathBuf {
        self.0.join("spill")
    }

    /// A folder that something was written to before; otherwise a sentence that says so.
    pub fn existing(&self) -> Result<&Self> {
        let has_data = self.log().is_dir() || self.landing().is_dir() || self.tables().is_dir();
        anyhow::ensure!(
            has_data,
            "{} holds no Corkboard data: name the folder with --data, or start with `corkboard up`",
            self.0.display()
        );
        Ok(self)
    }

    /// Opens the log for writing; one process at a time may.
    pub async fn open_log(&self, config: &Config) -> Result<EmbeddedLog> {
        let (dir, settings, max_record_bytes) = (self.log(), config.log.clone(), config.ingest.max_record_bytes);
        let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&dir, &settings, max_record_bytes));
        Ok(opened.await.context("opening the log was ended")??)
    }

    pub fn open_landing(&self) -> Result<Store> {
        open_store(&self.landing())
    }

    pub fn open_tables(&self, config: &Config) -> Result<Tables> {
        open_tables(&self.tables(), config)
    }
}

/// Opens a folder or URL as a store.
pub fn open_store(path: &Path) -> Result<Store> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    store::open(text)
}

/// Opens a tables folder.
pub fn open_tables(path: &Path, config: &Config) -> Result<Tables> {
    Tables::new(&open_store(path)?, &config.maintain)
}

/// A folder for those who only look: one that is not there is empty, and is not made.
pub fn look_at(path: &Path) -> Result<Store> {
    if path.is_dir() { open_store(path) } else { Ok(Store::in_memory()) }
}

pub fn look_at_tables(path: &Path, config: &Config) -> Result<Tables> {
    Tables::new(&look_at(path)?, &config.maintain)
}

/// The definitions that the settings name.
pub async fn definitions(config: &Config) -> Result<Arc<Definitions>> {
    let definitions = match config.definitions.folder.as_str() {
        "" => Definitions::default_pipeline().await?,
        folder => Definitions::read(Path::new(folder)).await?,
    };
    Ok(Arc::new(definitions))
}
