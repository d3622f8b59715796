//! What a connection is doing, and until when it may go on with it.
//!
//! The socket, the service and the alarm of one connection share it; they all run in one task (the
//! streams of HTTP/2, too), so its atomics are there for the type system and need no ordering. Each
//! request costs a few loads and stores: the alarm is set again only when it goes off.
//!
//! With HTTP/2 a connection is busy while any of its streams is. Its socket says little then: what
//! counts is how each stream's answer is taken, and that a request comes at all.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::pace::Pace;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) pace: Pace,
}

impl Limits {
    pub(super) fn shortest(self) -> Duration {
        self.header.min(self.idle).min(self.pace.grace)
    }

    /// When to look again; None when the deadline is over. A phase that begins after this look
    /// ends no sooner than after the shortest limit, so looking by then misses none.
    pub(super) fn alarm(self, deadline: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        let next_look = now + self.shortest();
        match deadline {
            Some(deadline) if deadline <= now => None,
            Some(deadline) => Some(deadline.min(next_look)),
            None => Some(next_look),
        }
    }
}

/// Nothing was received yet: as long as a head may take.
const FRESH: u8 = 0;
/// A head is arriving, since its first byte.
const HEAD: u8 = 1;
/// A request is being answered: no limit here.
const BUSY: u8 = 2;
/// An answer was given, nothing received since; every byte the peer takes begins it anew.
const IDLE: u8 = 3;
/// Our side is closed, the peer's is not: as long as a head may take.
const CLOSING: u8 = 4;
/// An answer fills what lies between us and the peer: no slower than the pace, and never
/// without a byte for as long as a connection may idle.
const SENDING: u8 = 5;

/// Streams that a peer may give up before their answers: so many at once, and one more in so many
/// milliseconds (nghttp2 has the same limits). More are a flood of requests that cost their sender nothing.
const MAX_GIVEN_UP: u64 = 1000;
const GIVES_UP_EVERY_MS: u64 = 30;

pub(super) struct Activity {
    limits: Limits,
    opened: Instant,
    phase: AtomicU8,
    /// When the phase began; all times are in milliseconds after `opened`.
    since_ms: AtomicU64,
    /// In `SENDING`: when the peer last took something, and how much it took since it began.
    progress_ms: AtomicU64,
    n_sent: AtomicU64,
    give_way: Notify,
    /// When as many streams as were given up may have been.
    given_up_ms: AtomicU64,
    flooded: Notify,
    /// The last request's body was not read to its end.
    body_is_open: AtomicBool,
    /// HTTP/2 is spoken.
    has_streams: AtomicBool,
    streams: Mutex<Streams>,
}

/// The streams of HTTP/2 that are being answered.
#[derive(Default)]
struct Streams {
    n_begun: u64,
    open: HashMap<u64, Taken>,
}

/// How a stream's answer is taken.
#[derive(Default)]
struct Taken {
    n_bytes: u64,
    /// How long the peer let pieces wait that it has taken since.
    waited: Duration,
    /// Since when it lets the next one wait.
    offered: Option<Instant>,
}

impl Activity {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            opened: Instant::now(),
            phase: AtomicU8::new(FRESH),
            since_ms: AtomicU64::new(0),
            progress_ms: AtomicU64::new(0),
            n_sent: AtomicU64::new(0),
            give_way: Notify::new(),
            given_up_ms: AtomicU64::new(0),
            flooded: Notify::new(),
            body_is_open: AtomicBool::new(false),
            has_streams: AtomicBool::new(false),
            streams: Mutex::default(),
        }
    }

    /// HTTP/2 will be spoken.
    pub(super) fn speaks_streams(&self) {
        self.has_streams.store(true, Relaxed);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what names the stream.
    pub(super) fn stream_begins(&self) -> u64 {
        self.request_begins();
        let mut streams = self.streams();
        streams.n_begun += 1;
        let id = streams.n_begun;
        streams.open.insert(id, Taken::default());
        id
    }

    pub(super) fn stream_ends(&self, id: u64) {
        let mut streams = self.streams();
        streams.open.remove(&id);
        if streams.open.is_empty() {
            self.enter(IDLE);
        }
    }

    /// Its answer is not wanted any more.
    pub(super) fn stream_is_given_up(&self) {
        let now_ms = self.now_ms();
        let given_up_ms = self.given_up_ms.load(Relaxed).max(now_ms) + GIVES_UP_EVERY_MS;
        self.given_up_ms.store(given_up_ms, Relaxed);
        if given_up_ms - now_ms > MAX_GIVEN_UP * GIVES_UP_EVERY_MS {
            self.flooded.notify_one();
        }
    }

    /// Returns when more streams were given up than anyone has reason to.
    pub(super) async fn is_flooded(&self) {
        self.flooded.notified().await;
    }

    /// A piece of the stream's answer is there for the peer to take.
    pub(super) fn offered(&self, id: u64) {
        if let Some(taken) = self.streams().open.get_mut(&id) {
            taken.offered = Some(Instant::now());
        }
    }

    pub(super) fn taken(&self, id: u64, n_bytes: usize) {
        if let Some(taken) = self.streams().open.get_mut(&id) {
            taken.n_bytes += n_bytes as u64;
            taken.waited += taken.offered.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    /// When the first of the peers' debts is due.
    fn streams_deadline(&self) -> Option<Instant> {
        if !self.has_streams.load(Relaxed) {
            return None;
        }
        let due = |taken: &Taken| {
            let since = taken.offered?;
            let allowed = self.limits.pace.allows(taken.n_bytes).map(|allowed| allowed.saturating_sub(taken.waited));
            Some(since + allowed.map_or(self.limits.idle, |allowed| allowed.min(self.limits.idle)))
        };
        self.streams().open.values().filter_map(due).min()
    }

    /// Whether nothing has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.phase.load(Relaxed) == FRESH
    }

    /// When the connection is to be cut off, unless something happens on it before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.at(&self.since_ms);
        match self.phase.load(Relaxed) {
            BUSY => self.streams_deadline(),
            IDLE => Some(since + self.limits.idle),
            SENDING => {
                let progress_due = self.at(&self.progress_ms) + self.limits.idle;
                let allowed = self.limits.pace.allows(self.n_sent.load(Relaxed));
                Some(allowed.map_or(progress_due, |allowed| progress_due.min(since + allowed)))
            }
            _ => Some(since + self.limits.header),
        }
    }

    /// Since when nothing would be lost with this connection: no request is being answered, and
    /// no answer is on its way.
    pub(super) fn expendable_since(&self) -> Option<Instant> {
        matches!(self.phase.load(Relaxed), FRESH | HEAD | IDLE).then(|| self.at(&self.since_ms))
    }

    /// Asks the connection to end, if it can still be spared when it hears of it.
    pub(super) fn ask_to_give_way(&self) {
        self.give_way.notify_one();
    }

    pub(super) async fn asked_to_give_way(&self) {
        self.give_way.notified().await;
    }

    pub(super) fn received(&self) {
        match self.phase.load(Relaxed) {
            // A ping is no head: it does not change how long there was no request.
            IDLE if self.has_streams.load(Relaxed) => {}
            FRESH | IDLE => self.enter(HEAD),
            _ => {}
        }
    }

    pub(super) fn sent(&self, n_bytes: usize) {
        match self.phase.load(Relaxed) {
            IDLE if self.has_streams.load(Relaxed) => {}
            IDLE => self.enter(IDLE),
            SENDING => {
                self.n_sent.fetch_add(n_bytes as u64, Relaxed);
                self.progress_ms.store(self.now_ms(), Relaxed);
            }
            _ => {}
        }
    }

    /// The peer takes no more for now.
    pub(super) fn send_blocks(&self) {
        if self.phase.load(Relaxed) == IDLE && !self.has_streams.load(Relaxed) {
            self.n_sent.store(0, Relaxed);
            self.progress_ms.store(self.now_ms(), Relaxed);
            self.enter(SENDING);
        }
    }

    /// All that was to be sent is on its way.
    pub(super) fn flushed(&self) {
        if self.phase.load(Relaxed) == SENDING {
            self.enter(IDLE);
        }
    }

    pub(super) fn request_begins(&self) {
        self.phase.store(BUSY, Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.enter(IDLE);
    }

    pub(super) fn closing(&self) {
        self.enter(CLOSING);
    }

    /// The server stops. Whoever has its answer and is still there has also sent its body.
    pub(super) fn server_stops(&self) {
        if self.phase.load(Relaxed) == IDLE {
            self.body_ends();
        }
    }

    pub(super) fn body_is_open(&self) -> bool {
        self.body_is_open.load(Relaxed)
    }

    pub(super) fn body_begins(&self, is_empty: bool) {
        self.body_is_open.store(!is_empty, Relaxed);
    }

    pub(super) fn body_ends(&self) {
        self.body_is_open.store(false, Relaxed);
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        self.since_ms.store(self.now_ms(), Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, milliseconds: &AtomicU64) -> Instant {
        self.opened + Duration::from_millis(milliseconds.load(Relaxed))
    }
}
