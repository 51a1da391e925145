//! A node's side of calls: requests in, replies out.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Buf;
use futures::{FutureExt, StreamExt};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_proto::control::{NodeReply, NodeRequest, node_reply, node_request};
use prost::Message as _;
use tokio::time::{Instant, timeout};

use crate::block;
use crate::link::Subscriber;
use crate::outbox::Frame;
use crate::shared::Shared;
use crate::stats::add;

/// Requests that are read ahead: among them, a call that was given up is found before it is begun.
const AHEAD: usize = 128;

/// How long a message to oneself may take.
const PROBE: Duration = Duration::from_millis(500);

/// Whom a reply goes to. With the call's id it names a call among those of all callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo(pub(crate) Subject);

impl Hash for ReplyTo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// What arrives at one generation of a node.
///
/// It holds at most 65,536 requests that were not taken yet; what comes beyond is dropped by the
/// client library and counted in [`crate::BusStats::slow_consumer`]; its caller asks after it within a
/// second and is told OUTCOME_UNKNOWN. So take requests from a loop that never waits, and shed there:
/// then it never holds more than what the connection reads in one turn (some MiB), because such a loop
/// takes all of that in its own turn.
#[derive(Debug)]
pub struct NodeInbox {
    shared: Arc<Shared>,
    subscriber: Subscriber,
    ahead: VecDeque<(NodeRequest, ReplyTo)>,
    came_at: Instant,
    closed: bool,
}

impl NodeInbox {
    pub(crate) fn new(shared: Arc<Shared>, subscriber: Subscriber) -> Self {
        Self {
            shared,
            subscriber,
            ahead: VecDeque::new(),
            came_at: Instant::now(),
            closed: false,
        }
    }

    /// Waits until the subscription has landed: an empty request to oneself comes back.
    pub(crate) async fn landed(&mut self, subject: &Subject) {
        while self.shared.is_up() {
            let there_and_back = async {
                // An error means that the connection is closed, as recv will tell.
                let _ = self.shared.send(Frame::to(subject, Vec::new()));
                while let Some(message) = self.subscriber.next().await {
                    if message.payload.is_empty() {
                        return;
                    }
                    self.take(message);
                    self.came_at = Instant::now();
                }
            };
            if timeout(PROBE, there_and_back).await.is_ok() {
                return;
            }
        }
    }

    /// Takes no new requests: callers hear that nobody listens. Those that have arrived are still given
    /// by [`NodeInbox::recv`], then the end.
    pub async fn leave(&mut self) {
        self.subscriber.drain().await;
    }

    /// The next request; `None` when the connection is closed for good. Safe to cancel.
    ///
    /// Frames of one call come in the order in which they were sent. A call is named by the pair of
    /// its [`ReplyTo`] and its id. Rules of the exchange, beside those in the proto:
    /// - the call's time left counts from [`NodeInbox::came_at`];
    /// - every `Chunk` uses one credit of its direction, and 64 are there at the start: for a payload
    ///   the node grants more by `Credit` replies, for an answer the caller does so by requests, which say
    ///   what was given in all (`total`), so that the next one, or a question, makes a lost one good. A
    ///   result larger than 128 KiB goes as chunks marked as fragments, then the `Result`; all
    ///   chunks of an answer, fragments or not, are counted in one sequence from 0, and the reply with
    ///   the `Result` says how many there were, so that a lost one is noticed;
    /// - messages of a streaming request follow its payload in the same sequence, and the one marked as the
    ///   last carries nothing and uses no credit;
    /// - a `Credit` of 0 asks whether the node still knows the call (callers ask every few seconds,
    ///   and after a lost connection): answer it at once, however busy the plugin is, with a `Credit`
    ///   of 0 if so, that says how many chunks of the answer went before it (`sent`), else with the error
    ///   OUTCOME_UNKNOWN. Without an answer to two in a row, or within
    ///   a second after a lost connection, the caller takes the outcome for unknown. Where neither
    ///   replies nor beacons of the node come, it does so for all calls to it in less than a second;
    /// - a `Cancel` or `Chunk` of a call that the node does not know is left out.
    pub async fn recv(&mut self) -> Option<(NodeRequest, ReplyTo)> {
        loop {
            if let Some(request) = self.ahead.pop_front() {
                return Some(request);
            }
            if self.closed {
                return None;
            }
            // Without a budget: it would end the turn long before all is taken that one turn of the
            // connection has brought, and the rest would pile up.
            match tokio::task::unconstrained(self.subscriber.next()).await {
                Some(message) => self.take(message),
                None => self.closed = true,
            }
            self.came_at = Instant::now();
            while self.ahead.len() < AHEAD {
                match tokio::task::unconstrained(self.subscriber.next()).now_or_never() {
                    Some(Some(message)) => self.take(message),
                    Some(None) => self.closed = true,
                    None => break,
                }
                if self.closed {
                    break;
                }
            }
        }
    }

    /// When the requests that [`NodeInbox::recv`] gives were read from the connection: those that were read in
    /// one go have one time.
    #[must_use]
    pub fn came_at(&self) -> Instant {
        self.came_at
    }

    fn take(&mut self, message: Message) {
        let Some(reply) = message.reply.map(ReplyTo) else {
            // Probes to oneself have no reply subject; nothing else does without.
            add(
                &self.shared.stats.malformed,
                u64::from(!message.payload.is_empty()),
            );
            return;
        };
        let payload = message.payload;
        match NodeRequest::decode(payload.clone()) {
            Ok(NodeRequest {
                call_id,
                body: Some(node_request::Body::Cancel(_)),
            }) if self.given_up(call_id, &reply) => {}
            Ok(request) if request.body.is_some() => {
                add(&self.shared.stats.requests, 1);
                self.ahead.push_back((request, reply));
            }
            Ok(request) => {
                let message = "this agent does not know what the request asks; update the older of \
                               agent and caller";
                self.refuse(request.call_id, ErrorCode::Unsupported, message, &reply);
            }
            Err(error) => {
                let message = format!("the request could not be decoded: {error}");
                self.refuse(
                    call_id_of(&payload),
                    ErrorCode::MalformedFrame,
                    &message,
                    &reply,
                );
            }
        }
    }

    /// Whether a cancelled call was not begun yet; then it never will be.
    fn given_up(&mut self, call_id: u64, reply: &ReplyTo) -> bool {
        let begins = |(request, to): &(NodeRequest, ReplyTo)| {
            request.call_id == call_id
                && to == reply
                && matches!(request.body, Some(node_request::Body::Call(_)))
        };
        let waiting = self.ahead.iter().any(begins);
        if waiting {
            self.ahead
                .retain(|(request, to)| request.call_id != call_id || to != reply);
        }
        waiting
    }

    fn refuse(&self, call_id: u64, code: ErrorCode, message: &str, to: &ReplyTo) {
        add(&self.shared.stats.malformed, 1);
        let error = MeshError::new(code, message).into();
        let reply = NodeReply {
            call_id,
            body: Some(node_reply::Body::Error(error)),
            chunks_before: 0,
        };
        // A closed connection: nobody is left to be told.
        let _ = self.shared.send(frame(to, &reply));
    }
}

/// The call id of a request that can't be decoded as a whole: it is the first field; 0 if even that
/// is broken.
fn call_id_of(mut payload: &[u8]) -> u64 {
    const CALL_ID: u8 = 1 << 3;
    if payload.first() != Some(&CALL_ID) {
        return 0;
    }
    payload.advance(1);
    prost::encoding::decode_varint(&mut payload).unwrap_or(0)
}

/// A reply, encoded.
pub(crate) fn frame(to: &ReplyTo, reply: &NodeReply) -> Frame {
    Frame::to(&to.0, block::message(reply))
}
