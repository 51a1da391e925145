//! The provider's end of a streaming answer.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::code::ErrorCode;
use crate::context::{CallState, Context};
use crate::error::{CallError, ToolError};
use crate::handler::Outcome;
use crate::payload::{IntoPayload, Payload};
use crate::wire::{PluginBody, common, frame};

/// Sends the messages of a streaming answer, no faster than the caller takes them.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// use plugmesh_sdk::testing::TestHost;
/// use plugmesh_sdk::{CallEvent, ChunkSender, Json, Plugin, Target};
///
/// let plugin = Plugin::new("demo", "1.0.0").streaming_service(
///     "demo.count",
///     async |Json(to): Json<u32>, mut chunks: ChunkSender, _| {
///         for number in 0..to {
///             chunks.send(Json(number)).await?;
///         }
///         Ok(())
///     },
/// );
/// let host = TestHost::start(plugin).await?;
/// let mut call = host.call(Target::service("demo.count"), Json(3)).await?;
/// assert_eq!(call.next().await, Some(CallEvent::Chunk("0".into())));
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct ChunkSender {
    context: Context,
}

impl ChunkSender {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Sends a message, waiting until the caller has room for it. A message has at most 128 KiB.
    ///
    /// # Errors
    /// The value can't be written or is too large; the call has ended or was cancelled.
    ///
    /// ```
    /// use plugmesh_sdk::{ChunkSender, ToolError};
    /// async fn greet(mut chunks: ChunkSender) -> Result<(), ToolError> {
    ///     chunks.send("hello").await?;
    ///     chunks.send("world").await
    /// }
    /// ```
    pub async fn send(&mut self, message: impl IntoPayload) -> Result<(), ToolError> {
        let bytes = message.into_payload()?.bytes;
        let state = &*self.context.inner;
        let most = state.attachment.welcome.terms.part_bytes;
        if bytes.len() > most {
            let size = bytes.len();
            return Err(ToolError::new(format!(
                "a message of a stream has at most {most} bytes, this one has {size}: send it in \
                 several"
            )));
        }
        send_chunk(state, bytes, false).await?;
        Ok(())
    }
}

/// Sends a chunk of the answer as soon as there is credit.
async fn send_chunk(state: &CallState, payload: Bytes, fragment: bool) -> Result<(), CallError> {
    // Closed when the call is cancelled.
    let credit = state.credit.acquire().await;
    let ended = state.ended.load(Ordering::Acquire) || state.cancel.is_requested();
    match credit {
        Ok(permit) if !ended => permit.forget(),
        _ => {
            return Err(CallError::new(
                ErrorCode::Cancelled,
                "the call has ended: no more can be sent",
            ));
        }
    }
    let chunk = common::Chunk {
        payload,
        last: false,
        sequence: state.sequence.fetch_add(1, Ordering::Relaxed),
        fragment,
    };
    let chunk = frame(state.id, PluginBody::Chunk(chunk));
    state.attachment.send(chunk).await
}

/// Sends a large answer but for its last part.
async fn send_parts(state: &CallState, mut payload: Payload) -> Outcome {
    let most = state.attachment.welcome.terms.part_bytes;
    while payload.bytes.len() > most {
        send_chunk(state, payload.bytes.split_to(most), true).await?;
    }
    Ok(payload)
}

/// Sends the answer, in parts if it is large. An error here means that nobody waits for it any more.
pub(crate) async fn send_end(state: &CallState, outcome: Outcome) -> Result<(), CallError> {
    let most = state.attachment.welcome.terms.max_payload;
    let outcome = outcome.and_then(|payload| {
        let size = payload.bytes.len();
        if size as u64 <= most {
            return Ok(payload);
        }
        let text = format!("the result has {size} bytes, {most} is the most: give less at a time, or raise the mesh's \
             router.max_payload");
        Err(CallError::new(ErrorCode::PluginFailed, text))
    });
    let outcome = match outcome {
        Ok(payload) => send_parts(state, payload).await,
        error => error,
    };
    let body = match outcome {
        Ok(Payload {
            bytes,
            content_type,
            failed,
        }) => PluginBody::Result(common::Result {
            payload: bytes,
            content_type,
            failed,
        }),
        Err(error) => PluginBody::Error(error.into()),
    };
    state.ended.store(true, Ordering::Release);
    state.attachment.send(frame(state.id, body)).await
}
