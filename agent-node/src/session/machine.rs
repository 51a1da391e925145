//! The state machine of one session.

use mesh_core::error::{ErrorCode, Place};
use mesh_proto::attach::Inbound;
use mesh_proto::common;
use mesh_proto::plugin::{Drain, HealthCheck, HostFrame, PluginFrame, host_frame, plugin_frame};

use super::action::{Action, Severity};
use super::health::HealthWatch;
use super::ids::{GivenUp, IdMap};
use super::limits::{INITIAL_CREDIT, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES};
use super::own::OwnCalls;
use super::refusal::{body_name, error_frame, wire_error};

/// How far the handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was accepted yet.
    AwaitHello,
    /// Welcome was sent.
    AwaitReady,
    /// The plugin takes calls.
    Ready,
}

/// A running call of the host to the plugin.
#[derive(Debug)]
pub(crate) struct HostCall<C> {
    /// What the host keeps with it.
    pub(crate) data: C,
    /// The sequence that the next chunk of the caller must have; `None`: none is to come.
    pub(super) upload_next: Option<u64>,
    /// Messages follow the payload.
    pub(super) messages: bool,
    /// Whether the payload was whole from the beginning, or is by now.
    pub(super) whole: bool,
    /// Bytes of the payload so far.
    pub(super) payload_bytes: usize,
    /// Chunks of the payload that the plugin took by Credit frames.
    pub(super) upload_taken: u64,
    /// The sequence that the next chunk of the answer must have.
    pub(super) answer_next: u64,
    /// Chunks of the answer that the plugin may still send.
    pub(super) credit: u64,
    /// Chunks that were granted beside those of the start.
    pub(super) granted: u64,
    /// Bytes of the fragments so far.
    pub(super) fragment_bytes: usize,
}

/// What is to come of a call after its first frame.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Coming {
    /// More of the payload.
    pub(crate) parts: bool,
    /// Messages after the payload.
    pub(crate) messages: bool,
    /// Bytes of the payload in the first frame.
    pub(crate) bytes: usize,
}

/// One plugin's session.
#[derive(Debug)]
pub(crate) struct Machine<C> {
    pub(super) stage: Stage,
    pub(super) place: Place,
    pub(super) calls: IdMap<HostCall<C>>,
    pub(super) given_up: GivenUp,
    pub(super) own: OwnCalls,
    pub(super) health: HealthWatch,
    /// A frame has come.
    heard: bool,
    pub(super) last_id: u64,
    /// Largest payload of a call, and of an answer.
    pub(super) max_payload: usize,
}

impl<C> Machine<C> {
    /// A session of which nothing is known but the node.
    pub(crate) fn new(node: &str) -> Self {
        Self {
            stage: Stage::AwaitHello,
            place: Place {
                node: node.to_owned(),
                ..Place::default()
            },
            calls: IdMap::default(),
            given_up: GivenUp::default(),
            own: OwnCalls::default(),
            health: HealthWatch::default(),
            heard: false,
            last_id: 0,
            max_payload: MAX_PAYLOAD_BYTES,
        }
    }

    /// How far the handshake has come.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Which plugin, version, instance and node this is, as far as is known.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Payloads and answers have at most so many bytes.
    pub(crate) fn limit_payloads(&mut self, bytes: usize) {
        self.max_payload = bytes;
    }

    /// The handshake was accepted; Welcome is to be sent.
    pub(crate) fn accept(&mut self, place: Place) {
        self.place = place;
        self.stage = Stage::AwaitReady;
    }

    /// Calls of the host that run.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Calls of the plugin that run.
    pub(crate) fn own_calls(&self) -> usize {
        self.own.len()
    }

    /// Begins a call of the host and gives its id.
    pub(crate) fn begin(&mut self, data: C, coming: Coming) -> u64 {
        let id = self.next_id();
        self.calls.insert(
            id,
            HostCall {
                data,
                upload_next: (coming.parts || coming.messages).then_some(0),
                messages: coming.messages,
                whole: !coming.parts,
                payload_bytes: coming.bytes,
                upload_taken: 0,
                answer_next: 0,
                credit: u64::from(INITIAL_CREDIT),
                granted: 0,
                fragment_bytes: 0,
            },
        );
        id
    }

    /// What the host keeps with a running call.
    pub(crate) fn call(&mut self, id: u64) -> Option<&mut C> {
        self.calls.get_mut(&id).map(|call| &mut call.data)
    }

    /// Whether a call of the host runs.
    pub(crate) fn is_running(&self, id: u64) -> bool {
        self.calls.contains_key(&id)
    }

    /// All running calls with what the host keeps with them.
    pub(crate) fn running(&self) -> impl Iterator<Item = (u64, &C)> {
        self.calls.iter().map(|(id, call)| (*id, &call.data))
    }

    /// A caller sends more of its payload, or a message. `None`: pass it on; an error: the call must be
    /// given up with it.
    pub(crate) fn upload(&mut self, id: u64, chunk: &common::Chunk) -> Option<(ErrorCode, String)> {
        let call = self.calls.get_mut(&id)?;
        // The plugin works on the call as soon as the payload is whole.
        let code = if call.whole && call.messages {
            ErrorCode::OutcomeUnknown
        } else {
            ErrorCode::ProtocolViolation
        };
        let Some(next) = call.upload_next else {
            return Some((
                code,
                "a chunk came after the last one of the call".to_owned(),
            ));
        };
        if chunk.sequence != next {
            let text = format!(
                "chunk {next} of the call is missing: chunk {} came in its place",
                chunk.sequence
            );
            return Some((code, text));
        }
        let ends_messages = call.whole && chunk.last;
        if !ends_messages && next >= u64::from(INITIAL_CREDIT) + call.upload_taken {
            let text = "more chunks of the call came than Credit frames allow".to_owned();
            return Some((code, text));
        }
        if !call.whole {
            call.payload_bytes = call.payload_bytes.saturating_add(chunk.payload.len());
            if call.payload_bytes > self.max_payload {
                return Some((ErrorCode::TooLarge, payload_too_large(self.max_payload)));
            }
        }
        let over = ends_messages || (chunk.last && !call.messages);
        call.whole |= chunk.last;
        call.upload_next = (!over).then_some(next + 1);
        None
    }

    /// Calls that wait for more from their callers: their ids, and whether the plugin works on them already.
    pub(crate) fn awaiting(&self) -> Vec<(u64, bool)> {
        let calls = self.calls.iter();
        calls
            .filter(|(_, call)| call.upload_next.is_some())
            .map(|(id, call)| (*id, call.whole))
            .collect()
    }

    /// The plugin takes more chunks of a payload: how many of them its caller may send. A plugin can take
    /// only what was sent to it, so that it can't flood its caller with credit.
    pub(crate) fn take_upload_credit(&mut self, id: u64, chunks: u32) -> u32 {
        let Some(call) = self.calls.get_mut(&id) else {
            return 0;
        };
        let Some(sent) = call.upload_next else {
            return 0;
        };
        let left = sent.saturating_sub(call.upload_taken);
        let taken = u64::from(chunks).min(left);
        call.upload_taken += taken;
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// A caller takes more chunks of the answer. False: no such call runs.
    pub(crate) fn grant(&mut self, id: u64, chunks: u32) -> bool {
        let Some(call) = self.calls.get_mut(&id) else {
            return false;
        };
        call.credit = call.credit.saturating_add(u64::from(chunks));
        call.granted = call.granted.saturating_add(u64::from(chunks));
        true
    }

    /// A caller on the bus takes more chunks of the answer, or asks: what it has granted in all makes good
    /// what was lost before. Gives how many more those are; `None`: no such call runs.
    pub(crate) fn grant_of(&mut self, id: u64, credit: &common::Credit) -> Option<u32> {
        let call = self.calls.get_mut(&id)?;
        let more = match credit.total {
            0 => credit.chunks,
            total => u32::try_from(total.saturating_sub(call.granted)).unwrap_or(u32::MAX),
        };
        self.grant(id, more).then_some(more)
    }

    /// Ends a call before the plugin answered; its late answer is then dropped without a word.
    pub(crate) fn give_up(&mut self, id: u64) -> Option<C> {
        let call = self.calls.remove(&id)?;
        self.given_up.insert(id);
        Some(call.data)
    }

    /// The answer to a call of the plugin was sent; its id is free again.
    pub(crate) fn own_ended(&mut self, id: u64) {
        self.own.ended(id);
    }

    /// Called once per health interval. False: the plugin is not yet ready to be asked.
    pub(crate) fn tick(&mut self, out: &mut Vec<Action<C>>) {
        if self.stage != Stage::Ready {
            return;
        }
        let tick = self.health.tick(self.calls.len());
        if tick.ask {
            out.push(Action::Send(self.health_check()));
        }
        out.extend(tick.change.map(Action::Health));
    }

    /// Asks the plugin for its health.
    pub(crate) fn health_check(&mut self) -> HostFrame {
        let id = self.next_id();
        self.health.asked(id);
        let body = Some(host_frame::Body::HealthCheck(HealthCheck {}));
        HostFrame { id, body }
    }

    /// Whether a frame has come since this was asked last, or the plugin was not listened to.
    pub(crate) fn was_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// The plugin is not listened to for now: its silence tells nothing.
    pub(crate) fn not_listened_to(&mut self) {
        self.heard = true;
    }

    /// The frame that asks the plugin to drain.
    pub(crate) fn drain_frame(grace_ms: u32, reason: &str, reattach: bool) -> HostFrame {
        HostFrame {
            id: 0,
            body: Some(host_frame::Body::Drain(Drain {
                grace_ms,
                reason: reason.to_owned(),
                reattach,
            })),
        }
    }

    /// Takes one frame of the plugin.
    pub(crate) fn on_frame(&mut self, inbound: Inbound<PluginFrame>, out: &mut Vec<Action<C>>) {
        self.heard = true;
        if let Some(change) = self.health.heard() {
            out.push(Action::Health(change));
        }
        match inbound {
            Inbound::Frame(PluginFrame {
                id,
                body: Some(body),
            }) => self.on_body(id, body, out),
            Inbound::Frame(PluginFrame { id, body: None }) => {
                let text = "this host does not know the frame: its body is empty or of a newer \
                            version of the protocol";
                self.unsupported(id, text.to_owned(), out);
            }
            Inbound::Malformed { id, reason } => {
                let text = format!("the frame could not be decoded: {reason}");
                self.broken(id, ErrorCode::MalformedFrame, "malformed", text, out);
            }
            Inbound::Oversize { id, bytes } => {
                let text = format!(
                    "the frame has {bytes} bytes, {MAX_FRAME_BYTES} are allowed; send larger payloads \
                     in Chunk frames"
                );
                self.broken(id, ErrorCode::TooLarge, "oversize", text, out);
            }
        }
    }

    fn on_body(&mut self, id: u64, body: plugin_frame::Body, out: &mut Vec<Action<C>>) {
        use plugin_frame::Body;
        if self.stage == Stage::AwaitHello && !matches!(body, Body::Hello(_)) {
            // An Error is never answered with an Error: two peers could go on for ever.
            let answer = !matches!(body, Body::Error(_));
            let text = format!("{} came before Hello: send Hello first", body_name(&body));
            return self.violation(id, text, answer, out);
        }
        match body {
            Body::Result(result) => self.on_result(id, result, out),
            Body::Chunk(chunk) if id % 2 == 1 => self.on_own_chunk(id, chunk, out),
            Body::Chunk(chunk) => self.on_answer_chunk(id, chunk, out),
            Body::Error(error) => self.on_error(id, error, out),
            Body::Progress(progress) => self.on_progress(id, progress, out),
            Body::Log(log) => {
                let id = self.calls.contains_key(&id).then_some(id);
                out.push(Action::Log { id, log });
            }
            Body::Call(call) => self.on_own_call(id, call, out),
            Body::Cancel(_) => self.on_own_cancel(id, out),
            Body::Credit(credit) => self.on_credit(id, credit.chunks, out),
            Body::Health(health) => self.on_health(id, &health, out),
            Body::CapabilityChange(change) => out.push(Action::Capabilities {
                id,
                entries: change.capabilities,
            }),
            Body::DrainRequest(request) => out.push(Action::DrainRequested {
                reason: request.reason,
            }),
            Body::Drained(_) => out.push(Action::Drained),
            Body::Hello(hello) => self.on_hello(id, hello, out),
            Body::Ready(_) => self.on_ready(id, out),
            Body::ConfigApplied(_) => {
                let text = format!("no configuration change of id {id} is on its way");
                self.violation(id, text, true, out);
            }
            Body::Publish(_)
            | Body::Ack(_)
            | Body::Nak(_)
            | Body::Message(_)
            | Body::Storage(_) => {
                let text = format!(
                    "{} is not carried out by this version of the host (plugin protocol {})",
                    body_name(&body),
                    super::limits::MAX_PROTOCOL
                );
                self.unsupported(id, text, out);
            }
        }
    }

    fn on_hello(
        &mut self,
        id: u64,
        hello: Box<mesh_proto::plugin::Hello>,
        out: &mut Vec<Action<C>>,
    ) {
        if self.stage != Stage::AwaitHello {
            let text = "a second Hello: this session is open already".to_owned();
            return self.violation(id, text, true, out);
        }
        if id != 0 {
            let text = format!("Hello has id {id}: it belongs to the session, id 0");
            return self.violation(id, text, true, out);
        }
        out.push(Action::Hello(hello));
    }

    fn on_ready(&mut self, id: u64, out: &mut Vec<Action<C>>) {
        if self.stage == Stage::AwaitReady {
            self.stage = Stage::Ready;
            out.push(Action::Ready);
        } else {
            self.violation(id, "a second Ready".to_owned(), true, out);
        }
    }

    fn on_health(
        &mut self,
        id: u64,
        health: &mesh_proto::plugin::Health,
        out: &mut Vec<Action<C>>,
    ) {
        if id != 0 && !self.health.answered(id) {
            let text = format!("no health check of id {id} is on its way");
            return self.violation(id, text, true, out);
        }
        out.extend(self.health.says(health).map(Action::Health));
    }

    /// A new even id.
    fn next_id(&mut self) -> u64 {
        self.last_id += 2;
        self.last_id
    }

    /// A frame that breaks the order of the protocol.
    pub(super) fn violation(&self, id: u64, text: String, answer: bool, out: &mut Vec<Action<C>>) {
        self.refuse(
            id,
            ErrorCode::ProtocolViolation,
            "protocol_violation",
            text,
            Severity::Fault,
            answer,
            out,
        );
    }

    fn unsupported(&self, id: u64, text: String, out: &mut Vec<Action<C>>) {
        let (code, severity) = (ErrorCode::Unsupported, Severity::Unsupported);
        self.refuse(id, code, "unsupported", text, severity, true, out);
    }

    /// A frame that could not be read. If it was to say something of a call, that call can't end
    /// well any more, so it ends now.
    fn broken(
        &mut self,
        id: u64,
        code: ErrorCode,
        reason: &'static str,
        text: String,
        out: &mut Vec<Action<C>>,
    ) {
        if let Some(call) = self.give_up(id) {
            let why = format!("the plugin answered with a frame that can't be used: {text}");
            out.push(Action::Ended {
                call,
                end: Err(wire_error(ErrorCode::PluginFailed, why, &self.place)),
            });
        }
        self.refuse(id, code, reason, text, Severity::Fault, true, out);
        if self.own.forget(id) {
            // The Error above ends the plugin's call.
            out.push(Action::OwnCancelled { id });
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one place that makes every refusal, called through short names"
    )]
    pub(super) fn refuse(
        &self,
        id: u64,
        code: ErrorCode,
        reason: &'static str,
        text: String,
        severity: Severity,
        answer: bool,
        out: &mut Vec<Action<C>>,
    ) {
        if answer {
            let error = wire_error(code, text.clone(), &self.place_for(id));
            out.push(Action::Send(error_frame(id, error)));
        }
        out.push(Action::Refused {
            reason,
            text,
            severity,
        });
    }
}

pub(super) fn payload_too_large(most: usize) -> String {
    format!(
        "the payload has more than {most} bytes, which is the most that the node takes: send less at a time, \
         or raise router.max_payload (64MiB at most)"
    )
}
