//! Requests' bodies, and what becomes of the rest of one that nobody reads.
//!
//! An answer that overtakes its request's body costs an HTTP/1 client its connection, and some clients of
//! HTTP/2 the answer: so a little that comes soon is thrown away before the answer goes out.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::activity::Activity;

/// A new connection would cost more.
const LITTLE_BYTES: u64 = 64 << 10;
const SOON: Duration = Duration::from_millis(50);

/// A request's body that leaves what was not read of it.
pub(super) struct WatchedBody {
    /// There until this is dropped.
    body: Option<Incoming>,
    rest: Rest,
    /// Of a connection that has one request at a time: it is told when the body was read to its end.
    activity: Option<Arc<Activity>>,
}

impl WatchedBody {
    pub(super) fn new(body: Incoming, activity: Option<Arc<Activity>>) -> Self {
        if let Some(activity) = &activity {
            activity.body_begins(body.is_end_stream());
        }
        Self { body: Some(body), rest: Rest::default(), activity }
    }

    pub(super) fn rest(&self) -> Rest {
        self.rest.clone()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_end_stream()) {
            self.rest.leave(body);
        }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if frame.is_none() || body.is_end_stream() {
            self.body = None;
            if let Some(activity) = &self.activity {
                activity.body_ends();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What a handler has left of a body when it has answered.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Left>>);

#[derive(Default)]
enum Left {
    #[default]
    Nothing,
    Body(Incoming),
    /// Nobody comes for it any more.
    Answered,
}

impl Rest {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, body: Incoming) {
        let mut left = self.left();
        if matches!(*left, Left::Nothing) {
            *left = Left::Body(body);
        }
    }

    /// Whether nothing is left, or nothing any more; or somebody reads on, to go on with an answer that has
    /// begun. Asked once, before the answer goes out.
    pub(super) async fn is_gone(&self, waits_for_word: bool, activity: &Activity) -> bool {
        let left = mem::replace(&mut *self.left(), Left::Answered);
        let Left::Body(body) = left else { return true };
        let is_little = body.size_hint().lower() <= LITTLE_BYTES;
        let is_gone = is_little && !waits_for_word && timeout(SOON, throw_away(body)).await.unwrap_or(false);
        if is_gone {
            activity.body_ends();
        }
        is_gone
    }
}

/// Whether the body came to its end.
async fn throw_away(mut body: Incoming) -> bool {
    let mut n_bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if n_bytes > LITTLE_BYTES {
            return false;
        }
    }
    true
}
