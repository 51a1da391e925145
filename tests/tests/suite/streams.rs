//! Streams between plugins, over the bus and on one node: credits, cancellation, and honest ends.

use std::cell::Cell;
use std::time::{Duration, Instant};

use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::{process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const STREAMS: (&str, &str) = ("PROBE_STREAMS", "1");

/// A provider and a reader, on one node or on two.
async fn mesh(apart: bool) -> Mesh {
    let mut plan = Plan::new()
        .agent("node-a")
        .plugin_as("probe", &["probe"], &[STREAMS]);
    if apart {
        plan = plan.agent("node-b");
    }
    let mesh = plan
        .plugin_as("reader", &["probe"], &[("PROBE_NAME", "reader"), STREAMS])
        .start()
        .await;
    mesh.wait_tool("probe_streams").await;
    mesh.wait_tool("reader_follow").await;
    mesh
}

/// Runs a tool of the reader beside the test.
fn reader(mesh: &Mesh, tool: &str, arguments: Value) -> tokio::task::JoinHandle<Value> {
    let params = json!({"name": format!("reader_{tool}"), "arguments": arguments});
    let url = mesh.mcp_url();
    tokio::spawn(async move {
        let answer = harness::mesh::mcp_request(&url, "tools/call", params);
        answer.await.unwrap()["result"]["structuredContent"].take()
    })
}

/// What the provider tells: lines of slow runs that it has sent, and runs on their way.
async fn provider(mesh: &Mesh) -> (u64, u64) {
    let answer = mesh.call_tool("probe_streams", json!({})).await.unwrap();
    let told = &answer["result"]["structuredContent"];
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{answer}"));
    (number("sent"), number("running"))
}

async fn until_running(mesh: &Mesh, many: u64) {
    wait::until("the provider's runs", PATIENCE, || async {
        let (_, running) = provider(mesh).await;
        anyhow::ensure!(running == many, "{running}");
        Ok(())
    })
    .await;
}

/// How long the slow reader pauses, in milliseconds.
const PAUSE: u64 = 8_000;

/// Waits until the provider has sent nothing for a second in the only run that is left: how many lines
/// it has sent by then.
async fn until_held(mesh: &Mesh) -> u64 {
    let last = Cell::new((0, Instant::now()));
    wait::until("the provider is held back", PATIENCE, || async {
        let (sent, running) = provider(mesh).await;
        if sent != last.get().0 {
            last.set((sent, Instant::now()));
        }
        let still = last.get().1.elapsed();
        let held = running == 1 && sent >= 64 && still > Duration::from_secs(1);
        anyhow::ensure!(held, "{running} runs, {sent} lines, for {still:?}");
        Ok(sent)
    })
    .await
}

/// Follows a run of so many lines of 64 KiB.
fn follow(mesh: &Mesh, lines: u32, pause: u64, leave_after: u32) -> tokio::task::JoinHandle<Value> {
    let run = json!({
        "plugin": "probe", "lines": lines, "bytes": 65_536, "pause": pause, "leave_after": leave_after,
    });
    reader(mesh, "follow", run)
}

fn resident(mesh: &Mesh) -> u64 {
    let pids = mesh.agents.iter().map(|agent| agent.pid());
    pids.map(process::resident_bytes).sum()
}

#[tokio::test]
async fn a_slow_reader_slows_its_own_producer_and_nobody_else() {
    for apart in [true, false] {
        let mesh = mesh(apart).await;
        let before = resident(&mesh);
        let following = follow(&mesh, 2_000, PAUSE, 0);
        let later = until_held(&mesh).await;
        // A window at each hop and no more, of 2,000 lines.
        assert!((64..=300).contains(&later), "apart: {apart}: {later}");
        let grown = resident(&mesh).saturating_sub(before) >> 20;
        assert!(grown < 64, "apart: {apart}: the agents grew by {grown} MiB");
        let told = following.await.unwrap();
        assert_eq!(told["lines"], 2_000, "{told}");
        assert_eq!(told["in_order"], true, "{told}");
        assert_eq!(told["ends"], json!(["2000"]), "{told}");
        assert_eq!(told["beside"]["lines"], 2_000, "{told}");
        assert!(told["beside"]["ms"].as_u64().unwrap() < PAUSE / 2, "{told}");
        println!(
            "apart: {apart}, sent while the reader paused: {later}, agents grew by {grown} MiB; {told}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_its_reader_leaves_stops_at_its_producer() {
    for apart in [true, false] {
        let mesh = mesh(apart).await;
        let told = follow(&mesh, 1_000_000, 0, 100).await.unwrap();
        assert_eq!(told["lines"], 100, "{told}");
        let begun = Instant::now();
        until_running(&mesh, 0).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
        let (sent, _) = provider(&mesh).await;
        assert!(sent < 500, "{sent}");
    }
}

#[tokio::test]
async fn a_producer_killed_in_the_middle_ends_its_streams_once_and_at_once() {
    for apart in [true, false] {
        let mesh = mesh(apart).await;
        let answer = mesh.call_tool("probe_pid", json!({})).await.unwrap();
        let pid = answer["result"]["content"][0]["text"].as_str().unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        let following = follow(&mesh, 1_000_000, 0, 0);
        let exchange = json!({
            "plugin": "probe", "messages": 1_000_000, "bytes": 100, "delay": 0, "every": 1,
        });
        let exchanging = reader(&mesh, "exchange", exchange);
        until_running(&mesh, 2).await;
        kill_process(pid, Signal::KILL).unwrap();
        let begun = Instant::now();
        for told in [following.await.unwrap(), exchanging.await.unwrap()] {
            assert_eq!(told["ends"], json!(["outcome_unknown"]), "{told}");
            assert_eq!(told["in_order"], true, "{told}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        println!("apart: {apart}: ended {took:?} after the kill");
    }
}

#[tokio::test]
async fn messages_go_both_ways_at_once_however_late_they_are_read() {
    for apart in [true, false] {
        let mesh = mesh(apart).await;
        for (messages, bytes, delay) in [(0, 1, 0), (5_000, 100, 500), (300, 131_072, 500)] {
            let exchange = json!({
                "plugin": "probe", "messages": messages, "bytes": bytes, "delay": delay, "every": 0,
            });
            let told = reader(&mesh, "exchange", exchange).await.unwrap();
            assert_eq!(told["sent"], messages, "{told}");
            assert_eq!(told["lines"], messages, "{told}");
            assert_eq!(
                told["in_order"],
                messages > 0 || told["lines"] == 0,
                "{told}"
            );
            assert_eq!(told["ends"], json!([messages.to_string()]), "{told}");
        }
        until_running(&mesh, 0).await;
    }
}

#[tokio::test]
async fn streams_across_a_restart_of_the_broker_end_honestly() {
    let mut mesh = mesh(true).await;
    let run = json!({
        "plugin": "probe", "lines": 30_000, "bytes": 1_000, "pause": 0, "leave_after": 0,
    });
    let following = reader(&mesh, "follow", run);
    let exchange = json!({
        "plugin": "probe", "messages": 1_000_000, "bytes": 100, "delay": 0, "every": 1,
    });
    let exchanging = reader(&mesh, "exchange", exchange);
    until_running(&mesh, 2).await;
    mesh.nats.process.kill();
    mesh.nats.restart().await;
    let begun = Instant::now();
    // The gateway's own calls to the reader go over the same broker, so what the reader saw may be lost
    // with them: what counts is that everything ends, honestly, and that the provider is told.
    for (told, whole) in [(following, 30_000), (exchanging, 1_000_000)] {
        let told = tokio::time::timeout(Duration::from_secs(60), told).await;
        let told = told.expect("it hangs").unwrap();
        println!("{told}");
        if told.is_null() {
            continue;
        }
        assert_eq!(told["in_order"], true, "{told}");
        // One that lost nothing may go on to its end.
        if told["lines"] == whole {
            assert_eq!(told["ends"], json!([whole.to_string()]), "{told}");
        } else {
            assert_eq!(told["ends"], json!(["outcome_unknown"]), "{told}");
        }
    }
    wait::until("the provider is rid of them", PATIENCE, || async {
        let answer = mesh.call_tool("probe_streams", json!({})).await?;
        let running = &answer["result"]["structuredContent"]["running"];
        anyhow::ensure!(running == 0, "{answer}");
        Ok(())
    })
    .await;
    println!(
        "all is over {:?} after the broker was back",
        begun.elapsed()
    );
}

#[tokio::test]
async fn payloads_have_the_largest_size_in_both_directions_and_not_a_byte_more() {
    const MOST: u64 = 64 << 20;
    for apart in [true, false] {
        let mesh = mesh(apart).await;
        for (bytes, answer) in [(MOST, 0), (0, MOST), (MOST, MOST)] {
            let told = reader(
                &mesh,
                "size",
                json!({"plugin": "probe", "bytes": bytes, "answer": answer}),
            );
            let told = told.await.unwrap();
            assert_eq!(told["bytes"], answer, "{told}");
            assert_eq!(told["took"], format!("bytes/{bytes}"), "{told}");
        }
        for (bytes, answer, code) in [(MOST + 1, 0, "too_large"), (0, MOST + 1, "plugin_failed")] {
            refuses(&mesh, bytes, answer, code).await;
        }
    }
}

async fn refuses(mesh: &Mesh, bytes: u64, answer: u64, code: &str) {
    let size = json!({"plugin": "probe", "bytes": bytes, "answer": answer});
    let told = reader(mesh, "size", size).await.unwrap();
    assert_eq!(told["code"], code, "{told}");
    let text = told["message"].as_str().unwrap();
    assert!(text.contains("router.max_payload"), "{told}");
}

#[tokio::test]
async fn the_largest_payload_is_what_the_configuration_says() {
    let mesh = Plan::new()
        .agent_lines("[router]\nmax_payload = \"1MiB\"\n")
        .agent("node-a")
        .plugin_as("probe", &["probe"], &[STREAMS])
        .agent("node-b")
        .plugin_as("reader", &["probe"], &[("PROBE_NAME", "reader"), STREAMS])
        .start()
        .await;
    mesh.wait_tool("probe_streams").await;
    mesh.wait_tool("reader_size").await;
    let most = 1 << 20;
    let size = json!({"plugin": "probe", "bytes": most, "answer": most});
    let told = reader(&mesh, "size", size).await.unwrap();
    assert_eq!(told["bytes"], most, "{told}");
    refuses(&mesh, most + 1, 0, "too_large").await;
    refuses(&mesh, 0, most + 1, "plugin_failed").await;
}
