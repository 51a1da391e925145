//! A small `make chaos`: a round of the faults that no other suite has, under load, with every call
//! held against the ledger that the plugins wrote.

use harness::chaos::client::{Clients, Plan, Seen};
use harness::chaos::fault::Fault;
use harness::chaos::rounds::{self, Settled};
use harness::chaos::world::World;

#[tokio::test]
async fn no_call_is_lost_silently_or_done_twice_while_parts_of_the_mesh_go_away() {
    let mut world = World::start(2, 1).await;
    let clients = Clients::start(Plan::of_suite(world.gateways()));
    // (the fault, its turn: which victim, and for how long)
    let faults = [
        (Fault::PluginKill, 0),
        (Fault::GatewayKill, 1),
        (Fault::AgentStop, 1),
        (Fault::NatsRestart, 2),
    ];
    for (fault, turn) in faults {
        rounds::round(fault, &mut world, &clients, turn).await;
    }
    let Settled { seen, found, .. } = rounds::settle(&world, clients, Seen::default()).await;
    let shown = &found[..found.len().min(5)];
    assert!(found.is_empty(), "{} of them: {shown:#?}", found.len());
    assert!(seen.records.len() > 100, "{} calls", seen.records.len());
}
