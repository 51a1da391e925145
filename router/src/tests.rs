//! The router over a table of this test and a node of its own; what needs a broker is tested with one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{Bus, BusConfig, CallEvent, CallOutput};
use mesh_core::call::TraceContext;
use mesh_core::capability::{Capability, CapabilityEntry, CapabilityKind};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId, Table, TableUpdate};
use mesh_proto::common;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

mod messages;
mod retry;

use crate::{CallInput, CallRequest, LocalCall, LocalHost, Router, RouterConfig, SpanLink};

fn id(n: u64) -> InstanceId {
    InstanceId::new(n, [u8::try_from(n).unwrap_or(0); 10])
}

fn service(name: &str) -> Capability {
    Capability::new(CapabilityKind::Service, name).unwrap()
}

/// What MCP clients are shown of it.
fn entry(capability: &Capability) -> Option<Arc<RawValue>> {
    let uri = match capability.kind {
        CapabilityKind::Resource => "uri",
        CapabilityKind::ResourceTemplate => "uriTemplate",
        _ => return None,
    };
    let entry = serde_json::json!({ "name": "note", uri: &*capability.name });
    Some(serde_json::value::to_raw_value(&entry).unwrap().into())
}

fn resource(uri: &str) -> Capability {
    Capability::new(CapabilityKind::Resource, uri).unwrap()
}

fn template(template: &str) -> Capability {
    Capability::new(CapabilityKind::ResourceTemplate, template).unwrap()
}

pub(crate) fn manifest(version: &str) -> Arc<Manifest> {
    let json = serde_json::json!({ "name": "p", "version": version });
    let mut manifest: Manifest = serde_json::from_value(json).unwrap();
    for (capability, idempotent) in [
        (service("once"), false),
        (service("again"), true),
        (resource("note://all"), true),
        (template("note://{id}"), true),
        (template("other://{id}"), true),
    ] {
        manifest.capabilities.push(CapabilityEntry {
            entry: entry(&capability),
            client_streaming: *capability.name == *"again",
            capability,
            idempotent,
            read_only: false,
            streaming: true,
        });
    }
    Arc::new(manifest)
}

/// A table with instances 1 to `many` on the node "own".
pub(crate) fn table(many: u64, sequence: u64) -> TableUpdate {
    let manifest = manifest("1.0.0");
    let spec = SpecId::of(&manifest);
    let route = |n| InstanceRoute {
        instance: id(n),
        spec: spec.clone(),
        node: NodeId::new("own").unwrap(),
        generation: Generation(1),
        state: InstanceState::Active,
        reason: String::new(),
        since: Timestamp(0),
        concurrency: 0,
    };
    TableUpdate {
        to: Revision { epoch: 1, sequence },
        specs: vec![(spec.clone(), manifest)],
        instances: (1..=many).map(route).collect(),
        ..TableUpdate::default()
    }
}

type Script = Box<dyn Fn(&common::Call) -> Result<Vec<CallEvent>, MeshError> + Send + Sync>;

/// A node whose instances do as they are told.
#[derive(Default)]
struct Host {
    scripts: Mutex<HashMap<InstanceId, Script>>,
    begun: Mutex<Vec<InstanceId>>,
    calls: Mutex<Vec<common::Call>>,
    cancelled: Arc<AtomicU64>,
    /// Calls whose events have not been sent whole.
    held: Mutex<Vec<mpsc::Sender<CallEvent>>>,
}

impl LocalHost for Host {
    fn begin(
        &self,
        instance: InstanceId,
        call: common::Call,
        _input: CallInput,
        _deadline: Instant,
    ) -> Result<LocalCall, MeshError> {
        self.begun.lock().unwrap().push(instance);
        let scripts = self.scripts.lock().unwrap();
        let events = scripts
            .get(&instance)
            .map_or_else(|| Ok(vec![done()]), |script| script(&call));
        self.calls.lock().unwrap().push(call);
        let (sender, receiver) = mpsc::channel(16);
        let mut ends = false;
        for event in events? {
            ends = matches!(event, CallEvent::End(_));
            sender.try_send(event).unwrap();
        }
        if !ends {
            self.held.lock().unwrap().push(sender);
        }
        let cancelled = self.cancelled.clone();
        Ok(LocalCall::new(receiver, move || {
            cancelled.fetch_add(1, Ordering::Relaxed);
        }))
    }
}

fn done() -> CallEvent {
    CallEvent::End(Ok(CallOutput::default()))
}

fn failed(code: ErrorCode) -> CallEvent {
    CallEvent::End(Err(MeshError::new(code, "as told")))
}

/// Gives up at once what nobody takes.
fn impatient(name: &str) -> RouterConfig {
    let mut config = RouterConfig::new(NodeId::new(name).unwrap());
    config.patience = Duration::ZERO;
    config
}

struct World {
    router: Router,
    host: Arc<Host>,
    table: watch::Sender<Arc<Table>>,
}

impl World {
    async fn new(instances: u64) -> Self {
        Self::with(instances, impatient("own")).await
    }

    async fn with(instances: u64, config: RouterConfig) -> Self {
        // Nobody listens there: what is not local is refused.
        let bus = BusConfig {
            urls: "nats://127.0.0.1:1".to_owned(),
            credentials: None,
            client_name: "test".to_owned(),
            mesh: MeshName::default(),
        };
        let (bus, _) = Bus::connect(bus).await.unwrap();
        let first = Table::default().apply(&table(instances, 1)).unwrap();
        let table = watch::Sender::new(Arc::new(first));
        let host = Arc::new(Host::default());
        let (router, _) = Router::new(config, bus, table.subscribe(), Some(host.clone()));
        Self {
            router,
            host,
            table,
        }
    }

    fn told(
        &self,
        n: u64,
        script: impl Fn(&common::Call) -> Result<Vec<CallEvent>, MeshError> + Send + Sync + 'static,
    ) {
        self.host
            .scripts
            .lock()
            .unwrap()
            .insert(id(n), Box::new(script));
    }

    fn request(name: &str) -> CallRequest {
        CallRequest::new(service(name), Bytes::from_static(b"{}"))
    }

    async fn call(&self, name: &str) -> Result<CallOutput, MeshError> {
        self.router.call(Self::request(name)).finish().await
    }

    fn begun(&self) -> Vec<InstanceId> {
        std::mem::take(&mut *self.host.begun.lock().unwrap())
    }
}

#[tokio::test]
async fn idle_instances_share_the_calls_and_equal_seeds_share_them_equally() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut config = impatient("own");
        config.seed = 7;
        let world = World::with(3, config).await;
        // How long the calls take is of no matter here.
        tokio::time::pause();
        for _ in 0..300 {
            world.call("once").await.unwrap();
        }
        tokio::time::resume();
        let begun = world.begun();
        for n in 1..=3 {
            let share = begun.iter().filter(|one| **one == id(n)).count();
            assert!((70..130).contains(&share), "{share}");
        }
        let stats = world.router.stats();
        let (name, stats) = stats.iter().next().unwrap();
        assert_eq!((name.as_str(), stats.calls, stats.errors), ("p", 300, 0));
        runs.push(begun);
    }
    assert_eq!(runs.first(), runs.last());
}

#[tokio::test]
async fn the_least_busy_instance_gets_the_call() {
    let world = World::new(2).await;
    world.told(1, |_| Ok(vec![]));
    world.told(2, |_| Ok(vec![]));
    let calls: Vec<_> = (0..10)
        .map(|_| world.router.call(World::request("once")))
        .collect();
    let begun = world.begun();
    assert_eq!(begun.iter().filter(|one| **one == id(1)).count(), 5);
    drop(calls);
    assert_eq!(world.host.cancelled.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn what_was_not_processed_is_tried_elsewhere() {
    for refusal in [
        ErrorCode::InstanceGone,
        ErrorCode::Draining,
        ErrorCode::Overloaded,
    ] {
        let world = World::new(2).await;
        // At once, and after the call was on its way.
        world.told(1, move |_| Err(MeshError::new(refusal, "as told")));
        for _ in 0..4 {
            world.call("once").await.unwrap();
        }
        let world = World::new(2).await;
        world.told(1, move |_| Ok(vec![failed(refusal)]));
        for _ in 0..20 {
            world.call("once").await.unwrap();
        }
        // It is not asked again and again.
        let asked = world.begun().iter().filter(|one| **one == id(1)).count();
        assert!(asked <= 2, "{asked}");
    }
}

#[tokio::test]
async fn a_call_with_an_unknown_outcome_is_repeated_only_if_it_may_be() {
    for code in [ErrorCode::OutcomeUnknown, ErrorCode::Internal] {
        let world = World::new(2).await;
        world.told(1, move |_| Ok(vec![failed(code)]));
        world.told(2, move |_| Ok(vec![failed(code)]));
        assert_eq!(world.call("once").await.unwrap_err().code, code);
        assert_eq!(world.begun().len(), 1);
        assert_eq!(world.call("again").await.unwrap_err().code, code);
        assert_eq!(world.begun().len(), 2);
    }
}

#[tokio::test]
async fn a_plugins_own_failure_and_a_passed_deadline_are_final() {
    for code in [
        ErrorCode::PluginFailed,
        ErrorCode::DeadlineExceeded,
        ErrorCode::InvalidArgument,
    ] {
        let world = World::new(3).await;
        for n in 1..=3 {
            world.told(n, move |_| Ok(vec![failed(code)]));
        }
        assert_eq!(world.call("again").await.unwrap_err().code, code);
        assert_eq!(world.begun().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn after_a_chunk_was_handed_out_there_is_no_other_attempt() {
    let world = World::new(2).await;
    for n in 1..=2 {
        world.told(n, |_| {
            Ok(vec![
                CallEvent::Chunk(Bytes::from_static(b"part")),
                failed(ErrorCode::OutcomeUnknown),
            ])
        });
    }
    let mut call = world.router.call(World::request("again"));
    assert!(matches!(call.next().await, CallEvent::Chunk(_)));
    assert!(matches!(call.next().await, CallEvent::End(Err(_))));
    assert_eq!(world.begun().len(), 1);
}

#[tokio::test]
async fn no_more_instances_are_tried_than_allowed_and_the_last_reason_is_told() {
    let world = World::new(9).await;
    for n in 1..=9 {
        world.told(n, |_| Ok(vec![failed(ErrorCode::InstanceGone)]));
    }
    let error = world.call("once").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InstanceGone);
    assert_eq!(
        (error.place.plugin.as_str(), error.place.node.as_str()),
        ("p", "own")
    );
    let begun = world.begun();
    assert_eq!(begun.len(), 3);
    assert!(
        begun
            .iter()
            .all(|one| begun.iter().filter(|other| *other == one).count() == 1)
    );
}

#[tokio::test]
async fn calls_of_one_key_stay_together_while_their_instance_lives() {
    let world = World::new(5).await;
    let mut homes = HashMap::new();
    for round in 0..3 {
        for key in 0..50 {
            let mut request = World::request("once");
            request.affinity_key = format!("session {key}");
            world.router.call(request).finish().await.unwrap();
            let home = *world.begun().first().unwrap();
            assert_eq!(*homes.entry(key).or_insert(home), home, "round {round}");
        }
    }
    // All instances are used, and when one goes only its keys move.
    for n in 1..=5 {
        let keys = homes.values().filter(|home| **home == id(n)).count();
        assert!(
            (1..=25).contains(&keys),
            "instance {n} has {keys} of 50 keys"
        );
    }
    let fewer = Table::default().apply(&table(4, 2)).unwrap();
    world.table.send_replace(Arc::new(fewer));
    for (key, home) in homes.iter().filter(|(_, home)| **home != id(5)) {
        let mut request = World::request("once");
        request.affinity_key = format!("session {key}");
        world.router.call(request).finish().await.unwrap();
        assert_eq!(world.begun().first(), Some(home));
    }
}

#[tokio::test]
async fn an_error_keeps_the_place_that_it_came_from() {
    let world = World::new(1).await;
    let elsewhere = Place {
        plugin: "other".to_owned(),
        instance: id(77).to_string(),
        ..Place::default()
    };
    let place = elsewhere.clone();
    world.told(1, move |_| {
        let error = MeshError::new(ErrorCode::PluginFailed, "nested").at(place.clone());
        Ok(vec![CallEvent::End(Err(error))])
    });
    assert_eq!(*world.call("once").await.unwrap_err().place, elsewhere);
}

#[tokio::test]
async fn a_refusal_of_a_nested_call_is_no_refusal_of_the_call_that_made_it() {
    for (code, place) in [
        (
            ErrorCode::Overloaded,
            Place {
                instance: id(77).to_string(),
                ..Place::default()
            },
        ),
        (
            ErrorCode::InstanceGone,
            Place {
                plugin: "other".to_owned(),
                ..Place::default()
            },
        ),
    ] {
        let world = World::new(2).await;
        for n in 1..=2 {
            let place = place.clone();
            world.told(n, move |_| {
                let error = MeshError::new(code, "nested").at(place.clone());
                Ok(vec![CallEvent::End(Err(error))])
            });
        }
        assert_eq!(world.call("again").await.unwrap_err().code, code);
        let first = world.begun();
        assert_eq!(first.len(), 1, "the call was processed");
        // Nor is the instance that passes it on a worse choice for others.
        for _ in 0..40 {
            let _ = world.call("once").await;
        }
        let next = world.begun();
        let again = next.iter().filter(|one| first.contains(*one)).count();
        assert!((8..=32).contains(&again), "{again}");
    }
}

#[tokio::test]
async fn without_a_provider_the_call_ends_with_the_reason() {
    let world = World::new(1).await;
    assert_eq!(
        world.call("nothing").await.unwrap_err().code,
        ErrorCode::NoProvider
    );
    let mut call = world.router.call(World::request("nothing"));
    assert_eq!(call.served_by(), Place::default());
    assert!(matches!(call.next().await, CallEvent::End(Err(_))));
    // Asked again it does not hang.
    assert!(matches!(call.next().await, CallEvent::End(Err(_))));
}

#[tokio::test]
async fn a_resource_that_nobody_names_is_read_by_a_template() {
    let world = World::new(1).await;
    for (uri, serves) in [
        ("note://all", resource("note://all")),
        ("note://7", template("note://{id}")),
    ] {
        for plugin in [None, Some("p")] {
            let mut request = CallRequest::new(resource(uri), Bytes::new());
            request.plugin = plugin.map(|name| PluginName::new(name).unwrap());
            world.router.call(request).finish().await.unwrap();
            let call = world.host.calls.lock().unwrap().pop().unwrap();
            assert_eq!(call.capability.unwrap().name, *serves.name);
        }
    }
    for (uri, plugin) in [("note://7/8", "p"), ("note://7", "q"), ("{id}", "p")] {
        let request = CallRequest::new(resource(uri), Bytes::new())
            .to_plugin(PluginName::new(plugin).unwrap());
        let error = world.router.call(request).finish().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoProvider, "{uri} of {plugin}");
    }
}

#[tokio::test]
async fn a_host_that_goes_away_leaves_no_call_hanging() {
    let world = World::new(1).await;
    world.told(1, |_| Ok(vec![]));
    let call = world.router.call(World::request("once"));
    world.host.held.lock().unwrap().clear();
    assert_eq!(
        call.finish().await.unwrap_err().code,
        ErrorCode::OutcomeUnknown
    );
}

#[tokio::test]
async fn what_is_not_on_the_own_node_goes_over_the_bus() {
    let world = World::with(1, impatient("elsewhere")).await;
    let error = world.call("once").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Disconnected);
    assert!(world.begun().is_empty());
}

#[tokio::test]
async fn a_call_carries_caller_trace_time_and_wishes() {
    struct Link;
    impl SpanLink for Link {
        fn link(&self, _: &tracing::Span, parent: &TraceContext) -> TraceContext {
            TraceContext {
                traceparent: format!("child of {}", parent.traceparent),
                tracestate: String::new(),
            }
        }
    }
    let mut config = RouterConfig::new(NodeId::new("own").unwrap());
    config.tracing = Some(Arc::new(Link));
    let world = World::with(1, config).await;
    let mut request = World::request("once").with_timeout(Duration::from_secs(5));
    request.trace.traceparent = "parent".to_owned();
    request.metadata.insert("k".to_owned(), "v".to_owned());
    request.want_progress = true;
    request.requirement = Some("^1".parse().unwrap());
    request.plugin = world.router.table().plugins().next().cloned();
    assert!(request.plugin.is_some());
    world.router.call(request).finish().await.unwrap();
    let call = world.host.calls.lock().unwrap().pop().unwrap();
    assert_eq!(call.trace.unwrap().traceparent, "child of parent");
    assert_eq!(call.caller.unwrap().node, "own");
    assert_eq!(call.metadata.get("k").map(String::as_str), Some("v"));
    // The choice is made: nobody reads these any more.
    assert_eq!((&*call.plugin, &*call.requirement), ("", ""));
    assert!(call.want_progress);
    assert!(
        (4_000_000..=5_000_000).contains(&call.time_left_us),
        "{}",
        call.time_left_us
    );
}
