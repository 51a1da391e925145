//! The engine alone, with a store that answers at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mesh_core::id::Generation;
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;
use mesh_core::table::NodeRoute;
use mesh_engine::engine::{Command, Engine, EngineConfig, Event, Report, SessionId};
use mesh_proto::convert::draft;

use super::{Measured, graph};
use crate::report::{Figure, Target};

const CHANGES: usize = 500;

/// An engine and what its store holds.
struct World {
    engine: Engine,
    now: u64,
    sequence: u64,
    stored: BTreeMap<String, (Vec<u8>, u64)>,
    events: VecDeque<Event>,
    steps: Histogram<u64>,
}

fn engine() -> Engine {
    let config = EngineConfig {
        name: "coordinator".parse().expect("a name"),
        run: 1,
        lease: Duration::from_secs(30),
        grace: Duration::from_secs(10),
    };
    Engine::new(config, Timestamp(1))
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: engine(),
            now: 1,
            sequence: 0,
            stored: BTreeMap::new(),
            events: VecDeque::new(),
            steps: harness::load::histogram(),
        };
        world.tell(Event::StoreReset { epoch: 1, last: 0 });
        world.tell(Event::StoreCurrent);
        world
    }

    /// Takes an event and all that follows from it.
    fn tell(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let begin = Instant::now();
            let commands = self.engine.step(event, Timestamp(self.now));
            let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.steps.saturating_record(took);
            for command in commands {
                if let Command::Write {
                    write, key, value, ..
                } = command
                {
                    self.sequence += 1;
                    let (name, sequence) = (key.to_string(), self.sequence);
                    match &value {
                        Some(bytes) => {
                            let entry = (bytes.clone(), sequence);
                            drop(self.stored.insert(name.clone(), entry));
                        }
                        None => drop(self.stored.remove(&name)),
                    }
                    self.events.push_back(Event::Written {
                        write,
                        key,
                        sequence,
                    });
                    self.events.push_back(Event::Stored {
                        key: name,
                        value,
                        sequence,
                        at: Timestamp(self.now),
                    });
                }
            }
        }
    }

    /// The steps since it was asked last.
    fn take_steps(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.steps, harness::load::histogram())
    }
}

fn report(plugin: usize, number: usize, phase: Phase) -> Report {
    let manifest = draft(graph::manifest(plugin)).check().expect("a manifest");
    Report {
        instance: graph::instance(plugin, number),
        manifest: Arc::new(manifest),
        phase,
        reason: String::new(),
        since: Timestamp(1),
        concurrency: 32,
        supervised: true,
    }
}

/// Fills the processor's caches with something else. A thousand plugins fit into them and ten thousand
/// don't, so that each of these would take twice as long for no reason of the engine's.
fn empty_caches() {
    let mut other = vec![1_u8; 256 << 20];
    for byte in other.iter_mut().step_by(64) {
        *byte = byte.wrapping_add(1);
    }
    std::hint::black_box(other);
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

fn p99_us(steps: &Histogram<u64>) -> f64 {
    steps.value_at_quantile(0.99) as f64 / 1_000.0
}

pub fn measure(plugins: usize) -> Measured {
    let nodes = plugins / graph::PLUGINS_A_NODE;
    let mut said: Vec<Vec<Report>> = (0..nodes).map(|_| Vec::new()).collect();
    for plugin in 0..plugins {
        for number in 0..graph::INSTANCES {
            let node = graph::node(plugin, number, nodes);
            said[node].push(report(plugin, number, Phase::Ready));
        }
    }
    let mut world = World::new();
    let begin = Instant::now();
    for (node, reports) in said.into_iter().enumerate() {
        let session = SessionId(node as u64);
        world.tell(Event::AgentOpened {
            session,
            node: NodeRoute {
                node: format!("node-{node}").parse().expect("a name"),
                generation: Generation(1),
                zone: String::new(),
                labels: BTreeMap::new(),
                software: String::new(),
            },
            table: None,
        });
        world.tell(Event::AgentAnnounced { session, reports });
    }
    let registered = millis(begin);
    let registering = world.take_steps();
    // One instance fails its health check and is well again.
    let mut draw = fastrand::Rng::with_seed(7);
    for _ in 0..CHANGES {
        let plugin = draw.usize(..plugins);
        let session = SessionId(graph::node(plugin, 0, nodes) as u64);
        for phase in [Phase::Unhealthy, Phase::Ready] {
            let report = report(plugin, 0, phase);
            world.tell(Event::AgentReported { session, report });
        }
    }
    let changing = world.take_steps();
    // All instances of a plugin go, and those who need it are affected; then it is back.
    for _ in 0..CHANGES / 10 {
        let plugin = draw.usize(..plugins);
        for phase in [Phase::Loaded, Phase::Ready] {
            for number in 0..graph::INSTANCES {
                let session = SessionId(graph::node(plugin, number, nodes) as u64);
                let report = report(plugin, number, phase);
                world.tell(Event::AgentReported { session, report });
            }
        }
    }
    let losing = world.take_steps();
    // Everything from the start, by an engine that knows nothing.
    let mut fresh = engine();
    let last = world.sequence;
    let begin = Instant::now();
    let reset = Event::StoreReset { epoch: 1, last };
    drop(fresh.step(reset, Timestamp(2)));
    let mut stored: Vec<_> = world.stored.into_iter().collect();
    stored.sort_by_key(|(_, (_, sequence))| *sequence);
    for (key, (value, sequence)) in stored {
        let event = Event::Stored {
            key,
            value: Some(value),
            sequence,
            at: Timestamp(1),
        };
        drop(fresh.step(event, Timestamp(2)));
    }
    let read = millis(begin);
    empty_caches();
    let begin = Instant::now();
    let commands = fresh.step(Event::StoreCurrent, Timestamp(2));
    let resolved = millis(begin);
    let active = commands.iter().find_map(|command| match command {
        Command::Publish(update) => {
            let routes = update.instances.iter();
            Some(routes.filter(|route| route.state.takes_calls()).count())
        }
        _ => None,
    });
    assert_eq!(active, Some(plugins * graph::INSTANCES), "all are active");
    let (step, hundred) = (Target::AtMost(1_000.0), Target::AtMost(100.0));
    let us = |metric, steps| Figure::own(metric, "µs", p99_us(steps)).target(step);
    vec![
        Figure::own("register all", "ms", registered),
        us("registering: step p99", &registering),
        us("one changes: step p99", &changing),
        us("a plugin is lost: step p99", &losing),
        Figure::own("read all records", "ms", read),
        Figure::own("resolve from scratch", "ms", resolved).target(hundred),
    ]
}
