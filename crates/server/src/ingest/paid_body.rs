//! An answer in pieces, whose memory is paid for until the last of them was taken.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::Permit;

/// Of an answer at a time: what a slow reader has not asked for stays unsent, and so it is known
/// whether it was taken.
const PIECE_BYTES: usize = 64 << 10;

pub(super) struct PaidBody {
    rest: Bytes,
    _permit: Permit,
    /// What is to be done when the answer is not taken whole.
    pub(super) broken_off: Option<Box<dyn FnOnce() + Send>>,
}

impl PaidBody {
    pub(super) fn new(whole: Vec<u8>, permit: Permit) -> Self {
        Self { rest: whole.into(), _permit: permit, broken_off: None }
    }
}

impl HttpBody for PaidBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let n_bytes = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(n_bytes);
        Poll::Ready((n_bytes > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for PaidBody {
    fn drop(&mut self) {
        if let Some(broken_off) = self.broken_off.take()
            && !self.rest.is_empty()
        {
            broken_off();
        }
    }
}
