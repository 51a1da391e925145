//! Rounds of faults of the control plane under constant calls, and what they showed.

use std::cell::RefCell;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::proof::{self, Seen};
use super::{ControlFault, arrivals, evictions};
use crate::chaos::client::{Clients, Pace, Plan};
use crate::chaos::rounds::{self as calls, Round, Settled, millis};
use crate::chaos::world::World;
use crate::mesh::PATIENCE;
use crate::netns::Namespace;
use crate::wait;

/// By when a change must have reached every gateway, from the fault or, where no change can arrive
/// before, from its mending.
const ARRIVED: Duration = Duration::from_secs(15);

/// By when a coordinator must know that its registry may be old. The rest is how often it is asked.
const NOTICED: Duration = Duration::from_millis(2_100);

/// How long is waited for what comes late.
const LIMIT: Duration = Duration::from_secs(45);

/// How hard the mesh is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    pub clients: usize,
    /// The longest work of a call.
    pub hold: Duration,
    /// How long all coordinators are away at once.
    pub down: Duration,
}

/// What all rounds of one fault showed. Times are in milliseconds, one for each round.
#[derive(Debug, Default, Serialize)]
pub struct ControlReport {
    pub calls: calls::Report,
    /// Until a plugin that attached in the moment of the fault (or of its mending, where no change can
    /// arrive before) was listed by every gateway: the slowest of the nodes.
    pub arrivals: Vec<Option<u64>>,
    /// The same before any fault.
    pub usual: Option<u64>,
    /// Until the last coordinator that lost the store said so; none where none lost it.
    pub noticed: Vec<Option<u64>>,
    /// Until all of them were current again.
    pub current: Vec<Option<u64>>,
    pub evictions: usize,
    /// The plugins were not the same instances afterwards.
    pub replaced: bool,
    pub harms_calls: bool,
}

impl ControlReport {
    /// What was promised and not kept.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                broken.push(what.to_owned());
            }
        };
        must(self.calls.is_good(), "calls");
        // Nothing on their way was harmed.
        must(
            self.harms_calls || self.calls.failures.is_empty(),
            "failed calls",
        );
        must(self.evictions == 0, "wrong evictions");
        must(!self.replaced, "instances were replaced");
        let within =
            |limit: Duration| move |took: &Option<u64>| took.is_some_and(|it| it <= millis(limit));
        must(
            self.arrivals.iter().all(within(ARRIVED)),
            "a change arrived late",
        );
        let noticed = self.noticed.iter().flatten();
        must(
            noticed.copied().all(|it| it <= millis(NOTICED)),
            "noticed late",
        );
        broken
    }
}

/// All rounds of one fault, on a mesh of their own.
///
/// # Errors
/// Why the machine does not allow this fault.
pub async fn run(
    fault: ControlFault,
    count: usize,
    trial: Trial,
) -> anyhow::Result<(World, Settled, ControlReport)> {
    let apart = match fault {
        ControlFault::CoordinatorCut => Some(Namespace::new()?),
        _ => None,
    };
    let mut world = World::start_plural(apart).await;
    let before = instances(&world).await;
    let nodes = nodes(&world);
    let gateways = world.gateways();
    let usual = arrivals::everywhere(nodes, gateways.clone(), 0, LIMIT).await;
    let clients = Clients::start(Plan {
        gateways,
        clients: trial.clients,
        hold: trial.hold,
        payload: 0,
        pace: Pace::Closed,
        first: 1,
    });
    let mut report = ControlReport {
        usual: slowest(&usual),
        harms_calls: fault.harms_calls(),
        ..ControlReport::default()
    };
    sleep(calls::BEFORE).await;
    let mut rounds = Vec::new();
    for turn in 0..count {
        let round = round(fault, &mut world, &clients, turn, trial.down, &mut report);
        rounds.push(round.await);
    }
    let settled = calls::settle(&world, clients, Default::default()).await;
    report.calls = calls::Report::new(fault.name(), &rounds, &settled);
    report.evictions = evictions::count(&world.mesh);
    report.replaced = instances(&world).await != before;
    Ok((world, settled, report))
}

async fn round(
    fault: ControlFault,
    world: &mut World,
    clients: &Clients,
    turn: usize,
    down: Duration,
    report: &mut ControlReport,
) -> Round {
    sleep(calls::BEFORE).await;
    let (nodes, gateways) = (nodes(world), world.gateways());
    let pages: Vec<String> = world
        .mesh
        .coordinators()
        .map(|it| it.page_url("metrics"))
        .collect();
    let seen = RefCell::new(Vec::new());
    let begun = clients.begun.elapsed();
    let mut mended = begun;
    let arrived = {
        let change = || arrivals::everywhere(nodes.clone(), gateways.clone(), turn + 1, LIMIT);
        let work = async {
            if fault.stops_changes() {
                fault.strike(world, turn, down).await;
                mended = clients.begun.elapsed();
                return change().await;
            }
            let strike = async {
                fault.strike(world, turn, down).await;
                mended = clients.begun.elapsed();
            };
            // Struck first, so that the change meets the fault.
            let later = async {
                sleep(Duration::from_millis(20)).await;
                change().await
            };
            tokio::join!(strike, later).1
        };
        tokio::select! {
            arrived = work => arrived,
            () = proof::watch(&pages, &seen) => unreachable!("it watches for ever"),
        }
    };
    report.arrivals.push(slowest(&arrived));
    // Whoever was harmed is back before the next round.
    for role in world.mesh.coordinators() {
        role.wait_ready().await;
    }
    let seen = seen.into_inner();
    note_proof(fault, &seen, report);
    world.wait_well().await;
    Round {
        fault: begun,
        mended,
        end: clients.begun.elapsed(),
    }
}

/// Of coordinators that were harmed themselves nothing is expected.
fn note_proof(fault: ControlFault, seen: &[Seen], report: &mut ControlReport) {
    let judged = match fault {
        ControlFault::StoreLeaderKill | ControlFault::StoreLeaderStop => seen,
        ControlFault::CoordinatorCut | ControlFault::CoordinatorKill => &[],
        ControlFault::CoordinatorStop | ControlFault::AllCoordinators => &[],
    };
    let last = |of: fn(&Seen) -> Option<Duration>| judged.iter().filter_map(of).max().map(millis);
    report.noticed.push(last(|one| one.lost));
    report.current.push(last(|one| one.back));
}

fn nodes(world: &World) -> Vec<String> {
    let count = world.mesh.agents.len();
    (0..count).map(|node| world.mesh.attach_url(node)).collect()
}

/// `None` when one did not arrive.
fn slowest(all: &[Option<Duration>]) -> Option<u64> {
    let all: Option<Vec<u64>> = all.iter().map(|one| one.map(millis)).collect();
    all?.into_iter().max()
}

async fn instances(world: &World) -> Vec<String> {
    wait::until("the plugins are listed", PATIENCE, || async {
        evictions::instances(&world.mesh)
    })
    .await
}
