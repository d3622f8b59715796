//! Reads a request's body whole: within its limit, within its time, within the budget, and
//! without a copy when it came in one piece.
//!
//! Memory is paid for before it is taken, and not long before: who announces much and sends
//! little must not hold the room of others.

use std::{ops::Deref, time::Duration};

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use model::config::Config;
use tokio::time::{Instant, timeout_at};

use super::admission::{Budget, Permit};
use crate::{error::KafkaError, metrics::Metrics, pace::Pace};

/// A body of so many bytes is paid for at once.
const SMALL_BYTES: usize = 64 << 10;

/// How bodies are read: how large one may be, how long it may take, and the room for all.
pub struct Bodies {
    budget: Budget,
    max_bytes: usize,
    within: Duration,
    pace: Pace,
}

impl Bodies {
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        Self {
            budget: Budget::new(config.ingest.max_inflight_bytes, metrics.inflight_bytes.clone()),
            max_bytes: config.ingest.max_body_bytes,
            within: Duration::from_millis(config.server.body_timeout_ms),
            pace: Pace::of(&config.server),
        }
    }

    /// A permit for what is collected for an answer, to be grown with it; None when there is no room.
    pub(super) fn permit(&self) -> Option<Permit> {
        if self.budget.has_room(1) { self.budget.take(0) } else { None }
    }

    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Paid, KafkaError> {
        if !is_plain(headers) {
            return Err(KafkaError::unsupported_media_type());
        }
        let announced = match body.size_hint().exact().map(usize::try_from) {
            None => None,
            Some(Ok(n)) if n <= self.max_bytes => Some(n),
            Some(_) => return Err(KafkaError::body_too_large(self.max_bytes)),
        };
        let permit = self.admit(announced.unwrap_or(0)).ok_or_else(KafkaError::overloaded)?;
        let mut arriving = Arriving { body, bodies: self, began: Instant::now(), n_bytes: 0 };
        match arriving.next().await? {
            None => Ok(Paid { bytes: Bytes::new(), permit }),
            Some(bytes) if announced == Some(bytes.len()) && permit.n_bytes() >= bytes.len() => {
                Ok(Paid { bytes, permit })
            }
            Some(first) => self.collect(first, arriving, permit, announced.unwrap_or(self.max_bytes)).await,
        }
    }

    /// None when there is no room for the whole of it now; what it needs first is taken.
    fn admit(&self, n_bytes: usize) -> Option<Permit> {
        if !self.budget.has_room(n_bytes) {
            return None;
        }
        self.budget.take(n_bytes.min(SMALL_BYTES))
    }

    /// Puts the pieces together, in memory that doubles up to `most_bytes` and is paid for first.
    async fn collect(
        &self,
        first: Bytes,
        mut arriving: Arriving<'_>,
        mut permit: Permit,
        most_bytes: usize,
    ) -> Result<Paid, KafkaError> {
        let mut whole = BytesMut::new();
        let mut piece = Some(first);
        while let Some(data) = piece {
            let needed = whole.len() + data.len();
            if needed > self.max_bytes {
                return Err(KafkaError::body_too_large(self.max_bytes));
            }
            let missing = needed.saturating_sub(permit.n_bytes());
            let ahead = needed.saturating_mul(2).min(most_bytes).saturating_sub(permit.n_bytes());
            if missing > 0 && !permit.grow(ahead) && !permit.grow(missing) {
                return Err(KafkaError::overloaded());
            }
            if needed > whole.capacity() {
                whole.reserve(permit.n_bytes() - whole.len());
            }
            whole.extend_from_slice(&data);
            piece = arriving.next().await?;
        }
        Ok(Paid { bytes: whole.freeze(), permit })
    }
}

/// A body that is paid for as long as it is here.
pub struct Paid {
    bytes: Bytes,
    permit: Permit,
}

impl Paid {
    /// Pays for what is made of the body, too; false when there is no room.
    pub(super) fn grow(&mut self, more_bytes: usize) -> bool {
        self.permit.grow(more_bytes)
    }

    /// The body, and the permit that has to live as long as it.
    pub(super) fn into_parts(self) -> (Bytes, Permit) {
        (self.bytes, self.permit)
    }
}

impl Deref for Paid {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Whether the body is not compressed: nothing here makes a small body large.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body under way.
struct Arriving<'b> {
    body: Body,
    bodies: &'b Bodies,
    began: Instant,
    n_bytes: u64,
}

impl Arriving<'_> {
    /// The next piece of data; trailers are of no use here.
    async fn next(&mut self) -> Result<Option<Bytes>, KafkaError> {
        let within = self.bodies.within;
        let allowed = self.bodies.pace.allows(self.n_bytes).filter(|allowed| *allowed < within);
        let deadline = self.began + allowed.unwrap_or(within);
        let too_late = || if allowed.is_some() { KafkaError::body_too_slow() } else { KafkaError::body_timeout() };
        while let Some(frame) = timeout_at(deadline, self.body.frame()).await.map_err(|_| too_late())? {
            let frame = frame.map_err(|e| KafkaError::bad_request(format!("the request body broke off: {e}")))?;
            if let Ok(data) = frame.into_data() {
                self.n_bytes += data.len() as u64;
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
