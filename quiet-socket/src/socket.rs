//! The socket.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// The most bytes of one read: so much of the buffer is zeroed before.
const MOST: usize = 64 * 1024;

/// A connected socket. Use it within the runtime that it was made in.
#[derive(Debug)]
pub struct QuietSocket {
    socket: AsyncFd<UnixStream>,
    /// The same socket, while it takes no more.
    full: Option<AsyncFd<UnixStream>>,
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe to call, for types that may change their descriptor; a socket \
              keeps its own"
)]
fn watch(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

impl QuietSocket {
    /// Connects to the socket at a path.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        tokio::net::UnixStream::connect(path).await?.try_into()
    }

    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = match &self.full {
                Some(full) => Some(ready!(full.poll_write_ready(cx))?),
                None => None,
            };
            match write(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match &mut ready {
                    Some(ready) => ready.clear_ready(),
                    None => {
                        let again = self.socket.get_ref().try_clone()?;
                        let again = watch(again, Interest::WRITABLE)?;
                        self.full = Some(again);
                    }
                },
                done => {
                    self.full = None;
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl TryFrom<tokio::net::UnixStream> for QuietSocket {
    type Error = io::Error;

    fn try_from(socket: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket.into_std()?, Interest::READABLE)?,
            full: None,
        })
    }
}

impl AsyncRead for QuietSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled_to(buffer.remaining().min(MOST));
            let size = room.len();
            match self.socket.get_ref().read(room) {
                Ok(read) => {
                    // Less than there was room for: all has been read, and asking again would be a
                    // system call for nothing. What comes now makes it readable anew.
                    if read > 0 && read < size {
                        ready.clear_ready();
                    }
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for QuietSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |mut socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    //! Bytes there and back through a real socket.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn more_than_the_socket_holds_goes_both_ways_and_the_end_is_seen() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut ours = QuietSocket::try_from(ours).unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let echo = async {
            let (mut from, mut to) = theirs.split();
            // Nothing is read until the sender has found the socket full.
            tokio::task::yield_now().await;
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let both = async {
            let (mut from, mut to) = tokio::io::split(&mut ours);
            let send = async {
                to.write_all(&sent).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let (_, read) = tokio::join!(send, from.read_to_end(&mut back));
            assert_eq!(read.unwrap(), sent.len());
            assert!(back == sent);
        };
        let all = async { tokio::join!(echo, both) };
        tokio::time::timeout(std::time::Duration::from_secs(20), all)
            .await
            .unwrap();
        assert!(ours.full.is_none());
    }
}
