//! One connection as client and broker see it: the library's queue, and what is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Message, Subject};
use tokio::time::Instant;

use super::Inbox;
use crate::connect::LinkEvents;

/// Bytes on their way to the broker, past which the library takes nothing more out of its queue: what
/// the system's socket takes.
const SOCKET_BYTES: usize = 256 << 10;

/// What a client has for the broker.
#[derive(Debug)]
pub(super) enum Command {
    Publish(OutboundMessage),
    Subscribe(u64, Subject),
    Unsubscribe(u64),
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish(message) => message.payload.len(),
            Self::Subscribe(..) | Self::Unsubscribe(_) => 0,
        }
    }
}

/// What goes one way, in order.
#[derive(Debug)]
pub(super) struct Lane<T> {
    items: VecDeque<(Instant, T)>,
    /// Nothing comes out for now.
    pub(super) held: bool,
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self {
            items: VecDeque::new(),
            held: false,
        }
    }

    /// Puts something in that comes out at `due`, or behind what comes out later.
    pub(super) fn put(&mut self, due: Instant, item: T) {
        let due = self.items.back().map_or(due, |(last, _)| due.max(*last));
        self.items.push_back((due, item));
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        if self.held || self.items.front()?.0 > now {
            return None;
        }
        self.items.pop_front().map(|(_, item)| item)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let (due, _) = self.items.front().filter(|_| !self.held)?;
        Some(*due)
    }

    fn clear(&mut self) {
        self.items.clear();
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    events: Arc<LinkEvents>,
    pub(super) connected: bool,
    /// When the client comes through again, if the broker is there.
    pub(super) back_at: Instant,
    /// The client is gone; what it had sent is still passed on.
    pub(super) leaving: bool,
    /// The broker has forgotten the connection, and the client does not know.
    pub(super) deaf: bool,
    /// The library's queue.
    pub(super) queue: VecDeque<Command>,
    /// Those who wait for room in it, or until it is empty.
    pub(super) wakers: Vec<Waker>,
    /// Messages taken out of it.
    pub(super) taken: u64,
    /// What the client listens to.
    pub(super) inboxes: BTreeMap<u64, (Subject, Arc<Inbox>)>,
    /// What the broker knows of that.
    pub(super) landed: BTreeMap<u64, Subject>,
    pub(super) out: Lane<Command>,
    out_bytes: usize,
    pub(super) back: Lane<(u64, Message)>,
}

impl Wire {
    pub(super) fn new(events: Arc<LinkEvents>, back_at: Instant) -> Self {
        Self {
            events,
            connected: false,
            back_at,
            leaving: false,
            deaf: false,
            queue: VecDeque::new(),
            wakers: Vec::new(),
            taken: 0,
            inboxes: BTreeMap::new(),
            landed: BTreeMap::new(),
            out: Lane::new(),
            out_bytes: 0,
            back: Lane::new(),
        }
    }

    /// The connection stands: subscriptions go first, as the library does it.
    pub(super) fn connect(&mut self, now: Instant) {
        self.connected = true;
        self.deaf = false;
        let again: Vec<_> = (self.inboxes.iter())
            .map(|(sid, (subject, _))| Command::Subscribe(*sid, subject.clone()))
            .collect();
        for command in again {
            self.out.put(now, command);
        }
        self.events.connects.fetch_add(1, Ordering::Relaxed);
        self.events.tell();
    }

    /// The connection is gone, with what was on its way.
    pub(super) fn disconnect(&mut self, back_at: Instant) {
        self.back_at = self.back_at.max(back_at);
        self.forget();
        if std::mem::take(&mut self.connected) {
            self.events.disconnects.fetch_add(1, Ordering::Relaxed);
            self.events.tell();
        }
    }

    /// The broker forgets the connection.
    pub(super) fn forget(&mut self) {
        self.landed.clear();
        self.out.clear();
        self.out_bytes = 0;
        self.back.clear();
    }

    /// The library takes commands out of its queue, as far as the socket takes them.
    pub(super) fn take_out(&mut self, now: Instant, mut delay: impl FnMut() -> Duration) {
        if !self.connected {
            return;
        }
        while self.out_bytes < SOCKET_BYTES
            && let Some(command) = self.queue.pop_front()
        {
            self.taken += u64::from(matches!(command, Command::Publish(_)));
            if self.deaf {
                continue;
            }
            self.out_bytes += command.bytes();
            self.out.put(now + delay(), command);
        }
        if !self.wakers.is_empty() {
            for waker in self.wakers.drain(..) {
                waker.wake();
            }
        }
    }

    /// What has come to the broker.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Command> {
        let command = self.out.take(now)?;
        self.out_bytes -= command.bytes();
        Some(command)
    }

    /// Hands the client what has come for it.
    pub(super) fn deliver(&mut self, now: Instant) {
        while let Some((sid, message)) = self.back.take(now) {
            let Some((_, inbox)) = self.inboxes.get(&sid) else {
                continue;
            };
            if !inbox.push(message) {
                self.events.dropped.fetch_add(1, Ordering::Relaxed);
                self.events.tell();
            }
        }
    }
}
