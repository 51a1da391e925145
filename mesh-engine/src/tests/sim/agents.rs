//! Agents and gateways: they keep a session or follow a table, and go on to the next coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::feed::Have;
use super::streams::{Down, Side, Up};
use super::world::{Happening, Peer, Way, World};
use crate::engine::tests::{manifest, node};
use crate::engine::{Action, Change, Event, Operation, Report, RequestId};
use crate::record::RolloutPlan;
use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;
use mesh_core::table::{Table, TableUpdate};

const HEARTBEAT: u64 = 6_000;
/// How long changes of the table wait until they are on disk, at the most.
const KEEP: u64 = 1_000;

pub struct Agent {
    pub name: NodeId,
    pub up: bool,
    pub stopped: bool,
    /// It will never come back.
    pub lost: bool,
    pub life: u64,
    pub generation: u64,
    pub stream: Option<u64>,
    welcome: bool,
    next: usize,
    pub table: Table,
    /// As it is on disk.
    disk: Table,
    pub says: BTreeMap<InstanceId, Report>,
    unloaded: Vec<Arc<Manifest>>,
}

pub struct Gateway {
    pub up: bool,
    pub life: u64,
    stream: Option<u64>,
    next: usize,
    pub table: Table,
    /// As it is on disk.
    disk: Table,
}

impl Agent {
    pub fn new(number: usize) -> Self {
        Self {
            name: format!("node-{number}").parse().expect("a name"),
            up: false,
            stopped: false,
            lost: false,
            life: 0,
            generation: 0,
            stream: None,
            welcome: false,
            next: number,
            table: Table::default(),
            disk: Table::default(),
            says: BTreeMap::new(),
            unloaded: Vec::new(),
        }
    }
}

impl Gateway {
    pub fn new() -> Self {
        Self {
            up: false,
            life: 0,
            stream: None,
            next: 0,
            table: Table::default(),
            disk: Table::default(),
        }
    }
}

/// Plugins that need each other, in several versions.
fn plugins() -> Vec<Arc<Manifest>> {
    vec![
        manifest("base@1.0.0", &[], &["service:base.get"]),
        manifest("base@1.1.0", &[], &["service:base.get"]),
        manifest("middle@1.0.0", &["base ^1"], &["tool:m"]),
        manifest("top@1.0.0", &["middle ^1", "?loose ^1"], &[]),
        manifest("any@1.0.0", &["service:base.get *"], &[]),
        manifest("loose@1.0.0", &[], &[]),
    ]
}

impl World {
    pub fn start_agent(&mut self, number: usize) {
        let life = self.number();
        let generation = self.now;
        let agent = &mut self.agents[number];
        agent.up = true;
        agent.stopped = false;
        agent.life = life;
        agent.generation = generation;
        agent.stream = None;
        agent.says.clear();
        agent.unloaded.clear();
        self.reads_disk(Peer::Agent(number));
        self.tell(|| format!("agent {number} starts as generation {generation}"));
        for _ in 0..2 {
            self.starts_instance(number);
        }
        self.after(10, Happening::PeerTries(Peer::Agent(number), life));
        self.after(HEARTBEAT, Happening::AgentBeats(number, life));
    }

    pub fn stop_agent(&mut self, number: usize) {
        self.agents[number].up = false;
        if let Some(stream) = self.agents[number].stream.take() {
            self.leaves(stream, Side::Peer);
        }
    }

    pub fn start_gateway(&mut self, number: usize) {
        let life = self.number();
        let gateway = &mut self.gateways[number];
        gateway.up = true;
        gateway.life = life;
        gateway.stream = None;
        self.reads_disk(Peer::Gateway(number));
        self.after(10, Happening::PeerTries(Peer::Gateway(number), life));
    }

    /// Who starts has the table that is on disk, which may lag behind, or be of no use.
    fn reads_disk(&mut self, peer: Peer) {
        let broken = self.chance.percent(5);
        let (table, disk, life) = self.table_of(peer);
        if broken {
            *disk = Table::default();
        }
        *table = disk.clone();
        let revision = table.revision();
        self.tell(|| format!("{peer:?} starts with table {revision}"));
        self.invariants.forward.started(peer, revision);
        self.after(KEEP, Happening::Keeps(peer, life));
        self.after(KEEP, Happening::Calls(peer, life));
    }

    fn table_of(&mut self, peer: Peer) -> (&mut Table, &mut Table, u64) {
        match peer {
            Peer::Agent(number) => {
                let agent = &mut self.agents[number];
                (&mut agent.table, &mut agent.disk, agent.life)
            }
            Peer::Gateway(number) => {
                let gateway = &mut self.gateways[number];
                (&mut gateway.table, &mut gateway.disk, gateway.life)
            }
        }
    }

    fn runs_since(&self, peer: Peer, life: u64) -> bool {
        match peer {
            Peer::Agent(number) => self.agents[number].up && self.agents[number].life == life,
            Peer::Gateway(number) => self.gateways[number].up && self.gateways[number].life == life,
        }
    }

    /// The table is written to disk.
    pub fn keeps(&mut self, peer: Peer, life: u64) {
        if self.runs_since(peer, life) {
            let (table, disk, _) = self.table_of(peer);
            *disk = table.clone();
            let wait = self.chance.within(KEEP / 4..KEEP);
            self.after(wait, Happening::Keeps(peer, life));
        }
    }

    /// Somebody calls what all can call.
    pub fn calls(&mut self, peer: Peer, life: u64) {
        if self.runs_since(peer, life) {
            let seed = self.chance.next();
            let table = self.table_of(peer).0.clone();
            let checked = self.invariants.routes.called(peer, &table, seed);
            self.check(checked);
            let wait = self.chance.within(500..3_000);
            self.after(wait, Happening::Calls(peer, life));
        }
    }

    pub fn stop_gateway(&mut self, number: usize) {
        self.gateways[number].up = false;
        if let Some(stream) = self.gateways[number].stream.take() {
            self.leaves(stream, Side::Peer);
        }
    }

    pub fn peer_tries(&mut self, peer: Peer, life: u64) {
        let (coordinators, chosen) = (self.coordinators.len(), self.chance.index(3));
        let coordinator = match peer {
            Peer::Agent(number) => {
                let agent = &mut self.agents[number];
                if agent.life != life || !agent.up || agent.stream.is_some() {
                    return;
                }
                if agent.stopped {
                    self.after(250, Happening::PeerTries(peer, life));
                    return;
                }
                agent.next += 1;
                agent.next % coordinators
            }
            Peer::Gateway(number) => {
                let gateway = &mut self.gateways[number];
                if gateway.life != life || !gateway.up || gateway.stream.is_some() {
                    return;
                }
                gateway.next += 1 + chosen;
                gateway.next % coordinators
            }
        };
        if !self.is_open(Way::Peer(peer, coordinator)) {
            // No answer at all.
            self.tries_again(peer, 2_000);
            return;
        }
        if !self.coordinators[coordinator].up {
            self.tries_again(peer, 10);
            return;
        }
        let stream = self.open_stream(peer, coordinator);
        if self.coordinators[coordinator].stopped {
            self.falls_silent(stream, Side::Peer);
        }
        let hello = match peer {
            Peer::Agent(number) => {
                let agent = &mut self.agents[number];
                agent.stream = Some(stream);
                agent.welcome = false;
                Up::Hello(
                    node(agent.name.as_str(), agent.generation),
                    Have::of(&agent.table),
                )
            }
            Peer::Gateway(number) => {
                self.gateways[number].stream = Some(stream);
                Up::Follow(Have::of(&self.gateways[number].table))
            }
        };
        self.send(stream, hello);
    }

    fn tries_again(&mut self, peer: Peer, millis: u64) {
        let backoff = self.chance.within(100..1_000);
        let life = match peer {
            Peer::Agent(number) => self.agents[number].life,
            Peer::Gateway(number) => self.gateways[number].life,
        };
        self.after(millis + backoff, Happening::PeerTries(peer, life));
    }

    /// The stream of a peer is down.
    pub fn peer_lost(&mut self, peer: Peer, stream: u64) {
        let own = match peer {
            Peer::Agent(number) => &mut self.agents[number].stream,
            Peer::Gateway(number) => &mut self.gateways[number].stream,
        };
        if *own == Some(stream) {
            *own = None;
            self.tries_again(peer, 0);
        }
    }

    /// A peer hears what a coordinator says.
    pub fn heard(&mut self, stream: u64, peer: Peer, message: Down) {
        match (message, peer) {
            (Down::Close, _) => self.finds_gone(stream, Side::Peer),
            (Down::Table(update), _) => self.applies(peer, &update),
            (Down::Welcome | Down::AskAnnounce, Peer::Agent(number)) => {
                let agent = &mut self.agents[number];
                agent.welcome = true;
                let reports = agent.says.values().cloned().collect();
                self.send(stream, Up::Announce(reports));
            }
            (Down::Reject(instance), Peer::Agent(number)) => {
                self.agents[number].says.remove(&instance);
            }
            (Down::Directive(action, plugin), Peer::Agent(number)) => match action {
                Action::Unload => {
                    let says = &self.agents[number].says;
                    let all = says.values().filter(|it| it.manifest.name == plugin);
                    let ids: Vec<InstanceId> = all.map(|it| it.instance).collect();
                    for id in ids {
                        let report = self.agents[number].says.remove(&id);
                        let manifest = report.map(|report| report.manifest);
                        self.agents[number].unloaded.extend(manifest);
                        self.says(number, Up::Gone(id));
                    }
                }
                Action::Start => {
                    let unloaded = &mut self.agents[number].unloaded;
                    let again = unloaded.extract_if(.., |it| it.name == plugin);
                    let again: Vec<_> = again.collect();
                    for manifest in again {
                        self.runs(number, manifest);
                    }
                }
            },
            (_, Peer::Gateway(_)) => {}
        }
    }

    fn applies(&mut self, peer: Peer, update: &TableUpdate) {
        let (table, _, _) = self.table_of(peer);
        let before = table.clone();
        let after = before.apply(update);
        if let Ok(after) = &after {
            *table = after.clone();
        }
        let forward = &mut self.invariants.forward;
        let checked = forward.applied(peer, &before, &after, self.went_back);
        self.check(checked);
    }

    fn says(&mut self, number: usize, message: Up) {
        let agent = &self.agents[number];
        if let Some(stream) = agent.stream.filter(|_| agent.welcome) {
            self.send(stream, message);
        }
    }

    pub fn agent_beats(&mut self, number: usize, life: u64) {
        let agent = &self.agents[number];
        if agent.life != life || !agent.up {
            return;
        }
        if !agent.stopped {
            self.says(number, Up::Beat);
        }
        self.after(HEARTBEAT, Happening::AgentBeats(number, life));
    }

    fn starts_instance(&mut self, number: usize) {
        let plugins = plugins();
        let manifest = plugins[self.chance.index(plugins.len())].clone();
        self.runs(number, manifest);
    }

    fn runs(&mut self, number: usize, manifest: Arc<Manifest>) {
        let instance = InstanceId::new(self.number(), [0; 10]);
        let report = Report {
            instance,
            manifest,
            phase: Phase::Ready,
            reason: String::new(),
            since: Timestamp(self.now),
            concurrency: 0,
            supervised: true,
        };
        self.agents[number].says.insert(instance, report.clone());
        self.says(number, Up::Report(report));
    }

    /// Something happens on a node.
    pub fn agent_acts(&mut self, number: usize) {
        let wait = self.chance.within(4_000..30_000);
        self.after(wait, Happening::AgentActs(number));
        let agent = &self.agents[number];
        if self.quiet || !agent.up || agent.stopped {
            return;
        }
        let count = agent.says.len();
        if count < 2 || (count < 5 && self.chance.percent(30)) {
            self.starts_instance(number);
            return;
        }
        let place = self.chance.index(count);
        let Some(id) = self.agents[number].says.keys().nth(place).copied() else {
            return;
        };
        if self.chance.percent(40) {
            self.agents[number].says.remove(&id);
            self.says(number, Up::Gone(id));
            return;
        }
        let phases = [Phase::Ready, Phase::Ready, Phase::Unhealthy, Phase::Loaded];
        let phase = phases[self.chance.index(phases.len())];
        if let Some(report) = self.agents[number].says.get_mut(&id) {
            report.phase = phase;
            let report = report.clone();
            self.says(number, Up::Report(report));
        }
    }

    fn wishes(&mut self, plugins: &[Arc<Manifest>]) -> (PluginName, Change) {
        let plugin = plugins[self.chance.index(plugins.len())].name.clone();
        let changes = [
            Change::Enable,
            Change::Enable,
            Change::Disable,
            Change::Unload { cascade: true },
        ];
        (plugin, changes[self.chance.index(changes.len())].clone())
    }

    /// An operator wants something of some coordinator.
    pub fn operates(&mut self) {
        let wait = self.chance.within(10_000..40_000);
        self.after(wait, Happening::Operates);
        let number = self.chance.index(self.coordinators.len());
        let coordinator = &self.coordinators[number];
        if self.quiet || !coordinator.up || coordinator.stopped {
            return;
        }
        let plugins = plugins();
        let (plugin, change) = if self.chance.percent(40) {
            // The first two are two versions of one plugin.
            let to = &plugins[self.chance.index(2)];
            let change = match self.chance.percent(80) {
                true => Change::Rollout(RolloutPlan {
                    to: to.version.clone(),
                    steps: vec![50, 100],
                    interval_ms: 3_000,
                    max_errors: 50_000,
                    within_ms: 8_000,
                }),
                false => Change::AbortRollout,
            };
            (to.name.clone(), change)
        } else {
            self.wishes(&plugins)
        };
        let request = RequestId(self.number());
        let operation = Operation {
            plugin,
            change,
            by: "an operator".to_owned(),
            reason: request.0.to_string(),
            expected: None,
        };
        self.step(number, Event::Requested { request, operation });
    }
}
