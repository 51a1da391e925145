//! Counters of the bus, for whoever shows metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number for metrics: its name, what it says, its value.
pub type Reading = (&'static str, &'static str, u64);

/// Counters of one bus connection since its start; read them with any ordering.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Calls begun.
    pub calls: AtomicU64,
    /// Calls that ended at their deadline.
    pub timeouts: AtomicU64,
    /// Calls that were given up by their caller.
    pub cancelled: AtomicU64,
    /// Calls that found nobody listening.
    pub no_responders: AtomicU64,
    /// Calls whose outcome became unknown (lost instance, lost connection).
    pub outcome_unknown: AtomicU64,
    /// Calls refused because the broker was not reachable.
    pub refused_disconnected: AtomicU64,
    /// Calls refused because the connection or this process was at its limit.
    pub refused_busy: AtomicU64,
    /// Replies that belonged to no call any more.
    pub late_replies: AtomicU64,
    /// Messages that could not be decoded.
    pub malformed: AtomicU64,
    /// Progress and log frames left out because their reader or the connection was slow.
    pub notices_dropped: AtomicU64,
    /// Requests and replies that the client library dropped because a subscription was full.
    pub slow_consumer: AtomicU64,
    /// Frames that had to wait because the connection was congested.
    pub queued: AtomicU64,
    /// Reconnects to the broker.
    pub reconnects: AtomicU64,
    /// Requests taken by this node.
    pub requests: AtomicU64,
    /// Replies sent by this node.
    pub replies: AtomicU64,
    /// Replies of this node that could not be sent: the connection was closed, or NATS does not take
    /// frames of that size.
    pub replies_lost: AtomicU64,
}

impl BusStats {
    /// All counters: name, what it counts, value.
    pub(crate) fn all(&self) -> Vec<Reading> {
        [
            ("calls", "Calls begun", &self.calls),
            (
                "timeouts",
                "Calls that ended at their deadline",
                &self.timeouts,
            ),
            (
                "cancelled",
                "Calls that were given up by their caller",
                &self.cancelled,
            ),
            (
                "no_responders",
                "Calls that found nobody listening",
                &self.no_responders,
            ),
            (
                "outcome_unknown",
                "Calls whose outcome became unknown: lost instance, silent node, lost connection",
                &self.outcome_unknown,
            ),
            (
                "refused_disconnected",
                "Calls refused because the broker was not reachable",
                &self.refused_disconnected,
            ),
            (
                "refused_busy",
                "Calls refused because the connection or this process was at its limit",
                &self.refused_busy,
            ),
            (
                "late_replies",
                "Replies that belonged to no call any more",
                &self.late_replies,
            ),
            (
                "malformed",
                "Messages that could not be decoded",
                &self.malformed,
            ),
            (
                "notices_dropped",
                "Progress and log frames left out because their reader or the connection was slow",
                &self.notices_dropped,
            ),
            (
                "slow_consumer",
                "Messages dropped because a subscription was full",
                &self.slow_consumer,
            ),
            (
                "queued",
                "Frames that had to wait because the connection was congested",
                &self.queued,
            ),
            ("reconnects", "Reconnects to the broker", &self.reconnects),
            ("requests", "Requests taken by this node", &self.requests),
            ("replies", "Replies sent by this node", &self.replies),
            (
                "replies_lost",
                "Replies of this node that could not be sent",
                &self.replies_lost,
            ),
        ]
        .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
        .into()
    }
}

/// Counts.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
