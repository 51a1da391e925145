//! What goes out: one order for all frames, no waiting for whoever sends.
//!
//! The client library takes frames into a bounded queue of its own and makes the sender wait when it
//! is full. Neither a caller nor an agent's dispatch loop may wait, so a frame that finds the queue
//! full waits here, and all later frames queue up behind it; the driver carries them over. This queue
//! is bounded by those who use it: callers and chunks are turned away when it is congested, and of
//! what is always taken (ends of calls, credits, cancels) there is no more than there are calls.
//!
//! The library's queue is kept short on purpose: what is in it when the connection breaks is sent
//! after the reconnect, however late that is. What waits here can still be taken back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::client::traits::Publisher;
use async_nats::message::OutboundMessage;
use async_nats::{Client, PublishErrorKind, Subject};
use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::Notify;

/// Frames that may be in the library's queue.
pub(crate) const LIBRARY_QUEUE: usize = 512;

/// The outbox is congested from so many waiting frames or bytes on.
const CONGESTED_FRAMES: usize = 4_096;
const CONGESTED_BYTES: usize = 32 << 20;

/// Why a frame can't be sent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The broker takes no frames of this size.
    TooLarge,
    /// The connection is closed for good.
    Closed,
}

/// A frame on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub subject: Subject,
    pub reply: Option<Subject>,
    pub payload: Bytes,
    /// The call that sends this frame, if the frame is worth nothing after a disconnect.
    pub sender: Option<Sender>,
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

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Frame>,
    bytes: usize,
    /// The driver is putting a frame into the library's queue; later ones must not overtake it.
    sending: bool,
}

impl Queue {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.payload.len();
        self.waiting.push_back(frame);
    }

    fn congested(&self) -> bool {
        self.waiting.len() >= CONGESTED_FRAMES || self.bytes >= CONGESTED_BYTES
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    client: Client,
    queue: Mutex<Queue>,
    /// There is something for the driver to carry over.
    pub work: Notify,
    room: Notify,
}

impl Outbox {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            queue: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame behind all others. `Ok(true)`: it has to wait.
    pub fn send(&self, frame: Frame) -> Result<bool, Refused> {
        let mut queue = self.queue();
        if !queue.sending && queue.waiting.is_empty() {
            let message = OutboundMessage {
                subject: frame.subject.clone(),
                reply: frame.reply.clone(),
                payload: frame.payload.clone(),
                headers: None,
            };
            // One poll puts it into the library's queue, or tells that there is no room. Without a
            // budget: a task that has used up its own would see a full queue where there is none.
            let now = tokio::task::unconstrained(self.client.publish_message(message));
            match now.now_or_never() {
                Some(Ok(())) => return Ok(false),
                Some(Err(error)) => return Err(refused(&error)),
                None => {}
            }
        }
        queue.push(frame);
        drop(queue);
        self.work.notify_one();
        Ok(true)
    }

    /// Lets a frame wait for the next [`Outbox::carry`], which then waits for the library.
    pub fn send_later(&self, frame: Frame) {
        self.queue().push(frame);
    }

    /// Whether callers and chunks are to be turned away.
    pub fn congested(&self) -> bool {
        self.queue().congested()
    }

    /// Waits until the outbox is not congested.
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            if !self.congested() {
                return;
            }
            notified.await;
        }
    }

    /// Carries all waiting frames over to the library. For the driver only.
    pub async fn carry(&self) {
        while let Some(frame) = self.take() {
            let message = OutboundMessage {
                subject: frame.subject,
                reply: frame.reply,
                payload: frame.payload,
                headers: None,
            };
            if let Err(error) = self.client.publish_message(message).await {
                // The size was checked by begin_call; what remains is a closed connection, whose
                // calls the driver ends.
                tracing::warn!(%error, "a frame could not be sent");
            }
        }
    }

    fn take(&self) -> Option<Frame> {
        let mut queue = self.queue();
        let was_congested = queue.congested();
        let frame = queue.waiting.pop_front();
        queue.sending = frame.is_some();
        queue.bytes -= frame.as_ref().map_or(0, |frame| frame.payload.len());
        if was_congested && !queue.congested() {
            self.room.notify_waiters();
        }
        frame
    }

    /// Takes back the waiting frames of calls: they would arrive after a disconnect, too late.
    /// Returns whose they were.
    pub fn take_back(&self) -> Vec<Sender> {
        let mut queue = self.queue();
        let mut senders = Vec::new();
        queue.waiting.retain(|frame| match frame.sender {
            Some(sender) => {
                senders.push(sender);
                false
            }
            None => true,
        });
        queue.bytes = queue.waiting.iter().map(|frame| frame.payload.len()).sum();
        self.room.notify_waiters();
        senders
    }
}

fn refused(error: &async_nats::PublishError) -> Refused {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Refused::TooLarge,
        PublishErrorKind::InvalidSubject | PublishErrorKind::Send => Refused::Closed,
    }
}
