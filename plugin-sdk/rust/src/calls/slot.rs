//! One call in flight: what has come and was not taken yet.
//!
//! The session's reader puts in, the caller takes out. Chunks are bounded by credit, progress and log
//! lines by a number above which they are dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::CallEvent;
use crate::code::ErrorCode;
use crate::error::CallError;
use crate::payload::Payload;
use crate::wire::common;

/// Progress and log lines that wait for a slow caller; more are dropped.
const MAX_WAITING_LINES: usize = 256;

pub(crate) struct Slot {
    state: Mutex<State>,
    /// Parts of the payload that may be sent.
    pub(crate) send_credit: Semaphore,
    window: u32,
    max_payload: u64,
}

#[derive(Default)]
struct State {
    events: VecDeque<CallEvent>,
    parts: Vec<Bytes>,
    part_bytes: u64,
    /// The sequence number that the next chunk must have.
    sequence: u64,
    /// Chunks that wait to be taken.
    chunks: u32,
    /// Chunks that were taken, for which no credit was given yet.
    owed: u32,
    lines: usize,
    ended: bool,
    waker: Option<Waker>,
}

impl Slot {
    pub(crate) fn new(window: u32, max_payload: u64) -> Self {
        let window = window.max(1);
        Self {
            state: Mutex::default(),
            send_credit: Semaphore::new(window as usize),
            window,
            max_payload,
        }
    }

    /// Takes a chunk. An error is what the peer did wrong; the call has then ended with it.
    ///
    /// The callee has worked on the call by then, so no error may say that it did not: a caller that
    /// tries again must know that it may be done twice.
    pub(crate) fn chunk(&self, chunk: common::Chunk) -> Result<(), CallError> {
        let mut state = self.lock();
        if state.ended {
            return Ok(());
        }
        let outcome = if chunk.sequence != state.sequence {
            let expected = state.sequence;
            let given = chunk.sequence;
            Err(CallError::new(
                ErrorCode::OutcomeUnknown,
                format!(
                    "a part of the answer was lost: chunk {given} came where chunk {expected} was due"
                ),
            ))
        } else if chunk.fragment {
            state.part_bytes += chunk.payload.len() as u64;
            if state.part_bytes > self.max_payload {
                let most = self.max_payload;
                Err(CallError::new(
                    ErrorCode::PluginFailed,
                    format!("the answer is larger than the {most} bytes that a payload may have"),
                ))
            } else {
                state.parts.push(chunk.payload);
                state.owed += 1;
                Ok(())
            }
        } else if state.chunks >= self.window.saturating_mul(2) {
            // Twice, as credit may be on its way; it is memory that must be bounded.
            let window = self.window;
            Err(CallError::new(
                ErrorCode::OutcomeUnknown,
                format!("more chunks came than the credit of {window} allows"),
            ))
        } else {
            state.chunks += 1;
            state.events.push_back(CallEvent::Chunk(chunk.payload));
            Ok(())
        };
        state.sequence += 1;
        match outcome {
            Ok(()) => wake(state),
            Err(error) => {
                drop(state);
                self.end(Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the last part of the answer.
    pub(crate) fn result(&self, result: common::Result) {
        let parts = std::mem::take(&mut self.lock().parts);
        let bytes = if parts.is_empty() {
            result.payload
        } else {
            let mut whole = Vec::with_capacity(
                parts.iter().map(Bytes::len).sum::<usize>() + result.payload.len(),
            );
            for part in &parts {
                whole.extend_from_slice(part);
            }
            whole.extend_from_slice(&result.payload);
            whole.into()
        };
        self.end(Ok(Payload::new(bytes, result.content_type)));
    }

    /// Takes progress or a log line; dropped when too many wait.
    pub(crate) fn line(&self, event: CallEvent) {
        let mut state = self.lock();
        if !state.ended && state.lines < MAX_WAITING_LINES {
            state.lines += 1;
            state.events.push_back(event);
            wake(state);
        }
    }

    /// Ends the call, unless it has ended.
    pub(crate) fn end(&self, end: Result<Payload, CallError>) {
        let mut state = self.lock();
        if !state.ended {
            state.ended = true;
            state.events.push_back(CallEvent::End(end));
            wake(state);
        }
        // Whoever waits to send more of the payload need not.
        self.send_credit.close();
    }

    /// The peer takes so many more parts of the payload.
    pub(crate) fn credit(&self, chunks: u32) {
        add_credit(&self.send_credit, chunks);
    }

    /// The next event, or `None` when there is none but credit is due.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<CallEvent>> {
        let mut state = self.lock();
        let Some(event) = state.events.pop_front() else {
            if self.due(&state) > 0 {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match &event {
            CallEvent::Chunk(_) => {
                state.chunks -= 1;
                state.owed += 1;
            }
            CallEvent::Progress(_) | CallEvent::Log(_) => state.lines -= 1,
            CallEvent::End(_) => {}
        }
        Poll::Ready(Some(event))
    }

    /// The credit to give once half of the window was used; 0 when it is not time yet.
    pub(crate) fn credit_due(&self) -> u32 {
        self.due(&self.lock())
    }

    fn due(&self, state: &State) -> u32 {
        if state.ended || state.owed < self.window.div_ceil(2) {
            return 0;
        }
        state.owed
    }

    /// Notes that credit was given.
    pub(crate) fn credit_given(&self, chunks: u32) {
        let mut state = self.lock();
        state.owed = state.owed.saturating_sub(chunks);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds permits, within what a semaphore can hold.
pub(crate) fn add_credit(semaphore: &Semaphore, chunks: u32) {
    let room = (u32::MAX as usize).saturating_sub(semaphore.available_permits());
    semaphore.add_permits(room.min(chunks as usize));
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    //! What goes in and what comes out.

    use super::*;
    use futures::FutureExt;
    use futures::future::poll_fn;

    fn chunk(sequence: u64, fragment: bool) -> common::Chunk {
        common::Chunk {
            payload: Bytes::from_static(b"ab"),
            sequence,
            fragment,
            last: false,
        }
    }

    fn next(slot: &Slot) -> Option<CallEvent> {
        poll_fn(|cx| slot.poll_next(cx)).now_or_never().flatten()
    }

    fn end_code(slot: &Slot) -> Option<ErrorCode> {
        loop {
            match next(slot)? {
                CallEvent::End(end) => return end.err().map(|error| error.code),
                _ => continue,
            }
        }
    }

    #[test]
    fn fragments_are_joined_before_the_end() {
        let slot = Slot::new(2, 100);
        for sequence in 0..5 {
            assert_eq!(slot.chunk(chunk(sequence, true)), Ok(()));
        }
        assert_eq!(next(&slot), None);
        slot.result(common::Result {
            payload: Bytes::from_static(b"c"),
            content_type: String::new(),
            failed: false,
        });
        let whole = Payload::new("ababababab".to_owned() + "c", "");
        assert_eq!(next(&slot), Some(CallEvent::End(Ok(whole))));
    }

    #[test]
    fn a_gap_a_flood_and_a_flood_of_fragments_end_the_call_as_one_that_was_processed() {
        let gap = Slot::new(2, 100);
        assert!(gap.chunk(chunk(1, false)).is_err());
        assert_eq!(end_code(&gap), Some(ErrorCode::OutcomeUnknown));

        let flood = Slot::new(2, 100);
        for sequence in 0..5 {
            let _ = flood.chunk(chunk(sequence, false));
        }
        assert_eq!(end_code(&flood), Some(ErrorCode::OutcomeUnknown));

        let large = Slot::new(2, 5);
        for sequence in 0..3 {
            let _ = large.chunk(chunk(sequence, true));
        }
        assert_eq!(end_code(&large), Some(ErrorCode::PluginFailed));
    }

    #[test]
    fn credit_is_due_when_half_of_the_window_was_taken() {
        let slot = Slot::new(4, 100);
        assert_eq!(slot.chunk(chunk(0, false)), Ok(()));
        assert_eq!(slot.chunk(chunk(1, false)), Ok(()));
        assert_eq!(slot.credit_due(), 0);
        let _ = next(&slot);
        assert_eq!(slot.credit_due(), 0);
        let _ = next(&slot);
        assert_eq!(slot.credit_due(), 2);
        slot.credit_given(2);
        assert_eq!(slot.credit_due(), 0);
    }

    #[test]
    fn a_call_ends_once_and_lines_never_crowd_out_the_end() {
        let slot = Slot::new(4, 100);
        let line = Progress::from(common::Progress::default());
        for _ in 0..1_000 {
            slot.line(CallEvent::Progress(line.clone()));
        }
        slot.end(Err(CallError::new(ErrorCode::Cancelled, "first")));
        slot.end(Err(CallError::new(ErrorCode::Internal, "second")));
        assert_eq!(end_code(&slot), Some(ErrorCode::Cancelled));
        assert_eq!(next(&slot), None);
    }

    use super::super::Progress;
}
