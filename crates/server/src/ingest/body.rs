//! Reads a request's body whole: within its limit, within its time, within the budget, and
//! without a copy when it came in one piece.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use model::config::Config;
use tokio::time::timeout;

use super::admission::{Budget, Permit};
use crate::{error::KafkaError, metrics::Metrics};

/// How bodies are read: how large one may be and how long it may take, and the room for all.
pub struct Bodies {
    budget: Budget,
    max_bytes: usize,
    within: Duration,
}

impl Bodies {
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        Self {
            budget: Budget::new(config.ingest.max_inflight_bytes, metrics.inflight_bytes.clone()),
            max_bytes: config.ingest.max_body_bytes,
            within: Duration::from_millis(config.server.body_timeout_ms),
        }
    }

    /// The body, and the permit that has to live as long as it.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Permit), KafkaError> {
        if !is_plain(headers) {
            return Err(KafkaError::unsupported_media_type());
        }
        let announced_bytes = body.size_hint().exact();
        let first_bytes = match announced_bytes.map(usize::try_from) {
            None => 0,
            Some(Ok(n)) if n <= self.max_bytes => n,
            Some(_) => return Err(KafkaError::body_too_large(self.max_bytes)),
        };
        let permit = self.budget.take(first_bytes).ok_or_else(KafkaError::overloaded)?;
        let whole = async {
            if announced_bytes.is_some() {
                Ok((announced(body, first_bytes).await?, permit))
            } else {
                unannounced(body, self.max_bytes, permit).await
            }
        };
        timeout(self.within, whole).await.map_err(|_| KafkaError::body_timeout())?
    }
}

fn is_plain(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body of a known length, for which the permit was taken already.
async fn announced(mut body: Body, n_bytes: usize) -> Result<Bytes, KafkaError> {
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() == n_bytes {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(n_bytes);
    whole.extend_from_slice(&first);
    while let Some(data) = next(&mut body).await? {
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// A body in chunks: each is paid for as it comes.
async fn unannounced(mut body: Body, max_bytes: usize, mut permit: Permit) -> Result<(Bytes, Permit), KafkaError> {
    let mut whole = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        if whole.len() + data.len() > max_bytes {
            return Err(KafkaError::body_too_large(max_bytes));
        }
        if !permit.grow(data.len()) {
            return Err(KafkaError::overloaded());
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), permit))
}

/// The next piece of data; trailers are of no use here.
async fn next(body: &mut Body) -> Result<Option<Bytes>, KafkaError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| KafkaError::bad_request(format!("the request body broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
