//! The keys as requests need them, read again when their file changes.
//!
//! The file is looked at by the requests themselves, at most once in a second: a key that is removed
//! is refused within that time. A file that cannot be read changes nothing, and says so once.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use tracing::{error, info};

use super::{
    keys::{Hashed, KeyEntry, KeysFile},
    permission::{Action, Permission},
    usage::{Plan, Usage},
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One key, without anything that is secret.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) hashed: Hashed,
    pub(super) plan: Option<Plan>,
    pub(super) usage: Arc<Usage>,
    permissions: Vec<Permission>,
    expires: Option<DateTime<Utc>>,
}

impl Key {
    fn of(entry: KeyEntry, usage: Option<Arc<Usage>>) -> Result<Self> {
        Ok(Self {
            hashed: Hashed::of(&entry)?,
            expires: entry.expires_at()?,
            usage: usage.unwrap_or_else(|| Arc::new(Usage::new())),
            id: entry.id,
            plan: entry.plan,
            permissions: entry.permissions,
        })
    }

    pub(super) fn may(&self, action: Action, name: &str) -> bool {
        self.permissions.iter().any(|p| p.covers(action, name))
    }

    pub(super) fn may_some(&self, action: Action) -> bool {
        self.permissions.iter().any(|p| p.actions.contains(&action) && !p.names.is_empty())
    }

    pub(super) fn may_every(&self, action: Action) -> bool {
        self.permissions.iter().any(|p| p.actions.contains(&action) && p.names.iter().any(|name| name == "*"))
    }

    pub(super) fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

type Keys = HashMap<String, Arc<Key>>;

pub(super) struct Store {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
    /// What the file looked like when it was last read.
    seen: Mutex<Stamp>,
    opened: Instant,
    next_look_ms: AtomicU64,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let seen = Stamp::of(path);
        let file = KeysFile::read(path)?.with_context(|| {
            format!("there is no {} (auth.keys_file); `corkboard keys add` makes it", path.display())
        })?;
        Ok(Self {
            keys: RwLock::new(Arc::new(keys_of(file, &Keys::new())?)),
            path: path.to_owned(),
            seen: Mutex::new(seen),
            opened: Instant::now(),
            next_look_ms: AtomicU64::new(LOOK_EVERY.as_millis() as u64),
        })
    }

    /// The key of this id, if it is there and has not expired.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Key>> {
        self.look_again();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).filter(|key| key.is_valid_at(Utc::now())).cloned()
    }

    fn look_again(&self) {
        let now_ms = self.opened.elapsed().as_millis() as u64;
        let due_ms = self.next_look_ms.load(Relaxed);
        let then_ms = now_ms + LOOK_EVERY.as_millis() as u64;
        let is_due = now_ms >= due_ms && self.next_look_ms.compare_exchange(due_ms, then_ms, Relaxed, Relaxed).is_ok();
        if is_due {
            self.read_if_changed();
        }
    }

    /// Reads a few kilobytes, seldom: not worth a thread.
    fn read_if_changed(&self) {
        let stamp = Stamp::of(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return;
        }
        *seen = stamp;
        let keys = KeysFile::read(&self.path).and_then(|file| {
            let file = file.with_context(|| format!("there is no {} any more", self.path.display()))?;
            let before = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
            keys_of(file, &before)
        });
        match keys {
            Ok(keys) => {
                info!(n_keys = keys.len(), "read the keys again");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(e) => error!("the keys stay as they were, because the changed file cannot be used: {e:#}"),
        }
    }
}

/// Keys that were there before go on with what they have used.
fn keys_of(file: KeysFile, before: &Keys) -> Result<Keys> {
    let with_usage = |entry: KeyEntry| {
        let usage = before.get(&entry.id).map(|key| key.usage.clone());
        Ok((entry.id.clone(), Arc::new(Key::of(entry, usage)?)))
    };
    file.keys.into_iter().map(with_usage).collect()
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let stamp = |m: fs::Metadata| Some((m.modified().ok()?, m.len(), m.ino()));
        Self(fs::metadata(path).ok().and_then(stamp))
    }
}
