//! A call on its way, as its caller holds it.

use crate::event::CallEvent;

/// A call on its way. Dropping it before its end cancels the call.
#[derive(Debug)]
pub struct PendingCall {}

impl PendingCall {
    /// Waits for the next thing that happens to the call. Safe to cancel: nothing is lost.
    /// After `End` it must not be called again; it then answers with an error.
    pub async fn next(&mut self) -> CallEvent {
        unimplemented!()
    }
}
