//! Ranges found corrupt: said aloud once, and kept in `quarantine.json` for people to see.
//!
//! Reads do not consult the list: they look at the bytes each time, so that a repaired file
//! serves again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{Offset, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::fs::{self, FileSystem};

pub(crate) const FILE_NAME: &str = "quarantine.json";
/// A disk that rots everywhere is a fact of its own; the list need not grow with it.
const MAX_LISTED: usize = 1000;

/// `[start, end)` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub start: Offset,
    pub end: Offset,
    pub reason: String,
}

pub(crate) struct Quarantine {
    path: PathBuf,
    /// `None`: this process only reads.
    fs: Option<Arc<dyn FileSystem>>,
    /// `None` once the partition is deleted: its folder may be another's by then.
    listed: Mutex<Option<Vec<Quarantined>>>,
}

pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> io::Result<Vec<Quarantined>> {
    let Some(text) = fs::read(fs, &dir.join(FILE_NAME))? else { return Ok(Vec::new()) };
    Ok(serde_json::from_slice(&text)?)
}

impl Quarantine {
    pub(crate) fn new(dir: &Path, fs: Option<Arc<dyn FileSystem>>, listed: Vec<Quarantined>) -> Self {
        Self { path: dir.join(FILE_NAME), fs, listed: Mutex::new(Some(listed)) }
    }

    /// Nothing is written any more.
    pub(crate) fn end(&self) {
        self.lock().take();
    }

    pub(crate) fn add(&self, partition: &TopicPartition, found: Quarantined) {
        // Who only reads hears of it through the error, and may be late for a trim.
        let Some(fs) = &self.fs else { return };
        let mut guard = self.lock();
        let Some(listed) = &mut *guard else { return };
        if listed.iter().any(|l| l.start == found.start && l.end == found.end) {
            return;
        }
        tracing::error!(
            %partition, start = found.start.0, end = found.end.0,
            "records [{}, {}) of {partition} are corrupt and cannot be read: {}", found.start, found.end, found.reason
        );
        if listed.len() == MAX_LISTED {
            return;
        }
        listed.push(found);
        let written = serde_json::to_vec_pretty(listed)
            .map_err(io::Error::from)
            .and_then(|text| fs::write_atomically(&**fs, &self.path, &text));
        if let Err(e) = written {
            tracing::warn!(%partition, "cannot write {}: {e}", self.path.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Quarantined>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
