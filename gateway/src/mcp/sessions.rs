//! Sessions of clients that speak 2025-11-25 or older: the MCP library's own, bounded in number, and
//! kept alive while their client has a stream open.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::{FuturesUnordered, StreamExt};
use prometheus_client::metrics::gauge::Gauge;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig,
};
use rmcp::transport::streamable_http_server::session::{
    ServerSseMessage, SessionId, SessionManager,
};
use tokio_util::sync::CancellationToken;

/// Time that a session may take to note that it is still wanted.
const TOUCH: Duration = Duration::from_secs(5);

/// A request that belongs to no request of a session: asking to end it does nothing but count as a
/// message.
const NO_REQUEST: u64 = u64::MAX;

/// Why a session can't be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// Too many are open.
    #[error("{0} sessions are open, as many as gateway.max_sessions allows: try again later")]
    Full(usize),
    /// The MCP library refuses.
    #[error(transparent)]
    Library(#[from] LocalSessionManagerError),
}

/// All sessions, whatever thread they began on.
pub struct Sessions {
    library: LocalSessionManager,
    open: Mutex<HashMap<SessionId, Arc<AtomicUsize>>>,
    most: usize,
    idle: Duration,
    gauge: Gauge,
}

impl Sessions {
    /// No sessions; at most `most`, each closed after `idle` without a message or an open stream.
    #[must_use]
    pub fn new(most: usize, idle: Duration, gauge: Gauge) -> Self {
        let mut library = LocalSessionManager::default();
        let mut config = SessionConfig::default();
        config.keep_alive = Some(idle);
        library.session_config = config;
        Self {
            library,
            open: Mutex::default(),
            most,
            idle,
            gauge,
        }
    }

    /// Whether one more session can be opened.
    ///
    /// # Errors
    /// [`SessionsError::Full`].
    pub fn check_room(&self) -> Result<(), SessionsError> {
        match self.count() {
            open if open >= self.most => Err(SessionsError::Full(open)),
            _ => Ok(()),
        }
    }

    /// Sessions that are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<AtomicUsize>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps sessions with an open stream from being closed as idle, until `stop`.
    pub async fn keep_alive(&self, stop: CancellationToken) {
        let pause = (self.idle / 4).max(Duration::from_millis(50));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let wanted: Vec<SessionId> = self
                .lock()
                .iter()
                .filter(|(_, streams)| streams.load(Ordering::Relaxed) > 0)
                .map(|(id, _)| Arc::clone(id))
                .collect();
            let mut touches: FuturesUnordered<_> = wanted.iter().map(|id| self.touch(id)).collect();
            while touches.next().await.is_some() {}
        }
    }

    async fn touch(&self, id: &SessionId) {
        let handle = self.library.sessions.read().await.get(id).cloned();
        if let Some(handle) = handle {
            // A session whose client takes nothing may not answer: it is not idle, either.
            let touch = handle.close_request_wise_channel(NO_REQUEST);
            let _ = tokio::time::timeout(TOUCH, touch).await;
        }
    }

    /// Closes all sessions; `grace` is the most that one may take.
    pub async fn close_all(&self, grace: Duration) {
        let all: Vec<SessionId> = self.lock().keys().map(Arc::clone).collect();
        let close = |id| async move {
            let _ = tokio::time::timeout(grace, self.close_session(id)).await;
        };
        let mut closing: FuturesUnordered<_> = all.iter().map(close).collect();
        while closing.next().await.is_some() {}
    }
}

impl SessionManager for Sessions {
    type Error = SessionsError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionsError> {
        self.check_room()?;
        let (id, transport) = self.library.create_session().await?;
        self.lock().insert(Arc::clone(&id), Arc::default());
        self.gauge.inc();
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionsError> {
        Ok(self.library.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionsError> {
        Ok(self.library.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionsError> {
        // Closed by its client and by its own end: counted once.
        if self.lock().remove(id).is_some() {
            self.gauge.dec();
        }
        Ok(self.library.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let stream = self.library.create_stream(id, message).await?;
        Ok(self.counted(id, stream))
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let stream = self.library.create_standalone_stream(id).await?;
        Ok(self.counted(id, stream))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let stream = self.library.resume(id, last_event_id).await?;
        Ok(self.counted(id, stream))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), SessionsError> {
        Ok(self.library.accept_message(id, message).await?)
    }
}

impl Sessions {
    fn counted<S>(&self, id: &SessionId, stream: S) -> Counted<S> {
        let streams = self.lock().get(id).map(Arc::clone).unwrap_or_default();
        streams.fetch_add(1, Ordering::Relaxed);
        Counted {
            stream: Box::pin(stream),
            streams,
        }
    }
}

/// A stream that counts as open while it is there.
struct Counted<S> {
    stream: Pin<Box<S>>,
    streams: Arc<AtomicUsize>,
}

impl<S: Stream> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_are_bounded_and_counted_once() {
        let gauge = Gauge::default();
        let sessions = Sessions::new(2, Duration::from_secs(60), gauge.clone());
        let (first, _transport) = sessions.create_session().await.unwrap();
        let (_second, _other) = sessions.create_session().await.unwrap();
        let error = sessions.create_session().await.err().unwrap().to_string();
        assert_eq!(
            error,
            "2 sessions are open, as many as gateway.max_sessions allows: try again later"
        );
        sessions.close_session(&first).await.unwrap();
        sessions.close_session(&first).await.unwrap();
        assert_eq!((sessions.count(), gauge.get()), (1, 1));
        assert!(sessions.check_room().is_ok());
        sessions.close_all(Duration::from_secs(1)).await;
        assert_eq!((sessions.count(), gauge.get()), (0, 0));
    }
}
