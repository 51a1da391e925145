//! What goes out: one order for all frames, no waiting for whoever sends.
//!
//! The client library takes frames into a bounded queue of its own and makes the sender wait when it
//! is full. Neither a caller nor an agent's dispatch loop may wait, so a frame that finds the queue
//! full waits here, and all later frames queue up behind it; the driver carries them over. This queue
//! is bounded by what goes into it: progress and log lines are left out as soon as it is more than
//! short, callers and chunks are turned away when it is congested, as are calls to a node, and of what is always taken a call
//! has at most one end, one cancel and one waiting credit, to which later ones are added.
//!
//! The library's queue is kept short on purpose: what is in it when the connection breaks is sent
//! after the reconnect, however late that is. What waits here can still be taken back. And bulk (parts
//! of large payloads and answers) is held back while much is in that queue, so that a small call never
//! has more than a few milliseconds of bulk before it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::message::OutboundMessage;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::link::{Link, Refused};
use crate::wire;

/// Frames that may be in the library's queue.
pub(crate) const LIBRARY_QUEUE: usize = 512;

/// Bulk is held back from so many bytes in the library's queue on.
const BULK_BYTES: usize = 2 << 20;

/// How often those who hold back bulk look again: the library does not tell when it has sent.
const LOOK: Duration = Duration::from_millis(1);

/// The outbox is congested from so many waiting frames or bytes on.
const CONGESTED_FRAMES: usize = 4_096;
const CONGESTED_BYTES: usize = 32 << 20;

/// Progress and log lines are left out from so many waiting frames or bytes on: far below congestion,
/// so that no flood of them gets the calls of others refused.
const CROWDED_FRAMES: usize = 256;
const CROWDED_BYTES: usize = 1 << 20;

/// A frame on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub subject: Subject,
    pub reply: Option<Subject>,
    pub payload: Bytes,
    /// The call that sends this frame, if the frame is worth nothing after a disconnect.
    pub sender: Option<Sender>,
    /// The frame gives credit for a call's payload; while it waits, more may be added to it.
    pub credit: Option<Credit>,
}

/// Credit for a call's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    pub call_id: u64,
    /// 0 says only that the node knows the call.
    pub chunks: u32,
}

impl Frame {
    /// A message of nobody's call.
    pub fn to(subject: &Subject, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.clone(),
            reply: None,
            payload: payload.into(),
            sender: None,
            credit: None,
        }
    }
}

/// The call that sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Its slot.
    pub index: usize,
    /// Its id.
    pub call_id: u64,
    /// The frame begins the call: while it is here, nobody can have worked on the call.
    pub begins: bool,
}

#[derive(Debug)]
struct Queue {
    /// Of its own, for frames that need not wait.
    link: Link,
    waiting: VecDeque<Frame>,
    bytes: usize,
    /// Frames that were ever taken from the front of `waiting`: the place of a frame is this plus its
    /// index.
    passed: u64,
    /// The places of the credits that wait, by reply subject and call.
    credits: BTreeMap<(Subject, u64), u64>,
    /// What the driver is putting into the library's queue; later frames must not overtake it. It stays
    /// here until it is there, for the driver may be stopped while it waits.
    sending: Option<Frame>,
    library: Library,
}

/// What is in the library's queue, by its own count of the messages that it has taken out.
#[derive(Debug, Default)]
struct Library {
    sizes: VecDeque<usize>,
    bytes: usize,
    taken: u64,
}

impl Library {
    fn put(&mut self, size: usize) {
        self.sizes.push_back(size);
        self.bytes += size;
    }

    fn settle(&mut self, taken: u64) {
        while self.taken < taken
            && let Some(size) = self.sizes.pop_front()
        {
            self.taken += 1;
            self.bytes -= size;
        }
    }
}

impl Queue {
    fn new(link: Link) -> Self {
        Self {
            link,
            waiting: VecDeque::new(),
            bytes: 0,
            passed: 0,
            credits: BTreeMap::new(),
            sending: None,
            library: Library::default(),
        }
    }

    fn push(&mut self, frame: Frame) {
        self.bytes += frame.payload.len();
        if let Some(credit) = frame.credit {
            let place = self.passed + self.waiting.len() as u64;
            let key = (frame.subject.clone(), credit.call_id);
            self.credits.insert(key, place);
        }
        self.waiting.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.waiting.pop_front()?;
        self.bytes -= frame.payload.len();
        if let Some(credit) = frame.credit {
            let key = (frame.subject.clone(), credit.call_id);
            if self.credits.get(&key) == Some(&self.passed) {
                self.credits.remove(&key);
            }
        }
        self.passed += 1;
        Some(frame)
    }

    /// Adds to a credit of the call that waits; false when none does.
    fn add_credit(&mut self, to: &Subject, credit: Credit) -> bool {
        if self.credits.is_empty() {
            return false;
        }
        let place = self.credits.get(&(to.clone(), credit.call_id));
        let index = place.and_then(|place| usize::try_from(place - self.passed).ok());
        let Some(frame) = index.and_then(|index| self.waiting.get_mut(index)) else {
            return false;
        };
        let before = frame.credit.map_or(0, |waiting| waiting.chunks);
        let chunks = before.saturating_add(credit.chunks);
        if chunks != before {
            self.bytes -= frame.payload.len();
            frame.credit = Some(Credit { chunks, ..credit });
            frame.payload = wire::credit_reply(credit.call_id, chunks);
            self.bytes += frame.payload.len();
        }
        true
    }

    /// Drops waiting frames; those of credits are never dropped.
    fn retain(&mut self, keep: impl FnMut(&Frame) -> bool) {
        self.waiting.retain(keep);
        self.bytes = self.waiting.iter().map(|frame| frame.payload.len()).sum();
        self.credits.clear();
        for (place, frame) in (self.passed..).zip(&self.waiting) {
            if let Some(credit) = frame.credit {
                let key = (frame.subject.clone(), credit.call_id);
                self.credits.insert(key, place);
            }
        }
    }

    fn crowded(&self) -> bool {
        self.waiting.len() >= CROWDED_FRAMES || self.bytes >= CROWDED_BYTES
    }

    fn congested(&self) -> bool {
        self.waiting.len() >= CONGESTED_FRAMES || self.bytes >= CONGESTED_BYTES
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    link: Link,
    queue: Mutex<Queue>,
    /// There is something for the driver to carry over.
    pub work: Notify,
}

impl Outbox {
    pub fn new(link: Link) -> Self {
        Self {
            queue: Mutex::new(Queue::new(link.clone())),
            link,
            work: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame behind all others. `Ok(true)`: it has to wait.
    pub fn send(&self, mut frame: Frame) -> Result<bool, Refused> {
        let mut queue = self.queue();
        if queue.sending.is_none() && queue.waiting.is_empty() {
            let size = frame.payload.len();
            let message = OutboundMessage {
                subject: frame.subject,
                reply: frame.reply,
                payload: frame.payload,
                headers: None,
            };
            let Some(message) = queue.link.try_publish(message)? else {
                queue.library.put(size);
                if queue.library.sizes.len() > 2 * LIBRARY_QUEUE {
                    self.settle(&mut queue);
                }
                return Ok(false);
            };
            frame = Frame {
                subject: message.subject,
                reply: message.reply,
                payload: message.payload,
                ..frame
            };
        }
        queue.push(frame);
        drop(queue);
        self.work.notify_one();
        Ok(true)
    }

    /// Sends credit for a call's payload: added to what waits for the same call, if something does.
    /// `Ok(true)`: one frame more has to wait.
    pub fn send_credit(&self, to: &Subject, credit: Credit) -> Result<bool, Refused> {
        if self.queue().add_credit(to, credit) {
            return Ok(false);
        }
        self.send(Frame {
            subject: to.clone(),
            reply: None,
            payload: wire::credit_reply(credit.call_id, credit.chunks),
            sender: None,
            credit: Some(credit),
        })
    }

    /// Lets a frame wait for the next [`Outbox::carry`], which then waits for the library.
    pub fn send_later(&self, frame: Frame) {
        self.queue().push(frame);
    }

    fn settle(&self, queue: &mut Queue) {
        queue.library.settle(self.link.taken());
    }

    /// Whether progress and log lines are to be left out.
    pub fn crowded(&self) -> bool {
        self.queue().crowded()
    }

    /// Whether calls are to be turned away.
    pub fn congested(&self) -> bool {
        self.queue().congested()
    }

    /// Whether bulk is to be held back.
    pub fn full_of_bulk(&self) -> bool {
        let mut queue = self.queue();
        self.settle(&mut queue);
        queue.library.bytes >= BULK_BYTES || queue.bytes >= BULK_BYTES || queue.congested()
    }

    /// Waits until bulk need not be held back.
    pub async fn room(&self) {
        while self.full_of_bulk() {
            sleep(LOOK).await;
        }
    }

    /// Carries all waiting frames over to the library. For the driver only.
    ///
    /// A call that waited has less time than when it was sent: `time_left` says how much in microseconds,
    /// or that nobody waits for it any more.
    pub async fn carry(&self, time_left: impl Fn(Sender) -> Option<u64>) {
        while let Some(mut frame) = self.take() {
            if let Some(sender) = frame.sender.filter(|sender| sender.begins) {
                let Some(left) = time_left(sender) else {
                    self.queue().sending = None;
                    continue;
                };
                frame.payload = wire::with_time_left(&frame.payload, sender.call_id, left);
            }
            let size = frame.payload.len();
            let message = OutboundMessage {
                subject: frame.subject,
                reply: frame.reply,
                payload: frame.payload,
                headers: None,
            };
            let sent = self.link.publish(message).await;
            let mut queue = self.queue();
            queue.sending = None;
            match sent {
                Ok(()) => queue.library.put(size),
                // The size was checked by begin_call; what remains is a closed connection, whose
                // calls the driver ends.
                Err(error) => tracing::warn!(%error, "a frame could not be sent"),
            }
        }
    }

    /// The next frame; again the last one if whoever took it was stopped before it was sent.
    fn take(&self) -> Option<Frame> {
        let mut queue = self.queue();
        if queue.sending.is_none() {
            queue.sending = queue.pop();
        }
        queue.sending.clone()
    }

    /// Takes back the waiting frames of calls: they would arrive after a disconnect, too late.
    /// Returns whose they were.
    pub fn take_back(&self) -> Vec<Sender> {
        let mut queue = self.queue();
        let mut senders = Vec::new();
        queue.retain(|frame| match frame.sender {
            Some(sender) => {
                senders.push(sender);
                false
            }
            None => true,
        });
        senders
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
