//! The streams of one HTTP/2 connection, run within the connection's own task: they end with it,
//! and what they share needs no care. And their answers, handed out in pieces, so that it shows
//! which of them the peer does not take.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::{
    body::{Frame, SizeHint},
    rt::Executor,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::activity::Activity;

/// Of an answer at a time. A piece is held by the connection until the peer has room for it.
const PIECE_BYTES: usize = 64 << 10;

/// Where hyper puts a stream's work. The number of streams is limited, so this is, too.
#[derive(Clone)]
pub(super) struct Begin(UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begin {
    fn execute(&self, stream: F) {
        // Without its connection nobody needs the stream.
        let _ = self.0.send(Box::pin(stream));
    }
}

pub(super) struct Streams {
    begun: UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Streams {
    pub(super) fn new() -> (Begin, Self) {
        let (begin, begun) = mpsc::unbounded_channel();
        (Begin(begin), Self { begun, running: FuturesUnordered::new() })
    }

    /// Runs all streams, and never ends; may be dropped and called again.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(stream) = self.begun.recv() => self.running.push(stream),
                Some(()) = self.running.next(), if !self.running.is_empty() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// A request that is being answered, until its answer is on its way.
pub(super) struct OpenStream {
    activity: Arc<Activity>,
    /// Names it among the connection's streams.
    id: u64,
    /// The peer was given all of its answer.
    is_answered: bool,
}

impl OpenStream {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        let id = activity.stream_begins();
        Self { activity, id, is_answered: false }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if !self.is_answered {
            self.activity.stream_is_given_up();
        }
        self.activity.stream_ends(self.id);
    }
}

/// An answer that tells when a piece was offered to the peer, and when it was taken.
pub(super) struct WatchedAnswer {
    body: Body,
    rest: Bytes,
    n_offered: usize,
    has_ended: bool,
    stream: OpenStream,
}

impl WatchedAnswer {
    pub(super) fn new(body: Body, stream: OpenStream) -> Self {
        Self { body, rest: Bytes::new(), n_offered: 0, has_ended: false, stream }
    }
}

impl Drop for WatchedAnswer {
    fn drop(&mut self) {
        // What a handler said to a request that was given up meanwhile is no answer.
        self.stream.is_answered = self.has_ended || hyper::body::Body::is_end_stream(&*self);
    }
}

impl hyper::body::Body for WatchedAnswer {
    type Data = Bytes;
    type Error = axum::Error;

    /// Called when the piece before was taken.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.n_offered > 0 {
            self.stream.activity.taken(self.stream.id, self.n_offered);
            self.n_offered = 0;
        }
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => {
                    self.has_ended = ended.is_none();
                    return Poll::Ready(ended);
                }
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let n_bytes = self.rest.len().min(PIECE_BYTES);
        if n_bytes > 0 {
            self.n_offered = n_bytes;
            self.stream.activity.offered(self.stream.id);
        }
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
