//! A broker in memory, for simulations: it behaves as core NATS and its client library do, and can be
//! told to fail.
//!
//! What holds of NATS holds here: messages of one connection come in the order in which they were sent;
//! none comes twice; what was on its way is lost with the connection, what waits in the library's
//! queue is sent after the reconnect; subscriptions are made anew first; a request that nobody listens to
//! is answered so. The time that messages take, and nothing else, is drawn from the seed. It uses tokio's
//! clock only, so that a paused clock makes a run repeatable. No message is ever on a network.

mod broker;
mod wire;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Message, Subject};
use mesh_core::id::MeshName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::broker::State;
use self::wire::Command;
use crate::bus::Bus;
use crate::config::BusLimits;
use crate::connect::LinkEvents;
use crate::driver::BusDriver;
use crate::error::BusError;
use crate::link::{Link, Refused};
use crate::outbox::LIBRARY_QUEUE;

/// A broker in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be passed on.
    work: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// A broker that runs. All that is left to chance is drawn from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(seed)),
                work: Notify::new(),
            }),
        }
    }

    /// Passes messages on; for ever, so run it beside what uses it.
    pub async fn run(&self) {
        loop {
            let next = self.shared.lock().step(Instant::now());
            tokio::select! {
                biased;
                () = self.shared.work.notified() => {}
                () = async {
                    match next {
                        Some(next) => sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// A bus over this broker, its driver, and its line, which can be made to fail.
    ///
    /// # Errors
    /// None for now.
    pub async fn connect(
        &self,
        mesh: MeshName,
        limits: BusLimits,
    ) -> Result<(Bus, BusDriver, Line), BusError> {
        let events = Arc::new(LinkEvents::default());
        let id = self.shared.lock().connect(events.clone(), Instant::now());
        let connection = Connection {
            id,
            shared: self.shared.clone(),
        };
        let link = Link::Memory(Arc::new(connection));
        let (bus, driver) = Bus::over(link, events, mesh, limits).await?;
        let line = Line {
            id,
            shared: self.shared.clone(),
        };
        Ok((bus, driver, line))
    }

    /// How long a message takes each way, client to broker and broker to client.
    pub fn set_delay(&self, delay: RangeInclusive<Duration>) {
        self.shared.lock().set_delay(delay);
    }

    /// The broker goes down: all connections break, and none is made until [`Broker::start`].
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.stop(Instant::now());
    }

    /// The broker is there again.
    pub fn start(&self) {
        self.shared.lock().start(Instant::now());
        self.shared.work.notify_one();
    }

    /// A number made of all that was passed on and when: equal runs have equal ones.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.lock().digest()
    }

    /// Messages that the broker has passed on.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.lock().passed()
    }
}

/// The line between one client and the broker.
#[derive(Debug, Clone)]
pub struct Line {
    id: u64,
    shared: Arc<Shared>,
}

impl Line {
    /// Nothing is lost, but nothing goes from the client to the broker (`out`) or back (`back`) until
    /// it is let go: a stopped process, a link that lost its way.
    pub fn hold(&self, out: bool, back: bool) {
        self.shared.lock().hold(self.id, out, back);
        self.shared.work.notify_one();
    }

    /// The connection breaks, and what is on its way is lost. The client tries again, and comes through
    /// after `away` at the earliest.
    pub fn cut(&self, away: Duration) {
        self.shared.lock().cut(self.id, Instant::now(), away);
        self.shared.work.notify_one();
    }

    /// The broker takes the connection for broken and the client does not know: it listens to nothing
    /// and speaks to nobody until it is [`Line::cut`].
    pub fn deafen(&self) {
        self.shared.lock().deafen(self.id);
    }

    /// The client's process is gone, with all that it had not sent.
    pub fn kill(&self) {
        self.shared.lock().remove(self.id);
        self.shared.work.notify_one();
    }
}

/// A client's end of a connection. When it is dropped, the connection is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    shared: Arc<Shared>,
}

impl Connection {
    pub fn is_connected(&self) -> bool {
        self.shared.lock().is_connected(self.id)
    }

    pub fn taken(&self) -> u64 {
        self.shared.lock().taken(self.id)
    }

    pub fn subscribe(&self, subject: &Subject) -> Subscription {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.shared.lock();
        let sid = state.subscribe(self.id, subject.clone(), inbox.clone());
        drop(state);
        self.shared.work.notify_one();
        Subscription {
            sid,
            connection: self.id,
            shared: self.shared.clone(),
            inbox,
        }
    }

    pub fn try_publish(
        &self,
        message: OutboundMessage,
    ) -> Result<Option<OutboundMessage>, Refused> {
        let mut state = self.shared.lock();
        let wire = state.wire(self.id).ok_or(Refused::Closed)?;
        if wire.queue.len() >= LIBRARY_QUEUE {
            return Ok(Some(message));
        }
        wire.queue.push_back(Command::Publish(message));
        drop(state);
        self.shared.work.notify_one();
        Ok(None)
    }

    pub async fn publish(&self, message: OutboundMessage) -> Result<(), Refused> {
        let mut message = Some(Command::Publish(message));
        let sent = poll_fn(|cx| {
            let mut state = self.shared.lock();
            let Some(wire) = state.wire(self.id) else {
                return Poll::Ready(Err(Refused::Closed));
            };
            if wire.queue.len() >= LIBRARY_QUEUE {
                wire.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            wire.queue.extend(message.take());
            Poll::Ready(Ok(()))
        })
        .await;
        self.shared.work.notify_one();
        sent
    }

    pub async fn flush(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            match state.wire(self.id) {
                Some(wire) if !wire.queue.is_empty() => {
                    wire.wakers.push(cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.lock().leave(self.id);
        self.shared.work.notify_one();
    }
}

/// Messages that have come for a subscription.
#[derive(Debug, Default)]
struct Inbox(Mutex<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    messages: VecDeque<Message>,
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    /// Messages that a subscription holds; further ones are dropped, as the client library does.
    const MOST: usize = 65_536;

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: it is full.
    fn push(&self, message: Message) -> bool {
        let mut arrived = self.lock();
        if arrived.messages.len() >= Self::MOST {
            return false;
        }
        arrived.messages.push_back(message);
        if let Some(waker) = arrived.waker.take() {
            waker.wake();
        }
        true
    }

    fn close(&self) {
        let mut arrived = self.lock();
        arrived.closed = true;
        if let Some(waker) = arrived.waker.take() {
            waker.wake();
        }
    }
}

/// A subscription. When it is dropped, the broker is told.
#[derive(Debug)]
pub(crate) struct Subscription {
    sid: u64,
    connection: u64,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
}

impl Subscription {
    /// Takes nothing new; what has arrived is still given, then the end.
    pub fn drain(&mut self) {
        self.shared.lock().unsubscribe(self.connection, self.sid);
        self.inbox.lock().closed = true;
        self.shared.work.notify_one();
    }

    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Message>> {
        let mut arrived = self.inbox.lock();
        match arrived.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if arrived.closed => Poll::Ready(None),
            None => {
                arrived.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.lock().unsubscribe(self.connection, self.sid);
        self.shared.work.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
