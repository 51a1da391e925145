//! One call that the plugin works on: its handler under deadline, cancellation and panics, then the
//! answer.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use futures::future::{FutureExt, LocalBoxFuture};
use tracing::Instrument;

use crate::chunks::send_end;
use crate::code::ErrorCode;
use crate::context::{CallState, Context};
use crate::error::CallError;
use crate::handler::{Handler, Outcome};
use crate::logging;
use crate::payload::Payload;
use crate::telemetry::{Served, record_end};
use crate::wire::common;

/// The whole of a call; ends with its id.
pub(super) fn run(
    handler: &Handler,
    payload: Payload,
    context: Context,
    capability: &common::Capability,
) -> LocalBoxFuture<'static, u64> {
    let state = context.inner.clone();
    let attachment = &state.attachment;
    let span = attachment.telemetry.span(|| {
        let (manifest, welcome) = (&attachment.definition.manifest, &attachment.welcome);
        let caller = state.call.caller.as_ref();
        Served {
            plugin: &manifest.name,
            version: &manifest.version,
            instance: &welcome.instance,
            node: &welcome.node,
            caller: caller.map_or("", |caller| &caller.plugin),
            capability,
            parent: state.parent(),
        }
    });
    // The handler's own first step may panic, too.
    let work = catch_unwind(AssertUnwindSafe(|| handler(payload, context)));
    let Some(span) = span else {
        return Box::pin(async move {
            let outcome = supervise(&state, work).await;
            deliver(&state, outcome).await
        });
    };
    Box::pin(async move {
        let outcome = supervise(&state, work).instrument(span.clone()).await;
        record_end(&span, outcome.as_ref().err().map(|error| error.code.name()));
        drop(span);
        deliver(&state, outcome).await
    })
}

async fn deliver(state: &CallState, outcome: Outcome) -> u64 {
    // An error means that the session has ended, and with it the call.
    let mut answer = std::pin::pin!(send_end(state, outcome));
    // Nearly always there is room: without a timer then.
    if futures::poll!(&mut answer).is_ready() {
        return state.id;
    }
    let late = tokio::time::timeout_at(state.deadline + std::time::Duration::from_secs(1), answer);
    if late.await.is_err() {
        tracing::warn!(
            call = state.id,
            "the caller did not take the answer before its deadline"
        );
    }
    state.id
}

/// Runs the handler to its end, or to the call's.
async fn supervise(
    state: &std::sync::Arc<CallState>,
    work: Result<LocalBoxFuture<'static, Outcome>, Box<dyn Any + Send>>,
) -> Outcome {
    let mut work = match work {
        Ok(work) => AssertUnwindSafe(work).catch_unwind(),
        Err(panic) => return Err(panicked(&*panic)),
    };
    // Made only when the handler has to wait: a timer costs more than a fast handler.
    let mut deadline = None;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = logging::within(state, || work.poll_unpin(cx)) {
            return Poll::Ready(ended.unwrap_or_else(|panic| Err(panicked(&*panic))));
        }
        state.cancel.waker.register(cx.waker());
        if state.cancel.is_requested() && !state.cancel.is_watched() {
            let text = "the caller cancelled the call";
            return Poll::Ready(Err(CallError::new(ErrorCode::Cancelled, text)));
        }
        let deadline =
            deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(state.deadline)));
        deadline.poll_unpin(cx).map(|()| {
            let text = "the handler did not end before the call's deadline";
            Err(CallError::new(ErrorCode::DeadlineExceeded, text))
        })
    })
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> CallError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given");
    CallError::new(
        ErrorCode::PluginFailed,
        format!("the handler panicked: {text}"),
    )
}
