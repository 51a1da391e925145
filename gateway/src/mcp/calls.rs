//! A client's call to a plugin: out through the router, with progress and log lines on the way back,
//! until its end or until the client no longer wants it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use mesh_core::call::{Caller, TraceContext};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::split::{Group, Groups, MOST_GROUPS};
use mesh_proto::common;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::RequestContext;
use router::{CallEvent, CallOutput, CallRequest, CallStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors::invalid_answer;
use super::outbox::Outbox;
use super::{Shard, logging};
use crate::composite::Route;
use crate::http::room::Ticket;

/// A call that a client makes.
pub struct Call<'a> {
    /// Who serves it.
    pub route: &'a Route,
    /// What the plugin gets.
    pub payload: Bytes,
    /// The trace that the call is part of.
    pub trace: TraceContext,
    /// The least gravity of log lines that the client wants; `None`: it wants none.
    pub logs: Option<u8>,
}

/// A result and whose it is.
pub struct Served {
    output: CallOutput,
    place: Place,
}

impl Served {
    /// The result as the MCP model that it must be.
    ///
    /// # Errors
    /// PLUGIN_FAILED when it is not.
    pub fn read<T: DeserializeOwned>(&self, expected: &str) -> Result<T, MeshError> {
        serde_json::from_slice(&self.output.payload)
            .map_err(|error| invalid_answer(&self.place, expected, &error.to_string()))
    }
}

/// The JSON that a plugin gets.
///
/// # Errors
/// INTERNAL: arguments that came as JSON can be written as JSON.
pub fn payload(value: &impl Serialize) -> Result<Bytes, MeshError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| MeshError::new(ErrorCode::Internal, error.to_string()))
}

/// Makes a call and waits for its end.
///
/// # Errors
/// What the call ended with; CANCELLED when the client gave it up or went away.
pub async fn run(
    shard: &Shard,
    call: Call<'_>,
    context: &RequestContext<RoleServer>,
) -> Result<Served, MeshError> {
    let shared = &shard.shared;
    let token = context.meta.get_progress_token();
    let request = CallRequest {
        plugin: Some(call.route.plugin.clone()),
        timeout: shared.call_timeout,
        trace: call.trace,
        caller: Caller {
            node: shared.name.to_string(),
            ..Caller::default()
        },
        want_progress: token.is_some(),
        groups: groups(shared.table().groups(), context),
        ..CallRequest::new(call.route.capability.clone(), call.payload)
    };
    // Dropping the stream before its end cancels the call at the plugin.
    let mut stream = shard.router.call(request);
    let mut outbox = Outbox::new(
        context.peer.clone(),
        shared.metrics.notifications_dropped.clone(),
    );
    let plugin = call.route.plugin.as_str();
    let mut listener = Listener {
        outbox: &mut outbox,
        token,
        logs: call.logs,
        plugin,
    };
    let ended = tokio::select! {
        ended = listener.follow(&mut stream) => ended,
        () = context.ct.cancelled() => {
            return Err(MeshError::new(ErrorCode::Cancelled, "the client cancelled the request")
                .at(stream.served_by()));
        }
        () = shared.giving_up.cancelled() => Err(MeshError::new(
            ErrorCode::OutcomeUnknown,
            "the gateway stopped while the call was in flight, and the call took longer than its \
             gateway.drain_grace",
        )),
    };
    let place = stream.served_by();
    outbox.flush().await;
    let ticket = ticket(context);
    match ended {
        Ok(output) => {
            if let Some(ticket) = ticket {
                ticket.answered(output.payload.len());
            }
            Ok(Served { output, place })
        }
        Err(error) => {
            let error = error.at(place.clone());
            // What an error says of another plugin, the one that was called has only passed on.
            let own = place.is_unknown() || error.place.plugin == place.plugin;
            if let Some(ticket) = ticket.filter(|_| own) {
                ticket.refuse(&error);
            }
            Err(error)
        }
    }
}

/// The test groups that the client's headers put a request into. No other header is passed on.
fn groups(known: &[Group], context: &RequestContext<RoleServer>) -> Groups {
    if known.is_empty() {
        return Groups::new();
    }
    let parts = context.extensions.get::<Parts>();
    let is_in = |group: &&Group| {
        let value = parts.and_then(|parts| parts.headers.get(&group.header));
        value.is_some_and(|value| value.as_bytes() == group.value.as_bytes())
    };
    let found = known.iter().filter(is_in).take(MOST_GROUPS);
    let owned = |group: &Group| (group.header.clone(), group.value.clone());
    found.map(owned).collect()
}

/// The ticket of a call, if the request is one.
pub fn ticket(context: &RequestContext<RoleServer>) -> Option<&Ticket> {
    let parts = context.extensions.get::<Parts>()?;
    parts.extensions.get::<Arc<Ticket>>().map(AsRef::as_ref)
}

/// Turns what happens to a call into notifications.
struct Listener<'a> {
    outbox: &'a mut Outbox,
    token: Option<ProgressToken>,
    logs: Option<u8>,
    plugin: &'a str,
}

impl Listener<'_> {
    async fn follow(&mut self, stream: &mut CallStream) -> Result<CallOutput, MeshError> {
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.outbox.drive(), if self.outbox.has_work() => continue,
            };
            match event {
                CallEvent::Progress(progress) => self.progress(progress),
                CallEvent::Log(log) => self.log(log),
                // MCP has no answers in parts: the result holds the whole.
                CallEvent::Chunk(_) => {}
                CallEvent::End(ended) => return ended,
            }
        }
    }

    fn progress(&mut self, progress: common::Progress) {
        let Some(token) = &self.token else {
            return;
        };
        let mut param = ProgressNotificationParam::new(token.clone(), progress.progress);
        if progress.total > 0.0 {
            param = param.with_total(progress.total);
        }
        if !progress.message.is_empty() {
            param = param.with_message(progress.message);
        }
        self.outbox.progress(param);
    }

    fn log(&mut self, log: common::Log) {
        let gravity = logging::gravity(logging::level_of(&log));
        if self.logs.is_some_and(|least| gravity >= least) {
            self.outbox.log(logging::message(log, self.plugin));
        }
    }
}
