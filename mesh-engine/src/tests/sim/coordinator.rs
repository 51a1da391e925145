//! A coordinator: the real engine, a clock of its own, and a reading of the store as `mesh-bus` has it.

use std::time::Duration;

use super::Planted;
use super::chance::Chance;
use super::feed::Feed;
use super::store::Entry;
use super::streams::{Down, Side};
use super::world::{GRACE, Happening, LEASE, ToCoordinator, World};
use crate::engine::{Command, Engine, EngineConfig, Event, StoreState, WriteError, WriteId};
use crate::record::Key;
use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;

/// How often it is proven that no change was missed, and how long one may be on its way.
const PROVE: u64 = 2_000;
/// How long a write may go without an answer.
const ANSWER: u64 = 10_000;

/// How the store is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// There is no connection.
    Broken,
    /// Subscribed; the snapshot is on its way.
    Reading,
    /// Every change up to this one is told.
    Live { position: u64, current: bool },
}

pub struct Coordinator {
    pub name: NodeId,
    pub up: bool,
    /// Its process is stopped, and will go on.
    pub stopped: bool,
    pub life: u64,
    pub engine: Engine,
    pub feed: Feed,
    /// Changes of the store don't arrive.
    pub deaf_until: u64,
    /// Writes take their time.
    pub slow_until: u64,
    pub following: Following,
    /// The bucket that is read.
    epoch: u64,
    /// The number of the subscription.
    pub subscription: u64,
    /// A change that the leader knows of, and when it was asked.
    awaited: Option<(u64, u64)>,
    missed: u32,
    /// When the last change that is on its way arrives.
    arrives: u64,
    pub waiting: Vec<ToCoordinator>,
    lost_since: u64,
    /// Its clock: ahead by so much, and too fast by so many in a million (or too slow).
    ahead: u64,
    fast: i64,
}

impl Coordinator {
    pub fn new(number: usize, chance: &mut Chance) -> Self {
        let name: NodeId = format!("coordinator-{number}").parse().expect("a name");
        let config = config(&name, 0);
        Self {
            name,
            up: false,
            stopped: false,
            life: 0,
            engine: Engine::new(config, Timestamp(0)),
            feed: Feed::default(),
            deaf_until: 0,
            slow_until: 0,
            following: Following::Broken,
            epoch: 0,
            subscription: 0,
            awaited: None,
            missed: 0,
            arrives: 0,
            waiting: Vec::new(),
            lost_since: 0,
            ahead: chance.within(0..3_600_000),
            fast: i64::try_from(chance.within(0..10_000)).expect("small") - 5_000,
        }
    }

    /// What its clock shows.
    pub fn clock(&self, now: u64) -> Timestamp {
        let drift = i64::try_from(now).expect("small") * self.fast / 1_000_000;
        Timestamp((now + self.ahead).saturating_add_signed(drift))
    }

    pub fn holds_office(&self, now: u64) -> bool {
        self.up && self.engine.holds_office(self.clock(now))
    }
}

fn config(name: &NodeId, run: u64) -> EngineConfig {
    EngineConfig {
        name: name.clone(),
        run,
        lease: Duration::from_millis(LEASE),
        grace: Duration::from_millis(GRACE),
    }
}

impl World {
    pub fn start_coordinator(&mut self, number: usize) {
        let life = self.number();
        let now = self.now;
        let skips = self.planted == Some(Planted::SkipTheWait);
        let coordinator = &mut self.coordinators[number];
        let clock = coordinator.clock(now);
        coordinator.engine = Engine::new(config(&coordinator.name, clock.0), clock);
        coordinator.engine.skip_the_wait(skips);
        coordinator.feed = Feed::default();
        coordinator.following = Following::Broken;
        coordinator.life = life;
        coordinator.up = true;
        coordinator.stopped = false;
        coordinator.waiting.clear();
        self.tell(|| format!("coordinator {number} starts"));
        let tick = self.chance.within(1..1_000);
        self.later(number, tick, ToCoordinator::Tick);
        self.reconnects(number);
    }

    pub fn stop_coordinator(&mut self, number: usize) {
        self.coordinators[number].up = false;
        self.coordinators[number].stopped = false;
        for stream in self.streams_of(number) {
            self.leaves(stream, Side::Coordinator);
        }
    }

    /// A process that was stopped goes on: all that came meanwhile is there at once.
    pub fn wake_coordinator(&mut self, number: usize) {
        self.coordinators[number].stopped = false;
        for what in std::mem::take(&mut self.coordinators[number].waiting) {
            self.later(number, 0, what);
        }
    }

    pub fn later(&mut self, number: usize, millis: u64, what: ToCoordinator) {
        let life = self.coordinators[number].life;
        self.after(millis, Happening::Coordinator(number, life, what));
    }

    pub fn reaches_coordinator(&mut self, number: usize, what: ToCoordinator) {
        match what {
            ToCoordinator::Tick => {
                self.later(number, 1_000, ToCoordinator::Tick);
                self.step(number, Event::Tick);
            }
            ToCoordinator::Connects(subscription) => self.connects(number, subscription),
            ToCoordinator::Snapshot(subscription, behind) => {
                self.snapshot(number, subscription, behind);
            }
            ToCoordinator::Change(subscription, entry) => self.change(number, subscription, entry),
            ToCoordinator::Proves(subscription) => self.proves(number, subscription),
            ToCoordinator::Breaks => self.breaks(number),
            ToCoordinator::Answer(event) => self.step(number, event),
        }
    }

    pub fn step(&mut self, number: usize, event: Event) {
        let now = self.now;
        let coordinator = &mut self.coordinators[number];
        let clock = coordinator.clock(now);
        let commands = coordinator.engine.step(event, clock);
        if coordinator.engine.store() == StoreState::Current {
            coordinator.lost_since = now;
        }
        for command in commands {
            self.commanded(number, command);
        }
    }

    fn commanded(&mut self, number: usize, command: Command) {
        match command {
            Command::Write {
                write,
                key,
                value,
                expected,
            } => self.writes(number, write, key, value, expected),
            Command::Publish(update) => {
                let published = self.coordinators[number].feed.publish(update);
                self.check(published);
                let table = self.coordinators[number].feed.table.clone();
                let checked = self.invariants.forward.published(&table, self.went_back);
                self.check(checked);
                for stream in self.streams_of(number) {
                    self.hand_on(stream);
                }
            }
            Command::Welcome { session } => self.say(session, Down::Welcome),
            Command::AskAnnounce { session } => self.say(session, Down::AskAnnounce),
            Command::Reject {
                session, instance, ..
            } => self.say(session, Down::Reject(instance)),
            Command::Directive {
                session,
                action,
                plugin,
                ..
            } => self.say(session, Down::Directive(action, plugin)),
            Command::CloseSession { session, error } => {
                self.tell(|| format!("coordinator {number} closes {session:?}: {error}"));
                self.refuse(session);
            }
            Command::Reply { .. } => {}
            Command::Warn(text) => self.tell(|| format!("coordinator {number} warns: {text}")),
        }
    }

    /// Whether agents and followers may join, as the coordinator's services decide it.
    pub fn may_join(&self, number: usize) -> bool {
        let coordinator = &self.coordinators[number];
        match coordinator.engine.store() {
            StoreState::Current => true,
            StoreState::Lost => self.now - coordinator.lost_since < 5_000,
            StoreState::Starting => false,
        }
    }

    fn writes(
        &mut self,
        number: usize,
        write: WriteId,
        key: Key,
        value: Option<Vec<u8>>,
        expected: u64,
    ) {
        let life = self.coordinators[number].life;
        if matches!(self.coordinators[number].following, Following::Broken) {
            let error = WriteError::Unavailable("there is no connection".to_owned());
            let event = Event::WriteFailed { write, key, error };
            self.later(number, 1, ToCoordinator::Answer(event));
            return;
        }
        let slow = self.coordinators[number].slow_until > self.now;
        let cut = !self.reaches_store(number);
        let delay = if slow {
            self.chance.within(1..2 * LEASE)
        } else {
            self.chance.within(1..60)
        };
        let arrives = !cut || self.chance.percent(50);
        let answered = !slow && !cut && !self.chance.percent(1);
        let landing = Happening::Lands {
            number,
            life,
            write,
            key: key.clone(),
            value,
            expected,
            answered,
        };
        if arrives {
            if self.chance.percent(1) {
                // Sent twice: whatever the second one finds, nobody is told.
                let mut twice = landing.clone();
                if let Happening::Lands { answered, .. } = &mut twice {
                    *answered = false;
                }
                self.after(delay + 5, twice);
            }
            self.after(delay, landing);
        }
        if !answered {
            let error = WriteError::Unknown("no answer".to_owned());
            let event = Event::WriteFailed { write, key, error };
            self.later(number, ANSWER, ToCoordinator::Answer(event));
        }
    }

    /// A write reaches the store.
    pub fn lands(
        &mut self,
        number: usize,
        key: &Key,
        value: Option<Vec<u8>>,
        expected: u64,
    ) -> Result<u64, WriteError> {
        if !self.store.up {
            return Err(WriteError::Unavailable("no leader".to_owned()));
        }
        let blind = match self.planted {
            Some(Planted::NoEpochCheck) => *key == Key::Lease,
            Some(Planted::StaleRead) => *key != Key::Lease,
            _ => false,
        };
        let deleted = value.is_none();
        let before = self.store.lease();
        let rollout = self.store.rollout(key);
        let expected = (!blind).then_some(expected);
        let entry = self.store.write(key, value, expected, self.now)?.clone();
        let sequence = entry.sequence;
        self.tell(|| {
            let what = if deleted { "deletes" } else { "writes" };
            format!("coordinator {number} {what} {key} at {sequence}")
        });
        match key {
            Key::Lease => {
                let lease = self.store.lease();
                let checked = self.invariants.stored_lease(before, lease, self.now);
                self.check(checked);
            }
            Key::Node(node) if deleted => self.check_eviction(node),
            Key::Rollout(_) => {
                let stored = self.store.rollout(key);
                let (before, after) = (rollout.as_ref(), stored.as_ref());
                let stood = before.map_or(0, |(_, at)| self.now - at);
                let (before, after) = (before.map(|it| &*it.0), after.map(|it| &*it.0));
                let checked = self.invariants.rollouts.stored(before, after, stood);
                self.check(checked);
            }
            _ => {}
        }
        self.changed(key, &entry);
        Ok(sequence)
    }

    /// The store has changed; all who have subscribed will hear of it.
    pub fn changed(&mut self, key: &Key, entry: &Entry) {
        let (revision, record) = (self.store.revision(), self.store.record(key));
        let routes = &mut self.invariants.routes;
        routes.stored(key, record.as_ref(), revision);
        for follower in 0..self.coordinators.len() {
            self.repeats(follower, entry.clone());
        }
    }

    /// The bucket repeats a change to those who have subscribed.
    fn repeats(&mut self, number: usize, entry: Entry) {
        let delay = self.chance.within(1..80);
        let reached = self.reaches_store(number);
        let coordinator = &mut self.coordinators[number];
        let deaf = coordinator.deaf_until > self.now;
        if coordinator.following == Following::Broken || deaf || !reached {
            return;
        }
        coordinator.arrives = coordinator.arrives.max(self.now + delay);
        let (subscription, wait) = (coordinator.subscription, coordinator.arrives - self.now);
        self.later(number, wait, ToCoordinator::Change(subscription, entry));
    }

    /// Begins to read from the start, on a new connection or the old one.
    fn reads_anew(&mut self, number: usize) {
        let subscription = self.number();
        let coordinator = &mut self.coordinators[number];
        coordinator.subscription = subscription;
        coordinator.following = Following::Reading;
        coordinator.awaited = None;
        coordinator.missed = 0;
        let delay = self.chance.within(5..100);
        // Copies may lag behind.
        let behind = if self.chance.percent(10) && !self.quiet {
            self.chance.within(0..20)
        } else {
            0
        };
        self.later(number, delay, ToCoordinator::Snapshot(subscription, behind));
    }

    /// The connection is gone.
    fn breaks(&mut self, number: usize) {
        let told = matches!(self.coordinators[number].following, Following::Live { .. });
        self.coordinators[number].following = Following::Broken;
        if told {
            self.tell(|| format!("coordinator {number} has lost the store"));
            self.step(number, Event::StoreLost);
        }
        self.reconnects(number);
    }

    fn reconnects(&mut self, number: usize) {
        let subscription = self.number();
        self.coordinators[number].subscription = subscription;
        let delay = self.chance.within(100..400);
        self.later(number, delay, ToCoordinator::Connects(subscription));
    }

    fn connects(&mut self, number: usize, subscription: u64) {
        if self.coordinators[number].subscription != subscription {
            return;
        }
        if self.reaches_store(number) {
            self.reads_anew(number);
        } else {
            self.reconnects(number);
        }
    }

    fn snapshot(&mut self, number: usize, subscription: u64, behind: u64) {
        if self.coordinators[number].subscription != subscription {
            return;
        }
        if !self.reaches_store(number) {
            self.breaks(number);
            return;
        }
        let at = self.store.last().saturating_sub(behind);
        let (epoch, last) = (self.store.epoch, at);
        self.coordinators[number].epoch = epoch;
        self.step(number, Event::StoreReset { epoch, last });
        for entry in self.store.snapshot(at) {
            self.step(number, stored(entry));
        }
        self.coordinators[number].following = Following::Live {
            position: at,
            current: false,
        };
        self.later(number, 0, ToCoordinator::Proves(subscription));
    }

    fn change(&mut self, number: usize, subscription: u64, entry: Entry) {
        let coordinator = &mut self.coordinators[number];
        if coordinator.subscription != subscription {
            return;
        }
        let Following::Live { position, current } = coordinator.following else {
            // It will be in the snapshot, or show as a gap.
            return;
        };
        if entry.sequence <= position {
            return;
        }
        if entry.sequence != position + 1 {
            self.reads_anew(number);
            return;
        }
        coordinator.following = Following::Live {
            position: entry.sequence,
            current,
        };
        self.step(number, stored(entry));
        self.arrived(number);
    }

    /// Asks the leader which change was the last.
    fn proves(&mut self, number: usize, subscription: u64) {
        if self.coordinators[number].subscription != subscription {
            return;
        }
        let Following::Live { position, .. } = self.coordinators[number].following else {
            return;
        };
        self.later(number, PROVE, ToCoordinator::Proves(subscription));
        let (reached, last, now) = (self.reaches_store(number), self.store.last(), self.now);
        let coordinator = &mut self.coordinators[number];
        if !reached {
            coordinator.missed += 1;
            if coordinator.missed >= 2 {
                self.breaks(number);
            }
            return;
        }
        coordinator.missed = 0;
        if last < position || coordinator.epoch != self.store.epoch {
            // The bucket was made anew.
            self.breaks(number);
            return;
        }
        match coordinator.awaited {
            Some((_, asked)) if now - asked >= PROVE => self.reads_anew(number),
            Some(_) => {}
            None => {
                coordinator.awaited = Some((last, now));
                self.arrived(number);
            }
        }
    }

    fn arrived(&mut self, number: usize) {
        let coordinator = &mut self.coordinators[number];
        let Following::Live { position, current } = coordinator.following else {
            return;
        };
        if coordinator
            .awaited
            .is_some_and(|(last, _)| last <= position)
        {
            coordinator.awaited = None;
            if !current {
                coordinator.following = Following::Live {
                    position,
                    current: true,
                };
                self.tell(|| format!("coordinator {number} is current at {position}"));
                self.step(number, Event::StoreCurrent);
            }
        }
    }
}

fn stored(entry: Entry) -> Event {
    Event::Stored {
        key: entry.key,
        value: entry.value,
        sequence: entry.sequence,
        at: Timestamp(entry.at),
    }
}
