//! A connection that is closed so that its last answer arrives.
//!
//! A socket that is closed while the sender still sends is reset, and a reset destroys an answer that the sender has not
//! read yet: a 413 would be seen as "connection reset". So after an answer that left a body unread, the sending half is
//! closed and what still comes is read and dropped, within bounds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is dropped at most. Four times the largest body of the defaults.
const MAX_BYTES: usize = 64 << 20;
/// How long it may take altogether, and without a byte.
const MAX_TIME: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Read at a time.
const CHUNK: usize = 16 << 10;

/// Whether a connection's sender may still be sending when it is closed. Clones are the same flag.
#[derive(Clone, Default)]
pub(super) struct MayLinger(Arc<AtomicBool>);

impl MayLinger {
    pub(super) fn set(&self, may: bool) {
        self.0.store(may, Ordering::Relaxed);
    }
}

/// A socket that lingers when it is shut down.
pub(super) struct Linger<S> {
    socket: S,
    may: MayLinger,
    left: usize,
    /// Until when, and until when the next byte must come; since the shutdown.
    until: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Linger<S> {
    pub(super) const fn new(socket: S, may: MayLinger) -> Self {
        Self { socket, may, left: MAX_BYTES, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.until.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            if !self.may.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            self.until = Some((now + MAX_TIME, Box::pin(sleep_until(now + MAX_PAUSE))));
        }
        let Self { socket, left, until, .. } = &mut *self;
        let Some((end, pause)) = until else { return Poll::Ready(Ok(())) };
        let mut chunk = [0; CHUNK];
        loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            let is_read = Pin::new(&mut *socket).poll_read(cx, &mut buffer);
            let read = buffer.filled().len();
            match is_read {
                Poll::Ready(Ok(())) if read > 0 && read <= *left => {
                    *left -= read;
                    let due = (Instant::now() + MAX_PAUSE).min(*end);
                    pause.as_mut().reset(due);
                }
                // The end, an error, or too much.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return pause.as_mut().poll(cx).map(Ok),
            }
            if Instant::now() >= *end {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
