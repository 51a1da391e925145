//! Deadlines: one task that sleeps until the earliest.
//!
//! The earliest deadline is a lower bound: a call that ends leaves it as it is, and it is set right
//! when it is reached. So beginning and ending a call cost no more than a comparison.

use std::time::Duration;

use mesh_core::error::ErrorCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::begin::cancel_frame;
use super::plane::Plane;
use crate::session::refusal::wire_error;

/// Deadlines within this time are swept together.
const GRAIN: Duration = Duration::from_millis(10);

/// Ends calls whose time is over until `stop` is cancelled.
pub(crate) async fn sweep(plane: Plane, stop: CancellationToken) {
    loop {
        let next = plane.lock().calls.next_deadline;
        let wait = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = wait => plane.sweep(Instant::now()),
            () = plane.shared.earlier_deadline.notified() => continue,
        }
        // Not more often than this, however many deadlines there are.
        tokio::time::sleep(GRAIN).await;
    }
}

impl Plane {
    /// Ends all calls whose time is over, and finds the next deadline.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut next = None;
        let mut over = Vec::new();
        for (key, session) in state.sessions.all_mut() {
            for (id, call) in session.machine.running() {
                if call.deadline <= now {
                    over.push((key, id));
                } else if next.is_none_or(|next| call.deadline < next) {
                    next = Some(call.deadline);
                }
            }
        }
        state.calls.next_deadline = next;
        for (key, id) in over {
            let Some(session) = state.sessions.get(key) else {
                continue;
            };
            let Some(call) = session.machine.give_up(id) else {
                continue;
            };
            let (code, text) = if !session.out.take_back(id) {
                let why = "the call's time is over";
                session.out.push(cancel_frame(id, why));
                let text = "the call's time was over before the plugin answered";
                (ErrorCode::DeadlineExceeded, text)
            } else {
                let text = "the call's time was over before the plugin took it from its stream";
                (ErrorCode::Expired, text)
            };
            let end = Err(wire_error(code, text, session.machine.place()));
            self.ended(&mut state.calls, session, call, end, now);
        }
    }
}
