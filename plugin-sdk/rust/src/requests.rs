//! The provider's end of a streaming request.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::code::ErrorCode;
use crate::context::Context;
use crate::error::{CallError, ToolError};
use crate::wire::{PluginBody, common, frame};

/// The messages that a caller sends after the payload of its call, no faster than they are taken.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// use plugmesh_sdk::testing::TestHost;
/// use plugmesh_sdk::{Json, Plugin, RequestStream, Target};
///
/// let plugin = Plugin::new("text", "1.0.0").client_streaming_service(
///     "text.join",
///     async |Json(separator): Json<String>, mut requests: RequestStream, _| {
///         let mut words = Vec::new();
///         while let Some(word) = requests.next().await? {
///             words.push(String::from_utf8(word.to_vec())?);
///         }
///         Ok(Json(words.join(&separator)))
///     },
/// );
/// let host = TestHost::start(plugin).await?;
/// let (mut requests, answer) = host.open(Target::service("text.join"), Json("+")).await?;
/// requests.send("one").await?;
/// requests.send("two").await?;
/// requests.finish();
/// assert_eq!(answer.finish().await?.bytes, "\"one+two\"");
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct RequestStream {
    context: Context,
}

impl RequestStream {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// The next message; `None` once the caller has sent all. May be dropped and called again without
    /// loss. A caller that sends no stream at all has sent all.
    ///
    /// # Errors
    /// The call was cancelled, or a message was lost: what came before is not all.
    ///
    /// ```
    /// use plugmesh_sdk::{RequestStream, ToolError};
    /// async fn count(mut requests: RequestStream) -> Result<usize, ToolError> {
    ///     let mut bytes = 0;
    ///     while let Some(message) = requests.next().await? {
    ///         bytes += message.len();
    ///     }
    ///     Ok(bytes)
    /// }
    /// ```
    pub async fn next(&mut self) -> Result<Option<Bytes>, ToolError> {
        let state = &*self.context.inner;
        let requests = &state.requests;
        let window = state.attachment.welcome.terms.credit;
        loop {
            if state.cancel.is_requested() {
                let text = "the caller cancelled the call";
                return Err(ToolError::with_code(ErrorCode::Cancelled, text));
            }
            // Before the message is taken: it must not be lost when this future is dropped.
            let due = requests.due(window);
            if due > 0 {
                let credit = PluginBody::Credit(common::Credit::of(due));
                state.attachment.send(frame(state.id, credit)).await?;
                requests.given(due);
            }
            if let Some(taken) = requests.take() {
                return taken;
            }
            requests.came.notified().await;
        }
    }
}

/// What has come of a streaming request and was not taken yet.
pub(crate) struct Requests {
    inner: Mutex<Inner>,
    /// Something came, or the call was cancelled.
    pub came: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Bytes>,
    /// The place that the next message must have.
    sequence: u64,
    /// Chunks that were taken, for which no credit was given yet.
    owed: u32,
    ended: bool,
    fault: Option<Box<CallError>>,
}

impl Requests {
    /// No messages follow.
    pub(crate) fn none() -> Self {
        Self::of(Inner {
            ended: true,
            ..Inner::default()
        })
    }

    /// Messages follow, after so many parts of the payload, of which so many were given no credit for.
    pub(crate) fn after(parts: u64, owed: u32) -> Self {
        Self::of(Inner {
            sequence: parts,
            owed,
            ..Inner::default()
        })
    }

    fn of(inner: Inner) -> Self {
        Self {
            inner: Mutex::new(inner),
            came: Notify::new(),
        }
    }

    /// Takes a chunk of a call that runs.
    pub(crate) fn push(&self, chunk: common::Chunk, window: u32) {
        let mut inner = self.lock();
        if inner.ended || inner.fault.is_some() {
            return;
        }
        let fault = if chunk.sequence != inner.sequence {
            Some(format!(
                "message {} of the request was lost: {} came in its place",
                inner.sequence, chunk.sequence
            ))
        } else if !chunk.last && inner.waiting.len() >= window as usize {
            Some(format!(
                "more messages came than the credit of {window} allows"
            ))
        } else {
            None
        };
        inner.sequence += 1;
        match fault {
            Some(text) => {
                let fault = CallError::new(ErrorCode::OutcomeUnknown, text);
                inner.fault = Some(Box::new(fault));
            }
            None if chunk.last => inner.ended = true,
            None => inner.waiting.push_back(chunk.payload),
        }
        drop(inner);
        self.came.notify_one();
    }

    /// What is there to take: a message, the end, or why no more can come.
    fn take(&self) -> Option<Result<Option<Bytes>, ToolError>> {
        let mut inner = self.lock();
        if let Some(message) = inner.waiting.pop_front() {
            inner.owed += 1;
            return Some(Ok(Some(message)));
        }
        if let Some(fault) = &inner.fault {
            return Some(Err(ToolError::with_code(fault.code, fault.message.clone())));
        }
        inner.ended.then_some(Ok(None))
    }

    /// The credit to give once half of the window was taken; 0 when it is not time yet.
    fn due(&self, window: u32) -> u32 {
        let inner = self.lock();
        if inner.ended || inner.owed < window.div_ceil(2) {
            return 0;
        }
        inner.owed
    }

    fn given(&self, chunks: u32) {
        let mut inner = self.lock();
        inner.owed = inner.owed.saturating_sub(chunks);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
