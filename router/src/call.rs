//! A call through the router, as its caller holds it.

use mesh_bus::{CallEvent, CallOutput};
use mesh_core::error::{MeshError, Place};

/// A call through the router. Dropping it before its end cancels the call.
#[derive(Debug)]
pub struct CallStream {}

impl CallStream {
    /// Waits for the next thing that happens to the call. Safe to cancel. `End` is the last.
    pub async fn next(&mut self) -> CallEvent {
        unimplemented!()
    }

    /// Waits for the end; chunks, progress and log lines on the way are let go.
    ///
    /// # Errors
    /// What the call ended with.
    pub async fn finish(self) -> Result<CallOutput, MeshError> {
        unimplemented!()
    }

    /// Which instance serves (or served) the call; unknown before one was found.
    #[must_use]
    pub fn served_by(&self) -> Place {
        unimplemented!()
    }
}
