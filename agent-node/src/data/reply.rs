//! Replies on their way back to whoever waits for a call.

use mesh_bus::ReplyTo;
use mesh_core::error::MeshError;
use mesh_proto::common;
use mesh_proto::control::{NodeReply, node_reply};
use router::{CallEvent, CallOutput};

use super::call::{CallerKey, InFlight, ReplyPath};
use super::local::ChunkTaken;
use super::plane::Plane;
use crate::session::End;

/// A chunk that the bus did not take: the stream's task sends it again when there is room.
#[derive(Debug)]
pub(super) struct Blocked {
    to: ReplyTo,
    reply: NodeReply,
}

/// What became of a chunk of an answer.
#[derive(Debug)]
pub(super) enum Passed {
    /// It is on its way; the plugin may send so many more.
    On { grant: u32 },
    /// The bus has no room.
    Blocked(Blocked),
    /// Nobody takes it for now: the plugin gets more credit once the receiver has room.
    Full(tokio::sync::mpsc::Sender<CallEvent>),
}

impl Plane {
    /// Ends a call for its caller.
    pub(super) fn reply_end(&self, call: InFlight, end: End) {
        match call.reply {
            ReplyPath::Bus(key) => match end {
                Ok(answer) => {
                    let body = node_reply::Body::Result(answer.result);
                    self.send_reply(&key, body, answer.chunks_before);
                }
                Err(error) => self.bus_reply(&key, node_reply::Body::Error(error)),
            },
            ReplyPath::Local(local) => local.end(match end {
                Ok(answer) => Ok(CallOutput {
                    payload: answer.result.payload,
                    content_type: answer.result.content_type,
                }),
                Err(error) => Err(MeshError::from(error)),
            }),
        }
    }

    /// Refuses a call that never began.
    pub(super) fn refuse(&self, key: &CallerKey, error: MeshError) {
        self.bus_reply(key, node_reply::Body::Error(error.into()));
    }

    /// Sends what the bus always takes, or may leave out (Progress, Log).
    pub(super) fn bus_reply(&self, key: &CallerKey, body: node_reply::Body) {
        self.send_reply(key, body, 0);
    }

    fn send_reply(&self, key: &CallerKey, body: node_reply::Body, chunks_before: u64) {
        let reply = NodeReply {
            call_id: key.call_id,
            body: Some(body),
            chunks_before,
        };
        if let Err(busy) = self.shared.bus.reply(&key.to, reply) {
            tracing::error!(%busy, "the bus refused what it always takes: this is a bug");
        }
    }

    /// Passes a chunk of an answer on.
    pub(super) fn pass_chunk(
        &self,
        reply: &mut ReplyPath,
        chunk: common::Chunk,
        credit: u64,
    ) -> Passed {
        match reply {
            ReplyPath::Bus(key) => {
                let reply = NodeReply {
                    call_id: key.call_id,
                    body: Some(node_reply::Body::Chunk(chunk)),
                    chunks_before: 0,
                };
                // Bytes are counted, not copied, by the clone that a refusal needs.
                match self.shared.bus.reply(&key.to, reply.clone()) {
                    Ok(()) => Passed::On { grant: 0 },
                    Err(_) => Passed::Blocked(Blocked {
                        to: key.to.clone(),
                        reply,
                    }),
                }
            }
            ReplyPath::Local(local) => match local.chunk(chunk, credit) {
                ChunkTaken::Granting(grant) => Passed::On { grant },
                ChunkTaken::Full(sender) => Passed::Full(sender),
            },
        }
    }

    /// Sends a chunk again that the bus refused. False: it still does not take it.
    pub(super) fn unblock(&self, blocked: &Blocked) -> bool {
        let again = self.shared.bus.reply(&blocked.to, blocked.reply.clone());
        again.is_ok()
    }

    /// Waits until the bus takes chunks.
    pub(super) async fn bus_room(&self) {
        self.shared.bus.reply_room().await;
    }

    /// Passes how far a call has come.
    pub(super) fn pass_progress(&self, reply: &ReplyPath, progress: common::Progress) {
        match reply {
            ReplyPath::Bus(key) => self.bus_reply(key, node_reply::Body::Progress(progress)),
            ReplyPath::Local(local) => local.side(CallEvent::Progress(progress)),
        }
    }

    /// Passes a line of the log of a call.
    pub(super) fn pass_log(&self, reply: &ReplyPath, log: Box<common::Log>) {
        match reply {
            ReplyPath::Bus(key) => self.bus_reply(key, node_reply::Body::Log(log)),
            ReplyPath::Local(local) => local.side(CallEvent::Log(*log)),
        }
    }
}
