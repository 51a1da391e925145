//! What a session wants done after a frame.

use bytes::Bytes;
use mesh_proto::common;
use mesh_proto::plugin::{Hello, HostFrame};

use super::health::HealthChange;

/// The good end of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The result, or the last part of it.
    pub(crate) result: common::Result,
    /// Chunks of the answer that went before it.
    pub(crate) chunks_before: u64,
}

/// How a call of the host ended: by its answer, or by an error of the plugin or the session.
pub(crate) type End = Result<Answer, Box<common::Error>>;

/// What a session wants done. `C` is what the host keeps with each of its calls.
#[derive(Debug)]
pub(crate) enum Action<C> {
    /// A frame for the plugin.
    Send(HostFrame),
    /// Check this and call `accept` or end the stream.
    Hello(Box<Hello>),
    /// The plugin takes calls.
    Ready,
    /// A call of the host has ended and is forgotten.
    Ended {
        /// What the host kept with it.
        call: C,
        /// How it ended.
        end: End,
    },
    /// A part of an answer to a running call of the host.
    Chunk {
        /// The call.
        id: u64,
        /// The part.
        chunk: common::Chunk,
    },
    /// How far a running call of the host has come.
    Progress {
        /// The call.
        id: u64,
        /// How far.
        progress: common::Progress,
    },
    /// A line of the plugin's log.
    Log {
        /// The running call that it belongs to.
        id: Option<u64>,
        /// The line.
        log: Box<common::Log>,
    },
    /// The plugin takes more chunks of a running call's payload.
    UploadCredit {
        /// The call.
        id: u64,
        /// How many.
        chunks: u32,
    },
    /// The plugin calls another capability; the payload is whole.
    OwnCall {
        /// The plugin's id of it.
        id: u64,
        /// The call; its payload field is empty.
        call: Box<common::Call>,
        /// The payload.
        payload: Bytes,
    },
    /// A message that follows the payload of a call of the plugin.
    OwnMessage {
        /// The plugin's id of it.
        id: u64,
        /// The message; `None`: no more follow.
        message: Option<Bytes>,
    },
    /// The plugin no longer wants the answer to a call of its own; it is forgotten and answered.
    OwnCancelled {
        /// The plugin's id of it.
        id: u64,
    },
    /// The plugin takes more chunks of an answer to a call of its own.
    OwnCredit {
        /// The plugin's id of it.
        id: u64,
        /// How many.
        chunks: u32,
    },
    /// The plugin's health changed.
    Health(HealthChange),
    /// The plugin provides something else from now on.
    Capabilities {
        /// The id to answer under.
        id: u64,
        /// All capabilities, unchecked.
        entries: Vec<common::CapabilityEntry>,
    },
    /// The plugin wants to leave.
    DrainRequested {
        /// Why, for a person.
        reason: String,
    },
    /// Nothing runs any more in the plugin.
    Drained,
    /// A frame was refused; the answer, if there is one, is an action of its own.
    Refused {
        /// Why, as a label of a metric.
        reason: &'static str,
        /// Why, for a person.
        text: String,
        /// Whether it is the plugin's fault or a harmless oddity.
        severity: Severity,
    },
}

/// How much a refused frame matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The plugin broke the protocol.
    Fault,
    /// The plugin asked for what this version does not carry out.
    Unsupported,
}
