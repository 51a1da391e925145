//! Calls whose answers the bus does not take for now: their frames wait here, those of others go on.
//!
//! Frames are held as they came and decided on later, so that a call that waits here is running like any
//! other: its deadline, its caller's cancel and its caller's questions find it.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_proto::attach::Inbound;
use mesh_proto::plugin::{PluginFrame, plugin_frame::Body};
use tokio::time::Instant;

use crate::session::ids::IdMap;
use crate::session::limits::MAX_FRAME_BYTES;

/// Past so many bytes nothing more is read from the plugin.
const MAX_HELD_BYTES: usize = 8 * 1024 * 1024;

/// What a frame costs beside its payload, in bytes, roughly.
const FRAME_BYTES: usize = 256;

/// So often it is looked whether calls that wait have ended.
const LOOK: Duration = Duration::from_millis(100);

/// A plugin is not listened to for so long at most; then the call that holds most is given up.
const LONGEST_FULL: Duration = Duration::from_secs(2);

/// One call that waits.
#[derive(Debug)]
pub(super) struct Held<B> {
    /// What the bus did not take.
    pub(super) blocked: B,
    /// What came after it.
    pub(super) frames: VecDeque<Inbound<PluginFrame>>,
    bytes: usize,
}

/// All calls of one plugin that wait.
#[derive(Debug)]
pub(super) struct Stalled<B> {
    calls: IdMap<Held<B>>,
    /// Those that wait longest are first.
    order: VecDeque<u64>,
    bytes: usize,
    look_at: Option<Instant>,
    full_since: Option<Instant>,
}

impl<B> Default for Stalled<B> {
    fn default() -> Self {
        Self {
            calls: IdMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            look_at: None,
            full_since: None,
        }
    }
}

impl<B> Stalled<B> {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing more may be read from the plugin.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_HELD_BYTES
    }

    /// When to look at the calls that wait, whatever the bus says.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at
    }

    /// A call waits from now on.
    pub(super) fn block(&mut self, id: u64, blocked: B, bytes: usize, now: Instant) {
        self.put(
            id,
            Held {
                blocked,
                frames: VecDeque::new(),
                bytes: FRAME_BYTES + bytes,
            },
            now,
        );
    }

    /// Holds a frame of a call that waits; gives back any other.
    pub(super) fn hold(
        &mut self,
        inbound: Inbound<PluginFrame>,
        now: Instant,
    ) -> Option<Inbound<PluginFrame>> {
        let Some(held) = self.calls.get_mut(&id_of(&inbound)) else {
            return Some(inbound);
        };
        let bytes = bytes_of(&inbound);
        held.bytes += bytes;
        held.frames.push_back(inbound);
        self.bytes += bytes;
        self.note_full(now);
        None
    }

    /// Takes out the calls that wait, those that wait longest first.
    pub(super) fn take_all(&mut self, now: Instant) -> Vec<(u64, Held<B>)> {
        self.look_at = Some(now + LOOK);
        let order = std::mem::take(&mut self.order);
        let calls = order
            .into_iter()
            .filter_map(|id| Some((id, self.calls.remove(&id)?)))
            .collect();
        self.bytes = 0;
        calls
    }

    /// Puts back one that waits on. Nothing of it may have come in between.
    pub(super) fn put(&mut self, id: u64, held: Held<B>, now: Instant) {
        self.bytes += held.bytes;
        if self.calls.insert(id, held).is_none() {
            self.order.push_back(id);
        }
        self.look_at.get_or_insert(now + LOOK);
        self.note_full(now);
    }

    /// All that could go on is gone; `moved`: there was something. Gives the call that must be given up,
    /// because nothing moved for too long while the plugin was not listened to.
    pub(super) fn settle(&mut self, moved: bool, now: Instant) -> Option<u64> {
        let given_up = self.longest_full(moved, now);
        if self.is_empty() {
            self.look_at = None;
        }
        given_up
    }

    fn longest_full(&mut self, moved: bool, now: Instant) -> Option<u64> {
        if moved || !self.is_full() {
            self.full_since = None;
            return None;
        }
        let since = *self.full_since.get_or_insert(now);
        if now < since + LONGEST_FULL {
            return None;
        }
        let most = self.calls.iter().max_by_key(|(_, held)| held.bytes);
        let id = most.map(|(id, _)| *id)?;
        self.forget(id);
        Some(id)
    }

    fn forget(&mut self, id: u64) {
        if let Some(held) = self.calls.remove(&id) {
            self.bytes = self.bytes.saturating_sub(held.bytes);
        }
        self.order.retain(|waiting| *waiting != id);
        if !self.is_full() {
            self.full_since = None;
        }
    }

    fn note_full(&mut self, now: Instant) {
        if self.is_full() {
            self.full_since.get_or_insert(now);
        }
    }
}

fn id_of(inbound: &Inbound<PluginFrame>) -> u64 {
    match inbound {
        Inbound::Frame(frame) => frame.id,
        Inbound::Malformed { id, .. } | Inbound::Oversize { id, .. } => *id,
    }
}

fn bytes_of(inbound: &Inbound<PluginFrame>) -> usize {
    let large = match inbound {
        Inbound::Malformed { .. } | Inbound::Oversize { .. } => 0,
        Inbound::Frame(frame) => match &frame.body {
            Some(Body::Chunk(chunk)) => chunk.payload.len(),
            Some(Body::Result(result)) => result.payload.len() + result.content_type.len(),
            None | Some(Body::Credit(_)) => 0,
            Some(Body::Progress(progress)) => progress.message.len(),
            Some(_) => MAX_FRAME_BYTES,
        },
    };
    FRAME_BYTES + large
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_proto::common;

    fn chunk(id: u64, sequence: u64, bytes: usize) -> Inbound<PluginFrame> {
        Inbound::Frame(PluginFrame {
            id,
            body: Some(Body::Chunk(common::Chunk {
                payload: vec![1; bytes].into(),
                sequence,
                ..common::Chunk::default()
            })),
        })
    }

    #[test]
    fn frames_of_a_call_that_waits_are_held_in_order_and_those_of_others_go_on() {
        let now = Instant::now();
        let mut stalled = Stalled::default();
        assert!(stalled.is_empty());
        stalled.block(2, "first", 9, now);
        assert!(stalled.hold(chunk(2, 1, 9), now).is_none());
        assert!(stalled.hold(chunk(4, 0, 9), now).is_some());
        assert!(stalled.hold(chunk(2, 2, 9), now).is_none());
        assert_eq!(stalled.due(), Some(now + LOOK));
        let mut all = stalled.take_all(now);
        assert!(stalled.is_empty());
        let (id, held) = all.pop().unwrap();
        assert_eq!((id, held.blocked, held.frames.len()), (2, "first", 2));
        assert_eq!(stalled.settle(true, now), None);
        assert_eq!(stalled.due(), None);
    }

    #[test]
    fn a_plugin_that_fills_the_room_is_not_listened_to_for_two_seconds_at_most() {
        let mut now = Instant::now();
        let mut stalled = Stalled::default();
        stalled.block(2, (), 9, now);
        stalled.block(4, (), 9, now);
        stalled.hold(chunk(4, 1, 10), now);
        let mut sequence = 1;
        while !stalled.is_full() {
            stalled.hold(chunk(2, sequence, 200_000), now);
            sequence += 1;
        }
        assert!(sequence < 64, "{sequence}");
        assert_eq!(stalled.settle(false, now), None);
        now += LONGEST_FULL;
        // The bus is slow but takes what it can.
        assert_eq!(stalled.settle(true, now), None);
        for _ in 0..20 {
            now += LOOK;
            for (id, held) in stalled.take_all(now) {
                stalled.put(id, held, now);
            }
            assert_eq!(stalled.settle(false, now), None);
        }
        now += LOOK;
        // The one that holds most goes; the other waits on.
        assert_eq!(stalled.settle(false, now), Some(2));
        assert!(!stalled.is_full() && stalled.calls.contains_key(&4));
        assert_eq!(stalled.settle(false, now), None);
    }

    #[test]
    fn nothing_is_due_once_the_only_call_that_waited_was_given_up() {
        let mut now = Instant::now();
        let mut stalled = Stalled::default();
        stalled.block(2, (), MAX_HELD_BYTES, now);
        assert_eq!(stalled.settle(false, now), None);
        now += LONGEST_FULL;
        for (id, held) in stalled.take_all(now) {
            stalled.put(id, held, now);
        }
        assert_eq!(stalled.settle(false, now), Some(2));
        assert!(stalled.is_empty());
        assert_eq!(stalled.due(), None);
    }
}
