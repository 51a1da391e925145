//! What each frame of the host leads to.

use super::assembly::{Assembly, Step};
use super::{Ended, Session, handshake, running};
use crate::calls::{CallEvent, Peer, add_credit};
use crate::check::kind_name;
use crate::code::ErrorCode;
use crate::context::Context;
use crate::error::CallError;
use crate::payload::Payload;
use crate::requests::Requests;
use crate::wire::{HostBody, HostFrame, PluginBody, common, frame, plugin};

impl Session<'_> {
    pub(super) async fn on_frame(&mut self, host: HostFrame) -> Option<Ended> {
        let id = host.id;
        let Some(body) = host.body else {
            self.fail(
                id,
                ErrorCode::Unsupported,
                "this SDK does not know the frame's body",
            );
            return None;
        };
        match body {
            HostBody::Invoke(call) => self.on_invoke(id, call).await,
            HostBody::Chunk(chunk) => self.on_chunk(id, chunk).await,
            HostBody::Cancel(_) => self.on_cancel(id),
            HostBody::Credit(credit) => self.on_credit(id, credit.chunks),
            HostBody::Result(result) => {
                if let Some(slot) = self.attachment.calls.remove(id) {
                    slot.result(result);
                }
            }
            HostBody::Error(error) if id == 0 => {
                let error = CallError::from(error);
                // Others may be about a single frame, such as a log line.
                let fatal = [ErrorCode::InvalidManifest, ErrorCode::DependencyCycle];
                if fatal.contains(&error.code) {
                    return Some(handshake::refused(error));
                }
                tracing::warn!("the agent says: {error}");
            }
            HostBody::Error(error) => {
                if let Some(slot) = self.attachment.calls.remove(id) {
                    slot.end(Err(error.into()));
                }
            }
            HostBody::Progress(progress) => {
                self.line(id, CallEvent::Progress(progress.into()));
            }
            HostBody::Log(log) => self.line(id, CallEvent::Log((*log).into())),
            HostBody::HealthCheck(_) => {
                let health = plugin::Health {
                    status: plugin::HealthStatus::Healthy.into(),
                    message: String::new(),
                };
                self.reply(frame(id, PluginBody::Health(health)));
            }
            HostBody::ConfigChange(change) => self.on_config(id, &change),
            HostBody::Drain(drain) => self.on_drain(&drain),
            HostBody::StateChange(change) => {
                let name = self.attachment.definition.name();
                let (state, reason) = (&change.state, &change.reason);
                self.runner.tell(&format!("{name} is {state}: {reason}"));
            }
            HostBody::Event(_) => {
                self.fail(id, ErrorCode::Unsupported, "this plugin takes no events")
            }
            HostBody::Message(_) => {
                self.fail(id, ErrorCode::Unsupported, "this plugin takes no messages");
            }
            HostBody::Hook(_) => self.fail(id, ErrorCode::Unsupported, "this plugin runs no hooks"),
            HostBody::Welcome(_) => {
                self.fail(
                    id,
                    ErrorCode::ProtocolViolation,
                    "a session has one Welcome",
                );
            }
            // Answers to what this SDK does not send.
            HostBody::PublishAck(_) | HostBody::Storage(_) | HostBody::CapabilitiesApplied(_) => {}
        }
        None
    }

    async fn on_invoke(&mut self, id: u64, call: Box<common::Call>) {
        if id == 0 || !id.is_multiple_of(2) {
            let text = "a host begins even ids from 2 on";
            return self.fail(id, ErrorCode::ProtocolViolation, text);
        }
        if self.calls.contains_key(&id) || self.assemblies.contains_key(&id) {
            let text = "a call of this id is running";
            return self.fail(id, ErrorCode::ProtocolViolation, text);
        }
        if !self.leaving.takes_calls() {
            return self.fail(id, ErrorCode::Draining, "the plugin is about to end");
        }
        let most = self.attachment.welcome.concurrency;
        if self.running.len() + self.assemblies.len() >= most {
            let text = format!("{most} calls are running, which is the limit");
            return self.fail(id, ErrorCode::Overloaded, &text);
        }
        self.last_id = id;
        if call.more {
            self.assemblies.insert(id, Assembly::new(call));
        } else {
            let requests = requests_of(&call, 0, 0);
            self.start(id, call, requests).await;
        }
    }

    /// Runs a call whose payload is whole.
    async fn start(&mut self, id: u64, mut call: Box<common::Call>, requests: Requests) {
        let capability = call.capability.take().unwrap_or_default();
        let definition = self.attachment.definition.clone();
        let Some(handler) = definition.handler(&capability) else {
            let manifest = &definition.manifest;
            let text = format!(
                "{} {} does not provide {}:{}",
                manifest.name,
                manifest.version,
                kind_name(capability.kind),
                capability.name
            );
            return self.fail(id, ErrorCode::NoProvider, &text);
        };
        if call.messages && !definition.takes_messages(&capability) {
            let text = "the capability takes no messages after the payload: send one payload, or declare \
                        it with client streaming";
            return self.fail(id, ErrorCode::InvalidArgument, text);
        }
        let payload = Payload::new(
            std::mem::take(&mut call.payload),
            std::mem::take(&mut call.content_type),
        );
        let context = Context::new(id, self.attachment.clone(), call, requests);
        let mut future = running::run(handler, payload, context.clone(), &capability);
        // Most handlers end at once: they never see the set of those that wait.
        if futures::poll!(&mut future).is_pending() {
            self.calls.insert(id, context);
            self.running.push(future);
        }
    }

    async fn on_chunk(&mut self, id: u64, chunk: common::Chunk) {
        if !id.is_multiple_of(2) {
            // A chunk of a call that was given up may still come.
            let Some(slot) = self.attachment.calls.get(id) else {
                return;
            };
            if slot.chunk(chunk).is_err() {
                self.attachment.abandon(id, true);
            }
            return;
        }
        let terms = self.attachment.welcome.terms;
        if let Some(context) = self.calls.get(&id) {
            return context.inner.requests.push(chunk, terms.credit);
        }
        let Some(assembly) = self.assemblies.get_mut(&id) else {
            // One that follows a call's end has crossed it on the way.
            if id <= self.last_id {
                return;
            }
            let text = "a chunk came for a call that awaits none";
            return self.fail(id, ErrorCode::ProtocolViolation, text);
        };
        match assembly.add(&chunk, terms.max_payload, terms.credit) {
            Ok(Step::More(0)) => {}
            Ok(Step::More(chunks)) => {
                self.reply(frame(id, PluginBody::Credit(common::Credit::of(chunks))));
            }
            Ok(Step::Whole(payload)) => {
                if let Some(assembly) = self.assemblies.remove(&id) {
                    let requests = requests_of(&assembly.call, assembly.parts(), assembly.owed());
                    let mut call = assembly.call;
                    call.payload = payload;
                    self.start(id, call, requests).await;
                }
            }
            Err(error) => {
                self.assemblies.remove(&id);
                self.reply(frame(id, PluginBody::Error(error.into())));
            }
        }
    }

    fn on_cancel(&mut self, id: u64) {
        if self.assemblies.remove(&id).is_some() {
            self.fail(id, ErrorCode::Cancelled, "the caller cancelled the call");
        } else if let Some(context) = self.calls.get(&id) {
            context.inner.cancel.request();
            // Nobody takes what an answer still waits for credit with.
            context.inner.credit.close();
            context.inner.requests.came.notify_one();
        }
    }

    fn on_credit(&mut self, id: u64, chunks: u32) {
        if !id.is_multiple_of(2) {
            if let Some(slot) = self.attachment.calls.get(id) {
                slot.credit(chunks);
            }
        } else if let Some(context) = self.calls.get(&id) {
            add_credit(&context.inner.credit, chunks);
        }
    }

    fn on_config(&mut self, id: u64, change: &plugin::ConfigChange) {
        let attachment = self.attachment.clone();
        if let Some(config) = &attachment.definition.config {
            match (config.parse)(&change.config) {
                Ok(config) => attachment.set_config(config),
                Err(error) => {
                    return self.reply(frame(id, PluginBody::Error(error.into())));
                }
            }
        }
        let applied = plugin::ConfigApplied {};
        self.reply(frame(id, PluginBody::ConfigApplied(applied)));
    }

    /// Hands progress or a log line to the own call that it belongs to.
    fn line(&self, id: u64, event: CallEvent) {
        if let Some(slot) = self.attachment.calls.get(id) {
            slot.line(event);
        }
    }

    fn fail(&mut self, id: u64, code: ErrorCode, text: &str) {
        let error = CallError::new(code, text);
        self.reply(frame(id, PluginBody::Error(error.into())));
    }
}

/// What is to come of a call's messages, after so many parts of its payload.
fn requests_of(call: &common::Call, parts: u64, owed: u32) -> Requests {
    if call.messages {
        Requests::after(parts, owed)
    } else {
        Requests::none()
    }
}
