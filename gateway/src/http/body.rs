//! The one type of body that the gateway answers with, and the count of answers on their way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use super::room::Ticket;

/// The body of an answer.
pub struct AnswerBody {
    source: Source,
    /// Goes before the rest.
    first: Option<Frame<Bytes>>,
    /// Kept until the body is sent.
    _kept: Option<Kept>,
}

/// What an answer keeps until it is sent.
pub enum Kept {
    /// It counts as work.
    Running(Running),
    /// It is a call's.
    Ticket(Arc<Ticket>),
}

enum Source {
    Full(Full<Bytes>),
    Mcp(BoxBody<Bytes, Infallible>),
    Admin(axum::body::Body),
}

impl AnswerBody {
    /// All of it at once.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Source::Full(Full::new(bytes.into())).into()
    }

    /// Of the MCP library; `first` was taken from it already, and `kept` is kept until it is sent.
    pub fn mcp(
        body: BoxBody<Bytes, Infallible>,
        first: Option<Frame<Bytes>>,
        kept: Option<Kept>,
    ) -> Self {
        Self {
            source: Source::Mcp(body),
            first,
            _kept: kept,
        }
    }

    /// Of the admin endpoints.
    pub fn admin(body: axum::body::Body) -> Self {
        Source::Admin(body).into()
    }
}

impl From<Source> for AnswerBody {
    fn from(source: Source) -> Self {
        Self {
            source,
            first: None,
            _kept: None,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match &mut self.source {
            Source::Full(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never: Infallible| match never {}),
            Source::Mcp(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never: Infallible| match never {}),
            Source::Admin(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.first.is_some() {
            return false;
        }
        match &self.source {
            Source::Full(body) => body.is_end_stream(),
            Source::Mcp(body) => body.is_end_stream(),
            Source::Admin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() {
            // A stream of events has no size.
            return SizeHint::default();
        }
        match &self.source {
            Source::Full(body) => body.size_hint(),
            Source::Mcp(body) => body.size_hint(),
            Source::Admin(body) => body.size_hint(),
        }
    }
}

/// What is being worked on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Works {
    /// Requests.
    pub calls: Work,
    /// Subscriptions, which end when they are told that the gateway stops.
    pub subscriptions: Work,
}

/// Requests that are being worked on, their answers' way included. Cheap to clone.
#[derive(Clone, Default)]
pub struct Work {
    inner: Arc<Count>,
}

#[derive(Default)]
struct Count {
    running: AtomicUsize,
    idle: Notify,
}

/// One request that is being worked on.
pub struct Running(Work);

impl Work {
    /// Counts one more until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> Running {
        self.inner.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.running.load(Ordering::Acquire)
    }

    /// Waits until there are none.
    pub async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.inner.idle.notified());
            // Registered before the look, so that an end between the two is not missed.
            notified.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let count = &self.0.inner;
        if count.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            count.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_for_work_ends_with_the_last_of_it() {
        let work = Work::default();
        work.idle().await;
        let (first, second) = (work.begin(), work.begin());
        assert_eq!(work.running(), 2);
        drop(first);
        let waiting = work.clone();
        let ended = tokio::spawn(async move { waiting.idle().await });
        drop(second);
        assert!(ended.await.is_ok());
    }
}
