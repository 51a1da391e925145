//! How a call begins, at either end of a session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{CallStream, Peer, Request, Signal, Slot};
use crate::code::ErrorCode;
use crate::error::CallError;
use crate::payload::Payload;

/// What the session allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Chunks that may be sent before the first credit.
    pub credit: u32,
    /// Largest payload of a call in bytes, all parts together.
    pub max_payload: u64,
    /// Largest part of a payload in one frame, in bytes.
    pub part_bytes: usize,
}

/// Sends a call. `deadline` is the latest that it may have.
pub(crate) async fn begin<P: Peer + 'static>(
    peer: &Arc<P>,
    terms: Terms,
    request: Request,
    payload: Payload,
    deadline: Instant,
) -> Result<CallStream, CallError> {
    let Request { mut call, timeout } = request;
    let (size, most) = (payload.bytes.len(), terms.max_payload);
    if size as u64 > most {
        let text = format!(
            "the payload has {size} bytes, {most} is the most: send less at a time, or raise the mesh's \
             router.max_payload"
        );
        return Err(CallError::new(ErrorCode::TooLarge, text));
    }
    let now = Instant::now();
    let asked = timeout.and_then(|timeout| now.checked_add(timeout));
    let deadline = asked.map_or(deadline, |asked| asked.min(deadline));
    let left = deadline.saturating_duration_since(now);
    if left.is_zero() {
        let text = "no time is left for the call: give the calling handler a later deadline";
        return Err(CallError::new(ErrorCode::Expired, text));
    }
    call.time_left_us = micros(left);
    call.content_type = payload.content_type;
    let mut rest = payload.bytes;
    call.payload = rest.split_to(rest.len().min(terms.part_bytes));
    call.more = !rest.is_empty();

    let slot = Arc::new(Slot::new(terms.credit, most));
    let id = peer.table().open(slot.clone()).ok_or_else(session_ended)?;
    // From here on, dropping the stream takes the slot out of the table.
    let mut stream = CallStream::new(id, slot, peer.clone(), deadline);
    peer.signal(id, Signal::Begin(call.into())).await?;
    if !rest.is_empty() {
        stream.send_rest(rest, terms.part_bytes).await;
    }
    Ok(stream)
}

pub(crate) fn session_ended() -> CallError {
    CallError::new(
        ErrorCode::Disconnected,
        "the plugin is not attached to an agent at the moment",
    )
}

/// Microseconds, at least one: none would mean the receiver's default.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .max(1)
}
