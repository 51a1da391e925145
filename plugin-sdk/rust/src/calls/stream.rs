//! The caller's end of a call.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::slot::Slot;
use super::{CallEvent, Peer, RequestSender, Signal};
use crate::code::ErrorCode;
use crate::error::CallError;
use crate::payload::Payload;

/// How much later than the deadline a call is given up here: the mesh's own answer, which knows
/// more, goes first.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// A call in flight. Dropping it cancels the call.
///
/// ```
/// use plugmesh_sdk::{Context, Json, Payload, Target, ToolError};
/// async fn embed(ctx: Context, text: &str) -> Result<Vec<f32>, ToolError> {
///     let call = ctx.call(Target::service("embedding.embed"), Json(text)).await?;
///     call.finish().await?.parse()
/// }
/// ```
pub struct CallStream {
    id: u64,
    slot: Arc<Slot>,
    peer: Arc<dyn Peer>,
    deadline: Instant,
    /// Parts of the payload that were sent.
    parts: u64,
    ended: bool,
}

impl CallStream {
    pub(crate) fn new(id: u64, slot: Arc<Slot>, peer: Arc<dyn Peer>, deadline: Instant) -> Self {
        Self {
            id,
            slot,
            peer,
            deadline,
            parts: 0,
            ended: false,
        }
    }

    /// Sends what of the payload did not fit the first frame, as far as credit allows.
    pub(crate) async fn send_rest(&mut self, mut rest: Bytes, part_bytes: usize) {
        while !rest.is_empty() {
            let Ok(Ok(permit)) = timeout_at(self.deadline, self.slot.send_credit.acquire()).await
            else {
                // The call has ended; its end says why.
                return;
            };
            permit.forget();
            let bytes = rest.split_to(rest.len().min(part_bytes));
            let part = Signal::Part {
                bytes,
                sequence: self.parts,
                last: rest.is_empty(),
            };
            if self.peer.signal(self.id, part).await.is_err() {
                return;
            }
            self.parts += 1;
        }
    }

    /// The sender of the messages that follow the payload.
    pub(crate) fn messages(&self, part_bytes: usize) -> RequestSender {
        let (slot, peer) = (self.slot.clone(), self.peer.clone());
        RequestSender::new(self.id, slot, peer, self.deadline, part_bytes, self.parts)
    }

    /// The next event; `None` after the end. May be dropped and called again without loss.
    ///
    /// ```
    /// use plugmesh_sdk::{CallEvent, Context, Json, Target, ToolError};
    /// async fn first(ctx: Context) -> Result<Option<CallEvent>, ToolError> {
    ///     let mut call = ctx.call(Target::service("logs.tail"), Json("app.log")).await?;
    ///     Ok(call.next().await)
    /// }
    /// ```
    pub async fn next(&mut self) -> Option<CallEvent> {
        if self.ended {
            return None;
        }
        loop {
            let due = self.slot.credit_due();
            if due > 0 {
                // When the session has ended, the call's end is on its way.
                let _ = self.peer.signal(self.id, Signal::Credit(due)).await;
                self.slot.credit_given(due);
            }
            let event = poll_fn(|cx| self.slot.poll_next(cx));
            let Ok(event) = timeout_at(self.deadline + DEADLINE_SLACK, event).await else {
                self.slot.end(Err(CallError::new(
                    ErrorCode::DeadlineExceeded,
                    "the deadline passed before an answer came",
                )));
                self.peer.abandon(self.id, true);
                continue;
            };
            let Some(event) = event else {
                continue;
            };
            if matches!(event, CallEvent::End(_)) {
                self.ended = true;
            }
            return Some(event);
        }
    }

    /// Waits for the end, past all else.
    ///
    /// # Errors
    /// The error that the call ended with.
    ///
    /// ```
    /// use plugmesh_sdk::{CallError, Context, Json, Payload, Target};
    /// async fn whole(ctx: Context) -> Result<Payload, CallError> {
    ///     ctx.call(Target::service("logs.tail"), Json("app.log")).await?.finish().await
    /// }
    /// ```
    pub async fn finish(mut self) -> Result<Payload, CallError> {
        while let Some(event) = self.next().await {
            if let CallEvent::End(end) = event {
                return end;
            }
        }
        Err(CallError::new(
            ErrorCode::Internal,
            "the call's end was taken before",
        ))
    }
}

impl fmt::Debug for CallStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStream")
            .field("id", &self.id)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Drop for CallStream {
    fn drop(&mut self) {
        // Whoever waits to send more need not.
        self.slot.send_credit.close();
        self.peer.abandon(self.id, !self.ended);
    }
}
