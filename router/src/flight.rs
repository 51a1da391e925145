//! How each instance does: this router's own calls, what others have there by its beacons, how long
//! calls take, and whether it should be left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_bus::Bus;
use mesh_core::budget::RetryBudget;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::outlier::{Outcome, Outlier, Trial, may_eject};
use mesh_core::revision::Revision;
use mesh_core::select::{Health, Signal};
use mesh_core::table::{InstanceRoute, Table};
use tokio::time::Instant;

use crate::stats::Remedies;

/// A measured latency is worth something for so long: an instance that was slow once and got no more
/// calls is to be tried again.
const LATENCY_LIFE: Duration = Duration::from_secs(10);

/// A node of which so many beacons did not come is silent, but never in less than so long.
const MISSED_BEACONS: u32 = 4;
const SILENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Busy {
    own: u32,
    others: u32,
    /// Decaying average of this router's calls, and when the last one ended.
    latency: Duration,
    measured: Option<Instant>,
    /// What its beacons say of it: how long calls take, how many there were, and when there was one
    /// more.
    reported: Duration,
    calls: u64,
    called: Option<Instant>,
    outlier: Outlier,
    /// It refused a call: until then it is a bad choice.
    refused_until: Option<Instant>,
    /// When its node's last beacon came, and how long after that the node is silent.
    heard: Option<Instant>,
    patience: Duration,
    /// Its node was heard before and is not any more.
    silent: bool,
    /// Calls to its node were ended for want of a sign of life.
    lost: bool,
    /// Its agent says that it does not answer.
    unresponsive: bool,
}

impl Busy {
    fn signal(&self, now: Instant, started: Instant) -> Signal {
        let health = if self.silent || self.lost || self.unresponsive {
            Health::Silent
        } else if self.outlier.is_out(now - started) {
            Health::Ejected
        } else if self.refused_until.is_some_and(|until| until > now) {
            Health::Refusing
        } else {
            Health::Good
        };
        let fresh = |at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) < LATENCY_LIFE)
        };
        Signal {
            in_flight: self.own.saturating_add(self.others),
            latency: if fresh(self.measured) {
                self.latency
            } else if fresh(self.called) {
                self.reported
            } else {
                Duration::ZERO
            },
            health,
        }
    }

    /// A call has ended, or a trial. True: the instance is an outlier.
    fn ended(
        &mut self,
        trial: Option<Trial>,
        outcome: Outcome,
        now: Duration,
        remedies: &mut Remedies,
    ) -> bool {
        let was_out = self.outlier.is_ejected();
        let outlier = self.outlier.ended(trial, outcome, now);
        remedies.returns += u64::from(was_out && !self.outlier.is_ejected());
        outlier
    }

    fn took(&mut self, time: Duration, now: Instant) {
        // A new value weighs an eighth: the average follows within some ten calls.
        self.latency = match self.measured {
            None => time,
            Some(_) => self.latency - self.latency / 8 + time / 8,
        };
        self.measured = Some(now);
    }
}

/// What a beacon says of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    pub in_flight: u32,
    pub latency: Duration,
    /// Calls begun since the instance attached.
    pub calls: u64,
    pub unresponsive: bool,
    /// Time until the next one.
    pub interval: Duration,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    instances: HashMap<InstanceId, Busy, RandomState>,
    budget: RetryBudget,
    /// The states of the bus's list of lost nodes and of the table by which instances are noted as lost.
    noted: (u64, Revision),
    remedies: Remedies,
}

/// A look at how all instances do.
pub(crate) struct Look<'a> {
    book: MutexGuard<'a, Book>,
    now: Instant,
    started: Instant,
}

impl Look<'_> {
    /// How an instance does.
    pub fn signal(&self, instance: InstanceId) -> Signal {
        let busy = self.book.instances.get(&instance);
        busy.map_or_else(Signal::default, |busy| busy.signal(self.now, self.started))
    }

    /// After it was noted which instances are on nodes that the bus has lost, if either has changed since.
    pub fn with_lost(mut self, bus: &Bus, table: &Table) -> Self {
        let state = (bus.lost_changes(), table.revision());
        if self.book.noted != state {
            self.book.noted = state;
            self.book.note_lost(&bus.lost_nodes(), table);
        }
        self
    }
}

impl Book {
    fn note_lost(&mut self, lost: &[(NodeId, Generation)], table: &Table) {
        for busy in self.instances.values_mut() {
            busy.lost = false;
        }
        if lost.is_empty() {
            return;
        }
        let there = |route: &&InstanceRoute| {
            let mut lost = lost.iter();
            lost.any(|(node, generation)| *node == route.node && *generation == route.generation)
        };
        for route in table.instances().filter(there) {
            self.instances.entry(route.instance).or_default().lost = true;
        }
    }
}

/// How each instance does. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Flights(Arc<Shared>);

/// One call of this router to an instance, counted while it lives.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Flights,
    instance: InstanceId,
    begun: Instant,
    /// It decides whether the instance, which was left out, comes back.
    trial: Option<Trial>,
    settled: bool,
}

impl Flight {
    /// Something of an answer has come. That is enough for a trial: the call may be a long stream.
    pub fn answers(&mut self) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        let now = Instant::now() - self.flights.0.started;
        let mut book = self.flights.lock();
        let book = &mut *book;
        if let Some(busy) = book.instances.get_mut(&self.instance) {
            // A trial that goes well makes no outlier.
            busy.ended(Some(trial), Outcome::Well, now, &mut book.remedies);
        }
    }

    /// The call has ended. True: the instance is an outlier.
    pub fn settle(&mut self, outcome: Outcome, now: Instant) -> bool {
        if self.settled {
            return false;
        }
        self.settled = true;
        let mut book = self.flights.lock();
        let book = &mut *book;
        let Some(busy) = book.instances.get_mut(&self.instance) else {
            return false;
        };
        busy.own = busy.own.saturating_sub(1);
        if outcome == Outcome::Well {
            busy.took(now.saturating_duration_since(self.begun), now);
        }
        let now = now - self.flights.0.started;
        busy.ended(self.trial, outcome, now, &mut book.remedies)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Given up: that tells nothing of the instance.
        if !self.settled {
            self.settle(Outcome::Neither, self.begun);
        }
    }
}

impl Flights {
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            started: Instant::now(),
            book: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at how all instances do at that time. Nothing changes while it lives.
    pub fn look(&self, now: Instant) -> Look<'_> {
        Look {
            book: self.lock(),
            now,
            started: self.0.started,
        }
    }

    /// An instance refused a call: the breaker is open for it. Should no other be left, it is tried.
    pub fn refused(&self, instance: InstanceId, until: Instant) {
        if let Some(busy) = self.lock().instances.get_mut(&instance) {
            busy.refused_until = Some(until);
        }
    }

    /// Counts a call; `first`: it was not sent before.
    pub fn begin(&self, instance: InstanceId, first: bool, now: Instant) -> Flight {
        let mut book = self.lock();
        if first {
            book.budget.call();
        }
        let busy = book.instances.entry(instance).or_default();
        busy.own += 1;
        let trial = busy.outlier.begin(now - self.0.started);
        drop(book);
        Flight {
            flights: self.clone(),
            instance,
            begun: now,
            trial,
            settled: false,
        }
    }

    /// Takes a retry out of the budget. False: there is none left.
    pub fn may_retry(&self, now: Instant) -> bool {
        let mut book = self.lock();
        let may = book.budget.take(now - self.0.started);
        book.remedies.retries += u64::from(may);
        book.remedies.refused_retries += u64::from(!may);
        may
    }

    /// What was done about failures.
    pub fn remedies(&self) -> Remedies {
        self.lock().remedies
    }

    /// How many instances are left out.
    pub fn ejected(&self) -> usize {
        let book = self.lock();
        let all = book.instances.values();
        all.filter(|busy| busy.outlier.is_ejected()).count()
    }

    /// Leaves an outlier out for a while, unless too many of its `mates` (all who provide what it
    /// failed at, itself among them) are out already. True: it is out now.
    pub fn eject(&self, instance: InstanceId, mates: &[InstanceId], now: Instant) -> bool {
        let mut book = self.lock();
        let is_ejected = |mate: &&InstanceId| {
            let busy = book.instances.get(mate);
            busy.is_some_and(|busy| busy.outlier.is_ejected())
        };
        let out = mates.iter().filter(is_ejected).count();
        if !may_eject(out, mates.len()) {
            return false;
        }
        if let Some(busy) = book.instances.get_mut(&instance) {
            busy.outlier.eject(now - self.0.started);
            book.remedies.ejections += 1;
        }
        true
    }

    /// An instance has said how many calls it has and how long they take. Of those calls that are not
    /// this router's own one is left out: a beacon is old when it comes, and a call that has ended
    /// meanwhile shall not make the instance look busy for as long.
    pub fn heard(&self, instance: InstanceId, report: Report) {
        let mut book = self.lock();
        let busy = book.instances.entry(instance).or_default();
        busy.others = report.in_flight.saturating_sub(busy.own).saturating_sub(1);
        busy.reported = report.latency;
        let now = Instant::now();
        if busy.calls != report.calls {
            busy.calls = report.calls;
            busy.called = Some(now);
        }
        busy.unresponsive = report.unresponsive;
        busy.patience = SILENCE.max(report.interval * MISSED_BEACONS);
        busy.heard = Some(now);
        busy.silent = false;
    }

    /// Notes whose node has fallen silent. If no node at all is heard, it is this process that hears
    /// nothing.
    pub fn note_silence(&self, now: Instant) {
        let is_silent = |busy: &Busy| {
            let silent = |heard| now.saturating_duration_since(heard) >= busy.patience;
            busy.heard.is_some_and(silent)
        };
        let mut book = self.lock();
        let mut heard = book.instances.values().filter(|busy| busy.heard.is_some());
        let deaf = heard.all(is_silent);
        for busy in book.instances.values_mut() {
            busy.silent = !deaf && is_silent(busy);
        }
    }

    /// Forgets instances that are gone.
    pub fn keep(&self, table: &Table) {
        self.lock()
            .instances
            .retain(|instance, busy| busy.own > 0 || table.instance(*instance).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn id(n: u8) -> InstanceId {
        InstanceId::new(u64::from(n), [n; 10])
    }

    fn says(in_flight: u32, latency: Duration) -> Report {
        Report {
            in_flight,
            latency,
            calls: 9,
            interval: Duration::from_secs(1),
            ..Report::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn own_calls_count_while_they_live_and_others_by_beacon() {
        let flights = Flights::new();
        let now = Instant::now();
        let calls = |n| flights.look(now).signal(id(n)).in_flight;
        let health = |n, now| flights.look(now).signal(id(n)).health;
        let (one, two) = (
            flights.begin(id(1), true, now),
            flights.begin(id(1), true, now),
        );
        assert_eq!((calls(1), calls(2)), (2, 0));
        flights.heard(id(1), says(10, MS));
        assert_eq!(calls(1), 2 + 7);
        flights.heard(id(1), says(3, MS));
        assert_eq!(calls(1), 2);
        flights.refused(id(1), now + 5 * MS);
        assert_eq!(health(1, now), Health::Refusing);
        assert_eq!(health(1, now + 5 * MS), Health::Good);
        drop((one, two));
        assert_eq!(calls(1), 0);
        flights.keep(&Table::default());
        assert!(flights.lock().instances.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn own_measures_of_latency_go_before_beacons_while_they_are_fresh() {
        let flights = Flights::new();
        let now = Instant::now();
        let latency = |now| flights.look(now).signal(id(1)).latency;
        flights.heard(id(1), says(0, 3 * MS));
        assert_eq!(latency(now), 3 * MS);
        flights
            .begin(id(1), true, now)
            .settle(Outcome::Well, now + 80 * MS);
        assert_eq!(latency(now), 80 * MS);
        flights
            .begin(id(1), true, now)
            .settle(Outcome::Failed, now + 900 * MS);
        flights
            .begin(id(1), true, now)
            .settle(Outcome::Erred, now + MS);
        assert_eq!(latency(now), 80 * MS, "how fast it fails says nothing");
        flights
            .begin(id(1), true, now)
            .settle(Outcome::Well, now + 160 * MS);
        assert_eq!(latency(now), 90 * MS);
        let later = LATENCY_LIFE + 160 * MS;
        assert_eq!(latency(now + later), Duration::ZERO, "too old");
        tokio::time::advance(later).await;
        flights.heard(id(1), says(0, 3 * MS));
        assert_eq!(latency(now + later), Duration::ZERO, "no calls since");
        let calls = 10;
        flights.heard(
            id(1),
            Report {
                calls,
                ..says(0, 3 * MS)
            },
        );
        assert_eq!(latency(now + later), 3 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outlier_is_left_out_unless_half_of_its_mates_are_and_comes_back_by_a_trial() {
        let flights = Flights::new();
        let now = Instant::now();
        let mates: Vec<_> = (0..5).map(id).collect();
        let health = |n, now| flights.look(now).signal(id(n)).health;
        let fail = |n| {
            let mut times = 1;
            while !flights.begin(id(n), true, now).settle(Outcome::Failed, now) {
                times += 1;
            }
            (times, flights.eject(id(n), &mates, now))
        };
        assert_eq!(fail(0), (5, true));
        assert_eq!(fail(1), (5, true));
        assert_eq!(fail(2), (5, false));
        assert_eq!(health(0, now), Health::Ejected);
        assert_eq!(health(2, now), Health::Good);
        let later = now + Duration::from_secs(1);
        assert_eq!(health(0, later), Health::Good, "a trial is due");
        let mut trial = flights.begin(id(0), true, later);
        assert_eq!(health(0, later), Health::Ejected, "one at a time");
        trial.settle(Outcome::Well, later);
        assert_eq!(health(0, later), Health::Good);
        let given_up = flights.begin(id(1), true, later);
        assert_eq!(health(1, later), Health::Ejected);
        drop(given_up);
        assert_eq!(health(1, later), Health::Good, "another trial is due");
        assert_eq!(fail(2), (1, true), "there is room for it now");
        let mut stream = flights.begin(id(1), true, later);
        assert_eq!(health(1, later), Health::Ejected);
        stream.answers();
        assert_eq!(health(1, later), Health::Good, "long before its end");
        stream.settle(Outcome::Failed, later);
        assert_eq!(health(1, later), Health::Good, "one failure as any other");
    }

    #[tokio::test(start_paused = true)]
    async fn instances_of_a_node_that_fell_silent_are_the_last_choice_until_it_is_heard() {
        let flights = Flights::new();
        let silent = |n| {
            let now = Instant::now();
            flights.note_silence(now);
            flights.look(now).signal(id(n)).health == Health::Silent
        };
        let _never_heard = flights.begin(id(3), true, Instant::now());
        flights.heard(id(1), says(0, MS));
        for _ in 0..4 {
            assert!(!silent(1) && !silent(2) && !silent(3));
            tokio::time::advance(Duration::from_secs(1)).await;
            flights.heard(id(2), says(0, MS));
        }
        assert!(silent(1) && !silent(2) && !silent(3));
        // Nobody is heard: that says nothing of a node.
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(!silent(1) && !silent(2));
        flights.heard(id(2), says(0, MS));
        assert!(silent(1));
        flights.heard(id(1), says(0, MS));
        assert!(!silent(1));
        // Where beacons come more often, a second without one is enough.
        let often = Report {
            interval: Duration::from_millis(250),
            ..says(0, MS)
        };
        flights.heard(id(1), often);
        tokio::time::advance(SILENCE).await;
        assert!(silent(1) && !silent(2));
        // And one whose agent says that it hangs is as good as silent.
        flights.heard(id(1), often);
        assert!(!silent(1));
        let unresponsive = true;
        flights.heard(
            id(1),
            Report {
                unresponsive,
                ..often
            },
        );
        assert!(silent(1));
    }
}
