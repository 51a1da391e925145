//! A node or a plugin that stops without a word: calls end at once, or go elsewhere, and nothing is left
//! behind of those that are given up.

use std::time::{Duration, Instant};

use harness::mesh::{Mesh, PATIENCE, Plan, Role, mcp_request};
use harness::session::Session;
use harness::{http_client, wait};
use mesh_bus::{Bus, BusConfig};
use mesh_core::id::MeshName;
use mesh_proto::control::LoadBeacon;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A lost node is noticed within a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_millis(5_000);

/// A mesh with a probe on each of two nodes.
async fn two_probes() -> Mesh {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("probe")
        .agent("node-b")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_tool("probe_nap").await;
    both_serve(&mesh).await;
    mesh
}

/// Waits until calls through the gateway are answered by two processes.
async fn both_serve(mesh: &Mesh) {
    wait::until("both serve", PATIENCE, || async {
        let text = mesh.call_tool("probe_pid", json!({})).await?.to_string();
        let other = mesh.call_tool("probe_pid", json!({})).await?.to_string();
        anyhow::ensure!(
            text.contains("result") && other.contains("result"),
            "{text}"
        );
        anyhow::ensure!(text != other, "one only: {text}");
        anyhow::Ok(())
    })
    .await;
}

/// The process of a plugin that answers.
async fn plugin_pid(mesh: &Mesh) -> Pid {
    let answer = mesh.call_tool("probe_pid", json!({})).await.unwrap();
    let pid = answer["result"]["content"][0]["text"].as_str().unwrap();
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

type Call = JoinHandle<(Value, Instant)>;

/// Begins calls of a tool.
fn begin(mesh: &Mesh, count: u32, tool: &str, arguments: &Value) -> Vec<Call> {
    let params = json!({"name": tool, "arguments": arguments});
    (0..count)
        .map(|_| {
            let (url, params) = (mesh.mcp_url(), params.clone());
            tokio::spawn(async move {
                let answer = mcp_request(&url, "tools/call", params).await.unwrap();
                (answer, Instant::now())
            })
        })
        .collect()
}

/// The sum of all lines of a metric.
async fn metric(role: &Role, name: &str) -> anyhow::Result<u64> {
    let url = format!("http://127.0.0.1:{}/metrics", role.admin_port);
    let text = http_client::get(&url).await?.body;
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<u64>().map_err(|_| anyhow::anyhow!("{line}"))
        })
        .sum()
}

const AT_AGENT: &str = "plugmesh_agent_in_flight";
const FROM_HERE: &str = "plugmesh_bus_calls_in_flight";

/// Waits until so many calls run at all agents together, and some at each.
async fn all_run(mesh: &Mesh, count: u64) {
    wait::until("the calls run at all agents", PATIENCE, || async {
        let mut sum = 0;
        for agent in &mesh.agents {
            let here = metric(agent, AT_AGENT).await?;
            anyhow::ensure!(here > 0, "none at {}", agent.name);
            sum += here;
        }
        anyhow::ensure!(sum == count, "{sum} of {count}");
        anyhow::Ok(())
    })
    .await;
}

/// Waits for calls that were in flight when a part was lost. Those that may be repeated must be answered;
/// of the others some were lost, and each says so in time.
async fn judge(naps: Vec<Call>, sleeps: Vec<Call>, lost_at: Instant, soon: Duration, says: &str) {
    let mut lost = 0;
    let mut last = Duration::ZERO;
    for call in sleeps {
        let (answer, ended) = call.await.unwrap();
        if answer["result"].is_object() {
            continue;
        }
        assert_eq!(
            answer["error"]["data"]["code"], "outcome_unknown",
            "{answer}"
        );
        assert!(answer.to_string().contains(says), "{answer}");
        lost += 1;
        last = last.max(ended - lost_at);
    }
    println!("{lost} calls were lost, the last one was told {last:?} after");
    assert!(lost > 0, "no call ran where the loss was");
    assert!(last < soon, "{last:?}");
    for call in naps {
        let (answer, _) = call.await.unwrap();
        assert!(answer["result"].is_object(), "may be repeated: {answer}");
    }
}

/// Calls one after the other, which must be answered quickly: hardly any goes where nobody answers. A busy
/// machine may be late now and then.
async fn calls_are_quick(mesh: &Mesh) {
    let mut slow = Vec::new();
    for number in 0..50 {
        let begun = Instant::now();
        let answer = mesh.call_tool("probe_echo", json!({"text": "x"})).await;
        let answer = answer.unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], "x", "{answer}");
        let took = begun.elapsed();
        if took > Duration::from_millis(650) {
            slow.push((number, took));
        }
    }
    assert!(slow.len() <= 5, "{slow:?}");
}

/// Waits until an agent says twice that an instance does not answer: the gateway has heard it, too.
async fn until_unresponsive(mesh: &Mesh) {
    let config = BusConfig {
        urls: mesh.nats.url(),
        credentials: None,
        client_name: "listens to beacons".to_owned(),
        mesh: MeshName::default(),
    };
    let (bus, driver) = Bus::connect(config).await.unwrap();
    let driver = tokio::spawn(driver.run(std::future::pending()));
    let mut loads = bus.loads().await.unwrap();
    let twice = async {
        for _ in 0..2 {
            let says = |beacon: LoadBeacon| beacon.instances.iter().any(|one| one.unresponsive);
            while !says(loads.next().await.unwrap()) {}
        }
    };
    timeout(PATIENCE, twice).await.expect("an agent says so");
    driver.abort();
}

#[tokio::test]
async fn calls_to_an_agent_that_was_stopped_end_within_a_second_or_are_answered_elsewhere() {
    let mut mesh = two_probes().await;
    let ms = json!({"ms": 8_000});
    let naps = begin(&mesh, 12, "probe_nap", &ms);
    let sleeps = begin(&mesh, 12, "probe_sleep", &ms);
    all_run(&mesh, 24).await;
    let lost_at = Instant::now();
    mesh.agents[1].process().signal(Signal::STOP);
    judge(naps, sleeps, lost_at, SOON, "node-b is silent").await;
    calls_are_quick(&mesh).await;
    // It takes calls again as soon as it is heard.
    mesh.agents[1].process().signal(Signal::CONT);
    both_serve(&mesh).await;
}

#[tokio::test]
async fn calls_to_an_agent_that_was_killed_end_within_a_second_or_are_answered_elsewhere() {
    let mut mesh = two_probes().await;
    let ms = json!({"ms": 8_000});
    let naps = begin(&mesh, 12, "probe_nap", &ms);
    let sleeps = begin(&mesh, 12, "probe_sleep", &ms);
    all_run(&mesh, 24).await;
    let lost_at = Instant::now();
    mesh.agents[1].kill();
    judge(naps, sleeps, lost_at, SOON, "node-b has gone").await;
    calls_are_quick(&mesh).await;
    let retries = metric(&mesh.gateway, "plugmesh_router_retries_total").await;
    assert!(retries.unwrap() > 0);
}

#[tokio::test]
async fn calls_of_a_plugin_that_hangs_are_given_up_or_answered_elsewhere() {
    let mesh = two_probes().await;
    let ms = json!({"ms": 8_000});
    let naps = begin(&mesh, 12, "probe_nap", &ms);
    let sleeps = begin(&mesh, 12, "probe_sleep", &ms);
    all_run(&mesh, 24).await;
    let pid = plugin_pid(&mesh).await;
    let lost_at = Instant::now();
    kill_process(pid, Signal::STOP).unwrap();
    // Once its agent says that it does not answer, calls go to the other one.
    until_unresponsive(&mesh).await;
    calls_are_quick(&mesh).await;
    judge(naps, sleeps, lost_at, Duration::from_secs(9), "hangs").await;
    // It goes on, learns what was given up, and takes calls again.
    kill_process(pid, Signal::CONT).unwrap();
    both_serve(&mesh).await;
    wait::until("nothing runs any more", PATIENCE, || async {
        for _ in 0..6 {
            let running = mesh.call_tool("probe_running", json!({})).await?;
            let text = running["result"]["content"][0]["text"].clone();
            anyhow::ensure!(text == "0", "{running}");
        }
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test]
async fn calls_that_may_be_repeated_outlive_the_only_plugin_that_serves_them() {
    let plan = Plan::new().gateway_lines("[router]\npatience = \"20s\"");
    let mesh = plan.agent("node-a").plugin("probe").start().await;
    mesh.wait_tool("probe_nap").await;
    let naps = begin(&mesh, 12, "probe_nap", &json!({"ms": 4_000}));
    all_run(&mesh, 12).await;
    kill_process(plugin_pid(&mesh).await, Signal::KILL).unwrap();
    for call in naps {
        let (answer, _) = call.await.unwrap();
        assert!(answer["result"].is_object(), "{answer}");
    }
}

/// A plugin on one node whose tool calls a tool of a plugin on another one.
async fn front_and_back(gateway: &str) -> Mesh {
    let probe = |plan: Plan, name: &str| plan.plugin_as(name, &["probe"], &[("PROBE_NAME", name)]);
    let plan = Plan::new().gateway_lines(gateway);
    let plan = probe(plan.agent("node-a"), "front");
    let plan = probe(plan.agent("node-b"), "back");
    let mesh = plan.start().await;
    mesh.wait_tool("front_nest").await;
    mesh.wait_tool("back_sleep").await;
    mesh
}

/// Waits until no hop holds a call any more, and the last plugin works on none.
async fn nothing_is_left(mesh: &Mesh) {
    let begun = Instant::now();
    // Long before the deadline of those that were given up.
    wait::until("nothing is left", Duration::from_secs(4), || async {
        for role in mesh.agents.iter().chain([&mesh.gateway]) {
            for name in [AT_AGENT, FROM_HERE] {
                let left = metric(role, name).await?;
                anyhow::ensure!(left == 0, "{left} of {name} at {}", role.name);
            }
        }
        anyhow::Ok(())
    })
    .await;
    println!("all was free after {:?}", begun.elapsed());
    let answer = mesh.call_tool("back_running", json!({})).await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "0", "{answer}");
}

#[tokio::test]
async fn a_call_that_its_client_cancels_in_words_ends_on_every_hop() {
    let mesh = front_and_back("").await;
    let session = Session::begin(&mesh.mcp_url()).await;
    let call = tokio::spawn({
        let session = session.clone();
        async move {
            let arguments = json!({"plugin": "back", "ms": 25_000});
            session.call_tool(5, "front_nest", arguments).await
        }
    });
    all_run(&mesh, 2).await;
    let params = json!({"requestId": 5, "reason": "nobody waits"});
    session.notify("notifications/cancelled", params).await;
    nothing_is_left(&mesh).await;
    // The request has no answer any more (MCP); what carried it ends.
    let ended = tokio::time::timeout(Duration::from_secs(5), call).await;
    if let Ok(answer) = ended.expect("it ends").unwrap() {
        assert!(!answer.body.contains("\"result\""), "{answer:?}");
    }
    // The session goes on.
    let text = json!({"text": "x"});
    let answer = session.call_tool(6, "back_echo", text).await.unwrap();
    assert_eq!(answer.json()["result"]["content"][0]["text"], "x");
}

#[tokio::test]
async fn calls_that_are_given_up_leave_nothing_behind_on_any_hop() {
    let mesh = front_and_back("call_timeout = \"10s\"").await;
    for by_deadline in [false, true] {
        let arguments = json!({"plugin": "back", "ms": 60_000});
        let calls = begin(&mesh, 8, "front_nest", &arguments);
        // Each is a call to the one plugin, and one from there to the other.
        all_run(&mesh, 16).await;
        if by_deadline {
            for call in calls {
                let (answer, _) = call.await.unwrap();
                let code = &answer["error"]["data"]["code"];
                assert_eq!(code, "deadline_exceeded", "{answer}");
            }
        } else {
            for call in calls {
                call.abort();
            }
        }
        nothing_is_left(&mesh).await;
    }
}
