//! What a peer may send before it is welcome: a message is read into memory as a whole, and nothing is
//! known yet of who sends it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio_stream::Stream;
use tonic::Status;
use tonic::codegen::{Body as HttpBody, StdError};

use super::host::HostMessage;
use crate::plugin::{HostFrame, host_frame};

/// Bytes that a peer may send before its Welcome.
pub const MAX_STRANGER_BYTES: usize = 1024 * 1024;

/// The peer was told that it is welcome. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeted(Arc<AtomicBool>);

/// What a peer sends, bounded until it is welcome.
pub(super) struct StrangersBody<B> {
    body: Pin<Box<B>>,
    greeted: Greeted,
    left: usize,
}

impl<B> StrangersBody<B> {
    pub(super) fn new(body: B, greeted: Greeted) -> Self {
        Self {
            body: Box::pin(body),
            greeted,
            left: MAX_STRANGER_BYTES,
        }
    }
}

impl<B> HttpBody for StrangersBody<B>
where
    B: HttpBody,
    B::Error: Into<StdError>,
{
    type Data = B::Data;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<B::Data>, StdError>>> {
        let polled = ready!(self.body.as_mut().poll_frame(context));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
            && !self.greeted.0.load(Ordering::Relaxed)
        {
            let Some(left) = self.left.checked_sub(data.remaining()) else {
                let text = format!(
                    "more than {MAX_STRANGER_BYTES} bytes came before the Welcome: send Hello, and \
                     wait for its answer"
                );
                return Poll::Ready(Some(Err(Status::resource_exhausted(text).into())));
            };
            self.left = left;
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// What a host sends; the Welcome in it is noted.
#[derive(Debug)]
pub struct Greeting<S> {
    frames: Pin<Box<S>>,
    greeted: Greeted,
}

impl<S> Greeting<S> {
    pub(super) fn new(frames: S, greeted: Greeted) -> Self {
        Self {
            frames: Box::pin(frames),
            greeted,
        }
    }
}

impl<S: Stream<Item = Result<HostMessage, Status>>> Stream for Greeting<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let next = ready!(self.frames.as_mut().poll_next(context));
        if let Some(Ok(HostMessage::Frame(HostFrame {
            body: Some(host_frame::Body::Welcome(_)),
            ..
        }))) = &next
        {
            self.greeted.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(next)
    }
}
