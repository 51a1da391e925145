//! A call of the mesh to a plugin of this node, while it runs.

use mesh_bus::ReplyTo;
use mesh_core::error::Place;
use mesh_proto::attach::{CallHead, HostMessage, PassedCall};
use mesh_proto::common;
use mesh_proto::control::NodeCall;
use mesh_proto::plugin::{HostFrame, host_frame};
use tokio::time::Instant;
use tracing::Span;

use super::local::LocalReply;
use super::pace::ProgressWish;
use crate::session::Coming;
use crate::spans;

/// Who waits for a call, as the bus names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CallerKey {
    pub(super) to: ReplyTo,
    pub(super) call_id: u64,
}

/// A call that came, on its way to the plugin.
#[derive(Debug)]
pub(super) enum Taken {
    /// From this node.
    Whole(Box<common::Call>),
    /// From the bus: passed on as it came.
    Passed {
        /// The call.
        call: NodeCall,
        /// What is known of it.
        head: CallHead,
    },
}

impl Taken {
    /// The caller wants progress.
    pub(super) fn wants_progress(&self) -> bool {
        match self {
            Self::Whole(call) => call.want_progress,
            Self::Passed { head, .. } => head.want_progress,
        }
    }

    /// What is still to come of it over the bus.
    pub(super) fn coming(&self) -> Coming {
        match self {
            Self::Whole(call) => Coming {
                parts: false,
                messages: false,
                bytes: call.payload.len(),
            },
            Self::Passed { head, .. } => Coming {
                parts: head.more,
                messages: head.messages,
                bytes: head.payload.len(),
            },
        }
    }

    /// Begins the call's span, whose context the plugin gets.
    pub(super) fn begin_span(&mut self, place: &Place) -> (Span, Option<common::TraceContext>) {
        match self {
            Self::Whole(call) => {
                let (span, context) = spans::begin(call, place, false);
                call.trace = Some(context);
                (span, None)
            }
            Self::Passed { call, .. } => {
                // Its head could be read, so at worst a text in it is none.
                let call = call.whole().unwrap_or_default();
                let (span, context) = spans::begin(&call, place, true);
                (span, Some(context))
            }
        }
    }

    /// What goes to the plugin. The time left is written when it goes.
    pub(super) fn into_message(self, id: u64, trace: Option<common::TraceContext>) -> HostMessage {
        match self {
            Self::Whole(call) => HostMessage::Frame(HostFrame {
                id,
                body: Some(host_frame::Body::Invoke(call)),
            }),
            Self::Passed { call, .. } => HostMessage::Invoke(PassedCall {
                id,
                call: call.call,
                time_left_us: call.time_left_us,
                trace,
            }),
        }
    }
}

/// Which way replies to a call go.
#[derive(Debug)]
pub(super) enum ReplyPath {
    /// Over the bus.
    Bus(CallerKey),
    /// To the router of this agent.
    Local(Box<LocalReply>),
}

/// What is kept with a running call.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Its number among all calls of the agent.
    pub(super) number: u64,
    pub(super) reply: ReplyPath,
    pub(super) deadline: Instant,
    pub(super) started: Instant,
    /// Chunks of the answer that have gone on.
    pub(super) passed: u64,
    /// `None`: the caller did not ask for progress.
    pub(super) progress: Option<ProgressWish>,
    /// The server span; `None` when no spans are exported.
    pub(super) span: Option<Span>,
}
