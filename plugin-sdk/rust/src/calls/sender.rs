//! The caller's end of a streaming request.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::slot::Slot;
use super::{Peer, Signal};
use crate::code::ErrorCode;
use crate::error::{CallError, ToolError};
use crate::payload::IntoPayload;

/// Sends the messages that follow a call's payload, no faster than the provider takes them. Dropping it
/// ends the messages, as [`RequestSender::finish`] does.
///
/// ```
/// use plugmesh_sdk::{Context, Json, Target, ToolError};
/// async fn index(ctx: Context, notes: &[String]) -> Result<u64, ToolError> {
///     let (mut requests, answer) = ctx.open(Target::service("index.load"), Json("notes")).await?;
///     for note in notes {
///         requests.send(Json(note)).await?;
///     }
///     requests.finish();
///     answer.finish().await?.parse()
/// }
/// ```
pub struct RequestSender {
    id: u64,
    slot: Arc<Slot>,
    peer: Arc<dyn Peer>,
    deadline: Instant,
    part_bytes: usize,
    sequence: u64,
}

impl RequestSender {
    pub(super) fn new(
        id: u64,
        slot: Arc<Slot>,
        peer: Arc<dyn Peer>,
        deadline: Instant,
        part_bytes: usize,
        sequence: u64,
    ) -> Self {
        Self {
            id,
            slot,
            peer,
            deadline,
            part_bytes,
            sequence,
        }
    }

    /// Sends a message, waiting until the provider has room for it. A message has at most 128 KiB.
    ///
    /// # Errors
    /// The value can't be written or is too large; the call has ended, as its
    /// [`CallStream`](crate::CallStream) tells; its deadline has passed.
    ///
    /// ```
    /// use plugmesh_sdk::{CallError, RequestSender};
    /// async fn greet(requests: &mut RequestSender) -> Result<(), CallError> {
    ///     requests.send("hello").await?;
    ///     requests.send("world").await
    /// }
    /// ```
    pub async fn send(&mut self, message: impl IntoPayload) -> Result<(), CallError> {
        let payload = message.into_payload().map_err(ToolError::into_call_error)?;
        let (bytes, most) = (payload.bytes, self.part_bytes);
        if bytes.len() > most {
            let size = bytes.len();
            let text = format!(
                "a message of a stream has at most {most} bytes, this one has {size}: send it in several"
            );
            return Err(CallError::new(ErrorCode::TooLarge, text));
        }
        let credit = timeout_at(self.deadline, self.slot.send_credit.acquire()).await;
        match credit {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => {
                let text = "the call has ended: no more can be sent, its end says why";
                return Err(CallError::new(ErrorCode::Cancelled, text));
            }
            Err(_) => {
                let text =
                    "the deadline passed before the provider took the messages before this one";
                return Err(CallError::new(ErrorCode::DeadlineExceeded, text));
            }
        }
        let message = Signal::Message {
            bytes,
            sequence: self.sequence,
        };
        self.sequence += 1;
        self.peer.signal(self.id, message).await
    }

    /// Tells the provider that this is all.
    ///
    /// ```
    /// use plugmesh_sdk::{CallError, Context, Json, Payload, Target};
    /// async fn empty(ctx: Context) -> Result<Payload, CallError> {
    ///     let (requests, answer) = ctx.open(Target::service("index.load"), Json("notes")).await?;
    ///     requests.finish();
    ///     answer.finish().await
    /// }
    /// ```
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for RequestSender {
    fn drop(&mut self) {
        self.peer.end_messages(self.id, self.sequence);
    }
}

impl fmt::Debug for RequestSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSender")
            .field("id", &self.id)
            .field("sent", &self.sequence)
            .finish_non_exhaustive()
    }
}
