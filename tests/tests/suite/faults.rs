//! What happens to calls when a part of the mesh goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::{process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

async fn two_nodes() -> Mesh {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .agent("node-b")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    mesh.wait_tool("probe_sleep").await;
    mesh
}

/// The process id that the probe tells.
async fn probe_pid(mesh: &Mesh) -> u32 {
    let answer = mesh.call_tool("probe_pid", json!({})).await.unwrap();
    let text = answer["result"]["content"][0]["text"].as_str();
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{answer}"))
}

fn sum_of(answer: &Value) -> Option<f64> {
    answer["result"]["structuredContent"]["result"].as_f64()
}

#[tokio::test]
async fn calls_of_a_killed_plugin_end_at_once_and_it_comes_back() {
    let mesh = Arc::new(two_nodes().await);
    let pid = probe_pid(&mesh).await;
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let mesh = mesh.clone();
            tokio::spawn(async move { mesh.call_tool("probe_sleep", json!({"ms": 20_000})).await })
        })
        .collect();
    wait::until("the calls run", PATIENCE, || async {
        let answer = mesh.call_tool("probe_running", json!({})).await?;
        if answer["result"]["content"][0]["text"] == "16" {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
    let begin = Instant::now();
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!(
            answer["error"]["data"]["code"], "outcome_unknown",
            "{answer}"
        );
        let place = &answer["error"]["data"];
        assert_eq!(place["plugin"], "probe", "{answer}");
        assert_eq!(place["node"], "node-b", "{answer}");
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    wait::until("the probe is back", PATIENCE, || async {
        let answer = mesh.call_tool("probe_pid", json!({})).await?;
        let text = answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_default();
        if text.parse::<u32>().is_ok_and(|new| new != pid) {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_hangs_is_ended_and_started_again() {
    let mesh = two_nodes().await;
    let pid = probe_pid(&mesh).await;
    let raw = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(raw, Signal::STOP).unwrap();
    // Its stream is lost when its keep-alive is not answered, then it is given time to come back.
    wait::until("another process answers", PATIENCE * 4, || async {
        let answer = mesh.call_tool("probe_pid", json!({})).await?;
        let text = answer["result"]["content"][0]["text"].as_str();
        if text.is_some_and(|text| text != pid.to_string()) {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
    assert_eq!(process::resident_bytes(pid), 0, "the one that hung is gone");
    let answer = mesh.call_tool("calculator_add", json!({"a": 20, "b": 22}));
    assert_eq!(sum_of(&answer.await.unwrap()), Some(42.0));
}

/// Calls the calculator without pause until told to stop; counts good and bad answers.
struct Caller {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU32>,
    bad: Arc<std::sync::Mutex<Vec<String>>>,
    work: tokio::task::JoinHandle<()>,
}

impl Caller {
    fn start(mesh: &Mesh) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicU32::new(0));
        let bad = Arc::new(std::sync::Mutex::new(Vec::new()));
        let url = mesh.mcp_url();
        let (halt, count, wrong) = (stop.clone(), good.clone(), bad.clone());
        let work = tokio::spawn(async move {
            let params = json!({"name": "calculator_add", "arguments": {"a": 20, "b": 22}});
            while !halt.load(Ordering::Relaxed) {
                match harness::mesh::mcp_request(&url, "tools/call", params.clone()).await {
                    Ok(answer) if sum_of(&answer) == Some(42.0) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    other => wrong.lock().unwrap().push(format!("{other:?}")),
                }
            }
        });
        Self {
            stop,
            good,
            bad,
            work,
        }
    }

    async fn more(&self, count: u32) {
        let goal = self.good.load(Ordering::Relaxed) + count;
        wait::until("more calls succeed", PATIENCE, || async {
            let now = self.good.load(Ordering::Relaxed);
            if now >= goal {
                return Ok(());
            }
            anyhow::bail!("{now} of {goal}; {:?}", self.bad.lock().unwrap().last())
        })
        .await;
    }

    async fn finish(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.work.await.unwrap();
        let bad = self.bad.lock().unwrap().clone();
        (self.good.load(Ordering::Relaxed), bad)
    }
}

#[tokio::test]
async fn calls_go_on_without_a_coordinator_and_its_registry_comes_back() {
    let mut mesh = two_nodes().await;
    let (code, _, error) = mesh.cli(&["disable", "probe", "--reason", "a test"]);
    assert_eq!(code, 0, "{error}");
    mesh.wait_state("probe", "initialized").await;
    let before = mesh.plugins().unwrap();

    let caller = Caller::start(&mesh);
    caller.more(10).await;
    mesh.coordinator.kill();
    caller.more(100).await;

    // A gateway that starts now starts from its snapshot.
    let (good, bad) = caller.finish().await;
    assert!(bad.is_empty(), "{good} good, bad: {bad:?}");
    mesh.gateway.stop();
    mesh.gateway.start();
    mesh.gateway.wait_ready().await;
    let ready = mesh.gateway.ready().await.unwrap();
    assert!(ready.body.contains("which may be old"), "{}", ready.body);
    let answer = mesh
        .call_tool("calculator_add", json!({"a": 20, "b": 22}))
        .await
        .unwrap();
    assert_eq!(sum_of(&answer), Some(42.0), "{answer}");
    let refused = mesh
        .call_tool("enable_plugin", json!({"name": "probe"}))
        .await
        .unwrap();
    assert!(refused.to_string().contains("no_coordinator"), "{refused}");

    mesh.coordinator.start();
    mesh.coordinator.wait_ready().await;
    let states = |plugins: &Value| {
        let list = plugins["plugins"].as_array().unwrap().iter();
        list.map(|entry| {
            (
                entry["name"].to_string(),
                entry["instances"][0]["state"].to_string(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(states(&mesh.plugins().unwrap()), states(&before));
    let (code, _, error) = mesh.cli(&["enable", "probe"]);
    assert_eq!(code, 0, "{error}");
    mesh.wait_tool("probe_sleep").await;
}

#[tokio::test]
async fn the_mesh_recovers_by_itself_when_the_broker_was_gone() {
    let mut mesh = two_nodes().await;
    for round in 0..2 {
        mesh.nats.process.kill();
        let answer = mesh
            .call_tool("calculator_add", json!({"a": 1, "b": 1}))
            .await
            .unwrap();
        let code = answer["error"]["data"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            [
                "disconnected",
                "outcome_unknown",
                "instance_gone",
                "unavailable"
            ]
            .contains(&code.as_str()),
            "round {round}: {answer}"
        );
        mesh.nats.restart().await;
        let begin = Instant::now();
        wait::until("calls succeed again", PATIENCE, || async {
            let answer = mesh
                .call_tool("calculator_add", json!({"a": 20, "b": 22}))
                .await?;
            if sum_of(&answer) == Some(42.0) {
                return Ok(());
            }
            anyhow::bail!("{answer}")
        })
        .await;
        println!(
            "round {round}: first good call {:?} after the broker was back",
            begin.elapsed()
        );
        mesh.coordinator.wait_ready().await;
        let (code, _, error) = mesh.cli(&["disable", "probe"]);
        assert_eq!(code, 0, "changes are stored again: {error}");
        let (code, _, error) = mesh.cli(&["enable", "probe"]);
        assert_eq!(code, 0, "{error}");
    }
}

#[tokio::test]
async fn a_killed_agent_takes_its_plugins_with_it_and_comes_back_as_a_new_generation() {
    let mut mesh = two_nodes().await;
    let pid = probe_pid(&mesh).await;
    mesh.agents[1].kill();
    wait::until("the orphan is gone", PATIENCE, || async {
        if process::resident_bytes(pid) == 0 {
            return Ok(());
        }
        anyhow::bail!("process {pid} lives")
    })
    .await;
    let answer = mesh
        .call_tool("probe_echo", json!({"text": "x"}))
        .await
        .unwrap();
    assert!(answer["error"]["code"].is_number(), "{answer}");
    mesh.agents[1].start();
    wait::until("the probe answers again", PATIENCE, || async {
        let answer = mesh.call_tool("probe_echo", json!({"text": "x"})).await?;
        if answer["result"]["content"][0]["text"] == "x" {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
}

#[tokio::test]
async fn every_role_stops_in_order_on_sigterm() {
    let mut mesh = two_nodes().await;
    let pid = probe_pid(&mesh).await;
    let running = {
        let url = mesh.mcp_url();
        let params = json!({"name": "probe_sleep", "arguments": {"ms": 1_500}});
        tokio::spawn(async move { harness::mesh::mcp_request(&url, "tools/call", params).await })
    };
    wait::until("the call runs", PATIENCE, || async {
        let answer = mesh.call_tool("probe_running", json!({})).await?;
        if answer["result"]["content"][0]["text"] == "1" {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
    let mut agent = mesh.agents.pop().unwrap();
    let stop = tokio::task::spawn_blocking(move || agent.stop());
    let answer = running.await.unwrap().unwrap();
    assert!(
        answer["result"].is_object(),
        "a running call ends well while draining: {answer}"
    );
    stop.await.unwrap();
    assert_eq!(
        process::resident_bytes(pid),
        0,
        "the plugin ended with its agent"
    );
    mesh.gateway.stop();
    mesh.agents[0].stop();
    mesh.coordinator.stop();
}
