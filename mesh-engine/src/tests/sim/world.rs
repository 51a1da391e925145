//! The simulated mesh: one thread, one queue of what will happen, one seed.

use std::collections::{BTreeMap, BTreeSet};

use super::Planted;
use super::agents::{Agent, Gateway};
use super::chance::Chance;
use super::coordinator::{Coordinator, Following};
use super::faults::Fault;
use super::invariants::Invariants;
use super::store::{Bucket, Entry};
use super::streams::{Side, Stream};
use crate::engine::{Event, WriteId};
use crate::record::Key;

/// The lease of coordinators, in milliseconds; close enough to the default for the times at which
/// a lost store is noticed to mean the same.
pub const LEASE: u64 = 20_000;
pub const GRACE: u64 = 5_000;

/// Who follows a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Agent(usize),
    Gateway(usize),
}

/// A way that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From a coordinator to the store.
    Store(usize),
    /// From an agent or a gateway to a coordinator.
    Peer(Peer, usize),
}

/// Something that happens at its time. `life` is that of the one it is meant for: a process that was
/// started anew has another.
#[derive(Debug, Clone)]
pub enum Happening {
    Coordinator(usize, u64, ToCoordinator),
    /// A write reaches the store.
    Lands {
        number: usize,
        life: u64,
        write: WriteId,
        key: Key,
        value: Option<Vec<u8>>,
        expected: u64,
        answered: bool,
    },
    /// The next message of a stream arrives at this side.
    Arrives(u64, Side),
    /// This side of a stream finds that the other one is gone.
    Gone(u64, Side),
    /// This side finds so, unless the other one answers again by then.
    Silent(u64, Side),
    PeerTries(Peer, u64),
    AgentBeats(usize, u64),
    AgentActs(usize),
    /// One who runs since this life writes its table to disk, or calls.
    Keeps(Peer, u64),
    Calls(Peer, u64),
    Operates,
    Fails,
    Mends(Fault),
}

/// What waits while a coordinator is stopped.
#[derive(Debug, Clone)]
pub enum ToCoordinator {
    Tick,
    /// Its reading of the store, by the number of the try.
    Connects(u64),
    Snapshot(u64, u64),
    Change(u64, Entry),
    Proves(u64),
    /// The connection to the store is gone.
    Breaks,
    Answer(Event),
}

pub struct World {
    pub now: u64,
    pub chance: Chance,
    pub planted: Option<Planted>,
    queue: BTreeMap<(u64, u64), Happening>,
    serial: u64,
    pub store: Bucket,
    pub coordinators: Vec<Coordinator>,
    pub agents: Vec<Agent>,
    pub gateways: Vec<Gateway>,
    pub streams: BTreeMap<u64, Stream>,
    pub cuts: BTreeSet<Way>,
    pub invariants: Invariants,
    /// Nothing breaks any more.
    pub quiet: bool,
    /// The store was replaced at some time.
    pub went_back: bool,
    pub failure: Option<String>,
    /// What happened, when that is wanted.
    pub told: Option<Vec<String>>,
    pub happened: u64,
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>, telling: bool) -> Self {
        let mut world = Self {
            now: 10_000_000,
            chance: Chance::new(seed),
            planted,
            queue: BTreeMap::new(),
            serial: 0,
            store: Bucket::new(9_000_000),
            coordinators: Vec::new(),
            agents: Vec::new(),
            gateways: Vec::new(),
            streams: BTreeMap::new(),
            cuts: BTreeSet::new(),
            invariants: Invariants::default(),
            quiet: false,
            went_back: false,
            failure: None,
            told: telling.then(Vec::new),
            happened: 0,
        };
        for number in 0..3 {
            let coordinator = Coordinator::new(number, &mut world.chance);
            world.coordinators.push(coordinator);
            world.start_coordinator(number);
        }
        for number in 0..4 {
            world.agents.push(Agent::new(number));
            world.start_agent(number);
            let after = world.chance.within(500..5_000);
            world.after(after, Happening::AgentActs(number));
        }
        for number in 0..2 {
            world.gateways.push(Gateway::new());
            world.start_gateway(number);
        }
        world.after(20_000, Happening::Operates);
        world.after(15_000, Happening::Fails);
        world
    }

    pub fn after(&mut self, millis: u64, happening: Happening) {
        self.serial += 1;
        self.queue
            .insert((self.now + millis, self.serial), happening);
    }

    pub fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{:>9} {}", self.now - 10_000_000, text()));
        }
    }

    /// Notes the first promise that was broken.
    pub fn check(&mut self, checked: Result<(), String>) {
        if let Err(broken) = checked {
            self.tell(|| format!("BROKEN: {broken}"));
            self.failure.get_or_insert(broken);
        }
    }

    pub fn is_open(&self, way: Way) -> bool {
        !self.cuts.contains(&way)
    }

    /// The store can be reached and answers in time.
    pub fn reaches_store(&self, number: usize) -> bool {
        self.store.up && self.is_open(Way::Store(number))
    }

    /// Runs until a time, or until something is broken.
    pub fn run_until(&mut self, end: u64) {
        while self.failure.is_none() {
            let Some(next) = self.queue.first_entry() else {
                return;
            };
            let at = next.key().0;
            if at > end {
                self.now = end;
                return;
            }
            let happening = next.remove();
            // What held until now.
            self.look_at_evictions();
            self.now = at;
            self.happened += 1;
            self.happens(happening);
            self.look_at_holders();
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Coordinator(number, life, what) => {
                let coordinator = &mut self.coordinators[number];
                if coordinator.life != life || !coordinator.up {
                    return;
                }
                if coordinator.stopped {
                    coordinator.waiting.push(what);
                } else {
                    self.reaches_coordinator(number, what);
                }
            }
            Happening::Lands {
                number,
                life,
                write,
                key,
                value,
                expected,
                answered,
            } => {
                let written = self.lands(number, &key, value, expected);
                if answered {
                    let event = match written {
                        Ok(sequence) => Event::Written {
                            write,
                            key,
                            sequence,
                        },
                        Err(error) => Event::WriteFailed { write, key, error },
                    };
                    let delay = self.chance.within(1..40);
                    let answer = ToCoordinator::Answer(event);
                    self.after(delay, Happening::Coordinator(number, life, answer));
                }
            }
            Happening::Arrives(stream, side) => self.arrives(stream, side),
            Happening::Gone(stream, side) => self.finds_gone(stream, side),
            Happening::Silent(stream, side) => {
                if self.is_silent(stream, side) {
                    self.finds_gone(stream, side);
                }
            }
            Happening::PeerTries(peer, life) => self.peer_tries(peer, life),
            Happening::AgentBeats(number, life) => self.agent_beats(number, life),
            Happening::AgentActs(number) => self.agent_acts(number),
            Happening::Keeps(peer, life) => self.keeps(peer, life),
            Happening::Calls(peer, life) => self.calls(peer, life),
            Happening::Operates => self.operates(),
            Happening::Fails => self.fails(),
            Happening::Mends(fault) => self.mends(fault),
        }
    }

    /// Everything works again from now on.
    pub fn calm(&mut self) {
        self.quiet = true;
        self.store.up = true;
        self.cuts.clear();
        for number in 0..self.coordinators.len() {
            let coordinator = &mut self.coordinators[number];
            coordinator.deaf_until = 0;
            coordinator.slow_until = 0;
            if coordinator.stopped {
                self.wake_coordinator(number);
            }
            if !self.coordinators[number].up {
                self.start_coordinator(number);
            }
        }
        for number in 0..self.agents.len() {
            self.agents[number].stopped = false;
            if !self.agents[number].up && !self.agents[number].lost {
                self.start_agent(number);
            }
        }
        for number in 0..self.gateways.len() {
            if !self.gateways[number].up {
                self.start_gateway(number);
            }
        }
    }

    /// Whether a coordinator can do its work.
    pub fn is_well(&self, number: usize) -> bool {
        let coordinator = &self.coordinators[number];
        coordinator.up
            && !coordinator.stopped
            && self.reaches_store(number)
            && coordinator.slow_until <= self.now
            && coordinator.deaf_until <= self.now
            && matches!(coordinator.following, Following::Live { .. })
    }
}
