//! The broker itself: who listens to what, and how messages get there.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::Instant;

use super::Inbox;
use super::wire::{Command, Wire};
use crate::connect::LinkEvents;

/// The longest time until a client that lost its connection tries again, as `connect` has it.
const RECONNECT_MICROS: u64 = 250_000;

#[derive(Debug)]
pub(super) struct State {
    rng: fastrand::Rng,
    up: bool,
    delay: (u64, u64),
    wires: BTreeMap<u64, Wire>,
    /// The last number that was given to a connection or a subscription.
    last: u64,
    started: Instant,
    passed: u64,
    digest: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            up: true,
            delay: (0, 0),
            wires: BTreeMap::new(),
            last: 0,
            started: Instant::now(),
            passed: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub(super) fn set_delay(&mut self, delay: RangeInclusive<Duration>) {
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.delay = (micros(delay.start()), micros(delay.end()));
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn wire(&mut self, id: u64) -> Option<&mut Wire> {
        self.wires.get_mut(&id).filter(|wire| !wire.leaving)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn connect(&mut self, events: Arc<LinkEvents>, now: Instant) -> u64 {
        let id = self.number();
        self.wires.insert(id, Wire::new(events, now));
        id
    }

    pub(super) fn is_connected(&self, id: u64) -> bool {
        self.wires.get(&id).is_some_and(|wire| wire.connected)
    }

    pub(super) fn taken(&self, id: u64) -> u64 {
        self.wires.get(&id).map_or(0, |wire| wire.taken)
    }

    pub(super) fn subscribe(&mut self, id: u64, subject: Subject, inbox: Arc<Inbox>) -> u64 {
        let sid = self.number();
        match self.wire(id) {
            Some(wire) => {
                if wire.connected {
                    wire.queue
                        .push_back(Command::Subscribe(sid, subject.clone()));
                }
                wire.inboxes.insert(sid, (subject, inbox));
            }
            None => inbox.close(),
        }
        sid
    }

    pub(super) fn unsubscribe(&mut self, id: u64, sid: u64) {
        if let Some(wire) = self.wire(id) {
            wire.inboxes.remove(&sid);
            if wire.connected {
                wire.queue.push_back(Command::Unsubscribe(sid));
            }
        }
    }

    /// The client closes its connection once its queue is empty.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(wire) = self.wire(id) {
            wire.leaving = true;
        }
    }

    /// The client is gone at once.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(mut wire) = self.wires.remove(&id) {
            wire.disconnect(self.started);
            for (_, inbox) in wire.inboxes.values() {
                inbox.close();
            }
            for waker in wire.wakers.drain(..) {
                waker.wake();
            }
        }
    }

    pub(super) fn hold(&mut self, id: u64, out: bool, back: bool) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.out.held = out;
            wire.back.held = back;
        }
    }

    pub(super) fn cut(&mut self, id: u64, now: Instant, away: Duration) {
        let wait = Duration::from_micros(self.rng.u64(0..=RECONNECT_MICROS));
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.disconnect(now + away.max(wait));
        }
    }

    pub(super) fn deafen(&mut self, id: u64) {
        if let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.connected) {
            wire.deaf = true;
            wire.forget();
        }
    }

    pub(super) fn stop(&mut self, now: Instant) {
        self.up = false;
        for wire in self.wires.values_mut() {
            wire.disconnect(now);
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.up = true;
        for wire in self.wires.values_mut() {
            let wait = Duration::from_micros(self.rng.u64(0..=RECONNECT_MICROS));
            wire.back_at = wire.back_at.max(now + wait);
        }
    }

    /// Does all that is due, and says when something is due again.
    pub(super) fn step(&mut self, now: Instant) -> Option<Instant> {
        let ids: Vec<u64> = self.wires.keys().copied().collect();
        for id in &ids {
            self.take_out(*id, now);
        }
        for id in &ids {
            while let Some(command) = self.wires.get_mut(id).and_then(|wire| wire.arrived(now)) {
                self.carry_out(*id, command, now);
            }
            // There may be room in the socket again.
            self.take_out(*id, now);
        }
        for wire in self.wires.values_mut() {
            wire.deliver(now);
        }
        self.wires
            .retain(|_, wire| !(wire.leaving && (wire.queue.is_empty() || !wire.connected)));
        let up = self.up;
        let due = |wire: &Wire| {
            let back = (up && !wire.connected).then_some(wire.back_at);
            [back, wire.out.due(), wire.back.due()]
                .into_iter()
                .flatten()
                .min()
        };
        self.wires.values().filter_map(due).min()
    }

    fn take_out(&mut self, id: u64, now: Instant) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        if self.up && !wire.connected && wire.back_at <= now && !wire.leaving {
            wire.connect(now);
        }
        let (rng, (from, to)) = (&mut self.rng, self.delay);
        wire.take_out(now, || Duration::from_micros(rng.u64(from..=to)));
    }

    fn carry_out(&mut self, id: u64, command: Command, now: Instant) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        match command {
            Command::Subscribe(sid, subject) => {
                wire.landed.insert(sid, subject);
            }
            Command::Unsubscribe(sid) => {
                wire.landed.remove(&sid);
            }
            Command::Publish(message) => self.publish(id, &message, now),
        }
    }

    fn publish(&mut self, id: u64, message: &OutboundMessage, now: Instant) {
        let bytes = message.payload.len();
        self.note(&message.subject, bytes, now);
        let mut heard = false;
        for wire in self.wires.values_mut().filter(|wire| wire.connected) {
            for (sid, subject) in &wire.landed {
                if !matches(subject, &message.subject) {
                    continue;
                }
                heard = true;
                let wait = Duration::from_micros(self.rng.u64(self.delay.0..=self.delay.1));
                let copy = Message {
                    subject: message.subject.clone(),
                    reply: message.reply.clone(),
                    payload: message.payload.clone(),
                    headers: None,
                    status: None,
                    description: None,
                    length: bytes,
                };
                wire.back.put(now + wait, (*sid, copy));
            }
        }
        if let Some(reply) = message.reply.as_ref().filter(|_| !heard) {
            self.no_responders(id, reply, now);
        }
    }

    /// Tells a client that nobody listens.
    fn no_responders(&mut self, id: u64, reply: &Subject, now: Instant) {
        self.note(reply, 0, now);
        let wait = Duration::from_micros(self.rng.u64(self.delay.0..=self.delay.1));
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let mut listening = wire.landed.iter();
        if let Some((sid, _)) = listening.find(|(_, subject)| matches(subject, reply)) {
            let answer = Message {
                subject: reply.clone(),
                reply: None,
                payload: Bytes::new(),
                headers: None,
                status: Some(StatusCode::NO_RESPONDERS),
                description: None,
                length: 0,
            };
            wire.back.put(now + wait, (*sid, answer));
        }
    }

    /// Counts a message into the digest (FNV-1a).
    fn note(&mut self, subject: &Subject, bytes: usize, now: Instant) {
        self.passed += 1;
        let at = now.saturating_duration_since(self.started).as_micros();
        tracing::trace!(%subject, bytes, "passed on");
        let numbers = [bytes as u64, u64::try_from(at).unwrap_or(u64::MAX)].map(u64::to_le_bytes);
        let all = subject.as_bytes().iter().chain(numbers.iter().flatten());
        self.digest = all.fold(self.digest, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
}

/// Whether a subject fits a subscription: `*` stands for one token, `>` for all that follow.
fn matches(subscription: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in subscription.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
