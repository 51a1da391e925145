//! Requests that are no MCP: one clear line each.

use serde_json::json;

use crate::fake_mesh::{FakeMesh, modern_body, modern_headers};
use crate::http;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

type Row = (
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str)>,
    &'static str,
    u16,
    &'static str,
);

#[tokio::test]
async fn every_refusal_is_one_line_that_says_what_to_do() {
    let mesh = FakeMesh::start_with(|config| {
        config.max_body = mesh_runtime::ByteSize::from_kib(64);
    })
    .await;
    let json = ("content-type", "application/json");
    let huge: &'static str = Box::leak("x".repeat(5_000_000).into_boxed_str());
    let rows: Vec<Row> = vec![
        (
            "POST",
            "/mcp",
            vec![json, ("host", "evil.example")],
            PING,
            403,
            "gateway.allowed_hosts",
        ),
        (
            "POST",
            "/mcp",
            vec![json, ("origin", "https://evil.example")],
            PING,
            403,
            "gateway.allowed_origins",
        ),
        (
            "GET",
            "/metrics",
            vec![("host", "evil.example")],
            "",
            403,
            "gateway.allowed_hosts",
        ),
        (
            "PUT",
            "/mcp",
            vec![json],
            PING,
            405,
            "PUT is not served here",
        ),
        (
            "POST",
            "/mcp",
            vec![("content-type", "text/plain")],
            PING,
            415,
            "must be application/json, not \\\"text/plain\\\"",
        ),
        ("POST", "/mcp", vec![], PING, 415, "Content-Type"),
        (
            "POST",
            "/mcp",
            vec![json, ("accept", "text/html")],
            PING,
            406,
            "Accept header must hold both",
        ),
        (
            "POST",
            "/mcp",
            vec![json, ("accept", "application/json")],
            PING,
            406,
            "text/event-stream",
        ),
        (
            "POST",
            "/mcp",
            vec![json],
            "{nonsense",
            400,
            "not valid JSON: key must be a string",
        ),
        (
            "POST",
            "/mcp",
            vec![json],
            "[]",
            400,
            "batches are not part of MCP",
        ),
        (
            "POST",
            "/mcp",
            vec![json],
            r#"{"jsonrpc":"2.0","id":1}"#,
            400,
            "method is missing",
        ),
        ("POST", "/mcp", vec![json], huge, 413, "gateway.max_body"),
        (
            "POST",
            "/mcp",
            vec![json, ("mcp-protocol-version", "2099-01-01")],
            PING,
            400,
            "2099-01-01; this server speaks",
        ),
        (
            "POST",
            "/mcp",
            vec![json, ("mcp-session-id", "nonsense")],
            PING,
            404,
            "send initialize",
        ),
        (
            "POST",
            "/mcp",
            vec![
                json,
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "ping"),
            ],
            PING,
            400,
            "io.modelcontextprotocol/protocolVersion",
        ),
        (
            "POST",
            "/mcp",
            vec![json],
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            400,
            "Mcp-Session-Id",
        ),
        (
            "GET",
            "/mcp",
            vec![("accept", "text/event-stream")],
            "",
            400,
            "Mcp-Session-Id",
        ),
        (
            "GET",
            "/mcp",
            vec![("accept", "application/json")],
            "",
            406,
            "text/event-stream",
        ),
        (
            "GET",
            "/mcp",
            vec![
                ("accept", "text/event-stream"),
                ("mcp-protocol-version", "2026-07-28"),
            ],
            "",
            405,
            "use POST",
        ),
        ("DELETE", "/mcp", vec![], "", 400, "Mcp-Session-Id"),
        (
            "GET",
            "/nothing",
            vec![],
            "",
            404,
            "/mcp, /health, /ready and /metrics",
        ),
    ];
    for (method, path, headers, body, status, says) in rows {
        let headers: Vec<(&'static str, String)> = headers
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        let answer = http::request(mesh.port, method, path, &headers, body).await;
        let what = format!("{method} {path} {headers:?}: {answer:?}");
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.body.contains(says), "{what}");
        assert_eq!(answer.headers["content-type"], "application/json", "{what}");
        assert_eq!(answer.body.trim_end().lines().count(), 1, "{what}");
        assert!(answer.json()["error"]["code"].is_number(), "{what}");
    }
    let metrics = http::try_get(mesh.port, "/metrics").await.unwrap().body;
    let refused = r#"plugmesh_gateway_requests_total{method="refused",outcome="forbidden"} 3"#;
    assert!(metrics.contains(refused), "{metrics}");
    // Those of the bus are among them.
    assert!(
        metrics.contains("plugmesh_bus_slow_consumer_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn headers_that_do_not_agree_with_the_body_are_refused() {
    let mesh = FakeMesh::start().await;
    let params = json!({ "name": "calculator_add", "arguments": { "a": 1, "b": 2 } });
    let body = modern_body(1, "tools/call", params.clone());
    let headers = modern_headers("tools/call", &json!({ "name": "probe_echo" }));
    let answer = http::post(mesh.port, &headers, &body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], -32020, "{answer:?}");
}

#[tokio::test]
async fn messages_that_break_a_rule_are_told_the_field() {
    let mesh = FakeMesh::start().await;
    for (method, params, code, says) in [
        (
            "tools/call",
            json!({ "arguments": {} }),
            -32602,
            "missing field `name`",
        ),
        (
            "tools/call",
            json!({ "name": "probe_echo", "arguments": [1] }),
            -32602,
            "expected a map",
        ),
        (
            "tools/list",
            json!({ "cursor": 5 }),
            -32602,
            "cursor must be a string, not 5",
        ),
        (
            "prompts/get",
            json!({ "name": "nobody" }),
            -32602,
            "there is no prompt \"nobody\"",
        ),
        (
            "tools/dance",
            json!({}),
            -32601,
            "there is no method \"tools/dance\" here",
        ),
        ("ping", json!({}), -32601, "ping"),
        (
            "tools/call",
            json!({ "name": "list_plugins", "arguments": { "status": "happy" } }),
            -32602,
            "argument status",
        ),
        (
            "tools/call",
            json!({ "name": "disable_plugin", "arguments": { "name": "No Body" } }),
            -32602,
            "No Body",
        ),
        (
            "tools/call",
            json!({ "name": "disable_plugin", "arguments": { "name": "nobody" } }),
            -32602,
            "there is no plugin nobody",
        ),
    ] {
        let answer = mesh.modern(method, params.clone()).await.json();
        let error = &answer["error"];
        assert_eq!(error["code"], code, "{method} {params}: {answer}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{method} {params}: {message}");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_use_the_gateway_and_others_may_not() {
    let mesh = FakeMesh::start().await;
    let header = |name, value: &str| (name, value.to_owned());
    let ask = |origin: &str| {
        vec![
            header("origin", origin),
            header("access-control-request-method", "POST"),
            header("access-control-request-headers", "content-type,mcp-method"),
        ]
    };
    let page = "http://localhost:6274";
    let answer = http::request(mesh.port, "OPTIONS", "/mcp", &ask(page), "").await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.headers["access-control-allow-origin"], page);
    assert_eq!(
        answer.headers["access-control-allow-headers"],
        "content-type,mcp-method"
    );

    let evil = ask("https://evil.example");
    let answer = http::request(mesh.port, "OPTIONS", "/mcp", &evil, "").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));

    let json = header("content-type", "application/json");
    let answer = http::post(mesh.port, &[json.clone(), header("origin", page)], PING).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["access-control-allow-origin"], page);
    let exposed = answer.headers["access-control-expose-headers"]
        .to_str()
        .unwrap();
    assert!(exposed.contains("Mcp-Session-Id"), "{exposed}");
    let answer = http::post(mesh.port, &[json], PING).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    // Without the question of a browser it is a method like any other.
    let answer = http::request(mesh.port, "OPTIONS", "/mcp", &[], "").await;
    assert_eq!(answer.status, 405, "{answer:?}");
}
