//! What is stopped in order costs no call: parts of a mesh get SIGTERM, or are told to leave, while
//! clients call all the while, and every call ends well and is done once.

use harness::chaos::client::{Clients, End, Pace, Plan, Seen};
use harness::chaos::rounds::{self, Settled};
use harness::chaos::world::World;
use rustix::process::Signal;
use std::time::Duration;

/// Lets calls go on until some hundreds more have ended.
async fn more_calls(clients: &Clients) {
    let count = || clients.look(|seen| seen.records.len());
    let goal = count() + 300;
    harness::wait::until("calls go on", harness::mesh::PATIENCE, || {
        let now = count();
        async move {
            anyhow::ensure!(now >= goal, "{now} of {goal} calls");
            anyhow::Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn no_call_is_lost_or_done_twice_while_parts_of_the_mesh_stop_in_order() {
    let mut world = World::start(2, 1).await;
    let clients = Clients::start(Plan {
        gateways: world.gateways(),
        clients: 16,
        hold: Duration::from_millis(30),
        pace: Pace::Closed,
        first: 1,
    });
    more_calls(&clients).await;

    for node in [0, 1] {
        world.signal_plugin(node, Signal::TERM);
        more_calls(&clients).await;
        world.wait_well().await;
    }
    for change in ["disable", "enable"] {
        let (code, _, error) = world.mesh.cli(&[change, "ledger"]);
        assert_eq!(code, 0, "{error}");
    }
    world.wait_well().await;
    more_calls(&clients).await;

    for agent in [0, 2] {
        world.mesh.agents[agent].stop();
        more_calls(&clients).await;
        world.mesh.agents[agent].start();
        world.wait_well().await;
    }
    for index in [0, 1] {
        let gateway = world.mesh.gateways_mut().nth(index).unwrap();
        gateway.stop();
        more_calls(&clients).await;
        let gateway = world.mesh.gateways_mut().nth(index).unwrap();
        gateway.start();
        gateway.wait_ready().await;
        more_calls(&clients).await;
    }

    let Settled { seen, found, .. } = rounds::settle(&world, clients, Seen::default()).await;
    assert!(found.is_empty(), "{:#?}", &found[..found.len().min(5)]);
    let bad: Vec<_> = seen
        .records
        .iter()
        .filter(|record| record.end != End::Ok)
        .collect();
    assert!(
        bad.is_empty(),
        "{} of them: {:#?}",
        bad.len(),
        &bad[..bad.len().min(5)]
    );
    println!("{} calls, retries: {:?}", seen.records.len(), seen.retries);
}
