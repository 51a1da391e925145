//! The messages that follow a call's payload: what a script says of them, and how a plugin sends those of
//! a call of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use mesh_proto::common;
use mesh_proto::plugin::plugin_frame;
use router::MessageSender;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::payload;
use super::plan::{Script, millis, size};
use super::plugin::{INITIAL_CREDIT, Shared};
use super::world::World;

/// Messages that wait at a gateway until the call takes them.
pub(super) const QUEUE: usize = 8;

/// The most messages of a call that may be on their way: a window between caller and plugin, one more
/// between a plugin and its agent, and a queue.
const MOST_WAITING: u64 = 2 * INITIAL_CREDIT as u64 + QUEUE as u64;

/// The salt of messages, beside those of chunks, results and payloads.
const MESSAGE: u64 = 1 << 34;

/// What a script says of the messages that follow its payload.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    pub(super) count: u64,
    bytes: usize,
    /// How long the caller waits before each.
    send_pause: Duration,
    /// How long the plugin works on each.
    pub(super) take_pause: Duration,
    /// The plugin takes no more than so many; `None`: all, and their end.
    pub(super) enough: Option<u64>,
    /// The plugin answers each with a chunk, as long as it has some.
    pub(super) talks: bool,
    /// They are sent to a capability that takes none.
    pub(super) unwanted: bool,
}

impl Messages {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let count = rng.u64(0..=220);
        let pause = |rng: &mut Rng| match rng.u8(0..3) {
            0 => millis(rng, 1..=20),
            _ => Duration::ZERO,
        };
        Self {
            count,
            bytes: size(rng, if count < 20 { 16 } else { 9 }),
            send_pause: pause(rng),
            take_pause: pause(rng),
            enough: (rng.u8(0..6) == 0).then(|| rng.u64(0..=count)),
            talks: rng.bool(),
            unwanted: rng.u8(0..10) == 0,
        }
    }

    /// One of the messages of a call.
    pub(super) fn one(&self, key: u64, number: u64) -> Bytes {
        payload(key, MESSAGE + number, self.bytes).into()
    }

    /// What it is, for a person who reads a trace.
    pub(super) fn words(&self) -> String {
        let mut words = format!(
            "{} messages of {} bytes, one in {:?}, taken in {:?}",
            self.count, self.bytes, self.send_pause, self.take_pause
        );
        if let Some(enough) = self.enough {
            words += &format!(", {enough} are enough");
        }
        if self.talks {
            words += ", each is answered";
        }
        if self.unwanted {
            words += ", to one who takes none";
        }
        words
    }
}

/// A message has left its caller: not too many others may be on their way.
fn sent(world: &World, script: &Script) {
    let waiting = {
        let mut ledger = world.ledger.lock().unwrap();
        let Some(record) = ledger.calls.get_mut(&script.key) else {
            return;
        };
        record.messages_sent += 1;
        record.messages_sent.saturating_sub(record.messages_taken)
    };
    if waiting > MOST_WAITING {
        let key = script.key;
        world.violation(format!(
            "call {key}: {waiting} messages are on their way, {MOST_WAITING} are the most"
        ));
    }
}

/// Sends the messages of a call that is made at a gateway. Never ends: what waits for the call's end does.
pub(super) async fn feed(world: &World, script: &Script, sender: Option<&MessageSender>) {
    if let (Some(messages), Some(sender)) = (&script.messages, sender) {
        for number in 0..messages.count {
            sleep(messages.send_pause).await;
            sender.send(messages.one(script.key, number)).await;
            sent(world, script);
        }
        sleep(messages.send_pause).await;
        sender.finish();
    }
    std::future::pending().await
}

/// What follows the first frame of a call that a plugin makes.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) script: Arc<Script>,
    /// Of the payload.
    rest: Bytes,
    part: usize,
    sequence: u64,
    message: u64,
    credit: usize,
    over: bool,
    /// When the next message is sent.
    due: Instant,
}

impl Feed {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: u64,
        script: &Arc<Script>,
        (rest, part): (Bytes, usize),
    ) -> Self {
        let mut feed = Self {
            shared: shared.clone(),
            id,
            script: script.clone(),
            over: rest.is_empty() && script.messages.is_none(),
            rest,
            part,
            sequence: 0,
            message: 0,
            credit: INITIAL_CREDIT,
            due: Instant::now(),
        };
        feed.pause();
        feed
    }

    fn pause(&mut self) {
        let messages = self.script.messages.as_ref();
        self.due = Instant::now() + messages.map_or(Duration::ZERO, |one| one.send_pause);
    }

    pub(super) fn grant(&mut self, chunks: u32) {
        self.credit += chunks as usize;
    }

    fn messages_left(&self) -> bool {
        let messages = self.script.messages.as_ref();
        messages.is_some_and(|messages| self.message < messages.count)
    }

    /// Whether there is something to send, and credit for it; the end of the messages needs none.
    pub(super) fn may_send(&self) -> bool {
        let ends = self.rest.is_empty() && !self.messages_left();
        !self.over && (self.credit > 0 || ends)
    }

    /// Sends the next chunk. Safe to cancel: then it was not sent.
    pub(super) async fn send_next(&mut self) {
        let fragment = !self.rest.is_empty();
        let (payload, last) = if fragment {
            let part = self.rest.slice(..self.rest.len().min(self.part));
            let last = part.len() == self.rest.len();
            (part, last)
        } else {
            sleep_until(self.due).await;
            match &self.script.messages {
                Some(messages) if self.message < messages.count => {
                    (messages.one(self.script.key, self.message), false)
                }
                _ => (Bytes::new(), true),
            }
        };
        let bytes = payload.len();
        let chunk = common::Chunk {
            payload,
            last,
            sequence: self.sequence,
            fragment,
        };
        let body = plugin_frame::Body::Chunk(chunk);
        self.shared.send(self.id, body).await;
        self.sequence += 1;
        self.credit = self.credit.saturating_sub(1);
        self.over = last && (!fragment || self.script.messages.is_none());
        if fragment {
            self.rest = self.rest.slice(bytes..);
        } else if !last {
            self.message += 1;
            sent(&self.shared.world, &self.script);
        }
        self.pause();
    }
}
