//! The connection under a bus: NATS, or the broker in memory that simulations run over.
//!
//! All that is above it (slots, outbox, driver, inbox) is the same code over both.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use async_nats::client::PublishError;
use async_nats::client::traits::Publisher;
use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use async_nats::{Client, Message, PublishErrorKind, Statistics, Subject};
use futures::{FutureExt, SinkExt, Stream, StreamExt};

use crate::error::BusError;
use crate::memory;

/// Why a frame can't be sent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The broker takes no frames of this size.
    #[error("the broker takes no frames of this size")]
    TooLarge,
    /// The connection is closed for good.
    #[error("the connection is closed for good")]
    Closed,
}

fn refused(error: PublishError) -> Refused {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Refused::TooLarge,
        PublishErrorKind::InvalidSubject | PublishErrorKind::Send => Refused::Closed,
    }
}

/// A connection to a broker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    Nats {
        client: Client,
        statistics: Arc<Statistics>,
    },
    Memory(Arc<memory::Connection>),
}

impl From<Client> for Link {
    fn from(client: Client) -> Self {
        Self::Nats {
            statistics: client.statistics(),
            client,
        }
    }
}

impl Link {
    /// Whether the connection stands, by what the library knows.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Nats { client, .. } => client.connection_state() == State::Connected,
            Self::Memory(connection) => connection.is_connected(),
        }
    }

    pub async fn subscribe(&self, subject: Subject) -> Result<Subscriber, BusError> {
        match self {
            Self::Nats { client, .. } => {
                let subscribed = client.subscribe(subject).await;
                let subscriber = subscribed.map_err(|_| BusError::Closed)?;
                Ok(Subscriber::Nats(subscriber))
            }
            Self::Memory(connection) => Ok(Subscriber::Memory(connection.subscribe(&subject))),
        }
    }

    /// Puts a message into the library's queue, or gives it back when there is no room.
    pub fn try_publish(
        &mut self,
        message: OutboundMessage,
    ) -> Result<Option<OutboundMessage>, Refused> {
        match self {
            Self::Nats { client, .. } => {
                // Without a budget: a task that has used up its own would see a full queue where there
                // is none.
                let room = tokio::task::unconstrained(poll_fn(|cx| client.poll_ready_unpin(cx)));
                match room.now_or_never() {
                    None => return Ok(Some(message)),
                    Some(ready) => ready.map_err(refused)?,
                }
                client.start_send_unpin(message).map_err(refused)?;
                Ok(None)
            }
            Self::Memory(connection) => connection.try_publish(message),
        }
    }

    /// Puts a message into the library's queue; waits while it is full.
    pub async fn publish(&self, message: OutboundMessage) -> Result<(), Refused> {
        match self {
            Self::Nats { client, .. } => {
                let sent = client.publish_message(message).await;
                sent.map_err(refused)
            }
            Self::Memory(connection) => connection.publish(message).await,
        }
    }

    /// Messages that the library has ever taken out of its queue.
    pub fn taken(&self) -> u64 {
        match self {
            Self::Nats { statistics, .. } => statistics.out_messages.load(Ordering::Relaxed),
            Self::Memory(connection) => connection.taken(),
        }
    }

    /// Waits until all that is in the library's queue has left. False: the connection is closed.
    pub async fn flush(&self) -> bool {
        match self {
            Self::Nats { client, .. } => client.flush().await.is_ok(),
            Self::Memory(connection) => {
                connection.flush().await;
                true
            }
        }
    }
}

/// What a subscription gets.
#[derive(Debug)]
pub(crate) enum Subscriber {
    Nats(async_nats::Subscriber),
    Memory(memory::Subscription),
}

impl Subscriber {
    /// Takes nothing new; what has arrived is still given, then the end.
    pub async fn drain(&mut self) {
        match self {
            Self::Nats(subscriber) => {
                // An error means that the connection is closed.
                let _ = subscriber.drain().await;
            }
            Self::Memory(subscription) => subscription.drain(),
        }
    }
}

impl Stream for Subscriber {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        match &mut *self {
            Self::Nats(subscriber) => subscriber.poll_next_unpin(cx),
            Self::Memory(subscription) => subscription.poll_next(cx),
        }
    }
}
