//! The multiplexer: all calls in flight over one inbox subscription.
//!
//! A call has a slot, and a slot has a reply subject. After a normal end the next call takes the slot
//! with its subject, which keeps the broker's cache of subjects warm. After an abandoned call the
//! slot gets a new subject, so that what is late hits nothing. (The library's own `request` leaks
//! memory on each time-out, and is slower.) Deadlines are kept here too: a scan over one array of
//! numbers, when the earliest of them is due, instead of a timer for each call.

use std::collections::VecDeque;
use std::task::Waker;

use async_nats::{Message, StatusCode, Subject};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::MeshName;
use mesh_core::subject;
use mesh_proto::control::NodeReply;
use prost::Message as _;

use crate::config::BusLimits;
use crate::event::CallOutput;
use crate::gather::Gathered;
use crate::line::Line;
use crate::outbox::Frame;
use crate::peers::{Peers, Verdict};
use crate::slot::{Ask, Live, Step, Target};
use crate::upload::Upload;
use crate::wire;

/// Slots in the low bits of a token, how often it was renewed in the high ones.
const INDEX_BITS: u32 = 20;

/// What a step of the slots wants done once they are unlocked: waking under the lock could run code
/// that locks them again.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub wake: Vec<Waker>,
    pub send: Vec<Frame>,
    /// A payload can be sent on.
    pub upload: bool,
    pub timeouts: u64,
    pub unknown: u64,
    pub no_responders: u64,
    pub late: u64,
    pub malformed: u64,
    pub notices_dropped: u64,
}

#[derive(Debug)]
struct Slot {
    token: u64,
    reply: Subject,
    live: Option<Live>,
}

/// All calls in flight.
#[derive(Debug)]
pub(crate) struct Slots {
    mesh: MeshName,
    owner: u64,
    pub limits: BusLimits,
    slots: Vec<Slot>,
    /// When something is due in the slot of the same index; `u64::MAX`: never.
    due: Vec<u64>,
    /// No later than the earliest of `due`.
    next_due: u64,
    free: Vec<usize>,
    last_id: u64,
    /// Where the calls go.
    pub peers: Peers,
    /// Calls whose payload has more to send; they take turns.
    uploads: VecDeque<(usize, u64)>,
    /// Bytes of answers that are being put together.
    gathered: Gathered,
    /// Calls that wait with credit for their answers' parts until there are fewer.
    line: Line,
    /// The driver has stopped: nothing would ever end a call.
    pub closed: bool,
}

/// A call that was given a slot.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub index: usize,
    pub call_id: u64,
    pub reply: Subject,
    pub subject: Subject,
    /// Something is due earlier than all else: the driver's timer is to be set again.
    pub earliest: bool,
}

impl Slots {
    pub fn new(mesh: MeshName, owner: u64, limits: BusLimits) -> Self {
        Self {
            peers: Peers::new(mesh.clone()),
            mesh,
            owner,
            limits,
            slots: Vec::new(),
            due: Vec::new(),
            next_due: u64::MAX,
            free: Vec::new(),
            last_id: 0,
            uploads: VecDeque::new(),
            gathered: Gathered::default(),
            line: Line::default(),
            closed: false,
        }
    }

    /// Calls that hold a slot.
    pub fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn next_due(&self) -> u64 {
        self.next_due
            .min(self.peers.next_look())
            .min(self.line.due())
    }

    /// Whether the driver is to look at the line at once: a call that ended may have made room.
    pub fn looks_at_line(&self) -> bool {
        self.line.due() == 0
    }

    /// Gives a call a slot; `None` when there are too many.
    pub fn open(&mut self, target: Target, now: u64, deadline: u64) -> Option<Ticket> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        self.last_id += 1;
        let call_id = self.last_id;
        let before = self.next_due();
        let peer = self.peers.begin(&target.node, target.generation, now);
        let node = peer.1.clone();
        let slot = self.slots.get_mut(index)?;
        let gathered = self.gathered.clone();
        let live = Live::new(call_id, target, peer, now, deadline, &self.limits, gathered);
        let next = live.due();
        slot.live = Some(live);
        let reply = slot.reply.clone();
        if let Some(due) = self.due.get_mut(index) {
            *due = next;
        }
        self.next_due = self.next_due.min(next);
        Some(Ticket {
            index,
            call_id,
            reply,
            subject: node,
            earliest: self.next_due() < before,
        })
    }

    /// The rest of a payload whose beginning was sent.
    pub fn upload(&mut self, index: usize, call_id: u64, upload: Upload) {
        if let Some(live) = self.get(index, call_id).filter(|live| !live.has_ended()) {
            live.begin_upload(upload);
            self.has_message(index, call_id);
        }
    }

    /// A call that waited for messages has one.
    pub fn has_message(&mut self, index: usize, call_id: u64) {
        if self.get(index, call_id).is_some_and(Live::takes_turn) {
            self.uploads.push_back((index, call_id));
        }
    }

    fn grow(&mut self) -> Option<usize> {
        let index = self.slots.len();
        if index >= self.limits.max_calls || index >> INDEX_BITS > 0 {
            return None;
        }
        let token = index as u64;
        self.slots.push(Slot {
            token,
            reply: self.reply_subject(token),
            live: None,
        });
        self.due.push(u64::MAX);
        Some(index)
    }

    fn reply_subject(&self, token: u64) -> Subject {
        subject::inbox_slot(&self.mesh, self.owner, token)
            .as_str()
            .into()
    }

    /// The call in a slot, if it is still that one.
    pub fn get(&mut self, index: usize, call_id: u64) -> Option<&mut Live> {
        let live = self.slots.get_mut(index)?.live.as_mut()?;
        (live.call_id == call_id).then_some(live)
    }

    /// The time that a call has left, if it has not ended.
    pub fn time_left(&mut self, index: usize, call_id: u64, now: u64) -> Option<u64> {
        let live = self.get(index, call_id).filter(|live| !live.has_ended())?;
        live.deadline.checked_sub(now).filter(|left| *left > 0)
    }

    /// The frame that gives a call's node credit for so many more chunks.
    pub fn credit(&mut self, index: usize, call_id: u64, chunks: u32) -> Option<Frame> {
        let reply = self.slots.get(index)?.reply.clone();
        let live = self.get(index, call_id)?;
        Some(wire::credit(live, index, reply, chunks))
    }

    /// Frees the slot of a call. Returns the frame that tells the node, if the call had not ended.
    pub fn close(&mut self, index: usize, call_id: u64) -> Option<Frame> {
        let slot = self.slots.get_mut(index)?;
        let live = slot.live.take_if(|live| live.call_id == call_id)?;
        self.peers.end(live.peer);
        self.line.gone();
        let cancel = (!live.has_ended())
            .then(|| wire::cancel(&live, slot.reply.clone(), "the caller gave the call up"));
        if live.leaves_echoes() {
            self.renew(index);
        }
        if let Some(due) = self.due.get_mut(index) {
            *due = u64::MAX;
        }
        self.free.push(index);
        cancel
    }

    /// Changes a slot's subject: what is still on its way to the old one hits nothing.
    fn renew(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let token = slot.token.wrapping_add(1 << INDEX_BITS);
        let reply = self.reply_subject(token);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.token = token;
            slot.reply = reply;
        }
    }

    /// Takes a message of the inbox.
    pub fn on_message(&mut self, message: Message, now: u64, effects: &mut Effects) {
        let Some(token) = subject::parse_inbox_slot(&message.subject) else {
            effects.malformed += 1;
            return;
        };
        let index = (token & ((1 << INDEX_BITS) - 1)) as usize;
        let missed = message.status == Some(StatusCode::NO_RESPONDERS);
        let limits = self.limits;
        let live = self
            .slots
            .get_mut(index)
            .filter(|slot| slot.token == token)
            .and_then(|slot| slot.live.as_mut());
        let Some(live) = live else {
            effects.late += u64::from(!missed);
            return;
        };
        let peer = live.peer;
        let step = if missed {
            self.peers.missed(peer, now);
            let step = live.on_no_responders(now);
            effects.no_responders += u64::from(step == Step::Ended);
            effects.unknown += u64::from(step == Step::Lost);
            step
        } else {
            match NodeReply::decode(message.payload) {
                Ok(reply) if reply.call_id == live.call_id => {
                    if wire::is_echo(&reply) {
                        self.peers.echoed(peer, now);
                    } else {
                        self.peers.heard(peer, now);
                    }
                    live.thrifty = self.gathered.bytes() >= limits.max_gathered
                        && self.line.favoured(now) != Some((index, live.call_id));
                    live.on_reply(reply, now, &limits)
                }
                Ok(_) => {
                    effects.late += 1;
                    return;
                }
                Err(_) => {
                    effects.malformed += 1;
                    return;
                }
            }
        };
        self.after(index, step, effects);
        self.next_in_line(now, effects);
    }

    /// Lets calls go on that waited with credit, as far as there is room for what they get.
    fn next_in_line(&mut self, now: u64, effects: &mut Effects) {
        let limits = self.limits;
        let mut room = limits.max_gathered.saturating_sub(self.gathered.bytes());
        self.line.looked();
        while let Some((index, call_id)) = self.line.first() {
            let runs = |live: &&mut Live| !live.has_ended();
            let favoured = self.line.favoured(now);
            let goes_on =
                favoured.is_some_and(|(index, id)| self.get(index, id).filter(runs).is_some());
            if room == 0 && goes_on {
                return;
            }
            self.line.leave_first();
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let live = slot.live.as_mut().filter(|live| live.call_id == call_id);
            let Some(live) = live.filter(runs) else {
                continue;
            };
            if room == 0 {
                self.line.favour((index, call_id), now);
            }
            let chunks = live.leaves_line(&limits) as usize;
            room = room.saturating_sub(chunks.saturating_mul(limits.chunk_bytes));
            let owed = live.take_owed();
            if owed > 0 {
                let send = &mut effects.send;
                send.push(wire::credit(live, index, slot.reply.clone(), owed));
            }
        }
    }

    /// Carries out what a step of one call asks for.
    fn after(&mut self, index: usize, step: Step, effects: &mut Effects) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(live) = slot.live.as_mut() else {
            return;
        };
        match step {
            Step::On | Step::Ended | Step::Lost => {}
            Step::Upload => {
                effects.upload = true;
                if live.takes_turn() {
                    self.uploads.push_back((index, live.call_id));
                }
            }
            Step::Dropped => {
                effects.notices_dropped += 1;
                return;
            }
            Step::Abandoned => {
                effects.unknown += 1;
                let frame = wire::cancel(live, slot.reply.clone(), "the answer is of no use");
                effects.send.push(frame);
            }
        }
        if live.joins_line() {
            self.line.join((index, live.call_id));
        }
        let owed = live.take_owed();
        if owed > 0 {
            effects
                .send
                .push(wire::credit(live, index, slot.reply.clone(), owed));
        }
        effects.wake.extend(live.waker.take());
        if let Some(due) = self.due.get_mut(index) {
            *due = live.due();
            self.next_due = self.next_due.min(*due);
        }
        if step == Step::Abandoned {
            self.renew(index);
        }
    }

    /// Ends a call on this side while its node may still work on it.
    pub fn abandon(
        &mut self,
        index: usize,
        result: Result<CallOutput, MeshError>,
        why: &'static str,
        effects: &mut Effects,
    ) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(live) = slot.live.as_mut().filter(|live| !live.has_ended()) else {
            return;
        };
        live.finish(result);
        effects
            .send
            .push(wire::cancel(live, slot.reply.clone(), why));
        effects.wake.extend(live.waker.take());
        if let Some(due) = self.due.get_mut(index) {
            *due = u64::MAX;
        }
        self.renew(index);
    }

    /// Does what is due at `now`: ends calls, asks after calls if there is a connection.
    pub fn sweep(&mut self, now: u64, up: bool, effects: &mut Effects) {
        self.sweep_peers(now, up, effects);
        let ripe: Vec<usize> = (self.due.iter().enumerate())
            .filter(|(_, due)| **due <= now)
            .map(|(index, _)| index)
            .collect();
        for index in ripe {
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let Some(live) = slot.live.as_mut() else {
                continue;
            };
            if live.deadline <= now {
                effects.timeouts += 1;
                let message = "no result came before the deadline; allow the call more time, or \
                               see what the plugin is busy with";
                let error = live.error(ErrorCode::DeadlineExceeded, message);
                self.abandon(index, Err(error), "the deadline has passed", effects);
            } else if live.is_lost(now) {
                effects.unknown += 1;
                let message = "the connection to the node was lost while the call was in flight, \
                               and the node gave no sign of it afterwards";
                let error = live.error(ErrorCode::OutcomeUnknown, message);
                self.abandon(index, Err(error), "the connection was lost", effects);
            } else if up && live.is_silent(now) {
                effects.unknown += 1;
                let message = format!(
                    "the node {} is silent: it answered none of the last questions after the call; \
                     is its agent running, and reachable?",
                    live.target.node
                );
                let error = live.error(ErrorCode::OutcomeUnknown, message);
                self.abandon(index, Err(error), "the node is silent", effects);
            } else {
                let ask = if up {
                    live.asks(now)
                } else {
                    live.asks_later(now);
                    Ask::Nobody
                };
                let send = &mut effects.send;
                if ask != Ask::Nobody {
                    send.push(wire::credit(live, index, slot.reply.clone(), 0));
                }
                if ask == Ask::NodeAndSelf {
                    send.push(wire::echo(live, index, slot.reply.clone()));
                }
                if let Some(due) = self.due.get_mut(index) {
                    *due = live.due();
                }
            }
        }
        self.next_due = self.due.iter().copied().min().unwrap_or(u64::MAX);
        // Some may have been given up.
        self.next_in_line(now, effects);
    }

    /// Asks nodes that give no sign of life for one, and ends the calls to those that are lost.
    fn sweep_peers(&mut self, now: u64, up: bool, effects: &mut Effects) {
        let mut found = Vec::new();
        self.peers.look(now, up, |peer, node, verdict| {
            found.push((peer, node.clone(), verdict));
        });
        for (peer, node, verdict) in found {
            let lost = match verdict {
                Verdict::Ask => {
                    self.ask_peer(peer, effects);
                    continue;
                }
                Verdict::Silent => format!(
                    "the node {node} is silent: neither it nor its beacons gave a sign of life; is \
                     its agent running, and reachable?"
                ),
                Verdict::Gone => format!(
                    "the node {node} has gone: nobody listens there any more; has its agent stopped?"
                ),
            };
            self.end_matching(&lost, "the node is lost", |live| live.peer == peer, effects);
        }
    }

    /// Asks a node after one of its calls; it need not be a particular one.
    fn ask_peer(&mut self, peer: usize, effects: &mut Effects) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let of_peer = |live: &&mut Live| live.peer == peer && !live.has_ended();
            if let Some(live) = slot.live.as_mut().filter(of_peer) {
                live.asked_for_node();
                let send = &mut effects.send;
                send.push(wire::credit(live, index, slot.reply.clone(), 0));
                send.push(wire::echo(live, index, slot.reply.clone()));
                return;
            }
        }
    }

    /// Ends all calls to matching places with OUTCOME_UNKNOWN.
    pub fn end_where(
        &mut self,
        message: &str,
        mut gone: impl FnMut(&Target) -> bool,
        effects: &mut Effects,
    ) {
        let why = "its instance is gone";
        self.end_matching(message, why, |live| gone(&live.target), effects);
    }

    fn end_matching(
        &mut self,
        message: &str,
        why: &'static str,
        mut matches: impl FnMut(&Live) -> bool,
        effects: &mut Effects,
    ) {
        for index in 0..self.slots.len() {
            let Some(live) = self.slots.get(index).and_then(|slot| slot.live.as_ref()) else {
                continue;
            };
            if live.has_ended() || !matches(live) {
                continue;
            }
            effects.unknown += 1;
            let error = live.error(ErrorCode::OutcomeUnknown, message);
            self.abandon(index, Err(error), why, effects);
        }
    }

    /// Ends a call whose first frame never left this process.
    pub fn end_unsent(&mut self, index: usize, call_id: u64, effects: &mut Effects) {
        let Some(live) = self.get(index, call_id).filter(|live| !live.has_ended()) else {
            return;
        };
        let message = "the connection to NATS was lost before the call was sent";
        live.finish(Err(live.error(ErrorCode::Disconnected, message)));
        effects.wake.extend(live.waker.take());
        if let Some(due) = self.due.get_mut(index) {
            *due = u64::MAX;
        }
    }

    /// Frames of any call may have been lost: each has a second to show a sign of life.
    pub fn verify_all(&mut self, now: u64) {
        self.peers.reconnected(now);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(live) = slot.live.as_mut().filter(|live| !live.has_ended()) else {
                continue;
            };
            live.verify(now);
            if let Some(due) = self.due.get_mut(index) {
                *due = live.due();
                self.next_due = self.next_due.min(*due);
            }
        }
    }

    /// Whether a payload may have more to send.
    pub fn uploads(&self) -> bool {
        !self.uploads.is_empty()
    }

    /// The next part of a payload, or message, that its node has credit for.
    pub fn next_upload(&mut self) -> Option<Frame> {
        while let Some((index, call_id)) = self.uploads.pop_front() {
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let live = slot.live.as_mut().filter(|live| live.call_id == call_id);
            let Some(live) = live else { continue };
            let Some((chunk, again)) = live.next_part() else {
                continue;
            };
            let frame = wire::chunk(live, index, slot.reply.clone(), chunk);
            if again && live.takes_turn() {
                self.uploads.push_back((index, call_id));
            }
            return Some(frame);
        }
        None
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests;
