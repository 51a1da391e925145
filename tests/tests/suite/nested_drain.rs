//! An agent that stops in order lets running calls end that still need a plugin beside theirs.

use harness::http_client;
use harness::mesh::{PATIENCE, Plan, mcp_request};
use harness::wait;
use serde_json::json;

/// The front one works on all four.
const RUNNING: &str = r#"plugmesh_agent_in_flight{plugin="front"} 4"#;

#[tokio::test]
async fn calls_that_run_at_a_stopping_agent_still_call_its_other_plugin() {
    let probe = |plan: Plan, name: &str| plan.plugin_as(name, &["probe"], &[("PROBE_NAME", name)]);
    let plan = Plan::new().agent("node-a");
    let mut mesh = probe(probe(plan, "front"), "back").start().await;
    mesh.wait_tool("front_nest").await;
    mesh.wait_tool("back_sleep").await;
    // Long enough that the whole mesh knows of the end before the nested calls begin.
    let arguments = json!({"plugin": "back", "first_ms": 2_000, "ms": 300});
    let params = json!({"name": "front_nest", "arguments": arguments});
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (url, params) = (mesh.mcp_url(), params.clone());
            tokio::spawn(async move { mcp_request(&url, "tools/call", params).await.unwrap() })
        })
        .collect();
    let url = format!("http://127.0.0.1:{}/metrics", mesh.agents[0].admin_port);
    wait::until("the calls run", PATIENCE, || async {
        let text = http_client::get(&url).await?.body;
        anyhow::ensure!(text.contains(RUNNING), "{text}");
        anyhow::Ok(())
    })
    .await;
    mesh.agents[0].stop();
    for call in calls {
        let answer = call.await.unwrap();
        let text = &answer["result"]["content"][0]["text"];
        assert_eq!(text, "slept 300 ms", "{answer}");
    }
}
