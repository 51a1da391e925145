//! What a plugin answers to calls of the host.

use mesh_core::error::{ErrorCode, Place};
use mesh_proto::common;

use super::action::{Action, Answer};
use super::machine::Machine;
use super::refusal::{error_frame, wire_error};

impl<C> Machine<C> {
    pub(super) fn on_result(&mut self, id: u64, result: common::Result, out: &mut Vec<Action<C>>) {
        match self.calls.remove(&id) {
            Some(call) => {
                let size = call.fragment_bytes.saturating_add(result.payload.len());
                let end = if size > self.max_payload {
                    Err(self.too_large())
                } else {
                    Ok(Answer {
                        result,
                        chunks_before: call.answer_next,
                    })
                };
                out.push(Action::Ended {
                    call: call.data,
                    end,
                });
            }
            None => self.no_call(id, "Result", true, out),
        }
    }

    pub(super) fn on_error(
        &mut self,
        id: u64,
        error: Box<common::Error>,
        out: &mut Vec<Action<C>>,
    ) {
        if let Some(call) = self.calls.remove(&id) {
            let end = Err(self.placed(error));
            return out.push(Action::Ended {
                call: call.data,
                end,
            });
        }
        // A plugin may not know health checks; that it says so is a sign of life.
        if self.health.answered(id) {
            return;
        }
        // An Error is never answered with an Error: two peers could go on for ever.
        self.no_call(id, &format!("Error ({})", error.message), false, out);
    }

    pub(super) fn on_answer_chunk(
        &mut self,
        id: u64,
        chunk: common::Chunk,
        out: &mut Vec<Action<C>>,
    ) {
        let Some(call) = self.calls.get_mut(&id) else {
            return self.no_call(id, "Chunk", true, out);
        };
        let fault = if chunk.sequence != call.answer_next {
            Some(format!(
                "chunk {} of the answer is missing: chunk {} came in its place",
                call.answer_next, chunk.sequence
            ))
        } else if call.credit == 0 {
            Some("more chunks came than Credit frames allow".to_owned())
        } else if chunk.fragment && chunk.payload.is_empty() {
            // They would gather at the caller without ever reaching the bound on bytes.
            Some("a fragment of the answer is empty: leave it out".to_owned())
        } else {
            None
        };
        if let Some(text) = fault {
            return self.end_faulty(id, text, out);
        }
        call.answer_next += 1;
        call.credit -= 1;
        if chunk.fragment {
            call.fragment_bytes = call.fragment_bytes.saturating_add(chunk.payload.len());
            if call.fragment_bytes > self.max_payload {
                let error = self.too_large();
                let text = error.message.clone();
                if let Some(call) = self.give_up(id) {
                    let end = Err(error);
                    out.push(Action::Ended { call, end });
                }
                return self.violation(id, text, true, out);
            }
        }
        out.push(Action::Chunk { id, chunk });
    }

    /// Chunks of the answer to a running call that the plugin may still send.
    pub(crate) fn credit(&self, id: u64) -> u64 {
        self.calls.get(&id).map_or(0, |call| call.credit)
    }

    pub(super) fn on_progress(
        &mut self,
        id: u64,
        progress: common::Progress,
        out: &mut Vec<Action<C>>,
    ) {
        if self.calls.contains_key(&id) {
            out.push(Action::Progress { id, progress });
        } else {
            self.no_call(id, "Progress", true, out);
        }
    }

    pub(super) fn on_credit(&mut self, id: u64, chunks: u32, out: &mut Vec<Action<C>>) {
        if self.own.is_running(id) {
            out.push(Action::OwnCredit { id, chunks });
        } else if self.calls.contains_key(&id) {
            out.push(Action::UploadCredit { id, chunks });
        } else if !self.was_begun(id) {
            self.violation(id, format!("Credit: no call of id {id} runs"), true, out);
        }
        // A credit may cross the end of its call on the way.
    }

    /// Ends a call whose answer breaks the protocol, and tells both sides.
    fn end_faulty(&mut self, id: u64, text: String, out: &mut Vec<Action<C>>) {
        if let Some(call) = self.give_up(id) {
            let why = format!("the plugin broke the protocol while it answered: {text}");
            out.push(Action::Ended {
                call,
                end: Err(wire_error(ErrorCode::PluginFailed, why, &self.place)),
            });
        }
        self.violation(id, text, true, out);
    }

    /// An answer to a call that does not run: late when it was given up, else wrong.
    fn no_call(&mut self, id: u64, what: &str, answer: bool, out: &mut Vec<Action<C>>) {
        let last = what == "Result" || what.starts_with("Error");
        let late = if last {
            self.given_up.remove(id)
        } else {
            self.given_up.contains(id)
        };
        if late {
            return;
        }
        let text = if id == 0 {
            format!("{what} has id 0, which is the session's: no call has it")
        } else if id % 2 == 1 {
            format!(
                "{what} has id {id}: odd ids are of the plugin's own calls, which the host answers"
            )
        } else if id > self.last_id {
            format!("{what}: there was no call of id {id}")
        } else {
            format!("{what}: call {id} has ended already")
        };
        self.violation(id, text, answer, out);
    }

    /// Whether an id is or was in use by either side.
    fn was_begun(&self, id: u64) -> bool {
        if id % 2 == 1 {
            self.own.was_begun(id)
        } else {
            id != 0 && id <= self.last_id
        }
    }

    fn too_large(&self) -> Box<common::Error> {
        let text = format!(
            "the plugin's answer has more than {} bytes, which is the most that the node takes: let it answer \
             with less at a time, or raise router.max_payload (64MiB at most)",
            self.max_payload
        );
        wire_error(ErrorCode::PluginFailed, text, &self.place)
    }

    /// Says where a plugin's own error happened. Its code is what others decide by whether the call may
    /// be sent again, so it must be the plugin's own word about this call, and one that is its to say.
    ///
    /// An error that names another place was told to the plugin about a call of its own: what was not
    /// processed then is that call, not this one.
    fn placed(&self, mut error: Box<common::Error>) -> Box<common::Error> {
        let unplaced = error.instance.is_empty()
            && error.plugin.is_empty()
            && error.version.is_empty()
            && error.node.is_empty();
        let own = unplaced || error.instance == self.place.instance;
        if !own || !may_say(error.code) {
            if error.code != 0 && error.details.is_empty() {
                let said = ErrorCode::from_number(error.code).name();
                error.details = format!(r#"{{"code":"{said}"}}"#).into();
            }
            error.code = ErrorCode::PluginFailed.number();
        }
        if unplaced {
            error.plugin.clone_from(&self.place.plugin);
            error.version.clone_from(&self.place.version);
            error.instance.clone_from(&self.place.instance);
            error.node.clone_from(&self.place.node);
        }
        error
    }

    /// The answer to a call of the plugin that can't be carried out.
    pub(crate) fn own_error(&self, id: u64, code: ErrorCode, text: impl Into<String>) -> Action<C> {
        Action::Send(error_frame(id, wire_error(code, text, &self.place_for(id))))
    }

    /// The place in an error of the host about an id. For a call of the plugin the node alone: the plugin
    /// may pass it on as the end of a call that it works on, and its own instance there would mean that it
    /// never took that call.
    pub(super) fn place_for(&self, id: u64) -> Place {
        if id.is_multiple_of(2) {
            return self.place.clone();
        }
        Place {
            node: self.place.node.clone(),
            ..Place::default()
        }
    }
}

/// Codes that are a plugin's to say about a call that it was given. The others are the mesh's: a plugin
/// can't know that its instance is gone, or that a manifest of another is wrong.
fn may_say(code: i32) -> bool {
    matches!(
        ErrorCode::from_number(code),
        ErrorCode::InvalidArgument
            | ErrorCode::NotFound
            | ErrorCode::NoProvider
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::Draining
            | ErrorCode::OutcomeUnknown
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Expired
            | ErrorCode::Cancelled
            | ErrorCode::TooLarge
            | ErrorCode::Unsupported
            | ErrorCode::PermissionDenied
            | ErrorCode::PluginFailed
    ) && code != 0
}
