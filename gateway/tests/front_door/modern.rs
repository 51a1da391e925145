//! Clients of 2026-07-28: each request by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_mesh::{FakeMesh, modern_body, modern_headers};
use crate::http::{self, Events};

#[tokio::test]
async fn lists_come_from_the_table_in_order_and_in_pages() {
    let mesh = FakeMesh::start_with(|config| config.page_size = 4).await;
    let mut names: Vec<String> = Vec::new();
    let mut params = json!({});
    loop {
        let answer = mesh.modern("tools/list", params).await;
        assert_eq!(answer.headers["content-type"], "application/json");
        let result = answer.json()["result"].clone();
        let page = result["tools"].as_array().unwrap();
        assert!(page.len() <= 4, "{result}");
        names.extend(
            page.iter()
                .map(|tool| tool["name"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = result["nextCursor"].as_str() else {
            break;
        };
        params = json!({ "cursor": cursor });
    }
    assert!(names.is_sorted(), "{names:?}");
    for name in ["calculator_add", "probe_echo", "list_plugins"] {
        assert!(names.iter().any(|other| other == name), "{names:?}");
    }
    let error = mesh
        .modern("tools/list", json!({ "cursor": "%%%" }))
        .await
        .json();
    assert_eq!(error["error"]["code"], -32602);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("cursor \"%%%\"")
    );
}

#[tokio::test]
async fn calls_reads_and_prompts_reach_plugins_and_their_errors_come_back() {
    let mesh = FakeMesh::start().await;
    let sum = mesh.tool("calculator_add", json!({ "a": 2, "b": 3 })).await;
    assert_eq!(sum["result"]["structuredContent"], json!({ "sum": 5.0 }));
    assert_eq!(sum["result"]["resultType"], "complete");

    let read = mesh
        .modern("resources/read", json!({ "uri": "probe://item/7" }))
        .await
        .json();
    assert_eq!(
        read["result"]["contents"][0]["text"],
        "item \"probe://item/7\""
    );

    let prompt = mesh
        .modern(
            "prompts/get",
            json!({ "name": "probe_greet", "arguments": { "name": "Ada" } }),
        )
        .await
        .json();
    assert_eq!(
        prompt["result"]["messages"][0]["content"]["text"],
        "Say hello to Ada"
    );

    let failed = mesh.tool("probe_fail", json!({})).await;
    assert_eq!(failed["result"]["isError"], true);

    let crashed = mesh.tool("probe_crash", json!({})).await;
    assert_eq!(crashed["error"]["code"], -32017);
    let data = &crashed["error"]["data"];
    assert_eq!(data["code"], "plugin_failed");
    assert_eq!(data["docs"], "docs/errors/plugin-failed.md");
    assert_eq!(
        (&data["plugin"], &data["node"]),
        (&json!("probe"), &json!("node-a"))
    );

    let nonsense = mesh.tool("probe_nonsense", json!({})).await;
    let text = nonsense["error"]["message"].as_str().unwrap();
    assert!(
        text.starts_with("the plugin's answer is no CallToolResult"),
        "{text}"
    );

    let unknown = mesh.tool("calculator_ad", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32602);
    assert_eq!(
        unknown["error"]["data"]["nearest"],
        json!(["calculator_add"])
    );

    let nowhere = mesh
        .modern("resources/read", json!({ "uri": "no://where" }))
        .await
        .json();
    assert_eq!(nowhere["error"]["code"], -32602);
}

#[tokio::test]
async fn progress_comes_before_the_result_with_the_clients_token() {
    let mesh = FakeMesh::start().await;
    let params = json!({ "name": "probe_sleep", "arguments": { "ms": 350 },
        "_meta": { "progressToken": "mine" } });
    let headers = modern_headers("tools/call", &params);
    let body = modern_body(9, "tools/call", params);
    let mut events = Events::open(mesh.port, "POST", &headers, &body).await;
    let mut done = Vec::new();
    let result = loop {
        let message = events.next().await.expect("the result is the last");
        if message["method"] == "notifications/progress" {
            assert_eq!(message["params"]["progressToken"], "mine");
            done.push(message["params"]["progress"].as_f64().unwrap());
            continue;
        }
        break message;
    };
    assert_eq!(done, [100.0, 200.0, 300.0, 350.0]);
    assert_eq!(result["id"], 9);
    assert_eq!(result["result"]["content"][0]["text"], "slept 350 ms");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call_at_the_plugin() {
    let mesh = FakeMesh::start().await;
    let sleep = |meta: Value| {
        let params = json!({ "name": "probe_sleep", "arguments": { "ms": 60_000 }, "_meta": meta });
        let headers = modern_headers("tools/call", &params);
        (headers, modern_body(1, "tools/call", params))
    };
    // Before anything of the answer has come.
    let (headers, body) = sleep(json!({}));
    let url = mesh.url();
    let call = tokio::spawn(async move { http::send("POST", &url, &headers, &body).await });
    mesh.until("the plugin works on it", async || {
        mesh.running_sleeps().await == "1"
    })
    .await;
    call.abort();
    mesh.until("the plugin stopped", async || {
        mesh.running_sleeps().await == "0"
    })
    .await;

    // While the answer comes.
    let (headers, body) = sleep(json!({ "progressToken": 1 }));
    let mut events = Events::open(mesh.port, "POST", &headers, &body).await;
    events.next().await.unwrap();
    assert_eq!(mesh.running_sleeps().await, "1");
    drop(events);
    mesh.until("the plugin stopped", async || {
        mesh.running_sleeps().await == "0"
    })
    .await;
}

#[tokio::test]
async fn log_lines_come_only_when_the_request_asks_and_only_from_its_level_on() {
    let mesh = FakeMesh::start().await;
    let call = |level: &str, wanted: Value| {
        let arguments = json!({ "level": level, "message": "hello" });
        json!({ "name": "probe_log", "arguments": arguments, "_meta": wanted })
    };
    let wanted = json!({ "io.modelcontextprotocol/logLevel": "warning" });
    for (level, meta, lines) in [
        ("error", wanted.clone(), 1),
        ("warning", wanted.clone(), 1),
        ("info", wanted, 0),
        ("error", json!({}), 0),
    ] {
        let answer = mesh.modern("tools/call", call(level, meta)).await;
        let found = answer.body.matches("notifications/message").count();
        assert_eq!(found, lines, "{level}: {}", answer.body);
        if lines == 1 {
            assert!(
                answer.body.contains("\"logger\":\"probe\""),
                "{}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn a_subscription_is_told_of_the_lists_that_changed_and_of_no_other() {
    let mesh = FakeMesh::start().await;
    let all = json!({ "notifications": { "toolsListChanged": true, "promptsListChanged": true,
        "resourceSubscriptions": ["probe://data"] } });
    let headers = modern_headers("subscriptions/listen", &all);
    let body = modern_body(4, "subscriptions/listen", all);
    let mut events = Events::open(mesh.port, "POST", &headers, &body).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let accepted = json!({ "promptsListChanged": true, "toolsListChanged": true });
    assert_eq!(first["params"]["notifications"], accepted);

    // The calculator has tools alone.
    let disabled = mesh
        .tool("disable_plugin", json!({ "name": "calculator" }))
        .await;
    assert_eq!(
        disabled["result"]["structuredContent"]["changed"],
        json!(["calculator"])
    );
    let told = events.next().await.unwrap();
    assert_eq!(told["method"], "notifications/tools/list_changed");
    assert_eq!(
        told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        4
    );
    assert_eq!(events.next_within(Duration::from_millis(200)).await, None);

    // The gateway ends it in order when it stops.
    mesh.context.shutdown.trigger();
    let last = events.next().await.unwrap();
    assert_eq!(
        (&last["id"], last["result"].is_object()),
        (&json!(4), true),
        "{last}"
    );
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn the_example_for_people_works_without_any_header_but_the_type() {
    let mesh = FakeMesh::start().await;
    let line = gateway::example_curl(([127, 0, 0, 1], mesh.port).into());
    let body = line.rsplit("-d '").next().unwrap().trim_end_matches('\'');
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("accept", "*/*".to_owned()),
    ];
    let answer = http::post(mesh.port, &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json()["result"]["content"][0]["text"], "5");
}
