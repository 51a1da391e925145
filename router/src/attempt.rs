//! One attempt of a call: one instance, over the bus or on this node.

use std::time::Duration;

use mesh_bus::{CallEvent, CallInput, PendingCall};
use mesh_core::call::TraceContext;
use mesh_core::capability::{Capability, CapabilityKind};
use mesh_core::error::MeshError;
use mesh_core::hash::Fnv1a;
use mesh_core::id::InstanceId;
use mesh_core::outlier::Outcome;
use mesh_core::select::{Origin, Selected, Target, Wish, select};
use mesh_core::uri_template;
use mesh_proto::common;
use tokio::time::Instant;
use tracing::Span;

use crate::flight::Flight;
use crate::local::LocalCall;
use crate::request::CallRequest;
use crate::router::Inner;

#[derive(Debug)]
enum Way {
    Bus(PendingCall),
    Local(LocalCall),
}

/// One attempt of a call.
#[derive(Debug)]
pub(crate) struct Attempt {
    way: Way,
    flight: Flight,
    span: Option<Span>,
}

impl Attempt {
    /// The next event of the attempt. Safe to cancel.
    pub async fn next(&mut self) -> CallEvent {
        let event = match &mut self.way {
            Way::Bus(call) => call.next().await,
            Way::Local(call) => call.next().await,
        };
        match (&event, &self.span) {
            (CallEvent::End(Err(error)), Some(span)) => {
                span.record("error.type", error.code.name());
            }
            (CallEvent::End(_), _) => {}
            _ => self.flight.answers(),
        }
        event
    }

    /// What the end of the attempt tells of its instance. True: the instance is an outlier.
    pub fn settle(&mut self, outcome: Outcome, now: Instant) -> bool {
        self.flight.settle(outcome, now)
    }
}

impl Inner {
    /// Chooses an instance.
    pub fn choose(
        &self,
        request: &CallRequest,
        avoid: &[InstanceId],
        now: Instant,
    ) -> Result<Selected, MeshError> {
        let key = &request.affinity_key;
        let wish = Wish {
            target: Target {
                plugin: request.plugin.as_ref(),
                capability: &request.capability,
                requirement: request.requirement.as_ref(),
            },
            avoid,
            origin: Origin {
                node: &self.config.name,
                zone: &self.config.zone,
                prefer: &self.config.prefer,
            },
            key: (!key.is_empty()).then(|| Fnv1a::of(key.as_bytes())),
            groups: &request.groups,
            stopping: false,
            seed: self.next_seed(),
        };
        let table = self.table.borrow();
        let look = self.flights.look(now);
        let look = look.with_lost(&self.bus, &table);
        let signal = |instance| look.signal(instance);
        let selected = select(&table, &wish, &signal);
        let stopping = || self.local.as_ref().is_some_and(|host| host.is_stopping());
        if selected.is_err() && stopping() {
            // Nobody else does; the host knows whose calls it still takes.
            let stopping = true;
            return select(&table, &Wish { stopping, ..wish }, &signal);
        }
        selected
    }

    /// The first template that provides a resource which nobody provides by its URI; none for what
    /// is no resource. The payload names the URI, so a call to the template reads the resource.
    pub fn template_of(&self, request: &CallRequest) -> Option<Capability> {
        let wanted = &request.capability;
        if wanted.kind != CapabilityKind::Resource {
            return None;
        }
        let table = self.table.borrow().clone();
        let provided = |ids: &[InstanceId]| {
            request.plugin.as_ref().is_none_or(|plugin| {
                let mut routes = ids.iter().filter_map(|id| table.instance(*id));
                routes.any(|route| route.spec.plugin().as_ref() == Some(plugin))
            })
        };
        table
            .capabilities()
            .filter(|(capability, _)| capability.kind == CapabilityKind::ResourceTemplate)
            .find(|(template, ids)| {
                uri_template::matches(&template.name, &wanted.name).is_some() && provided(ids)
            })
            .map(|(template, _)| template.clone())
    }

    /// Hands the call to an instance; `first`: it was handed to none before.
    pub fn attempt(
        &self,
        selected: &Selected,
        request: &CallRequest,
        deadline: Instant,
        first: bool,
        now: Instant,
    ) -> Result<Attempt, MeshError> {
        let (span, trace) = self.span(selected, request);
        let call = self.wire(request, trace);
        let mut flight = self.flights.begin(selected.instance, first, now);
        let input = CallInput {
            payload: request.payload.clone(),
            messages: request.messages.clone(),
        };
        let local = self
            .local
            .as_ref()
            .filter(|_| selected.node == self.config.name);
        let way = match local {
            Some(host) => host
                .begin(selected.instance, timed(call, deadline), input, deadline)
                .map(Way::Local),
            None => {
                let (node, generation) = (&selected.node, selected.generation);
                self.bus
                    .begin_call(
                        node,
                        generation,
                        selected.instance,
                        call,
                        input,
                        (now, deadline),
                    )
                    .map(Way::Bus)
            }
        };
        match way {
            Ok(way) => Ok(Attempt { way, flight, span }),
            Err(error) => {
                if let Some(span) = span {
                    span.record("error.type", error.code.name());
                }
                let outcome = Outcome::of(&error, Duration::ZERO);
                if flight.settle(outcome, now) {
                    self.eject(selected.instance, &request.capability, now);
                }
                Err(error)
            }
        }
    }

    /// Leaves out an instance that is an outlier, if others are left.
    pub fn eject(&self, instance: InstanceId, capability: &Capability, now: Instant) {
        let table = self.table.borrow();
        if self
            .flights
            .eject(instance, table.providers(capability), now)
        {
            tracing::warn!(%instance, %capability, "the instance fails calls and is left out for a while");
        }
    }

    /// The call as it travels: without what only the choice of an instance needs.
    fn wire(&self, request: &CallRequest, trace: Option<TraceContext>) -> common::Call {
        let mut caller = request.caller.clone();
        if caller.node.is_empty() {
            self.config.name.as_str().clone_into(&mut caller.node);
        }
        let trace = trace.unwrap_or_else(|| request.trace.clone());
        common::Call {
            capability: Some((&request.capability).into()),
            content_type: request.content_type.clone(),
            trace: (!trace.is_none()).then(|| trace.into()),
            caller: Some(caller.into()),
            affinity_key: request.affinity_key.clone(),
            metadata: request.metadata.clone(),
            groups: request.groups.clone(),
            want_progress: request.want_progress,
            ..common::Call::default()
        }
    }

    /// The span of an attempt and the context to send along, when spans are exported. Names follow
    /// the semantic conventions of OpenTelemetry for RPC and messaging.
    fn span(
        &self,
        selected: &Selected,
        request: &CallRequest,
    ) -> (Option<Span>, Option<TraceContext>) {
        let Some(link) = &self.config.tracing else {
            return (None, None);
        };
        let span = tracing::info_span!(
            target: "plugmesh::rpc",
            "call",
            otel.name = %request.capability,
            otel.kind = "client",
            rpc.system.name = "plugmesh",
            rpc.method = %request.capability,
            messaging.system = "nats",
            server.address = %selected.node,
            plugmesh.plugin = %selected.plugin,
            plugmesh.version = %selected.version,
            plugmesh.instance = %selected.instance,
            error.type = tracing::field::Empty,
        );
        let context = link.link(&span, &request.trace);
        (Some(span), Some(context))
    }
}

/// Over the bus the time left is set when the call is sent; on the own node it is set here.
fn timed(call: common::Call, deadline: Instant) -> common::Call {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .as_micros();
    common::Call {
        time_left_us: u64::try_from(left).unwrap_or(u64::MAX).max(1),
        ..call
    }
}
