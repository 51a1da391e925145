//! A caller at a gateway: makes its call, reads what comes, and looks at what it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::capability::{Capability, CapabilityKind};
use mesh_core::error::MeshError;
use mesh_core::id::{Generation, InstanceId, NodeId, PluginName};
use mesh_core::state::InstanceState;
use mesh_core::table::InstanceRoute;
use mesh_proto::control::InstanceLoad;
use router::{CallEvent, CallOutput, CallRequest, CallStream, messages};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ledger::{End, RESULT, UPLOAD, payload};
use super::messages::{QUEUE, feed};
use super::plan::Script;
use super::world::{Gateway, World};

/// How often it is looked where a call is.
const LOOK: Duration = Duration::from_millis(100);

/// How long a call may run on at an instance that the router knows to be gone, beside its patience.
const GONE: Duration = Duration::from_millis(500);

/// A node whose beacon came so shortly before is not silent.
const HEARD: Duration = Duration::from_millis(900);

/// How much later than its deadline a call may end.
const LATE: Duration = Duration::from_millis(100);

/// What a script asks for.
pub(super) fn request(script: &Script) -> CallRequest {
    let name = match (script.again, script.wants_open()) {
        (true, false) => "again",
        (false, false) => "once",
        (true, true) => "again-open",
        (false, true) => "once-open",
    };
    let capability = Capability::new(CapabilityKind::Service, name).unwrap();
    let body = Bytes::from(payload(script.key, UPLOAD, script.upload));
    let mut request = CallRequest::new(capability, body).with_timeout(script.timeout);
    request.plugin = script.plugin.map(|kind| plugin_name(kind).parse().unwrap());
    if script.affinity {
        request.affinity_key = format!("key-{}", script.key % 3);
    }
    request.want_progress = script.progress > 0;
    request
}

pub(super) fn plugin_name(kind: usize) -> String {
    let name = format!("p{kind}");
    PluginName::new(&name).unwrap().to_string()
}

/// Makes the call of a script at its time, and waits for its end.
pub(super) async fn call(world: Arc<World>, gateway: Arc<Gateway>, script: Arc<Script>) {
    sleep_until(world.at(script.at)).await;
    let end = one(&world, &gateway, &script).await;
    world.ended(script.key, end);
}

async fn one(world: &World, gateway: &Gateway, script: &Script) -> End {
    let begun = Instant::now();
    world.say(&format!(
        "call {} is made at gateway {}: {}",
        script.key,
        script.gateway,
        script.words()
    ));
    let mut request = request(script);
    // It is dropped after the call, which would else take that for the end of the messages.
    let sender = script.messages.as_ref().map(|_| {
        let (sender, source) = messages(QUEUE);
        request.messages = Some(source);
        sender
    });
    let mut reading = Reading {
        world,
        gateway,
        script,
        stream: gateway.router.call(request),
        chunks: 0,
        served: None,
        home: None,
        gone_since: None,
    };
    reading.first_look();
    let both = async {
        tokio::select! {
            biased;
            end = reading.read_all() => end,
            () = feed(world, script, sender.as_ref()) => End::GivenUp,
        }
    };
    let end = match script.give_up {
        None => both.await,
        Some(patience) => match timeout(patience, both).await {
            Ok(end) => end,
            Err(_) => End::GivenUp,
        },
    };
    let took = begun.elapsed();
    let reads = script.read_pause * u32::try_from(reading.chunks).unwrap();
    if took > script.timeout + LATE + reads {
        let text = format!(
            "call {} ended {took:?} after it began, its deadline was after {:?}",
            script.key, script.timeout
        );
        world.violation(text);
    }
    end
}

struct Reading<'a> {
    world: &'a World,
    gateway: &'a Gateway,
    script: &'a Script,
    stream: CallStream,
    chunks: u64,
    served: Option<InstanceId>,
    /// The node of that instance.
    home: Option<(NodeId, Generation)>,
    gone_since: Option<Instant>,
}

impl Reading<'_> {
    async fn read_all(&mut self) -> End {
        loop {
            let Ok(event) = timeout(LOOK, self.stream.next()).await else {
                self.look();
                continue;
            };
            self.gone_since = None;
            self.note();
            match event {
                CallEvent::Chunk(chunk) => {
                    self.chunk(&chunk);
                    if !self.script.read_pause.is_zero() {
                        sleep(self.script.read_pause).await;
                    }
                }
                CallEvent::Progress(_) | CallEvent::Log(_) => {}
                CallEvent::End(end) => {
                    check_end(self.world, self.script, self.chunks, &end);
                    return match end {
                        Ok(_) => End::Well,
                        Err(error) => End::from(&error),
                    };
                }
            }
        }
    }

    fn chunk(&mut self, chunk: &Bytes) {
        check_chunk(self.world, self.script, self.chunks, chunk);
        self.chunks += 1;
    }

    /// Notes where the call is, while the table still tells.
    fn note(&mut self) {
        let Ok(instance) = self.stream.served_by().instance.parse::<InstanceId>() else {
            return;
        };
        if self.served != Some(instance) {
            self.served = Some(instance);
            self.home = None;
            self.gone_since = None;
            // It was chosen since the last look.
            let gone = self.gateway.tables.gone_for(instance);
            if let Some(gone) = gone.filter(|gone| *gone > LOOK) {
                self.sent_to_one_that_is_gone(instance, gone);
            }
        }
        if let Some(route) = self.gateway.router.table().instance(instance) {
            self.home = Some((route.node.clone(), route.generation));
        }
    }

    /// The call has just been given to an instance, and nothing has happened since.
    fn first_look(&mut self) {
        self.look();
        let Some(instance) = self.served else {
            return;
        };
        if let Some(gone) = self.gateway.tables.gone_for(instance) {
            self.sent_to_one_that_is_gone(instance, gone);
        }
        let Some((node, generation)) = &self.home else {
            return;
        };
        let lost = self.gateway.bus.lost_nodes();
        let is_lost = |node: &NodeId, generation| {
            let mut lost = lost.iter();
            lost.any(|(known, its)| known == node && *its == generation)
        };
        if !is_lost(node, *generation) {
            return;
        }
        let table = self.gateway.router.table();
        let capability = request(self.script).capability;
        let providers = table.providers(&capability).iter();
        let mut routes = providers.filter_map(|id| table.instance(*id));
        let eligible = routes.find(|route| {
            let kind = route.spec.plugin().map(|name| name.to_string());
            let asked = self.script.plugin.map(plugin_name);
            (asked.is_none() || asked == kind)
                && route.state == InstanceState::Active
                && !is_lost(&route.node, route.generation)
                && self.is_heard(route)
        });
        if let Some(other) = eligible {
            let (key, other) = (self.script.key, other.instance);
            self.world.violation(format!(
                "call {key} was sent to instance {instance} on node {node}, which the bus has lost, and {other} \
                 could have taken it"
            ));
        }
    }

    /// Whether an instance's node is heard, and says that the instance is well.
    fn is_heard(&self, route: &InstanceRoute) -> bool {
        let mut loads = self.gateway.router.loads().into_iter();
        loads.any(|load| {
            let well = |one: &InstanceLoad| {
                one.instance[..] == route.instance.as_bytes()[..] && !one.unresponsive
            };
            load.beacon.node == route.node.as_str()
                && load.heard.elapsed() < HEARD
                && load.beacon.instances.iter().any(well)
        })
    }

    fn sent_to_one_that_is_gone(&self, instance: InstanceId, gone: Duration) {
        let key = self.script.key;
        self.world.violation(format!(
            "call {key} was sent to instance {instance}, of which the router was told {gone:?} before that it \
             is gone"
        ));
    }

    /// Is the call at an instance that is gone, by what the router was told?
    fn look(&mut self) {
        let Ok(instance) = self.stream.served_by().instance.parse::<InstanceId>() else {
            return;
        };
        let table = self.gateway.router.table();
        let there = table.instance(instance).is_some();
        let now = Instant::now();
        self.note();
        // While its node is there, the agent tells: it knows what never reached the instance.
        let tells = self.home.as_ref().is_none_or(|(node, generation)| {
            let known = table.node(node).map(|node| node.generation);
            known == Some(*generation)
        });
        if there || tells {
            self.gone_since = None;
            return;
        }
        let since = *self.gone_since.get_or_insert(now);
        if now > since + GONE + self.world.plan.patience {
            let key = self.script.key;
            self.world.violation(format!(
                "call {key} runs on at instance {instance}, which left the router's table {:?} ago",
                now - since
            ));
        }
    }
}

/// What a chunk must look like.
pub(super) fn check_chunk(world: &World, script: &Script, number: u64, chunk: &Bytes) {
    if script.is_rude() {
        return;
    }
    if chunk[..] != payload(script.key, number, script.chunk_bytes)[..] {
        let text = format!("chunk {number} of call {} is not what was sent", script.key);
        world.violation(text);
    }
}

/// What an end must look like.
pub(super) fn check_end(
    world: &World,
    script: &Script,
    chunks: u64,
    end: &Result<CallOutput, MeshError>,
) {
    let Ok(output) = end else {
        return;
    };
    if chunks != script.chunks {
        world.violation(format!(
            "call {} ended well with {chunks} chunks, {} were sent",
            script.key, script.chunks
        ));
    }
    if output.payload[..] != payload(script.key, RESULT, script.result)[..] {
        world.violation(format!(
            "the result of call {} is not what was sent",
            script.key
        ));
    }
}
