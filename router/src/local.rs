//! Calls that stay on the node: a plugin that calls a plugin beside it.

use std::fmt;

use mesh_bus::{CallEvent, CallInput};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::InstanceId;
use mesh_proto::common;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The node that a router is part of.
pub trait LocalHost: Send + Sync {
    /// Hands a call to an instance of this node. `call.payload`, `call.more`, `call.messages` are empty:
    /// the payload is given whole, and where the messages come from. The host keeps the deadline.
    ///
    /// # Errors
    /// What a node would answer over the bus: OVERLOADED, DRAINING, INSTANCE_GONE, ….
    fn begin(
        &self,
        instance: InstanceId,
        call: common::Call,
        input: CallInput,
        deadline: Instant,
    ) -> Result<LocalCall, MeshError>;

    /// Whether the node stops. Its instances drain then, but still serve those that finish there. It is asked
    /// in the middle of a choice: it must not ask the router for anything.
    fn is_stopping(&self) -> bool {
        false
    }
}

/// A call that stays on the node. Dropping it before its end cancels the call.
pub struct LocalCall {
    events: mpsc::Receiver<CallEvent>,
    cancel: Option<Box<dyn FnOnce() + Send>>,
}

impl LocalCall {
    /// A call whose events come from `events` (the last one is `End`). `cancel` runs when the
    /// call is dropped before its end.
    #[must_use]
    pub fn new(events: mpsc::Receiver<CallEvent>, cancel: impl FnOnce() + Send + 'static) -> Self {
        Self {
            events,
            cancel: Some(Box::new(cancel)),
        }
    }

    /// The next event. Safe to cancel.
    pub(crate) async fn next(&mut self) -> CallEvent {
        let event = self.events.recv().await.unwrap_or_else(|| {
            // The host went away without an end: it may have handed the call to the plugin.
            let message = "the node ended while it worked on the call";
            CallEvent::End(Err(MeshError::new(ErrorCode::OutcomeUnknown, message)))
        });
        if matches!(event, CallEvent::End(_)) {
            self.cancel = None;
        }
        event
    }
}

impl Drop for LocalCall {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel();
        }
    }
}

impl fmt::Debug for LocalCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCall").finish_non_exhaustive()
    }
}
