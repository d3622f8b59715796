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
        // Damage that took no record, between two batches, is nothing to a reader.
        let is_empty = found.start >= found.end;
        if is_empty || listed.len() >= MAX_LISTED || listed.iter().any(|l| l.start == found.start && l.end == found.end)
        {
            return;
        }
        tracing::error!(
            %partition, start = found.start.0, end = found.end.0,
            "records [{}, {}) of {partition} are corrupt and cannot be read: {}", found.start, found.end, found.reason
        );
        listed.push(found);
        if listed.len() == MAX_LISTED {
            tracing::error!(%partition, "{MAX_LISTED} ranges of {partition} are corrupt; more are neither listed nor said");
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::{
        Event, Metadata, Subscriber,
        span::{Attributes, Id, Record},
    };

    use super::*;
    use crate::fs::Disk;

    /// Counts what is said.
    struct Said(Arc<AtomicUsize>);

    impl Subscriber for Said {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn each_range_is_said_once_and_no_more_than_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let range = |start| {
            let (start, reason) = (Offset(start), "its checksum is wrong".to_owned());
            Quarantined { start, end: start.plus(1), reason }
        };
        let n_before = MAX_LISTED as u64 - 3;
        let quarantine = Quarantine::new(dir.path(), Some(Arc::new(Disk)), (0..n_before).map(range).collect());
        let n_said = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(Said(Arc::clone(&n_said)), || {
            for _ in 0..2 {
                (0..n_before + 8).for_each(|start| quarantine.add(&"t-0".parse().unwrap(), range(start)));
            }
        });
        assert_eq!(read(&Disk, dir.path()).unwrap().len(), MAX_LISTED);
        assert_eq!(n_said.load(Ordering::Relaxed), 3 + 1, "three ranges, and that more are not");
    }
}
