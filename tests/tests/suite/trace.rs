//! One trace per request, from the client through every hop and back out of the plugin's own calls.

use std::collections::HashMap;

use harness::mesh::{PATIENCE, Plan};
use harness::otlp::{Receiver, Span};
use harness::wait;
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn one_trace_covers_gateway_agents_plugins_and_the_nested_call() {
    let receiver = Receiver::start().await;
    let mesh = Plan::new()
        .otlp(&receiver.endpoint())
        .agent("node-a")
        .plugin("calculator")
        .plugin("planner")
        .agent("node-b")
        .plugin("time")
        .start()
        .await;
    mesh.wait_tool("planner_finish_time").await;
    let params = json!({
        "name": "planner_finish_time",
        "arguments": {"tasks": 2, "minutes_per_task": 5, "zone": "UTC"},
        "_meta": {"traceparent": format!("00-{TRACE}-{CLIENT_SPAN}-01")},
    });
    let answer = mesh.mcp("tools/call", params).await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");

    // Every service must have sent its spans, and each span's parent must be there.
    let wanted = [
        "plugmesh-gateway",
        "plugmesh-agent",
        "planner",
        "time",
        "calculator",
    ];
    let spans = wait::until("the whole trace arrives", PATIENCE, || async {
        let spans = receiver.trace(TRACE);
        for service in wanted {
            if !spans.iter().any(|span| span.service == service) {
                anyhow::bail!("no span of {service}; {:?}", names(&spans));
            }
        }
        let known: HashMap<&str, &Span> = spans
            .iter()
            .map(|span| (span.span_id.as_str(), span))
            .collect();
        for span in &spans {
            if span.parent_id != CLIENT_SPAN && !known.contains_key(span.parent_id.as_str()) {
                anyhow::bail!("{} has an unknown parent; {:?}", span.name, names(&spans));
            }
        }
        Ok(spans)
    })
    .await;

    let by_id: HashMap<&str, &Span> = spans
        .iter()
        .map(|span| (span.span_id.as_str(), span))
        .collect();
    let path = |service: &str| {
        let mut span = spans
            .iter()
            .find(|span| span.service == service && span.kind == 2);
        let mut services = Vec::new();
        while let Some(current) = span {
            services.push(current.service.clone());
            span = by_id.get(current.parent_id.as_str()).copied();
        }
        services.dedup();
        services.reverse();
        services
    };
    assert_eq!(
        path("planner"),
        ["plugmesh-gateway", "plugmesh-agent", "planner"]
    );
    // The nested call leaves the planner, its agent, and enters the other node's agent.
    assert_eq!(
        path("time"),
        [
            "plugmesh-gateway",
            "plugmesh-agent",
            "planner",
            "plugmesh-agent",
            "time"
        ]
    );
    let roots: Vec<&Span> = spans
        .iter()
        .filter(|span| span.parent_id == CLIENT_SPAN)
        .collect();
    assert_eq!(roots.len(), 1, "{:?}", names(&spans));
    assert_eq!(roots[0].service, "plugmesh-gateway");
    assert_eq!(roots[0].attributes["mcp.method.name"], "tools/call");
    assert_eq!(
        roots[0].attributes["gen_ai.tool.name"],
        "planner_finish_time"
    );
    println!("{:#?}", names(&spans));
}

#[tokio::test]
async fn the_context_of_http_headers_is_taken_too() {
    let receiver = Receiver::start().await;
    let mesh = Plan::new()
        .otlp(&receiver.endpoint())
        .agent("node-a")
        .plugin("calculator")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", traceparent.as_str()),
    ];
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "calculator_add", "arguments": {"a": 1, "b": 2}},
    });
    let url = mesh.mcp_url();
    let answer = harness::http_client::request("POST", &url, &headers, body.to_string()).await;
    assert_eq!(
        answer.unwrap().json()["result"]["structuredContent"]["result"],
        3.0
    );
    wait::until("the plugin's span arrives", PATIENCE, || async {
        let spans = receiver.trace(trace);
        if spans.iter().any(|span| span.service == "calculator") {
            return Ok(());
        }
        anyhow::bail!("{:?}", names(&spans))
    })
    .await;
}

fn names(spans: &[Span]) -> Vec<String> {
    let line = |span: &Span| {
        format!(
            "{}: {} ({} <- {})",
            span.service, span.name, span.span_id, span.parent_id
        )
    };
    spans.iter().map(line).collect()
}
