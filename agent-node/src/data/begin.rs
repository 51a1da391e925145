//! How calls begin, go on and are given up, from whichever side they come.

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::InstanceId;
use mesh_proto::common;
use mesh_proto::control::node_reply;
use mesh_proto::plugin::{HostFrame, host_frame};
use tokio::time::Instant;

use super::call::{CallerKey, InFlight, ReplyPath, Taken};
use super::pace::ProgressWish;
use super::plane::Plane;
use super::state::SessionKey;
use crate::session::refusal::wire_error;

/// A call that was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reply: ReplyPath,
    pub(super) error: MeshError,
}

impl Plane {
    /// Takes a call that came and shall have ended at these times, or says why not.
    pub(super) fn begin_call(
        &self,
        instance: InstanceId,
        mut call: Taken,
        reply: ReplyPath,
        (started, deadline): (Instant, Instant),
    ) -> Result<(SessionKey, u64), Box<Refused>> {
        let config = &self.shared.config;
        let mut state = self.lock();
        let over_bus = matches!(reply, ReplyPath::Bus(_));
        let needed = state.is_needed(&call);
        let admitted = state.admit(
            instance,
            needed,
            over_bus && self.shared.bus.is_congested(),
            config.node.as_str(),
            config.max_in_flight,
            &self.shared.held,
        );
        let key = match admitted {
            Ok(key) => key,
            Err(error) => {
                drop(state);
                if error.code == ErrorCode::Overloaded {
                    self.shared.metrics.shed();
                }
                return Err(Box::new(Refused { reply, error }));
            }
        };
        let state = &mut *state;
        let Some(session) = state.sessions.get(key) else {
            let error = MeshError::new(ErrorCode::InstanceGone, "the instance is gone");
            return Err(Box::new(Refused { reply, error }));
        };
        let (span, trace) = if config.exporting {
            let (span, trace) = call.begin_span(session.machine.place());
            (Some(span), trace)
        } else {
            (None, None)
        };
        let number = state.calls.number();
        let caller = match &reply {
            ReplyPath::Bus(caller) => Some(state.calls.callers.hash(caller)),
            ReplyPath::Local(_) => None,
        };
        let in_flight = InFlight {
            number,
            reply,
            deadline,
            started,
            passed: 0,
            progress: call.wants_progress().then(|| ProgressWish::new(started)),
            span,
        };
        let id = session.machine.begin(in_flight, call.coming());
        session.load.begun();
        if let Some(plugin) = &session.plugin {
            plugin.meters.begun();
        }
        let message = call.into_message(id, trace);
        session.out.push_call(message, deadline);
        if let Some(caller) = caller {
            state.calls.callers.insert(caller, number, (key, id));
        }
        if state.calls.begun(deadline) {
            self.shared.earlier_deadline.notify_one();
        }
        Ok((key, id))
    }

    /// A caller sends more of its payload, or a message.
    pub(super) fn upload(&self, caller: &CallerKey, chunk: common::Chunk) {
        let mut state = self.lock();
        let state = &mut *state;
        // A call that was refused or has ended: the caller hears that, or has heard it.
        let Some((key, id)) = state.caller(caller) else {
            return;
        };
        let Some(session) = state.sessions.get(key) else {
            return;
        };
        let mut fault = session.machine.upload(id, &chunk);
        if fault.is_none() {
            let full = queue_full(&chunk);
            let body = Some(host_frame::Body::Chunk(chunk));
            if !session.out.push_part(HostFrame { id, body }) {
                fault = Some(full);
            }
        }
        if let Some((code, text)) = fault
            && let Some(call) = session.machine.give_up(id)
        {
            session.out.push(cancel_frame(id, &text));
            let end = Err(wire_error(code, text, session.machine.place()));
            self.ended(&mut state.calls, session, call, end, Instant::now());
        }
    }

    /// A caller takes more chunks of an answer; 0 asks whether the call still runs.
    pub(super) fn credit(&self, caller: &CallerKey, credit: &common::Credit) {
        let mut state = self.lock();
        let found = state.caller(caller);
        let passed = found.and_then(|(key, id)| {
            let session = state.sessions.get(key)?;
            let more = session.machine.grant_of(id, credit)?;
            if more > 0 {
                session.out.push(credit_frame(id, more));
            }
            Some(session.machine.call(id)?.passed)
        });
        drop(state);
        if credit.chunks > 0 {
            return;
        }
        let body = match passed {
            Some(passed) => node_reply::Body::Credit(common::Credit {
                sent: passed,
                ..common::Credit::default()
            }),
            None => {
                let text = "the node does not know the call: it ended while the connection was lost, \
                            or the node was started anew";
                let mut error = MeshError::new(ErrorCode::OutcomeUnknown, text);
                error.place.node = self.node().to_string();
                node_reply::Body::Error(error.into())
            }
        };
        self.bus_reply(caller, body);
    }

    /// A caller on the bus no longer wants the answer.
    pub(super) fn cancel_caller(&self, caller: &CallerKey, reason: &str) {
        let found = self.lock().caller(caller);
        if let Some((key, id)) = found {
            self.cancel(key, id, reason);
        }
    }

    /// The caller no longer wants the answer.
    pub(super) fn cancel(&self, key: SessionKey, id: u64, reason: &str) {
        self.give_up(key, id, ErrorCode::Cancelled, reason);
    }

    /// Ends a running call from the host's side, and tells both sides.
    pub(super) fn give_up(&self, key: SessionKey, id: u64, code: ErrorCode, reason: &str) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(session) = state.sessions.get(key) else {
            return;
        };
        if let Some(call) = session.machine.give_up(id) {
            if !session.out.take_back(id) {
                session.out.push(cancel_frame(id, reason));
            }
            let end = Err(wire_error(code, reason, session.machine.place()));
            self.ended(&mut state.calls, session, call, end, Instant::now());
        }
    }

    /// The connection to the broker was lost: what callers had sent may be lost with it, and no gap would
    /// ever show it if nothing follows. So calls that wait for more end now, on both sides.
    pub(super) fn end_torn_uploads(&self) {
        let torn: Vec<_> = {
            let mut state = self.lock();
            let sessions = state.sessions.all_mut();
            sessions
                .flat_map(|(key, session)| {
                    let calls = session.machine.awaiting();
                    calls.into_iter().map(move |(id, begun)| (key, id, begun))
                })
                .collect()
        };
        let text = "the node's connection to NATS was lost while the caller still sent";
        for (key, id, begun) in torn {
            let code = if begun {
                ErrorCode::OutcomeUnknown
            } else {
                ErrorCode::Disconnected
            };
            self.give_up(key, id, code, text);
        }
    }

    /// Sends more of a local call's payload and messages.
    pub(super) fn pump_local(&self, key: SessionKey, id: u64, granted: u32) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get(key) else {
            return;
        };
        let out = session.out.clone();
        let Some(call) = session.machine.call(id) else {
            return;
        };
        let ReplyPath::Local(local) = &mut call.reply else {
            return;
        };
        let pumped = local.pump(id, granted, &out);
        drop(state);
        if let Err((code, text)) = pumped {
            self.give_up(key, id, code, &text);
        }
    }

    /// The receiver of a local answer has room again: lets the plugin send more.
    pub(super) fn grant_local(&self, key: SessionKey, id: u64, chunks: u32) {
        let mut state = self.lock();
        if let Some(session) = state.sessions.get(key)
            && session.machine.grant(id, chunks)
        {
            session.out.push(credit_frame(id, chunks));
        }
    }
}

/// What a call ends with whose plugin has no room for a chunk. One that gets messages is worked on.
pub(super) fn queue_full(chunk: &common::Chunk) -> (ErrorCode, String) {
    let text =
        "the plugin does not read its stream fast enough for the payload, or the agent holds too \
                much of other calls (agent.max_bytes_in_flight)"
            .to_owned();
    if chunk.fragment {
        (ErrorCode::Overloaded, text)
    } else {
        (ErrorCode::OutcomeUnknown, text)
    }
}

pub(super) fn credit_frame(id: u64, chunks: u32) -> HostFrame {
    let body = Some(host_frame::Body::Credit(common::Credit::of(chunks)));
    HostFrame { id, body }
}

pub(super) fn cancel_frame(id: u64, reason: &str) -> HostFrame {
    let reason = reason.to_owned();
    let body = Some(host_frame::Body::Cancel(common::Cancel { reason }));
    HostFrame { id, body }
}
