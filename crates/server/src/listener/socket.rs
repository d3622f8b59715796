//! The socket under a connection: tells `Activity` what moves, and closes so that the peer
//! reads its last answer.
//!
//! Closing a socket that still receives makes the system send a reset, which can destroy an
//! answer on its way (a 413 to a body that is still being sent, say). So the sending side is
//! closed first and what still comes in is thrown away, until the peer has closed too, has sent more
//! than anyone sends without looking, or `Activity` says that it takes too long.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{activity::Activity, tls::Stream};

pub(super) struct Socket {
    stream: Stream,
    activity: Arc<Activity>,
    /// The peer has closed its side.
    is_at_end: bool,
    is_shut: bool,
    lingers: bool,
    n_thrown_away: usize,
    /// What came while it was found out which protocol is spoken, and is not read yet.
    first: Bytes,
}

/// Of what still comes in after the last answer; more is a flood.
const MAX_THROWN_AWAY_BYTES: usize = 64 << 20;

/// How every connection of HTTP/2 begins; no request of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Socket {
    pub(super) fn new(stream: Stream, activity: Arc<Activity>) -> Self {
        let first = Bytes::new();
        Self { stream, activity, is_at_end: false, is_shut: false, lingers: false, n_thrown_away: 0, first }
    }

    /// Whether the peer speaks HTTP/2, told by its first bytes. May be called once, before all else.
    pub(super) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        let (mut first, mut n_read) = ([0; PREFACE.len()], 0);
        while n_read < first.len() && first[..n_read] == PREFACE[..n_read] {
            match self.read(&mut first[n_read..]).await? {
                0 => break,
                n => n_read += n,
            }
        }
        self.first = Bytes::copy_from_slice(&first[..n_read]);
        Ok(first == PREFACE)
    }

    fn tell_sent(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(n_bytes)) => self.activity.sent(*n_bytes),
            Poll::Pending => self.activity.send_blocks(),
            Poll::Ready(Err(_)) => {}
        }
    }

    /// Ready when closing the socket harms no answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut thrown_away = [0; 8192];
        while !self.is_at_end && self.n_thrown_away < MAX_THROWN_AWAY_BYTES {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    self.is_at_end = buffer.filled().is_empty();
                    self.n_thrown_away += buffer.filled().len();
                    self.lingers = true;
                }
                Poll::Ready(Err(_)) => break,
                Poll::Pending if self.lingers => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n_bytes = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(n_bytes));
            return Poll::Ready(Ok(()));
        }
        let n_before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() == n_before {
            self.is_at_end = true;
        } else {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.tell_sent(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.tell_sent(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when the writer has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
            self.lingers = self.activity.body_is_open();
            self.activity.closing();
        }
        self.poll_linger(cx)
    }
}
