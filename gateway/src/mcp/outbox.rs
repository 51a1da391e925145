//! Notifications of one call on their way to its client.
//!
//! The call never waits for them: they are kept here while one is being sent. Of progress only the
//! newest matters, so it is kept once; log lines are bounded, and those over it are left out and
//! counted. At the end what is left is sent before the answer, within a bound.

// MCP 2026-07-28 deprecates logging, and clients of both versions still use it.
#![expect(deprecated, reason = "clients still ask for logs")]

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use rmcp::RoleServer;
use rmcp::model::{
    LoggingMessageNotification, LoggingMessageNotificationParam, ProgressNotification,
    ProgressNotificationParam, ServerNotification,
};
use rmcp::service::{Peer, ServiceError};

/// Notifications that wait while one is sent.
const MOST_WAITING: usize = 64;

/// Time that the last notifications of a call may take.
const FLUSH: Duration = Duration::from_secs(5);

/// Sends one call's notifications.
pub struct Outbox {
    peer: Peer<RoleServer>,
    waiting: VecDeque<ServerNotification>,
    sending: Option<BoxFuture<'static, Result<(), ServiceError>>>,
    closed: bool,
    dropped: Counter,
}

impl Outbox {
    /// Nothing to send yet. `dropped` counts what is left out.
    pub fn new(peer: Peer<RoleServer>, dropped: Counter) -> Self {
        Self {
            peer,
            waiting: VecDeque::new(),
            sending: None,
            closed: false,
            dropped,
        }
    }

    /// Tells how far the call has come, instead of what was not yet told of it.
    pub fn progress(&mut self, param: ProgressNotificationParam) {
        let is_progress = |note: &&mut ServerNotification| {
            matches!(note, ServerNotification::ProgressNotification(_))
        };
        let note = ServerNotification::ProgressNotification(ProgressNotification::new(param));
        match self.waiting.iter_mut().find(is_progress) {
            Some(older) => *older = note,
            None => self.add(note),
        }
    }

    /// Tells a line of the log.
    pub fn log(&mut self, param: LoggingMessageNotificationParam) {
        let note = LoggingMessageNotification::new(param);
        self.add(ServerNotification::LoggingMessageNotification(note));
    }

    fn add(&mut self, note: ServerNotification) {
        if self.closed || self.waiting.len() >= MOST_WAITING {
            self.dropped.inc();
        } else {
            self.waiting.push_back(note);
        }
    }

    /// Whether [`Self::drive`] has anything to do.
    pub fn has_work(&self) -> bool {
        self.sending.is_some() || !self.waiting.is_empty()
    }

    /// Sends one notification. Safe to cancel: the sending goes on with the next call.
    pub async fn drive(&mut self) {
        if self.sending.is_none() {
            let Some(note) = self.waiting.pop_front() else {
                return;
            };
            let peer = self.peer.clone();
            self.sending = Some(async move { peer.send_notification(note).await }.boxed());
        }
        if let Some(sending) = &mut self.sending {
            let sent = sending.await;
            self.sending = None;
            if sent.is_err() {
                // The client is gone: nothing more will reach it.
                self.closed = true;
                self.dropped.inc_by(1 + self.waiting.len() as u64);
                self.waiting.clear();
            }
        }
    }

    /// Sends what is left.
    pub async fn flush(mut self) {
        if !self.has_work() {
            return;
        }
        let all = async {
            while self.has_work() {
                self.drive().await;
            }
        };
        if tokio::time::timeout(FLUSH, all).await.is_err() {
            self.dropped.inc_by(self.waiting.len() as u64);
        }
    }
}
