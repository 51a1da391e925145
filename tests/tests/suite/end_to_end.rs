//! A whole mesh and a client that we did not write: the official Python SDK, in both eras.

use std::path::Path;
use std::process::Command;

use harness::mesh::{Mesh, Plan};
use harness::nats;
use serde_json::{Value, json};

/// Calculator and planner on one node, time and the probe on the other.
fn plan() -> Plan {
    Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .plugin("planner")
        .agent("node-b")
        .plugin("time")
        .plugin("probe")
}

async fn started(plan: Plan) -> Mesh {
    let mesh = plan.start().await;
    for tool in [
        "calculator_add",
        "time_current_time",
        "planner_finish_time",
        "probe_echo",
    ] {
        mesh.wait_tool(tool).await;
    }
    mesh
}

/// The Python of the tests' own environment, which `make test` sets up.
fn python() -> String {
    std::env::var("PLUGMESH_TEST_PYTHON").unwrap_or_else(|_| {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/venv/bin/python");
        assert!(
            own.exists(),
            "no Python environment: run `make test`, which sets it up"
        );
        own.display().to_string()
    })
}

fn run_official_client(mesh: &Mesh, era: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/mcp_check.py");
    let out = Command::new(python())
        .arg(script)
        .args(["--url", &mesh.mcp_url(), "--era", era])
        .output()
        .expect("python starts");
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{era}:\n{text}\n{errors}\n--- gateway ---\n{}",
        mesh.gateway.log()
    );
    println!("{era}:\n{text}");
}

#[tokio::test]
async fn the_official_client_works_in_both_eras() {
    let mesh = started(plan()).await;
    run_official_client(&mesh, "2026-07-28");
    run_official_client(&mesh, "2025-11-25");
}

#[tokio::test]
async fn the_oldest_supported_broker_will_do() {
    let mesh = started(plan().nats_program(nats::oldest())).await;
    run_official_client(&mesh, "2026-07-28");
}

#[tokio::test]
async fn a_plugin_calls_two_others_across_nodes() {
    let mesh = started(plan()).await;
    let arguments = json!({"tasks": 3, "minutes_per_task": 20, "zone": "Europe/Zurich"});
    let answer = mesh
        .call_tool("planner_finish_time", arguments)
        .await
        .unwrap();
    let result = &answer["result"];
    assert_ne!(result["isError"], true, "{answer}");
    let text = result.to_string();
    assert!(
        text.contains("60"),
        "the calculator's product is in it: {text}"
    );
}

#[tokio::test]
async fn lists_come_in_pages_and_in_a_stable_order() {
    let mesh = started(plan().gateway_lines("page_size = 3")).await;
    let mut names: Vec<String> = Vec::new();
    let mut cursor = Value::Null;
    let mut pages = 0;
    loop {
        let params = if cursor.is_null() {
            json!({})
        } else {
            json!({"cursor": cursor})
        };
        let answer = mesh.mcp("tools/list", params).await.unwrap();
        let tools = answer["result"]["tools"].as_array().expect("tools").clone();
        assert!(tools.len() <= 3, "{answer}");
        names.extend(
            tools
                .iter()
                .map(|tool| tool["name"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        cursor = answer["result"]["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted, "sorted, and none twice");
    assert!(pages > 3, "{pages} pages of {} tools", names.len());
}

#[tokio::test]
async fn a_payload_of_megabytes_goes_there_and_back() {
    let mesh = started(plan()).await;
    let text = "x".repeat(3_000_000);
    let answer = mesh
        .call_tool("probe_echo", json!({"text": text}))
        .await
        .unwrap();
    let echoed = answer["result"]["content"][0]["text"].as_str();
    assert_eq!(echoed.map(str::len), Some(text.len()));
}

#[tokio::test]
async fn management_tools_show_and_change_plugins() {
    let mesh = started(plan()).await;
    let call = async |name: &str, arguments: Value| {
        let answer = mesh.call_tool(name, arguments).await.unwrap();
        answer["result"]["structuredContent"].clone()
    };
    let listed = call(
        "list_plugins",
        json!({"capability": "tools", "status": "started"}),
    )
    .await;
    assert!(listed.to_string().contains("calculator"), "{listed}");
    let resources = call("list_plugins", json!({"capability": "resources"})).await;
    assert!(!resources.to_string().contains("calculator"), "{resources}");
    let info = call("get_plugin_info", json!({"name": "calculator"})).await;
    assert!(info.to_string().contains("1.0.0"), "{info}");

    mesh.call_tool("calculator_add", json!({"a": 1, "b": 2}))
        .await
        .unwrap();
    let metrics = call("get_plugin_metrics", json!({"detailed": true})).await;
    let stats = &metrics["plugin_stats"]["calculator"];
    assert!(stats["request_count"].as_u64() >= Some(1), "{metrics}");

    call("disable_plugin", json!({"name": "calculator"})).await;
    mesh.wait_state("calculator", "initialized").await;
    harness::wait::until("the tool is gone", harness::mesh::PATIENCE, || async {
        let answer = mesh
            .call_tool("calculator_add", json!({"a": 1, "b": 2}))
            .await?;
        if answer["error"]["code"].is_number() {
            return Ok(());
        }
        anyhow::bail!("{answer}")
    })
    .await;
    call("enable_plugin", json!({"name": "calculator"})).await;
    mesh.wait_tool("calculator_add").await;
}

#[tokio::test]
async fn grpc_health_and_reflection_answer_on_every_grpc_port() {
    let mesh = Plan::new().agent("node-a").start().await;
    for url in [mesh.coordinator_url(), mesh.attach_url(0)] {
        let services = harness::grpc::services(&url).await;
        assert!(
            services.iter().any(|name| name == "grpc.health.v1.Health"),
            "{services:?}"
        );
        assert!(
            services.iter().any(|name| name.starts_with("plugmesh.")),
            "{services:?}"
        );
        assert!(harness::grpc::is_serving(&url).await, "{url}");
    }
}
