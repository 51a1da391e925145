//! The simulation: routers, agents and plugins of a mesh in one thread, with a clock and a network that
//! a seed decides on.
//!
//! What runs is the product's own code: the bus, the router, the agent's data path and the codec of the
//! plugin protocol. What is played is what surrounds it: the broker (`mesh_bus::memory`), the plugins'
//! programs, the coordinator that publishes tables, and everything that goes wrong. `docs/simulation.md`
//! says what is checked.

mod agent;
mod caller;
mod check;
mod coordinator;
mod faults;
mod job;
mod ledger;
mod messages;
mod own_call;
mod pipe;
mod plan;
mod plugin;
mod trace;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::plan::Plan;
pub use self::plan::Planted;
use self::world::World;

/// How one seed went.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// What was broken; empty: nothing.
    pub violations: Vec<String>,
    /// A number made of all that happened: equal runs have equal ones.
    pub digest: u64,
    /// What happened, a line each; empty unless it was asked for.
    pub trace: Vec<String>,
    pub counts: Counts,
}

/// What happened in one seed, or in many.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub calls: u64,
    pub well: u64,
    pub not_processed: u64,
    pub unknown: u64,
    pub failed: u64,
    pub given_up: u64,
    pub repeated: u64,
    pub faults: u64,
    pub messages: u64,
    pub simulated: Duration,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.well += other.well;
        self.not_processed += other.not_processed;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.given_up += other.given_up;
        self.repeated += other.repeated;
        self.faults += other.faults;
        self.messages += other.messages;
        self.simulated += other.simulated;
    }
}

/// Runs one seed on this thread. `keep`: the trace is kept.
pub fn run(seed: u64, planted: Planted, keep: bool) -> Outcome {
    // What the product draws it draws from this thread's generator.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let plan = Plan::draw(seed);
        let world = World::new(plan, planted, keep);
        world.clone().play().await;
        world.outcome(seed)
    });
    // Tasks that are left are dropped with the runtime.
    drop(runtime);
    outcome
}

/// Runs seeds on two threads and gives what each `look` says of it to `told`, in no order.
pub fn run_many(
    first: u64,
    count: u64,
    planted: Planted,
    told: impl Fn(Outcome) + Send + Sync,
) -> Counts {
    let next = AtomicU64::new(0);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return counts;
            }
            let outcome = run(first + number, planted, false);
            counts.add(&outcome.counts);
            told(outcome);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut counts = work();
        counts.add(&other.join().unwrap());
        counts
    })
}
