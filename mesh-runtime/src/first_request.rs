//! An HTTP/2 connection whose client must begin a request in time; the libraries wait for ever, and a
//! connection that says nothing holds a descriptor and its buffers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// Bytes of the connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// Bytes of the header of a frame (section 4.1): a length in three bytes, then the type.
const HEADER: usize = 9;

/// The type of the frame that begins a request (section 6.2).
const HEADERS: u8 = 1;

/// A connection that is closed unless a request begins on it in time.
#[derive(Debug)]
pub struct FirstRequest<T> {
    io: T,
    /// `None` once a request has begun.
    waiting: Option<(Scan, Pin<Box<Sleep>>)>,
}

impl<T> FirstRequest<T> {
    /// Gives a connection so long. Call it within a Tokio runtime.
    pub fn new(io: T, limit: Duration) -> Self {
        Self {
            io,
            waiting: Some((Scan::default(), Box::pin(sleep(limit)))),
        }
    }
}

/// Looks through what comes for the beginning of a request.
#[derive(Debug)]
struct Scan {
    /// Bytes before the next header.
    skip: usize,
    header: [u8; HEADER],
    known: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            known: 0,
        }
    }
}

impl Scan {
    /// Whether a request begins in these bytes, which follow those before.
    fn finds(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = rest.get(skipped..).unwrap_or_default();
            let Some((byte, after)) = rest.split_first() else {
                return false;
            };
            if let Some(place) = self.header.get_mut(self.known) {
                *place = *byte;
                self.known += 1;
            }
            rest = after;
            if self.known == HEADER {
                let [a, b, c, kind, ..] = self.header;
                if kind == HEADERS {
                    return true;
                }
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.known = 0;
            }
        }
        false
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FirstRequest<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, waiting } = &mut *self;
        let Some((scan, timer)) = waiting else {
            return Pin::new(io).poll_read(context, buffer);
        };
        if timer.as_mut().poll(context).is_ready() {
            let why = "no request came in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(io).poll_read(context, buffer))?;
        if scan.finds(buffer.filled().get(before..).unwrap_or_default()) {
            *waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FirstRequest<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<T: Connected> Connected for FirstRequest<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> T::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// The preface and an empty SETTINGS frame.
    fn begin() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_begins_no_request_is_given_up() {
        let (ours, mut theirs) = duplex(1_024);
        theirs.write_all(&begin()).await.unwrap();
        let mut guarded = FirstRequest::new(ours, LIMIT);
        let mut all = Vec::new();
        let error = guarded.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(all, begin());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_begun_a_request_may_be_silent() {
        let (ours, mut theirs) = duplex(1_024);
        let mut guarded = FirstRequest::new(ours, LIMIT);
        let mut bytes = begin();
        bytes.extend([0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]);
        let client = async {
            // In pieces, so that headers of frames are cut.
            for piece in bytes.chunks(7) {
                theirs.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(LIMIT * 2).await;
            theirs.write_all(b"x").await.unwrap();
            drop(theirs);
        };
        let mut all = Vec::new();
        let (_, read) = tokio::join!(client, guarded.read_to_end(&mut all));
        read.unwrap();
        assert_eq!(all.len(), bytes.len() + 1);
    }
}
