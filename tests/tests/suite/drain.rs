//! What is stopped in order costs no call: parts of a mesh get SIGTERM, or are told to leave, while
//! clients call all the while, and every call ends well and is done once.

use harness::chaos::client::{Clients, End, Plan, Seen};
use harness::chaos::rounds::{self, Settled};
use harness::chaos::world::World;
use harness::mesh;
use harness::session::Session;
use harness::wait;
use rustix::process::Signal;
use serde_json::json;

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
    let clients = Clients::start(Plan::of_suite(world.gateways()));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_clients_end_whole_when_their_gateway_stops() {
    let mut mesh = mesh::Plan::new()
        .agent("node-a")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_tool("probe_sleep").await;
    let session = Session::begin(&mesh.mcp_url()).await;
    let listens = tokio::spawn({
        let session = session.clone();
        async move { session.listen().await }
    });
    let works = tokio::spawn({
        let session = session.clone();
        async move {
            let arguments = json!({"ms": 2_000});
            session.call_tool(7, "probe_sleep", arguments).await
        }
    });
    wait::until("the call runs", mesh::PATIENCE, || async {
        let answer = mesh.call_tool("probe_running", json!({})).await?;
        let text = &answer["result"]["content"][0]["text"];
        anyhow::ensure!(text == "1", "{answer}");
        anyhow::Ok(())
    })
    .await;
    assert!(!listens.is_finished(), "{:?}", listens.await);
    let gateway = &mut mesh.gateway;
    // It waits for the process, which must end well.
    tokio::task::block_in_place(|| gateway.stop());
    let done = works.await.unwrap().unwrap().json();
    assert_eq!(done["id"], 7, "{done}");
    let text = &done["result"]["content"][0]["text"];
    assert_eq!(text, "slept 2000 ms", "{done}");
    // A stream that broke off would be an error.
    let heard = listens.await.unwrap().unwrap();
    assert_eq!(heard.status, 200, "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_the_grace_of_its_gateway_is_told_so() {
    let mut mesh = mesh::Plan::new()
        .agent("node-a")
        .plugin("probe")
        .gateway_lines("drain_grace = \"500ms\"")
        .start()
        .await;
    mesh.wait_tool("probe_sleep").await;
    let session = Session::begin(&mesh.mcp_url()).await;
    let arguments = json!({"ms": 60_000});
    let with_session = tokio::spawn({
        let (session, arguments) = (session.clone(), arguments.clone());
        async move { session.call_tool(7, "probe_sleep", arguments).await }
    });
    let url = mesh.mcp_url();
    let without = tokio::spawn(async move {
        let params = json!({"name": "probe_sleep", "arguments": arguments});
        mesh::mcp_request(&url, "tools/call", params).await
    });
    wait::until("the calls run", mesh::PATIENCE, || async {
        let answer = mesh.call_tool("probe_running", json!({})).await?;
        let text = &answer["result"]["content"][0]["text"];
        anyhow::ensure!(text == "2", "{answer}");
        anyhow::Ok(())
    })
    .await;
    let gateway = &mut mesh.gateway;
    tokio::task::block_in_place(|| gateway.stop());
    let ends = [
        with_session.await.unwrap().unwrap().json(),
        without.await.unwrap().unwrap(),
    ];
    for end in ends {
        let data = &end["error"]["data"];
        assert_eq!(data["code"], "outcome_unknown", "{end}");
        assert_eq!(data["plugin"], "probe", "{end}");
    }
}
