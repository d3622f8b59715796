//! What a run is doing right now, for whoever watches it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// More kinds of errors than this are counted and not shown.
const MAX_NOTICES: usize = 32;

/// Counters that only rise, and things to tell a person. One run writes, anyone reads.
#[derive(Debug, Default)]
pub struct Live {
    posts: AtomicU64,
    records: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    retries: AtomicU64,
    sent_bytes: AtomicU64,
    notices: Mutex<Notices>,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Posts whose every record was acknowledged.
    pub posts: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Requests tried, retries among them.
    pub requests: u64,
    /// Records given up.
    pub errors: u64,
    pub retries: u64,
    /// Bytes of the requests' bodies.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
struct Notices {
    kinds: BTreeSet<String>,
    unread: Vec<String>,
}

impl Live {
    pub fn counters(&self) -> Counters {
        Counters {
            posts: self.posts.load(Relaxed),
            records: self.records.load(Relaxed),
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            retries: self.retries.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// What a person should see and has not been told yet, oldest first.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().unwrap_or_else(PoisonError::into_inner).unread)
    }

    /// Tells `line`, unless something of this kind was told before.
    pub(super) fn notice(&self, kind: &str, line: impl FnOnce() -> String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.kinds.len() < MAX_NOTICES && notices.kinds.insert(kind.to_owned()) {
            notices.unread.push(line());
        }
    }

    pub(super) fn add_posts(&self, n: usize) {
        self.posts.fetch_add(n as u64, Relaxed);
    }

    pub(super) fn add_records(&self, n: usize) {
        self.records.fetch_add(n as u64, Relaxed);
    }

    pub(super) fn add_request(&self, sent_bytes: usize) {
        self.requests.fetch_add(1, Relaxed);
        self.sent_bytes.fetch_add(sent_bytes as u64, Relaxed);
    }

    pub(super) fn add_errors(&self, n: usize) {
        self.errors.fetch_add(n as u64, Relaxed);
    }

    pub(super) fn add_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
}
