//! The plugin's own calls: odd ids. Payloads that come in parts are put together here.

use bytes::BytesMut;
use mesh_core::error::ErrorCode;
use mesh_core::split::MOST_GROUPS;
use mesh_proto::common;
use mesh_proto::plugin::{HostFrame, host_frame};

use super::action::Action;
use super::ids::IdMap;
use super::limits::{
    INITIAL_CREDIT, MAX_GROUP_BYTES, MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_OWN_BYTES,
    MAX_OWN_CALLS,
};
use super::machine::{Machine, payload_too_large};

/// One call of the plugin.
#[derive(Debug)]
enum OwnCall {
    /// Its payload is on its way.
    Uploading(Box<Upload>),
    /// It is with the router, which keeps its payload until the end. While messages are to come: the place
    /// of the next.
    Running { messages: Option<u64>, bytes: usize },
    /// It was answered with an error while its payload was still on its way.
    Discarding,
}

#[derive(Debug)]
struct Upload {
    call: Box<common::Call>,
    /// All parts in one piece: many small ones would keep many times their bytes.
    payload: BytesMut,
    next: u64,
    /// Chunks that the plugin may still send.
    credit: u32,
    /// Chunks that were taken since the last Credit.
    taken: u32,
}

impl OwnCall {
    fn bytes(&self) -> usize {
        match self {
            Self::Uploading(upload) => upload.payload.len(),
            Self::Running { bytes, .. } => *bytes,
            Self::Discarding => 0,
        }
    }
}

/// All calls of the plugin.
#[derive(Debug, Default)]
pub(super) struct OwnCalls {
    calls: IdMap<OwnCall>,
    /// Bytes of all payloads.
    bytes: usize,
    last_id: u64,
}

impl OwnCalls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_running(&self, id: u64) -> bool {
        matches!(self.calls.get(&id), Some(OwnCall::Running { .. }))
    }

    pub(super) fn was_begun(&self, id: u64) -> bool {
        id <= self.last_id
    }

    pub(super) fn ended(&mut self, id: u64) {
        if self.is_running(id) {
            self.take(id);
        }
    }

    /// Keeps a call that was taken out, or is new.
    fn put(&mut self, id: u64, call: OwnCall) {
        self.bytes += call.bytes();
        self.calls.insert(id, call);
    }

    fn take(&mut self, id: u64) -> Option<OwnCall> {
        let call = self.calls.remove(&id)?;
        self.bytes -= call.bytes();
        Some(call)
    }

    /// Forgets a call because it was answered with an error. True: the router must forget it, too.
    pub(super) fn forget(&mut self, id: u64) -> bool {
        match self.take(id) {
            Some(OwnCall::Running { .. }) => true,
            Some(OwnCall::Uploading(_) | OwnCall::Discarding) => {
                self.put(id, OwnCall::Discarding);
                false
            }
            None => false,
        }
    }
}

/// What a chunk of an upload leads to.
enum Step {
    More { grant: u32 },
    Whole(Box<Upload>),
    Broken(ErrorCode, String),
}

impl Upload {
    fn take(&mut self, chunk: common::Chunk, most: usize) -> Result<(), (ErrorCode, String)> {
        if chunk.sequence != self.next {
            let text = format!(
                "chunk {} of the payload is missing: chunk {} came in its place",
                self.next, chunk.sequence
            );
            return Err((ErrorCode::ProtocolViolation, text));
        }
        if self.credit == 0 {
            let text = "more chunks of the payload came than Credit frames allow".to_owned();
            return Err((ErrorCode::ProtocolViolation, text));
        }
        if chunk.payload.is_empty() && !chunk.last {
            let text = "a chunk of the payload is empty and not the last: leave it out".to_owned();
            return Err((ErrorCode::ProtocolViolation, text));
        }
        self.next += 1;
        self.credit -= 1;
        if self.payload.len().saturating_add(chunk.payload.len()) > most {
            return Err((ErrorCode::TooLarge, payload_too_large(most)));
        }
        self.payload.extend_from_slice(&chunk.payload);
        self.taken += 1;
        Ok(())
    }
}

impl<C> Machine<C> {
    pub(super) fn on_own_call(
        &mut self,
        id: u64,
        mut call: Box<common::Call>,
        out: &mut Vec<Action<C>>,
    ) {
        if id.is_multiple_of(2) {
            let text = format!("Call has id {id}: calls of the plugin have odd ids");
            return self.violation(id, text, true, out);
        }
        if self.own.calls.contains_key(&id) {
            // The Error ends both: the plugin could not tell their answers apart.
            let text =
                format!("Call has id {id}, which another call of the plugin has: both are ended");
            self.violation(id, text, true, out);
            if self.own.forget(id) {
                out.push(Action::OwnCancelled { id });
            }
            return;
        }
        self.own.last_id = self.own.last_id.max(id);
        if let Some((code, text)) = self.cannot_begin(&call) {
            // Its chunks are on their way; beyond this bound each of them is refused.
            if call.more && self.own.calls.len() < 2 * MAX_OWN_CALLS {
                self.own.put(id, OwnCall::Discarding);
            }
            return out.push(self.own_error(id, code, text));
        }
        let first = std::mem::take(&mut call.payload);
        if !call.more {
            let messages = call.messages.then_some(0);
            let bytes = first.len();
            self.own.put(id, OwnCall::Running { messages, bytes });
            return out.push(Action::OwnCall {
                id,
                call,
                payload: first,
            });
        }
        let upload = Upload {
            payload: first.into(),
            next: 0,
            credit: INITIAL_CREDIT,
            taken: 0,
            call,
        };
        let upload = OwnCall::Uploading(Box::new(upload));
        self.own.put(id, upload);
    }

    fn cannot_begin(&self, call: &common::Call) -> Option<(ErrorCode, String)> {
        let bytes: usize = call.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if self.own.calls.len() >= MAX_OWN_CALLS {
            let text = format!(
                "the plugin has {MAX_OWN_CALLS} calls of its own running, which is the most; wait for \
                 some to end"
            );
            return Some((ErrorCode::Overloaded, text));
        }
        if self.own.bytes.saturating_add(call.payload.len()) > MAX_OWN_BYTES {
            return Some((ErrorCode::Overloaded, too_much()));
        }
        if call.metadata.len() > MAX_METADATA_ENTRIES || bytes > MAX_METADATA_BYTES {
            let text = format!(
                "metadata has {} entries and {bytes} bytes; {MAX_METADATA_ENTRIES} entries and \
                 {MAX_METADATA_BYTES} bytes are allowed",
                call.metadata.len()
            );
            return Some((ErrorCode::InvalidArgument, text));
        }
        let bytes: usize = call.groups.iter().map(|(k, v)| k.len() + v.len()).sum();
        if call.groups.len() > MOST_GROUPS || bytes > MAX_GROUP_BYTES {
            let text = format!(
                "groups has {} entries and {bytes} bytes; {MOST_GROUPS} entries and {MAX_GROUP_BYTES} \
                 bytes are allowed",
                call.groups.len()
            );
            return Some((ErrorCode::InvalidArgument, text));
        }
        None
    }

    pub(super) fn on_own_chunk(&mut self, id: u64, chunk: common::Chunk, out: &mut Vec<Action<C>>) {
        let (last, most) = (chunk.last, self.max_payload);
        let step = match self.own.take(id) {
            // A message may cross the end of its call on the way.
            None if !chunk.fragment && self.own.was_begun(id) => return,
            None => {
                let text = format!("Chunk: no call of id {id} awaits more payload");
                return self.violation(id, text, true, out);
            }
            Some(OwnCall::Discarding) => {
                if !last {
                    self.own.put(id, OwnCall::Discarding);
                }
                return;
            }
            Some(OwnCall::Running {
                messages: Some(next),
                bytes,
            }) if chunk.sequence == next => {
                let messages = (!last).then_some(next + 1);
                self.own.put(id, OwnCall::Running { messages, bytes });
                let message = (!last).then_some(chunk.payload);
                return out.push(Action::OwnMessage { id, message });
            }
            Some(OwnCall::Running {
                messages: Some(_), ..
            }) => {
                let text = format!("Chunk: a message of call {id} is missing; the call is ended");
                self.violation(id, text, true, out);
                return out.push(Action::OwnCancelled { id });
            }
            Some(OwnCall::Running { messages: None, .. }) => {
                let text =
                    format!("Chunk: the payload of call {id} was whole already; the call is ended");
                self.violation(id, text, true, out);
                return out.push(Action::OwnCancelled { id });
            }
            Some(OwnCall::Uploading(upload)) => self.own.step(id, upload, chunk, most),
        };
        match step {
            Step::More { grant: 0 } => {}
            Step::More { grant } => out.push(Action::Send(HostFrame {
                id,
                body: Some(host_frame::Body::Credit(common::Credit::of(grant))),
            })),
            Step::Whole(upload) => {
                let Upload {
                    call,
                    payload,
                    next,
                    taken,
                    ..
                } = *upload;
                let messages = call.messages.then_some(next);
                if messages.is_some() {
                    let credit = host_frame::Body::Credit(common::Credit::of(taken));
                    out.push(Action::Send(HostFrame {
                        id,
                        body: Some(credit),
                    }));
                }
                let bytes = payload.len();
                self.own.put(id, OwnCall::Running { messages, bytes });
                out.push(Action::OwnCall {
                    id,
                    call,
                    payload: payload.freeze(),
                });
            }
            Step::Broken(code, text) => {
                if !last {
                    self.own.put(id, OwnCall::Discarding);
                }
                out.push(self.own_error(id, code, text));
            }
        }
    }

    pub(super) fn on_own_cancel(&mut self, id: u64, out: &mut Vec<Action<C>>) {
        if id.is_multiple_of(2) {
            let text = format!("Cancel has id {id}: a plugin cancels its own calls, which are odd");
            return self.violation(id, text, true, out);
        }
        let running = match self.own.take(id) {
            Some(OwnCall::Running { .. }) => true,
            Some(OwnCall::Uploading(_)) => false,
            // It was answered already, and no more chunks will come.
            Some(OwnCall::Discarding) => return,
            None if self.own.was_begun(id) => return,
            None => {
                let text = format!("Cancel: there was no call of id {id}");
                return self.violation(id, text, true, out);
            }
        };
        if running {
            out.push(Action::OwnCancelled { id });
        }
        let text = "the plugin cancelled its call";
        out.push(self.own_error(id, ErrorCode::Cancelled, text));
    }
}

impl OwnCalls {
    /// Takes one chunk of an upload; puts the upload back unless it is over.
    fn step(
        &mut self,
        id: u64,
        mut upload: Box<Upload>,
        chunk: common::Chunk,
        most: usize,
    ) -> Step {
        let last = chunk.last;
        if let Err((code, text)) = upload.take(chunk, most) {
            return Step::Broken(code, text);
        }
        if last {
            return Step::Whole(upload);
        }
        if self.bytes.saturating_add(upload.payload.len()) > MAX_OWN_BYTES {
            return Step::Broken(ErrorCode::Overloaded, too_much());
        }
        let grant = if upload.taken >= INITIAL_CREDIT / 2 {
            upload.credit += upload.taken;
            std::mem::take(&mut upload.taken)
        } else {
            0
        };
        self.put(id, OwnCall::Uploading(upload));
        Step::More { grant }
    }
}

fn too_much() -> String {
    format!(
        "the payloads of the plugin's running calls exceed {} MiB together; send fewer at a time",
        MAX_OWN_BYTES >> 20
    )
}
