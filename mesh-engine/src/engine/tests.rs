//! The engine in a small world: a store with compare-and-set, several coordinators, agents by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod epochs;
mod leases;
mod lifecycle;
mod office;
mod operators;
mod properties;
mod roles;
mod rollouts;
mod splits;
mod store;
mod suppose;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::record::Parting;
use mesh_core::error::MeshError;
use mesh_core::id::{Generation, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::{NodeRoute, Table};

pub const LEASE: u64 = 30_000;
pub const GRACE: u64 = 10_000;

/// One change as the store keeps it.
#[derive(Debug, Clone)]
pub struct Entry {
    key: String,
    value: Option<Vec<u8>>,
    sequence: u64,
    at: Timestamp,
}

/// A bucket with history 1 and everything that was ever told of it.
#[derive(Debug, Default)]
pub struct Store {
    pub epoch: u64,
    pub told: Vec<Entry>,
    /// The sequence of its last change.
    pub last: u64,
}

impl Store {
    fn newest(&self, key: &str) -> Option<&Entry> {
        self.told.iter().rev().find(|entry| entry.key == key)
    }

    pub fn put(&mut self, key: &str, value: Option<Vec<u8>>, at: Timestamp) -> u64 {
        self.last += 1;
        let sequence = self.last;
        self.told.push(Entry {
            key: key.to_owned(),
            value,
            sequence,
            at,
        });
        sequence
    }

    fn write(
        &mut self,
        key: &Key,
        value: Option<Vec<u8>>,
        expected: u64,
        at: Timestamp,
    ) -> Result<u64, WriteError> {
        let text = key.to_string();
        let newest = self.newest(&text);
        let current = newest
            .filter(|it| it.value.is_some())
            .map_or(0, |entry| entry.sequence);
        if current != expected {
            return Err(WriteError::Conflict);
        }
        Ok(self.put(&text, value, at))
    }

    /// The store is replaced by a copy that was made when so many changes were told.
    pub fn go_back(&mut self, told: usize) {
        self.told.truncate(told);
        self.last = self.told.last().map_or(0, |entry| entry.sequence);
    }

    /// What a snapshot tells: the newest of each key, in order.
    pub fn snapshot(&self) -> Vec<Entry> {
        let newest = |entry: &&Entry| self.newest(&entry.key).unwrap().sequence == entry.sequence;
        self.told.iter().filter(newest).cloned().collect()
    }
}

/// One coordinator: an engine, how far it has heard of the store, and what it wants written.
pub struct Coordinator {
    pub engine: Engine,
    heard: usize,
    pub connected: bool,
    /// Its writes are on their way and don't arrive.
    pub stuck: bool,
    pub writes: VecDeque<(WriteId, Key, Option<Vec<u8>>, u64)>,
    pub table: Table,
    /// Commands but writes and publications, since they were last looked at.
    pub said: Vec<Command>,
}

pub struct World {
    pub now: Timestamp,
    pub store: Store,
    pub coordinators: Vec<Coordinator>,
}

impl World {
    /// A world with so many coordinators, all of which have known the empty store for a while.
    pub fn new(coordinators: usize) -> Self {
        let mut world = Self {
            now: Timestamp(1_000_000),
            store: Store {
                epoch: 1,
                ..Store::default()
            },
            coordinators: Vec::new(),
        };
        for number in 0..coordinators {
            world.start(number, &format!("coordinator-{number}"));
        }
        world.now.0 += 2 * LEASE;
        world
    }

    /// Starts a coordinator anew, with no memory.
    pub fn start(&mut self, number: usize, name: &str) {
        let config = EngineConfig {
            name: name.parse().unwrap(),
            run: self.now.0 + number as u64,
            lease: Duration::from_millis(LEASE),
            grace: Duration::from_millis(GRACE),
        };
        let coordinator = Coordinator {
            engine: Engine::new(config, self.now),
            heard: 0,
            connected: false,
            stuck: false,
            writes: VecDeque::new(),
            table: Table::default(),
            said: Vec::new(),
        };
        if number < self.coordinators.len() {
            self.coordinators[number] = coordinator;
        } else {
            self.coordinators.push(coordinator);
        }
        self.reconnect(number);
    }

    pub fn at(&mut self, number: usize) -> &mut Coordinator {
        &mut self.coordinators[number]
    }

    /// One event for one coordinator; its table follows, its writes wait.
    pub fn tell(&mut self, number: usize, event: Event) {
        let now = self.now;
        let coordinator = self.at(number);
        for command in coordinator.engine.step(event, now) {
            match command {
                Command::Write {
                    write,
                    key,
                    value,
                    expected,
                } => coordinator.writes.push_back((write, key, value, expected)),
                Command::Publish(update) => {
                    assert_eq!(update.from, Some(coordinator.table.revision()));
                    coordinator.table = coordinator.table.apply(&update).expect("it goes forward");
                }
                other => coordinator.said.push(other),
            }
        }
    }

    pub fn disconnect(&mut self, number: usize) {
        self.at(number).connected = false;
        self.tell(number, Event::StoreLost);
    }

    /// The store is told from the start.
    pub fn reconnect(&mut self, number: usize) {
        let (epoch, last) = (self.store.epoch, self.store.last);
        self.tell(number, Event::StoreReset { epoch, last });
        for entry in self.store.snapshot() {
            self.tell(number, stored(&entry));
        }
        let heard = self.store.told.len();
        self.at(number).heard = heard;
        self.at(number).connected = true;
        self.tell(number, Event::StoreCurrent);
    }

    /// Carries out the oldest write of a coordinator.
    pub fn write_one(&mut self, number: usize) -> bool {
        let now = self.now;
        if self.at(number).stuck {
            return false;
        }
        let Some((write, key, value, expected)) = self.at(number).writes.pop_front() else {
            return false;
        };
        let event = if self.at(number).connected {
            match self.store.write(&key, value, expected, now) {
                Ok(sequence) => Event::Written {
                    write,
                    key,
                    sequence,
                },
                Err(error) => Event::WriteFailed { write, key, error },
            }
        } else {
            let error = WriteError::Unavailable("no responders".to_owned());
            Event::WriteFailed { write, key, error }
        };
        self.tell(number, event);
        true
    }

    /// Tells a coordinator the next change of the store.
    pub fn hear_one(&mut self, number: usize) -> bool {
        let coordinator = &mut self.coordinators[number];
        let Some(entry) = self.store.told.get(coordinator.heard).cloned() else {
            return false;
        };
        if !coordinator.connected {
            return false;
        }
        coordinator.heard += 1;
        self.tell(number, stored(&entry));
        true
    }

    /// Until nothing moves any more without time.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for number in 0..self.coordinators.len() {
                moved |= self.write_one(number);
                moved |= self.hear_one(number);
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets time pass, with ticks, agents' heartbeats and everything that follows.
    pub fn pass(&mut self, millis: u64, beating: &[(usize, SessionId)]) {
        let end = self.now.0 + millis;
        while self.now.0 < end {
            self.now.0 = (self.now.0 + 1_000).min(end);
            for (number, session) in beating {
                self.tell(*number, Event::AgentHeartbeat { session: *session });
            }
            for number in 0..self.coordinators.len() {
                self.tell(number, Event::Tick);
            }
            self.settle();
        }
    }

    pub fn open(&mut self, number: usize, session: u64, name: &str, generation: u64) {
        let event = Event::AgentOpened {
            session: SessionId(session),
            node: node(name, generation),
            table: None,
        };
        self.tell(number, event);
        self.settle();
    }

    pub fn announce(&mut self, number: usize, session: u64, reports: Vec<Report>) {
        let session = SessionId(session);
        self.tell(number, Event::AgentAnnounced { session, reports });
        self.settle();
    }

    pub fn report(&mut self, number: usize, session: u64, report: Report) {
        let session = SessionId(session);
        self.tell(number, Event::AgentReported { session, report });
        self.settle();
    }

    pub fn gone(&mut self, number: usize, session: u64, instance: InstanceId) {
        let session = SessionId(session);
        self.tell(number, Event::AgentGone { session, instance });
        self.settle();
    }

    pub fn close(&mut self, number: usize, session: u64) {
        let session = SessionId(session);
        self.tell(
            number,
            Event::AgentClosed {
                session,
                parting: Parting::Broken,
            },
        );
        self.settle();
    }

    /// An operator's change, and its answer.
    pub fn ask(&mut self, plugin: &str, change: Change) -> Result<Outcome, MeshError> {
        self.begin(plugin, change);
        self.settle();
        self.answer().expect("an answer")
    }

    pub fn begin(&mut self, plugin: &str, change: Change) {
        self.begin_if(plugin, change, None);
    }

    pub fn begin_if(&mut self, plugin: &str, change: Change, expected: Option<Revision>) {
        let operation = Operation {
            plugin: plugin.parse().unwrap(),
            change,
            by: "ann".into(),
            reason: "a test".into(),
            expected,
        };
        let request = RequestId(1);
        self.at(0).said.clear();
        self.tell(0, Event::Requested { request, operation });
    }

    pub fn answer(&mut self) -> Option<Result<Outcome, MeshError>> {
        self.at(0).said.iter().find_map(|command| match command {
            Command::Reply { result, .. } => Some(result.clone()),
            _ => None,
        })
    }

    /// Where an instance stands in the first coordinator's table; all tables of one revision agree.
    pub fn state(&self, instance: InstanceId) -> Option<InstanceState> {
        self.coordinators[0]
            .table
            .instance(instance)
            .map(|route| route.state)
    }

    pub fn reason(&self, instance: InstanceId) -> String {
        self.coordinators[0]
            .table
            .instance(instance)
            .unwrap()
            .reason
            .clone()
    }

    pub fn since(&self, instance: InstanceId) -> u64 {
        self.coordinators[0]
            .table
            .instance(instance)
            .unwrap()
            .since
            .0
    }

    /// The errors of sessions that a coordinator closed.
    pub fn closed(&mut self, number: usize) -> Vec<(u64, String)> {
        let said = self.at(number).said.iter();
        said.filter_map(|command| match command {
            Command::CloseSession { session, error } => Some((session.0, error.to_string())),
            _ => None,
        })
        .collect()
    }

    /// The errors of instances that a coordinator refused.
    pub fn rejected(&mut self, number: usize) -> Vec<(InstanceId, MeshError)> {
        let said = self.at(number).said.iter();
        said.filter_map(|command| match command {
            Command::Reject {
                instance, error, ..
            } => Some((*instance, error.clone())),
            _ => None,
        })
        .collect()
    }

    pub fn warnings(&mut self, number: usize) -> Vec<String> {
        let said = self.at(number).said.iter();
        said.filter_map(|command| match command {
            Command::Warn(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
    }

    /// What agents were told to do: session, action, plugin.
    pub fn directives(&mut self, number: usize) -> Vec<(u64, Action, String)> {
        let said = self.at(number).said.iter();
        said.filter_map(|command| match command {
            Command::Directive {
                session,
                action,
                plugin,
                ..
            } => Some((session.0, *action, plugin.to_string())),
            _ => None,
        })
        .collect()
    }
}

fn stored(entry: &Entry) -> Event {
    Event::Stored {
        key: entry.key.clone(),
        value: entry.value.clone(),
        sequence: entry.sequence,
        at: entry.at,
    }
}

pub fn node(name: &str, generation: u64) -> NodeRoute {
    NodeRoute {
        node: name.parse().unwrap(),
        generation: Generation(generation),
        zone: String::new(),
        labels: BTreeMap::new(),
        software: "0.1.0".into(),
    }
}

/// A manifest from `name@version`, its needs (`name req`, `kind:name req`, `?` in front: optional)
/// and the capabilities that it provides.
pub fn manifest(id: &str, wants: &[&str], provides: &[&str]) -> Arc<Manifest> {
    let (name, version) = id.split_once('@').unwrap();
    let mut dependencies = serde_json::Map::new();
    let mut requires = serde_json::Map::new();
    for want in wants {
        let optional = want.starts_with('?');
        let (what, requirement) = want.trim_start_matches('?').split_once(' ').unwrap();
        let need = json!({"requirement": requirement, "optional": optional});
        let map = if what.contains(':') {
            &mut requires
        } else {
            &mut dependencies
        };
        map.insert(what.to_owned(), need);
    }
    let capabilities: Vec<_> = provides
        .iter()
        .map(|it| json!({"capability": it}))
        .collect();
    let text = json!({
        "name": name, "version": version, "dependencies": dependencies, "requires": requires,
        "capabilities": capabilities,
    });
    Arc::new(serde_json::from_str(&text.to_string()).unwrap())
}

pub fn id(number: u8) -> InstanceId {
    InstanceId::new(u64::from(number), [number; 10])
}

pub fn report(number: u8, manifest: &Arc<Manifest>, phase: Phase) -> Report {
    Report {
        instance: id(number),
        manifest: Arc::clone(manifest),
        phase,
        reason: String::new(),
        since: Timestamp(0),
        concurrency: 0,
        supervised: true,
    }
}

pub fn names(plugins: &[PluginName]) -> Vec<&str> {
    plugins.iter().map(PluginName::as_str).collect()
}
