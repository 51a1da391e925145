//! One call in flight: what it has sent, what came back, what its caller has not taken yet.

use std::collections::VecDeque;
use std::task::Waker;

use async_nats::Subject;
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_proto::common;
use mesh_proto::control::{NodeReply, node_reply};

use crate::config::BusLimits;
use crate::event::{CallEvent, CallOutput};
use crate::gather::{Fragments, Gathered};
use crate::upload::Upload;
use crate::wire;

/// Progress and log events that wait for a slow caller; later ones are left out and counted.
const MAX_NOTICES: usize = 256;

/// How long the answers for a call's other frames may take when one of them found no listener.
const MISSED_GRACE_US: u64 = 100_000;

/// How long a node that can't be reached has to show a sign of life: its agent may be about to
/// reconnect, which takes 250 ms at most, and keeps its replies meanwhile.
pub(crate) const GRACE_US: u64 = 1_000_000;

/// How often a node that can't be reached is asked again within the grace.
const ASK_AGAIN_US: u64 = 200_000;

/// After how long in flight a call's node is asked for a sign of life; then again after the longest.
const FIRST_ASK_US: u64 = 1_000_000;
const LONGEST_ASK_US: u64 = 2_000_000;

/// How long the answer to a question may take. Agents answer at once, however busy the plugin is.
const ANSWER_US: u64 = 1_000_000;

/// How many questions in a row a node may leave unanswered before it is taken for silent.
const QUESTIONS: u8 = 2;

/// When this process looks so much too late, answers may have come that it has not read yet.
const LATE_US: u64 = 250_000;

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

/// One call in flight.
#[derive(Debug)]
pub(crate) struct Live {
    pub call_id: u64,
    pub target: Target,
    /// The generation of a node that it goes to.
    pub peer: usize,
    /// Where its frames go.
    pub subject: Subject,
    /// In the slots' microseconds, as all times here.
    pub deadline: u64,
    /// When the node is asked for a sign of life.
    ask_at: u64,
    ask_wait: u64,
    /// The node was asked before.
    asked: bool,
    /// Questions since the last sign of life.
    unanswered: u8,
    /// What was sent to oneself along with the last question has come back: the broker passes
    /// messages on, so that silence is the node's.
    echoed: bool,
    /// Set while the node can't be reached: without a sign of life until then, the outcome is unknown.
    verify_by: u64,
    pub upload: Option<Upload>,
    /// It is among those whose turn comes to send a part: once, so that all have as many turns.
    in_turn: bool,
    /// It had more payload than one frame holds.
    uploads: bool,
    /// Messages follow its payload.
    messages: bool,
    /// Frames sent that would be answered with "no responders" if nobody listened, questions apart.
    frames: u32,
    /// "No responders" that came back.
    missed: u32,
    /// The node has answered: the call was delivered.
    heard: bool,
    events: VecDeque<CallEvent>,
    /// Chunks among `events`, and how many there may be.
    chunks: u32,
    window: u32,
    notices: usize,
    /// The place that the next chunk of the answer must have.
    next_sequence: u64,
    /// Chunks taken that the node has not been given new credit for.
    taken: u32,
    /// Credit to be given.
    owed: u32,
    /// Credit given so far, which goes along with every frame that gives or asks: the next one makes a
    /// lost one good.
    given: u64,
    fragments: Fragments,
    /// Too much is being put together: no credit for fragments for now.
    pub thrifty: bool,
    /// Fragments taken that are to be counted once there is room.
    withheld: u32,
    /// The call stands in line for that.
    in_line: bool,
    end: Option<Result<CallOutput, MeshError>>,
    ended: bool,
    pub waker: Option<Waker>,
}

/// What a message means for the slot that it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The call goes on.
    On,
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

/// Who is asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Nobody,
    Node,
    /// The node, and this process itself: does the broker pass anything on?
    NodeAndSelf,
}

impl Live {
    pub fn new(
        call_id: u64,
        target: Target,
        (peer, subject): (usize, Subject),
        now: u64,
        deadline: u64,
        limits: &BusLimits,
        gathered: Gathered,
    ) -> Self {
        Self {
            call_id,
            target,
            peer,
            subject,
            deadline,
            ask_at: now + FIRST_ASK_US,
            ask_wait: FIRST_ASK_US,
            asked: false,
            unanswered: 0,
            echoed: false,
            verify_by: u64::MAX,
            upload: None,
            in_turn: false,
            uploads: false,
            messages: false,
            frames: 1,
            missed: 0,
            heard: false,
            events: VecDeque::new(),
            chunks: 0,
            window: limits.initial_credit,
            notices: 0,
            next_sequence: 0,
            taken: 0,
            owed: 0,
            given: 0,
            fragments: Fragments::new(gathered),
            thrifty: false,
            withheld: 0,
            in_line: false,
            end: None,
            ended: false,
            waker: None,
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// When something is due: the deadline, a question, or the end of the time to answer it.
    pub fn due(&self) -> u64 {
        if self.ended {
            return u64::MAX;
        }
        self.deadline.min(self.verify_by).min(self.ask_at)
    }

    /// Whether messages may be on their way to its reply subject after its end.
    pub fn leaves_echoes(&self) -> bool {
        !self.ended || self.frames > 1 || self.asked
    }

    /// The node may still lose parts of the payload, or messages: with one lost it would wait for ever, so
    /// the call does not outlive a loss. An answer shows that the payload was whole, but not that all
    /// messages have come.
    fn is_fragile(&self) -> bool {
        self.messages || (self.uploads && self.next_sequence == 0)
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
        self.owed = 0;
        self.fragments.take();
    }

    /// The rest of its payload follows, or messages.
    pub fn begin_upload(&mut self, upload: Upload) {
        self.uploads = true;
        self.messages = upload.has_messages();
        self.upload = Some(upload);
    }

    /// Whether it is to be put among those whose turn comes to send a part; it was not.
    pub fn takes_turn(&mut self) -> bool {
        !std::mem::replace(&mut self.in_turn, true)
    }

    /// The next part of the payload, or message, that there is credit for, and whether another may follow.
    pub fn next_part(&mut self) -> Option<(common::Chunk, bool)> {
        self.in_turn = false;
        let upload = self.upload.as_mut()?;
        let chunk = upload.next_chunk()?;
        let again = !upload.is_over();
        if !again {
            self.upload = None;
        }
        self.frames = self.frames.saturating_add(1);
        Some((chunk, again))
    }

    /// Whether it is time to ask the node for a sign of life; the next time is then set.
    pub fn asks(&mut self, now: u64) -> Ask {
        if self.ended || self.ask_at > now {
            return Ask::Nobody;
        }
        self.asked = true;
        if self.verify_by != u64::MAX {
            self.ask_at = now + ASK_AGAIN_US;
            return Ask::Node;
        }
        self.ask_at = now + ANSWER_US;
        self.echoed = false;
        self.unanswered = (self.unanswered + 1).min(QUESTIONS);
        if self.unanswered < QUESTIONS {
            self.ask_wait = (self.ask_wait * 2).min(LONGEST_ASK_US);
            Ask::Node
        } else {
            Ask::NodeAndSelf
        }
    }

    /// The node is asked for a sign of life by way of this call.
    pub fn asked_for_node(&mut self) {
        self.asked = true;
    }

    /// There is no connection: the question is put off. Once it is back, all calls are verified.
    pub fn asks_later(&mut self, now: u64) {
        if self.ask_at <= now {
            self.ask_at = now + FIRST_ASK_US;
        }
    }

    /// What was sent to oneself came back; the node has as long as ever to answer.
    fn on_echo(&mut self, now: u64) {
        if self.unanswered >= QUESTIONS {
            self.echoed = true;
            self.ask_at = now + ANSWER_US;
        }
    }

    /// Whether the node has left too many questions unanswered that the broker could deliver.
    pub fn is_silent(&self, now: u64) -> bool {
        self.echoed
            && self.unanswered >= QUESTIONS
            && self.verify_by == u64::MAX
            && (self.ask_at..self.ask_at + LATE_US).contains(&now)
    }

    /// Frames may have been lost: the node is asked at once, and has until the end of the grace to
    /// answer. A call that would not survive a loss has as long to end.
    pub fn verify(&mut self, now: u64) {
        self.verify_by = self.verify_by.min(now + GRACE_US);
        self.ask_at = now;
        self.unanswered = 0;
    }

    /// Whether the grace has run out without a sign of life.
    pub fn is_lost(&self, now: u64) -> bool {
        self.verify_by <= now
    }

    /// Nobody listened on the node's subject for one of the frames.
    pub fn on_no_responders(&mut self, now: u64) -> Step {
        if self.ended {
            return Step::On;
        }
        self.missed += 1;
        self.upload = None;
        if self.heard || self.asked {
            if self.is_fragile() {
                let message = "the node went away while the call's payload was sent to it";
                self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
                return Step::Lost;
            }
            // Gone, or reconnecting.
            if self.verify_by == u64::MAX {
                self.verify(now);
                self.ask_at = now + ASK_AGAIN_US;
            }
            return Step::On;
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
    pub fn on_reply(&mut self, reply: NodeReply, now: u64, limits: &BusLimits) -> Step {
        use node_reply::Body;
        if self.ended {
            return Step::On;
        }
        if wire::is_echo(&reply) {
            self.on_echo(now);
            return Step::On;
        }
        self.on_sign_of_life(now);
        match reply.body {
            Some(Body::Result(result)) => self.on_result(result, reply.chunks_before, limits),
            Some(Body::Error(error)) => {
                let error = MeshError::from(error).at(self.target.place());
                self.finish(Err(error));
                Step::Ended
            }
            Some(Body::Chunk(chunk)) => self.on_chunk(chunk, limits),
            Some(Body::Progress(progress)) => {
                // A newer progress makes one that nobody has read worthless.
                if let Some(CallEvent::Progress(last)) = self.events.back_mut() {
                    *last = progress;
                    return Step::On;
                }
                self.notice(CallEvent::Progress(progress))
            }
            Some(Body::Log(log)) => self.notice(CallEvent::Log(*log)),
            Some(Body::Credit(credit)) if credit.sent > self.next_sequence => {
                let message = format!(
                    "the node has sent {} parts of the answer and {} came: the others were lost on the \
                     way",
                    credit.sent, self.next_sequence
                );
                self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
                Step::Abandoned
            }
            Some(Body::Credit(credit)) => match &mut self.upload {
                Some(upload) if credit.chunks > 0 => {
                    upload.grant(credit.chunks);
                    Step::Upload
                }
                _ => Step::On,
            },
            // A body of a newer version of the protocol: not for this caller.
            None => Step::Dropped,
        }
    }

    fn on_sign_of_life(&mut self, now: u64) {
        self.heard = true;
        if self.unanswered > 0 {
            self.unanswered = 0;
            self.ask_at = now + self.ask_wait;
        }
        if self.verify_by == u64::MAX || self.is_fragile() {
            return;
        }
        self.verify_by = u64::MAX;
        self.ask_at = now + self.ask_wait;
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
            self.fragments.add(&chunk.payload);
            // Fragments are joined here, so they are taken as soon as they are here.
            if self.thrifty {
                self.withheld += 1;
            } else {
                self.count_taken(1, limits);
            }
            return Step::On;
        }
        if self.chunks >= self.window {
            let message = "the node sent more chunks than it had credit for";
            self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
            return Step::Abandoned;
        }
        self.chunks += 1;
        self.events.push_back(CallEvent::Chunk(chunk.payload));
        Step::On
    }

    /// Counts a chunk as taken; from time to time that gives the node new credit.
    fn count_taken(&mut self, chunks: u32, limits: &BusLimits) {
        self.taken += chunks;
        if self.taken >= limits.initial_credit.div_ceil(2) {
            self.owed = self.owed.saturating_add(std::mem::take(&mut self.taken));
        }
    }

    /// Whether the call begins to stand in line until fragments may be counted.
    pub fn joins_line(&mut self) -> bool {
        self.withheld > 0 && !std::mem::replace(&mut self.in_line, true)
    }

    /// Its turn has come: counts the fragments that waited for that. Gives how many those are.
    pub fn leaves_line(&mut self, limits: &BusLimits) -> u32 {
        self.in_line = false;
        let withheld = std::mem::take(&mut self.withheld);
        self.count_taken(withheld, limits);
        withheld
    }

    /// The credit that is to be sent to the node now; 0: none.
    pub fn take_owed(&mut self) -> u32 {
        let owed = std::mem::take(&mut self.owed);
        if self.ended {
            return 0;
        }
        self.frames += u32::from(owed > 0);
        self.given += u64::from(owed);
        owed
    }

    /// All credit that was given, beside what is there at the start.
    pub fn given(&self) -> u64 {
        self.given
    }

    fn too_large(&mut self, more: usize, limits: &BusLimits) -> bool {
        let large = self.fragments.len() + more > limits.max_payload;
        if large {
            let message = format!(
                "the result is larger than the {} bytes that a payload may have here: let the plugin answer \
                 with less at a time, or raise router.max_payload (64MiB at most)",
                limits.max_payload
            );
            self.finish(Err(self.error(ErrorCode::PluginFailed, message)));
        }
        large
    }

    fn on_result(&mut self, result: common::Result, before: u64, limits: &BusLimits) -> Step {
        // 0 may also come from an agent that does not count.
        if before > 0 && before != self.next_sequence {
            let message = format!(
                "{before} chunks went before the result and {} came: some were lost on the way",
                self.next_sequence
            );
            self.finish(Err(self.error(ErrorCode::OutcomeUnknown, message)));
            return Step::Ended;
        }
        if self.too_large(result.payload.len(), limits) {
            return Step::Ended;
        }
        let payload = if self.fragments.len() == 0 {
            result.payload
        } else {
            let mut whole = self.fragments.take();
            whole.extend_from_slice(&result.payload);
            whole.freeze()
        };
        self.finish(Ok(CallOutput {
            payload,
            content_type: result.content_type,
        }));
        Step::Ended
    }

    /// The next event for the caller.
    pub fn take(&mut self, limits: &BusLimits) -> Option<CallEvent> {
        match self.events.pop_front() {
            Some(event) if matches!(event, CallEvent::Chunk(_)) => {
                self.chunks -= 1;
                self.count_taken(1, limits);
                Some(event)
            }
            Some(event) => {
                self.notices -= 1;
                Some(event)
            }
            None => self.end.take().map(CallEvent::End),
        }
    }
}
