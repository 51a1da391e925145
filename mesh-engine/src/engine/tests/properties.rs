//! What holds after any sequence of events, in any order of delivery.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::record::{Parting, Record, Wish};
use mesh_graph::required;

/// What may happen; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Open {
        coordinator: usize,
        node: usize,
        newer: bool,
    },
    Close {
        node: usize,
    },
    Report {
        node: usize,
        plugin: usize,
        phase: Phase,
    },
    Announce {
        node: usize,
        plugins: Vec<usize>,
    },
    Gone {
        node: usize,
        plugin: usize,
    },
    Ask {
        coordinator: usize,
        plugin: usize,
        change: Change,
    },
    Write {
        coordinator: usize,
    },
    Hear {
        coordinator: usize,
        times: usize,
    },
    Lose {
        coordinator: usize,
    },
    Find {
        coordinator: usize,
    },
    Restart {
        coordinator: usize,
    },
    Pass {
        millis: u64,
    },
    Settle,
}

const NODES: [&str; 3] = ["a", "b", "c"];

/// Plugins with chains, alternatives, rings with and without a way in, and several versions.
fn plugins() -> Vec<Arc<Manifest>> {
    vec![
        manifest("base@1.0.0", &[], &["service:base.get"]),
        manifest("base@2.0.0", &[], &["service:base.get"]),
        manifest("middle@1.0.0", &["base ^1"], &["tool:m"]),
        manifest("top@1.0.0", &["middle ^1", "?loose ^1"], &[]),
        manifest("any@1.0.0", &["service:base.get *"], &["service:x.y"]),
        manifest("left@1.0.0", &["service:x.y *"], &[]),
        manifest("right@1.0.0", &["left ^1"], &["service:x.y"]),
        manifest("ring@1.0.0", &["closing ^1"], &[]),
        manifest("closing@1.0.0", &["ring ^1"], &[]),
        manifest("loose@1.0.0", &["top ^1"], &[]),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (coordinator, node, plugin) = (0..2_usize, 0..3_usize, 0..10_usize);
    let phase = prop::sample::select(vec![
        Phase::Starting,
        Phase::Loaded,
        Phase::Ready,
        Phase::Ready,
        Phase::Ready,
        Phase::Unhealthy,
        Phase::Draining,
        Phase::Failed,
    ]);
    let change = prop::sample::select(vec![
        Change::Enable,
        Change::Disable,
        Change::Unload { cascade: false },
        Change::Unload { cascade: true },
        Change::Split {
            shares: [(semver::Version::new(1, 0, 0), 1)].into(),
            groups: Vec::new(),
        },
        Change::ClearSplit,
    ]);
    let act = prop_oneof![
        2 => (coordinator.clone(), node.clone(), any::<bool>())
            .prop_map(|(coordinator, node, newer)| Act::Open { coordinator, node, newer }),
        1 => node.clone().prop_map(|node| Act::Close { node }),
        8 => (node.clone(), plugin.clone(), phase)
            .prop_map(|(node, plugin, phase)| Act::Report { node, plugin, phase }),
        1 => (node.clone(), prop::collection::vec(plugin.clone(), 0..5))
            .prop_map(|(node, plugins)| Act::Announce { node, plugins }),
        2 => (node, plugin.clone()).prop_map(|(node, plugin)| Act::Gone { node, plugin }),
        2 => (coordinator.clone(), plugin, change)
            .prop_map(|(coordinator, plugin, change)| Act::Ask { coordinator, plugin, change }),
        6 => coordinator.clone().prop_map(|coordinator| Act::Write { coordinator }),
        6 => (coordinator.clone(), 1..6_usize)
            .prop_map(|(coordinator, times)| Act::Hear { coordinator, times }),
        1 => coordinator.clone().prop_map(|coordinator| Act::Lose { coordinator }),
        1 => coordinator.clone().prop_map(|coordinator| Act::Find { coordinator }),
        1 => coordinator.prop_map(|coordinator| Act::Restart { coordinator }),
        2 => prop::sample::select(vec![100, 3_000, GRACE + 1_000, LEASE + 2_000])
            .prop_map(|millis| Act::Pass { millis }),
        12 => Just(Act::Settle),
    ];
    prop::collection::vec(act, 1..80)
}

/// The agents, as they are: which session each node has, and what it says.
struct Agents {
    sessions: BTreeMap<usize, (usize, u64, u64)>,
    says: BTreeMap<usize, BTreeMap<InstanceId, Report>>,
    next: u64,
    generations: [u64; 3],
    plugins: Vec<Arc<Manifest>>,
    /// Sessions that coordinators closed.
    closed: BTreeSet<u64>,
}

/// One instance of each plugin on each node.
fn instance(node: usize, plugin: usize) -> InstanceId {
    id(u8::try_from(node * 16 + plugin + 1).unwrap())
}

impl Agents {
    fn act(&mut self, world: &mut World, act: Act) {
        match act {
            Act::Open {
                coordinator,
                node,
                newer,
            } => self.open(world, coordinator, node, newer),
            Act::Close { node } => {
                if let Some((coordinator, session, _)) = self.sessions.remove(&node) {
                    let session = SessionId(session);
                    world.tell(
                        coordinator,
                        Event::AgentClosed {
                            session,
                            parting: Parting::Broken,
                        },
                    );
                }
            }
            Act::Report {
                node,
                plugin,
                phase,
            } => {
                let report = self.report(node, plugin, phase);
                self.says
                    .entry(node)
                    .or_default()
                    .insert(report.instance, report.clone());
                if let Some((coordinator, session, _)) = self.sessions.get(&node) {
                    let session = SessionId(*session);
                    world.tell(*coordinator, Event::AgentReported { session, report });
                }
            }
            Act::Announce { node, plugins } => {
                let reports = plugins
                    .iter()
                    .map(|it| self.report(node, *it, Phase::Ready));
                let says = reports.map(|report| (report.instance, report)).collect();
                self.says.insert(node, says);
                self.announce(world, node);
            }
            Act::Gone { node, plugin } => {
                let instance = instance(node, plugin);
                self.says.entry(node).or_default().remove(&instance);
                if let Some((coordinator, session, _)) = self.sessions.get(&node) {
                    let session = SessionId(*session);
                    world.tell(*coordinator, Event::AgentGone { session, instance });
                }
            }
            Act::Ask {
                coordinator,
                plugin,
                change,
            } => {
                self.next += 1;
                let operation = Operation {
                    plugin: self.plugins[plugin].name.clone(),
                    change,
                    by: String::new(),
                    reason: self.next.to_string(),
                    expected: None,
                };
                let request = RequestId(self.next);
                world.tell(coordinator, Event::Requested { request, operation });
            }
            Act::Write { coordinator } => {
                world.write_one(coordinator);
            }
            Act::Hear { coordinator, times } => {
                for _ in 0..times {
                    world.hear_one(coordinator);
                }
            }
            Act::Settle => world.settle(),
            Act::Lose { coordinator } => world.disconnect(coordinator),
            Act::Find { coordinator } => world.reconnect(coordinator),
            Act::Restart { coordinator } => {
                self.sessions.retain(|_, (at, ..)| *at != coordinator);
                world.start(coordinator, &format!("coordinator-{coordinator}"));
            }
            Act::Pass { millis } => {
                world.now.0 += millis;
                for (coordinator, session, _) in self.sessions.values() {
                    let session = SessionId(*session);
                    world.tell(*coordinator, Event::AgentHeartbeat { session });
                }
                for coordinator in 0..world.coordinators.len() {
                    world.tell(coordinator, Event::Tick);
                }
            }
        }
        self.hang_up(world);
    }

    fn open(&mut self, world: &mut World, coordinator: usize, node: usize, newer: bool) {
        if newer {
            self.generations[node] = world.now.0 + self.next;
            self.says.remove(&node);
        }
        // An agent has one session; it lets go of the old one before it opens the next.
        self.act(world, Act::Close { node });
        self.next += 1;
        let generation = self.generations[node];
        self.sessions
            .insert(node, (coordinator, self.next, generation));
        let event = Event::AgentOpened {
            session: SessionId(self.next),
            node: super::node(NODES[node], generation),
            table: None,
        };
        world.tell(coordinator, event);
        self.announce(world, node);
    }

    fn announce(&self, world: &mut World, node: usize) {
        if let Some((coordinator, session, _)) = self.sessions.get(&node) {
            let says = self.says.get(&node).into_iter().flatten();
            let reports = says.map(|(_, report)| report.clone()).collect();
            let session = SessionId(*session);
            world.tell(*coordinator, Event::AgentAnnounced { session, reports });
        }
    }

    fn report(&self, node: usize, plugin: usize, phase: Phase) -> Report {
        Report {
            instance: instance(node, plugin),
            ..report(1, &self.plugins[plugin], phase)
        }
    }

    /// Sessions that coordinators closed are closed; refused instances are ended.
    fn hang_up(&mut self, world: &mut World) {
        for number in 0..world.coordinators.len() {
            for command in std::mem::take(&mut world.at(number).said) {
                match command {
                    Command::CloseSession { session, .. } => {
                        self.sessions.retain(|_, (_, own, _)| *own != session.0);
                        self.closed.insert(session.0);
                    }
                    Command::Reject { instance, .. } => {
                        for says in self.says.values_mut() {
                            says.remove(&instance);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The table as it follows from the records alone, told to an engine that knows nothing else.
fn from_scratch(world: &World, told: usize) -> Table {
    let mut scratch = World::new(0);
    scratch.now = world.now;
    scratch.store = Store {
        epoch: world.store.epoch,
        told: world.store.told.clone(),
        last: 0,
    };
    scratch.store.go_back(told);
    scratch.start(0, "scratch");
    scratch.coordinators.remove(0).table
}

fn same(one: &Table, other: &Table) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.revision(), other.revision());
    let all = |table: &Table| table.instances().cloned().collect::<Vec<_>>();
    prop_assert_eq!(all(one), all(other));
    prop_assert!(one.nodes().eq(other.nodes()));
    let specs = |table: &Table| {
        table
            .manifests()
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    };
    prop_assert_eq!(specs(one), specs(other));
    Ok(())
}

/// Every active instance has an active one for each need, and they do not hold each other up.
fn none_is_active_without_what_it_needs(table: &Table) -> Result<(), TestCaseError> {
    let active: Vec<_> = table
        .instances()
        .filter(|it| it.state == InstanceState::Active)
        .collect();
    let mut explained: BTreeSet<InstanceId> = BTreeSet::new();
    loop {
        let before = explained.len();
        for route in &active {
            let manifest = table.manifest(&route.spec).unwrap();
            let met = required(manifest).all(|need| {
                active.iter().any(|other| {
                    explained.contains(&other.instance)
                        && need.is_met_by(table.manifest(&other.spec).unwrap())
                })
            });
            if met {
                explained.insert(route.instance);
            }
        }
        if explained.len() == before {
            break;
        }
    }
    prop_assert_eq!(explained.len(), active.len());
    Ok(())
}

proptest! {

    #[test]
    fn any_sequence_of_events_keeps_the_promises(acts in acts()) {
        let mut world = World::new(2);
        let mut agents = Agents {
            sessions: BTreeMap::new(),
            says: BTreeMap::new(),
            next: 0,
            generations: [1, 1, 1],
            plugins: plugins(),
            closed: BTreeSet::new(),
        };
        for node in 0..3 {
            agents.act(&mut world, Act::Open { coordinator: node % 2, node, newer: true });
        }
        for act in acts {
            // That revisions grow is asserted where the table is applied.
            agents.act(&mut world, act);
            for number in 0..2 {
                let coordinator = &world.coordinators[number];
                none_is_active_without_what_it_needs(&coordinator.table)?;
                if coordinator.connected {
                    same(&coordinator.table, &from_scratch(&world, coordinator.heard))?;
                }
            }
        }
        // Let everything come to rest: then the store says what the agents say.
        for number in 0..2 {
            if !world.coordinators[number].connected {
                world.reconnect(number);
            }
        }
        for node in 0..3 {
            agents.act(&mut world, Act::Close { node });
            agents.act(&mut world, Act::Open { coordinator: node % 2, node, newer: false });
        }
        for _ in 0..6 {
            world.settle();
            agents.hang_up(&mut world);
            agents.act(&mut world, Act::Pass { millis: 3_000 });
        }
        world.settle();
        prop_assert_eq!(agents.sessions.len(), 3);
        let table = &world.coordinators[0].table;
        same(table, &world.coordinators[1].table)?;
        let told: BTreeSet<InstanceId> =
            agents.says.values().flat_map(BTreeMap::keys).copied().collect();
        let here: BTreeSet<InstanceId> = table.instances().map(|it| it.instance).collect();
        prop_assert_eq!(told, here);
    }

    #[test]
    fn nothing_that_is_connected_is_evicted(
        acts in acts(),
        waits in prop::collection::vec(1_000..LEASE, 1..8),
    ) {
        let mut world = World::new(2);
        world.open(0, 1_000, "safe", 1);
        let safe = manifest("safe@1.0.0", &[], &[]);
        world.announce(0, 1_000, vec![report(200, &safe, Phase::Ready)]);
        let mut agents = Agents {
            sessions: BTreeMap::new(),
            says: BTreeMap::new(),
            next: 0,
            generations: [1, 1, 1],
            plugins: plugins(),
            closed: BTreeSet::new(),
        };
        let (mut at, mut session) = (0, 1_000);
        let mut waits = waits.into_iter().cycle();
        for act in acts {
            // Its own coordinator goes on; everything else may happen.
            if matches!(act, Act::Restart { coordinator } if coordinator == at) {
                continue;
            }
            agents.act(&mut world, act);
            let millis = waits.next().unwrap();
            agents.act(&mut world, Act::Pass { millis });
            world.settle();
            agents.hang_up(&mut world);
            // Where nobody may join it tries on.
            let other = [1 - at, at].into_iter().find(|number| world.coordinators[*number].connected);
            if let Some(other) = other.filter(|_| agents.closed.contains(&session)) {
                (at, session) = (other, session + 1);
                world.open(at, session, "safe", 1);
                world.announce(at, session, vec![report(200, &safe, Phase::Ready)]);
            }
            for coordinator in &world.coordinators {
                prop_assert!(coordinator.table.instance(id(200)).is_some());
            }
        }
    }

    #[test]
    fn those_whom_an_unload_would_block_are_listed_exactly(
        ready in prop::collection::vec((0..10_usize, 0..3_usize), 1..16),
        target in 0..10_usize,
    ) {
        let mut world = World::new(1);
        let plugins = plugins();
        for (number, name) in NODES.iter().enumerate() {
            world.open(0, number as u64 + 1, name, 1);
        }
        for (plugin, node) in ready {
            let report = Report { instance: instance(node, plugin), ..report(1, &plugins[plugin], Phase::Ready) };
            world.report(0, node as u64 + 1, report);
        }
        let name = plugins[target].name.clone();
        let active = |world: &World| -> BTreeSet<String> {
            let table = &world.coordinators[0].table;
            let on = table.instances().filter(|it| it.state == InstanceState::Active);
            on.filter_map(|it| it.spec.plugin()).map(|it| it.to_string()).collect()
        };
        let versions = |world: &World| -> BTreeSet<String> {
            let table = &world.coordinators[0].table;
            let on = table.instances().filter(|it| it.state == InstanceState::Active);
            on.map(|it| it.spec.to_string().split('#').next().unwrap().to_owned()).collect()
        };
        let (before, before_versions) = (active(&world), versions(&world));
        let refused = world.ask(name.as_str(), Change::Unload { cascade: false });
        let listed: BTreeSet<String> = match &refused {
            Err(error) if error.code == mesh_core::error::ErrorCode::StillRequired => {
                let details: serde_json::Value =
                    serde_json::from_str(error.details.as_deref().unwrap()).unwrap();
                let list = details["blocked"].as_array().unwrap().clone();
                list.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
            }
            _ => BTreeSet::new(),
        };
        // Written behind the engine's back, it does exactly that.
        if let Err(error) = &refused && error.code == mesh_core::error::ErrorCode::StillRequired {
            let wish = Record::Wish(crate::record::WishRecord {
                wish: Wish::Disabled,
                by: String::new(),
                reason: String::new(),
                since: Timestamp(1),
                manifests: vec![],
            });
            let key = Key::Wish(name.clone());
            let now = world.now;
            world.store.put(&key.to_string(), Some(wish.encode(&key).unwrap()), now);
            world.settle();
            let lost: BTreeSet<String> = before_versions
                .difference(&versions(&world))
                .filter(|it| it.split('@').next() != Some(name.as_str()))
                .cloned()
                .collect();
            prop_assert_eq!(&listed, &lost);
        } else if refused.is_ok() {
            let mut lost: BTreeSet<String> = before.difference(&active(&world)).cloned().collect();
            lost.remove(name.as_str());
            prop_assert!(lost.is_empty(), "{lost:?}");
        }
    }

    #[test]
    fn a_cascade_leaves_nobody_who_lost_anything(
        ready in prop::collection::vec((0..10_usize, 0..3_usize), 1..16),
        target in 0..10_usize,
    ) {
        let mut world = World::new(1);
        let plugins = plugins();
        for (number, name) in NODES.iter().enumerate() {
            world.open(0, number as u64 + 1, name, 1);
        }
        let mut here = BTreeMap::new();
        for (plugin, node) in ready {
            let report = Report { instance: instance(node, plugin), ..report(1, &plugins[plugin], Phase::Ready) };
            here.insert(report.instance, node as u64 + 1);
            world.report(0, node as u64 + 1, report);
        }
        let name = plugins[target].name.clone();
        let before: BTreeSet<InstanceId> = active(&world.coordinators[0].table);
        let Ok(outcome) = world.ask(name.as_str(), Change::Unload { cascade: true }) else {
            return Ok(());
        };
        // Agents obey: whoever drains is soon gone; at no time does one lose what it needs.
        let own = |table: &Table, instance: &InstanceId| {
            let spec = table.instance(*instance).map(|it| it.spec.clone());
            spec.and_then(|spec| spec.plugin()).is_none_or(|it| outcome.changed.contains(&it))
        };
        let start = world.coordinators[0].table.clone();
        for _ in 0..=here.len() {
            let table = world.coordinators[0].table.clone();
            let on = active(&table);
            for lost in before.iter().filter(|it| !on.contains(*it)) {
                prop_assert!(own(&start, lost), "{:?}", table.instance(*lost));
            }
            let degraded = table.instances().find(|it| it.state == InstanceState::Degraded);
            prop_assert!(degraded.is_none(), "{degraded:?}");
            let draining = table.instances().filter(|it| it.state == InstanceState::Draining);
            let draining: Vec<InstanceId> = draining.map(|it| it.instance).collect();
            for instance in draining {
                world.gone(0, here[&instance], instance);
            }
        }
        let table = &world.coordinators[0].table;
        for plugin in &outcome.changed {
            prop_assert_eq!(table.instances_of(plugin).count(), 0);
        }
    }
}

fn active(table: &Table) -> BTreeSet<InstanceId> {
    let on = table
        .instances()
        .filter(|it| it.state == InstanceState::Active);
    on.map(|it| it.instance).collect()
}
