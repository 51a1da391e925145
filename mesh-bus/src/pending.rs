//! A call on its way, as its caller holds it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use mesh_core::error::{ErrorCode, MeshError};

use crate::event::CallEvent;
use crate::shared::Shared;
use crate::stats::add;

/// A call on its way. Dropping it before its end cancels the call.
#[derive(Debug)]
pub struct PendingCall {
    shared: Arc<Shared>,
    index: usize,
    call_id: u64,
    done: bool,
}

impl PendingCall {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, call_id: u64) -> Self {
        Self {
            shared,
            index,
            call_id,
            done: false,
        }
    }

    /// Frees the slot of a call that was never sent.
    pub(crate) fn forget(&mut self) {
        self.done = true;
        // The frame would tell the node of a call that it never saw.
        let _ = self.shared.slots().close(self.index, self.call_id);
    }

    /// Waits for the next thing that happens to the call. Safe to cancel: nothing is lost.
    /// Nothing comes after `End`: asked again, it answers with an INTERNAL error.
    pub async fn next(&mut self) -> CallEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`PendingCall::next`], for those who poll by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<CallEvent> {
        if self.done {
            return Poll::Ready(ended_before());
        }
        let mut slots = self.shared.slots();
        let limits = slots.limits;
        let Some(live) = slots.get(self.index, self.call_id) else {
            return Poll::Ready(ended_before());
        };
        let Some(event) = live.take(&limits) else {
            if !live
                .waker
                .as_ref()
                .is_some_and(|old| old.will_wake(cx.waker()))
            {
                live.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let credit = match live.take_owed() {
            0 => None,
            owed => slots.credit(self.index, self.call_id, owed),
        };
        let end = matches!(event, CallEvent::End(_));
        if end {
            slots.close(self.index, self.call_id);
        }
        let room = end && slots.looks_at_line();
        drop(slots);
        if room {
            self.shared.timer.notify_one();
        }
        self.done = end;
        if let Some(frame) = credit {
            // A closed connection: the driver ends the call.
            let _ = self.shared.send(frame);
        }
        Poll::Ready(event)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut slots = self.shared.slots();
        let cancel = slots.close(self.index, self.call_id);
        let room = slots.looks_at_line();
        drop(slots);
        if room {
            self.shared.timer.notify_one();
        }
        if let Some(frame) = cancel {
            add(&self.shared.stats.cancelled, 1);
            // A closed connection: nobody is left to be told.
            let _ = self.shared.send(frame);
        }
    }
}

fn ended_before() -> CallEvent {
    let message = "the call was asked for events after its end";
    CallEvent::End(Err(MeshError::new(ErrorCode::Internal, message)))
}
