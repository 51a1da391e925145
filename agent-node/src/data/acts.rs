//! What a stream's task does for its session beyond the lock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::InstanceId;
use mesh_core::manifest::Manifest;
use mesh_core::state::Phase;
use mesh_proto::attach::MAX_MESSAGE_BYTES;
use mesh_proto::common;
use mesh_proto::control::node_reply;
use mesh_proto::convert;
use mesh_proto::plugin::{CapabilitiesApplied, Hello, HostFrame, host_frame};
use mesh_proto::status::{from_status, to_status};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::call::ReplyPath;
use super::own_calls;
use super::reply::Blocked;
use super::stream::{Flow, StreamTask};
use crate::plugin_log;
use crate::rate_gate::Pass;
use crate::session::limits::MAX_FRAME_BYTES;
use crate::session::refusal::error_frame;
use crate::session::{HealthChange, Severity};

impl StreamTask {
    /// Ends the stream with an error, which is also why it ended.
    pub(super) fn fail(&self, error: &MeshError) -> Flow {
        self.out.finish(Err(to_status(error)));
        Err(error.to_string())
    }

    /// Nothing more can be read. Says so to the plugin, in case it can still hear.
    pub(super) fn broken(&self, status: &Status) -> String {
        let error = if status.code() == Code::OutOfRange {
            let text = format!(
                "a message of more than {} MiB ended the stream; frames have at most {} KiB, larger \
                 payloads go in Chunk frames",
                MAX_MESSAGE_BYTES >> 20,
                MAX_FRAME_BYTES >> 10
            );
            MeshError::new(ErrorCode::TooLarge, text)
        } else {
            from_status(status)
        };
        let reason = format!("its stream broke: {}", error.message);
        self.out.finish(Err(to_status(&error)));
        reason
    }

    pub(super) async fn on_hello(&mut self, hello: Box<Hello>) -> Flow {
        let plane = &self.streams.plane;
        let Err(error) = plane.welcome(self.key, hello, &self.streams.door).await else {
            return Ok(());
        };
        tracing::warn!(peer = self.peer, %error, "a plugin was refused");
        self.streams.plane.shared.metrics.frame_refused("handshake");
        self.fail(&error)
    }

    pub(super) fn no_hello(&self) -> Flow {
        let text = "no Hello came within 10 s of the opening of the stream";
        let mut error = MeshError::new(ErrorCode::ProtocolViolation, text);
        error.place.node = self.streams.plane.node().to_string();
        tracing::warn!(peer = self.peer, "a stream was closed: {text}");
        self.fail(&error)
    }

    /// What is known of the plugin: instance and manifest.
    fn plugin(&self) -> Option<(InstanceId, Arc<Manifest>)> {
        let mut state = self.streams.plane.lock();
        let plugin = state.sessions.get(self.key)?.plugin.as_ref()?;
        Some((plugin.instance, Arc::clone(&plugin.manifest)))
    }

    fn set_phase(&self, phase: Phase, reason: &str) {
        let draining = {
            let mut state = self.streams.plane.lock();
            let session = state.sessions.get(self.key);
            session.is_some_and(|session| session.draining.is_some())
        };
        // One that drains stays so until it is gone.
        if (!draining || phase == Phase::Draining)
            && let Some((instance, _)) = self.plugin()
        {
            self.streams.door.roster.set_phase(instance, phase, reason);
        }
    }

    pub(super) fn on_ready(&self) {
        self.set_phase(Phase::Ready, "");
    }

    pub(super) fn on_health(&mut self, change: HealthChange) {
        let Some(change) = self.pace.health(change, Instant::now()) else {
            return;
        };
        match change {
            HealthChange::Healthy => {
                tracing::info!(instance = self.instance_text(), "a plugin is well again");
                self.set_phase(Phase::Ready, "");
            }
            HealthChange::Unhealthy { reason } => {
                tracing::warn!(
                    instance = self.instance_text(),
                    reason,
                    "a plugin is unhealthy"
                );
                self.set_phase(Phase::Unhealthy, &reason);
            }
        }
    }

    fn instance_text(&self) -> String {
        self.plugin()
            .map_or_else(String::new, |(instance, _)| instance.to_string())
    }

    pub(super) fn on_log(&mut self, id: Option<u64>, mut log: Box<common::Log>) {
        // Its caller and the bus are no better off with a flood than the agent's log is.
        let Pass::Yes { dropped } = self.gate.pass(Instant::now()) else {
            return;
        };
        let mut state = self.streams.plane.lock();
        let Some(session) = state.sessions.get(self.key) else {
            return;
        };
        let place = session.machine.place().clone();
        plugin_log::shorten(&mut log);
        if let Some(call) = id.and_then(|id| session.machine.call(id)) {
            self.streams.plane.pass_log(&call.reply, log.clone());
        }
        drop(state);
        plugin_log::write(dropped, &place, &log);
    }

    /// Calls that waited for the bus go on, as far as it takes what they have.
    pub(super) async fn unstall(&mut self) -> Flow {
        if self.stalled.is_empty() {
            return Ok(());
        }
        let plane = self.streams.plane.clone();
        let mut moved = false;
        for (id, mut held) in self.stalled.take_all(Instant::now()) {
            // What came for one that has ended meanwhile is late, which the session knows.
            if !self.unblock(id, &held.blocked) {
                self.stalled.put(id, held, Instant::now());
                continue;
            }
            moved = true;
            while let Some(frame) = held.frames.pop_front() {
                // When it has to wait again, this holds all that is left.
                self.on_frame(frame).await?;
            }
        }
        if let Some(id) = self.stalled.settle(moved, Instant::now()) {
            let text = "the broker did not take the answer for so long that other calls of the plugin \
                        had to wait";
            plane.give_up(self.key, id, ErrorCode::OutcomeUnknown, text);
        }
        Ok(())
    }

    /// Sends what the bus did not take, if its call still runs. False: the bus still does not.
    fn unblock(&self, id: u64, blocked: &Blocked) -> bool {
        let plane = &self.streams.plane;
        let mut state = plane.lock();
        let session = state.sessions.get(self.key);
        let Some(call) = session.and_then(|session| session.machine.call(id)) else {
            return true;
        };
        let taken = plane.unblock(blocked);
        call.passed += u64::from(taken);
        taken
    }

    /// Something that waited for its time goes on.
    pub(super) fn on_due(&mut self) {
        let now = Instant::now();
        let late = self.pace.take_late(now);
        if !late.is_empty() {
            let plane = &self.streams.plane;
            let mut state = plane.lock();
            let Some(session) = state.sessions.get(self.key) else {
                return;
            };
            for (id, progress) in late {
                // One that has ended needs it no more.
                if let Some(call) = session.machine.call(id)
                    && let Some(wish) = &mut call.progress
                    && let Some(progress) = self.pace.progress(id, wish, progress, now)
                {
                    plane.pass_progress(&call.reply, progress);
                }
            }
        }
        if let Some(change) = self.pace.take_late_health(now) {
            self.on_health(change);
        }
    }

    /// The plugin takes more of a payload: from the bus its caller sends it, else it is here.
    pub(super) fn on_upload_credit(&self, id: u64, chunks: u32) {
        let plane = &self.streams.plane;
        let mut state = plane.lock();
        let Some(session) = state.sessions.get(self.key) else {
            return;
        };
        let due = session.machine.take_upload_credit(id, chunks);
        match session.machine.call(id).map(|call| &call.reply) {
            Some(ReplyPath::Bus(caller)) => {
                let credit = common::Credit::of(due);
                // 0 has a meaning of its own on the bus.
                if due > 0 {
                    plane.bus_reply(caller, node_reply::Body::Credit(credit));
                }
            }
            Some(ReplyPath::Local(_)) => {
                drop(state);
                plane.pump_local(self.key, id, chunks);
            }
            None => {}
        }
    }

    pub(super) fn on_own_call(&mut self, id: u64, call: common::Call, payload: Bytes) {
        let plane = &self.streams.plane;
        let place = {
            let mut state = plane.lock();
            let session = state.sessions.get(self.key);
            session.map(|session| session.machine.place().clone())
        };
        let (Some(place), Some((_, manifest))) = (place, self.plugin()) else {
            return;
        };
        let streams = call.messages;
        match own_calls::request(call, payload, &manifest, &place) {
            Ok(request) => self.own.begin(id, request, streams),
            Err(error) => {
                let place = Place {
                    node: place.node,
                    ..Place::default()
                };
                self.out.push(error_frame(id, error.at(place).into()));
                self.own_is_over(id);
            }
        }
    }

    /// The plugin sends a message of a call of its own.
    pub(super) fn on_own_message(&mut self, id: u64, message: Option<Bytes>) {
        if self.own.message(id, message) {
            return;
        }
        let text = "more messages of the call came than Credit frames allow; the call is ended";
        let mut error = MeshError::new(ErrorCode::ProtocolViolation, text);
        error.place.node = self.streams.plane.node().to_string();
        self.out.push(error_frame(id, error.into()));
        self.own.cancel(id);
        self.own_is_over(id);
        self.on_refused("protocol_violation", text, Severity::Fault);
    }

    /// A call of the plugin was answered, or cancelled (`None`).
    pub(super) fn own_ended(&self, ended: Option<u64>) {
        if let Some(id) = ended {
            self.own_is_over(id);
        }
    }

    fn own_is_over(&self, id: u64) {
        if let Some(session) = self.streams.plane.lock().sessions.get(self.key) {
            session.machine.own_ended(id);
        }
    }

    pub(super) fn on_capabilities(&mut self, id: u64, entries: Vec<common::CapabilityEntry>) {
        let Some((instance, manifest)) = self.plugin() else {
            return;
        };
        if self.changes.pass(Instant::now()) == Pass::No {
            let text = "the plugin changes its capabilities too often; gather changes for a second";
            let error = MeshError::new(ErrorCode::Overloaded, text);
            let error = error.retry_after(Duration::from_secs(1));
            self.out.push(error_frame(id, error.into()));
            return;
        }
        let entries = match convert::capability_entries(entries) {
            Ok(entries) => entries,
            Err(mistakes) => {
                let error = MeshError::new(ErrorCode::InvalidManifest, mistakes.to_string());
                self.out.push(error_frame(id, error.into()));
                return;
            }
        };
        let mut changed = Manifest::clone(&manifest);
        changed.capabilities = entries;
        let changed = Arc::new(changed);
        {
            let mut state = self.streams.plane.lock();
            let session = state.sessions.get(self.key);
            if let Some(plugin) = session.and_then(|session| session.plugin.as_mut()) {
                plugin.manifest = Arc::clone(&changed);
            }
        }
        self.streams.door.roster.set_manifest(instance, changed);
        let body = Some(host_frame::Body::CapabilitiesApplied(
            CapabilitiesApplied {},
        ));
        self.out.push(HostFrame { id, body });
    }

    /// The plugin wants to leave: no new calls from now on, and it says when it is done.
    pub(super) fn on_drain_request(&self, reason: &str) {
        let Some((instance, _)) = self.plugin() else {
            return;
        };
        let reason = match reason {
            "" => "the plugin asked to leave".to_owned(),
            reason => format!("the plugin asked to leave: {reason}"),
        };
        let plane = &self.streams.plane;
        if !plane.drain_instance(instance, &reason) {
            return;
        }
        self.set_phase(Phase::Draining, &reason);
        plane.send_drain(instance, self.streams.grace, &reason, false);
    }

    pub(super) fn on_drained(&self) {
        let mut state = self.streams.plane.lock();
        let Some(session) = state.sessions.get(self.key) else {
            return;
        };
        session.drained = true;
        session.calmer.notify_waiters();
        if session.draining.is_some() {
            // It has answered all, and takes nothing new: this is the end.
            session.out.finish(Ok(()));
            session.stop.cancel();
        }
    }

    pub(super) fn on_refused(&mut self, reason: &'static str, text: &str, severity: Severity) {
        self.streams.plane.shared.metrics.frame_refused(reason);
        let Pass::Yes { dropped } = self.gate.pass(Instant::now()) else {
            return;
        };
        let (instance, peer) = (self.instance_text(), self.peer.as_str());
        if dropped > 0 {
            tracing::warn!(
                instance,
                peer,
                dropped,
                "lines of this plugin were left out"
            );
        }
        match severity {
            Severity::Fault => {
                tracing::warn!(instance, peer, reason, "a frame was refused: {text}");
            }
            Severity::Unsupported => {
                tracing::debug!(instance, peer, reason, "a frame was refused: {text}");
            }
        }
    }

    /// Why the stream was told to end.
    pub(super) fn why_stopped(&self) -> String {
        let mut state = self.streams.plane.lock();
        let session = state.sessions.get(self.key);
        match session.and_then(|session| session.draining.clone()) {
            Some(reason) => reason,
            None => "its connection is gone".to_owned(),
        }
    }
}
