//! A call of the mesh to a plugin of this node, while it runs.

use mesh_bus::ReplyTo;
use tokio::time::Instant;

use super::local::LocalReply;
use super::pace::ProgressWish;

/// Who waits for a call, as the bus names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CallerKey {
    pub(super) to: ReplyTo,
    pub(super) call_id: u64,
}

/// Which way replies to a call go.
#[derive(Debug)]
pub(super) enum ReplyPath {
    /// Over the bus.
    Bus(CallerKey),
    /// To the router of this agent.
    Local(Box<LocalReply>),
}

/// What is kept with a running call.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) reply: ReplyPath,
    pub(super) deadline: Instant,
    pub(super) started: Instant,
    /// Chunks of the answer that have gone on.
    pub(super) passed: u64,
    /// `None`: the caller did not ask for progress.
    pub(super) progress: Option<ProgressWish>,
    /// The server span; `None` when no spans are exported.
    pub(super) span: Option<tracing::Span>,
}
