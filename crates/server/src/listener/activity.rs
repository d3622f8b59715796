//! What a connection is doing, and until when it may go on with it.
//!
//! The socket, the service and the alarm of one connection share it; they all run in one task,
//! so its atomics are there for the type system and need no ordering. Each request costs a few
//! loads and stores: the alarm is set again only when it goes off.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header: Duration,
    pub(super) idle: Duration,
}

impl Limits {
    pub(super) fn shortest(self) -> Duration {
        self.header.min(self.idle)
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

pub(super) struct Activity {
    limits: Limits,
    opened: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `opened`.
    since_ms: AtomicU64,
    /// The last request's body was not read to its end.
    body_is_open: AtomicBool,
}

impl Activity {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            opened: Instant::now(),
            phase: AtomicU8::new(FRESH),
            since_ms: AtomicU64::new(0),
            body_is_open: AtomicBool::new(false),
        }
    }

    /// When the connection is to be cut off, unless something happens on it before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limit = match self.phase.load(Relaxed) {
            BUSY => return None,
            IDLE => self.limits.idle,
            _ => self.limits.header,
        };
        Some(self.opened + Duration::from_millis(self.since_ms.load(Relaxed)) + limit)
    }

    pub(super) fn received(&self) {
        if matches!(self.phase.load(Relaxed), FRESH | IDLE) {
            self.enter(HEAD);
        }
    }

    pub(super) fn sent(&self) {
        if self.phase.load(Relaxed) == IDLE {
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
            self.body_is_open.store(false, Relaxed);
        }
    }

    pub(super) fn body_is_open(&self) -> bool {
        self.body_is_open.load(Relaxed)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        let since_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(since_ms, Relaxed);
    }
}

/// A request's body that tells when it was read to its end.
pub(super) struct WatchedBody {
    body: Incoming,
    activity: Arc<Activity>,
}

impl WatchedBody {
    pub(super) fn new(body: Incoming, activity: Arc<Activity>) -> Self {
        activity.body_is_open.store(!body.is_end_stream(), Relaxed);
        Self { body, activity }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.activity.body_is_open.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
