//! One call in flight: what it has sent, what came back, what its caller has not taken yet.

use std::collections::VecDeque;
use std::task::Waker;

use async_nats::Subject;
use bytes::{Bytes, BytesMut};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_proto::common;
use mesh_proto::control::node_reply;

use crate::config::BusLimits;
use crate::event::{CallEvent, CallOutput};

/// Progress and log events that wait for a slow caller; later ones are left out and counted.
const MAX_NOTICES: usize = 256;

/// How long the answers for a call's other frames may take when one of them found no listener.
const MISSED_GRACE_US: u64 = 100_000;

/// Where a call goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub node: NodeId,
    pub generation: Generation,
    pub instance: InstanceId,
}

impl Target {
    pub fn place(&self) -> Place {
        Place {
            node: self.node.to_string(),
            instance: self.instance.to_string(),
            ..Place::default()
        }
    }
}

/// The rest of a payload that did not fit into the first frame.
#[derive(Debug)]
pub(crate) struct Upload {
    pub rest: Bytes,
    pub sequence: u64,
    pub credit: u32,
}

/// One call in flight.
#[derive(Debug)]
pub(crate) struct Live {
    pub call_id: u64,
    pub target: Target,
    /// Where its frames go.
    pub subject: Subject,
    /// In the slots' microseconds.
    pub deadline: u64,
    /// Set after a disconnect: without a sign of life until then, the outcome is unknown.
    pub verify_by: u64,
    pub upload: Option<Upload>,
    /// Frames sent that would be answered with "no responders" if nobody listened.
    pub frames: u32,
    /// The node was asked whether it still knows the call, after a disconnect.
    pub asked: bool,
    /// "No responders" that came back.
    missed: u32,
    /// The node has answered: the call was delivered.
    heard: bool,
    events: VecDeque<CallEvent>,
    /// Chunks among `events`.
    chunks: u32,
    notices: usize,
    /// The place that the next chunk of the answer must have.
    next_sequence: u64,
    /// Chunks taken that the node has not been given new credit for.
    taken: u32,
    fragments: Vec<Bytes>,
    fragment_bytes: usize,
    end: Option<Result<CallOutput, MeshError>>,
    ended: bool,
    pub waker: Option<Waker>,
}

/// What a reply means for the slot that it came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The call goes on.
    On,
    /// The call goes on and the node may send that many more chunks.
    Credit(u32),
    /// The node takes more of the payload.
    Upload,
    /// A notice was left out.
    Dropped,
    /// The call has ended; nothing more is to come.
    Ended,
    /// The call has ended: its node is gone, and whether it was worked on is unknown.
    Lost,
    /// The call has ended on this side while the node may still work on it.
    Abandoned,
}

impl Live {
    pub fn new(call_id: u64, target: Target, subject: Subject, deadline: u64) -> Self {
        Self {
            call_id,
            target,
            subject,
            deadline,
            verify_by: u64::MAX,
            upload: None,
            frames: 1,
            asked: false,
            missed: 0,
            heard: false,
            events: VecDeque::new(),
            chunks: 0,
            notices: 0,
            next_sequence: 0,
            taken: 0,
            fragments: Vec::new(),
            fragment_bytes: 0,
            end: None,
            ended: false,
            waker: None,
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// When something is due: its deadline, or the end of its time to show a sign of life.
    pub fn due(&self) -> u64 {
        if self.ended {
            return u64::MAX;
        }
        self.deadline.min(self.verify_by)
    }

    /// Nothing but its first frame was sent and no part of an answer came: whatever else was lost
    /// with a connection, this call can go on when the node still knows it.
    pub fn is_quiet(&self) -> bool {
        self.frames == 1 && self.next_sequence == 0 && self.upload.is_none()
    }

    /// An error of this call, with its place.
    pub fn error(&self, code: ErrorCode, message: impl Into<String>) -> MeshError {
        MeshError::new(code, message).at(self.target.place())
    }

    /// Ends the call on this side, unless it has ended.
    pub fn finish(&mut self, result: Result<CallOutput, MeshError>) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.end = Some(result);
        self.upload = None;
        self.fragments = Vec::new();
    }

    /// Nobody listened on the node's subject for one of the frames.
    pub fn on_no_responders(&mut self, now: u64) -> Step {
        if self.ended {
            return Step::On;
        }
        self.missed += 1;
        self.upload = None;
        if self.heard || self.asked {
            let message = "the node went away after the call had been sent to it";
            self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
            return Step::Lost;
        }
        if self.missed >= self.frames {
            let message = "no agent of this generation of the node is listening any more";
            self.finish(Err(self.error(ErrorCode::InstanceGone, message)));
            return Step::Ended;
        }
        // Was it the first frame that was missed, or had the node taken it and gone then? The
        // answers for the other frames, close behind, will tell.
        self.verify_by = self.verify_by.min(now + MISSED_GRACE_US);
        Step::On
    }

    /// Takes a reply of the node.
    pub fn on_reply(&mut self, body: node_reply::Body, limits: &BusLimits) -> Step {
        use node_reply::Body;
        if self.ended {
            return Step::On;
        }
        self.heard = true;
        if self.is_quiet() {
            self.verify_by = u64::MAX;
        }
        match body {
            Body::Result(result) => self.on_result(result, limits),
            Body::Error(error) => {
                let error = MeshError::from(error).at(self.target.place());
                self.finish(Err(error));
                Step::Ended
            }
            Body::Chunk(chunk) => self.on_chunk(chunk, limits),
            Body::Progress(progress) => {
                // A newer progress makes one that nobody has read worthless.
                if let Some(CallEvent::Progress(last)) = self.events.back_mut() {
                    *last = progress;
                    return Step::On;
                }
                self.notice(CallEvent::Progress(progress))
            }
            Body::Log(log) => self.notice(CallEvent::Log(log)),
            Body::Credit(credit) => match &mut self.upload {
                Some(upload) if credit.chunks > 0 => {
                    upload.credit = upload.credit.saturating_add(credit.chunks);
                    Step::Upload
                }
                _ => Step::On,
            },
        }
    }

    fn notice(&mut self, event: CallEvent) -> Step {
        if self.notices >= MAX_NOTICES {
            return Step::Dropped;
        }
        self.notices += 1;
        self.events.push_back(event);
        Step::On
    }

    fn on_chunk(&mut self, chunk: common::Chunk, limits: &BusLimits) -> Step {
        if chunk.sequence != self.next_sequence {
            let message = format!(
                "part {} of the answer was lost on the way, part {} came",
                self.next_sequence, chunk.sequence
            );
            self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
            return Step::Abandoned;
        }
        self.next_sequence += 1;
        if chunk.fragment {
            if self.too_large(chunk.payload.len(), limits) {
                return Step::Abandoned;
            }
            self.fragment_bytes += chunk.payload.len();
            self.fragments.push(chunk.payload);
            // Fragments are joined here, so they are taken as soon as they are here.
            return match self.credit(limits) {
                Some(chunks) => Step::Credit(chunks),
                None => Step::On,
            };
        }
        if self.chunks >= limits.initial_credit {
            let message = "the node sent more chunks than it had credit for";
            self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
            return Step::Abandoned;
        }
        self.chunks += 1;
        self.events.push_back(CallEvent::Chunk(chunk.payload));
        Step::On
    }

    /// Counts a chunk as taken; from time to time that gives the node new credit.
    fn credit(&mut self, limits: &BusLimits) -> Option<u32> {
        self.taken += 1;
        (self.taken >= limits.initial_credit.div_ceil(2)).then(|| std::mem::take(&mut self.taken))
    }

    fn too_large(&mut self, more: usize, limits: &BusLimits) -> bool {
        let large = self.fragment_bytes + more > limits.max_payload;
        if large {
            let message = format!(
                "the result is larger than the {} bytes that a payload may have here",
                limits.max_payload
            );
            self.finish(Err(self.error(ErrorCode::PluginFailed, message)));
        }
        large
    }

    fn on_result(&mut self, result: common::Result, limits: &BusLimits) -> Step {
        if self.too_large(result.payload.len(), limits) {
            return Step::Ended;
        }
        let payload = if self.fragments.is_empty() {
            result.payload
        } else {
            let mut whole = BytesMut::with_capacity(self.fragment_bytes + result.payload.len());
            for part in self.fragments.drain(..) {
                whole.extend_from_slice(&part);
            }
            whole.extend_from_slice(&result.payload);
            whole.freeze()
        };
        self.finish(Ok(CallOutput {
            payload,
            content_type: result.content_type,
        }));
        Step::Ended
    }

    /// The next event for the caller, and the credit that taking it gives to the node.
    pub fn take(&mut self, limits: &BusLimits) -> Option<(CallEvent, Option<u32>)> {
        if let Some(event) = self.events.pop_front() {
            if matches!(event, CallEvent::Chunk(_)) {
                self.chunks -= 1;
                let credit = self.credit(limits);
                return Some((event, credit.filter(|_| !self.ended)));
            }
            self.notices -= 1;
            return Some((event, None));
        }
        self.end.take().map(|end| (CallEvent::End(end), None))
    }
}
