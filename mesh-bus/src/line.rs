//! Calls that wait with credit for their answers' parts until fewer are put together.
//!
//! There may be no room because answers are only half there, so one goes on all the same: for a while, as
//! one that trickles would keep all others waiting.

use std::collections::VecDeque;

/// How long one goes on without room before it is the next one's turn, in microseconds.
pub(crate) const TURN_US: u64 = 1_000_000;

/// A call: its slot and its id.
type Call = (usize, u64);

/// The line. Times are the slots' microseconds.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: VecDeque<Call>,
    /// The one that goes on without room, and until when.
    favoured: Option<(Call, u64)>,
    /// There may be room now.
    look: bool,
}

impl Line {
    pub fn join(&mut self, call: Call) {
        self.waiting.push_back(call);
    }

    pub fn first(&self) -> Option<Call> {
        self.waiting.front().copied()
    }

    pub fn leave_first(&mut self) {
        self.waiting.pop_front();
    }

    /// The call that goes on without room at `now`.
    pub fn favoured(&self, now: u64) -> Option<Call> {
        let (call, until) = self.favoured?;
        (now < until).then_some(call)
    }

    pub fn favour(&mut self, call: Call, now: u64) {
        self.favoured = Some((call, now + TURN_US));
    }

    /// A call is gone, whose answer may have taken room.
    pub fn gone(&mut self) {
        self.look = true;
    }

    /// It is being looked at.
    pub fn looked(&mut self) {
        self.look = false;
    }

    /// When it is to be looked at; `u64::MAX`: never.
    pub fn due(&self) -> u64 {
        match self.favoured {
            _ if self.waiting.is_empty() => u64::MAX,
            Some((_, until)) if !self.look => until,
            _ => 0,
        }
    }
}
