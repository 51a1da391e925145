//! What one client may take, and how it all ends.

use std::time::Duration;

use mesh_runtime::HumanDuration;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake_mesh::{FakeMesh, modern_body, modern_headers};
use crate::http::{self, Events};

fn initialize() -> (Vec<(&'static str, String)>, String) {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": { "name": "test", "version": "0" } });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    (headers, body.to_string())
}

#[tokio::test]
async fn over_the_bound_sessions_and_subscriptions_are_refused_with_503() {
    let mesh = FakeMesh::start_with(|config| config.max_sessions = 1).await;
    let (headers, body) = initialize();
    assert_eq!(http::post(mesh.port, &headers, &body).await.status, 200);
    let full = http::post(mesh.port, &headers, &body).await;
    assert_eq!(full.status, 503, "{full:?}");
    let error = &full.json()["error"];
    assert_eq!(error["code"], -32011);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("gateway.max_sessions"),
        "{error}"
    );

    let params = json!({ "notifications": { "toolsListChanged": true } });
    let headers = modern_headers("subscriptions/listen", &params);
    let body = modern_body(1, "subscriptions/listen", params);
    let mut first = Events::open(mesh.port, "POST", &headers, &body).await;
    first.next().await.unwrap();
    let full = http::post(mesh.port, &headers, &body).await;
    assert_eq!(full.status, 503, "{full:?}");
    drop(first);
    mesh.until("there is room again", async || {
        let url = mesh.url();
        http::send("POST", &url, &headers, &body)
            .await
            .unwrap()
            .status()
            == 200
    })
    .await;
    // Requests by themselves are not bounded by it.
    assert_eq!(mesh.modern("tools/list", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go_and_holds_nobody_else() {
    let mesh = FakeMesh::start_with(|config| {
        config.stall_timeout = HumanDuration::from_millis(500);
    })
    .await;
    let params = json!({ "name": "probe_big" });
    let body = modern_body(1, "tools/call", params.clone());
    let mut request = String::from("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in modern_headers("tools/call", &params) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // The system would take much for the client otherwise.
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = ([127, 0, 0, 1], mesh.port).into();
    let mut stuck = socket.connect(address).await.unwrap();
    stuck.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0; 1];
    stuck.read_exact(&mut byte).await.unwrap();
    // It takes nothing more, while others are served.
    for _ in 0..20 {
        let sum = mesh.tool("calculator_add", json!({ "a": 2, "b": 3 })).await;
        assert_eq!(sum["result"]["content"][0]["text"], "5");
    }
    mesh.until("the stuck connection is closed", async || {
        let metrics = http::try_get(mesh.port, "/metrics").await.unwrap();
        // The one that asks is open.
        metrics.body.contains("plugmesh_gateway_connections 1\n")
    })
    .await;
}

#[tokio::test]
async fn slow_headers_and_slow_bodies_are_cut_off() {
    let mesh = FakeMesh::start_with(|config| {
        config.request_timeout = HumanDuration::from_millis(300);
    })
    .await;
    let mut slow = TcpStream::connect(("127.0.0.1", mesh.port)).await.unwrap();
    slow.write_all(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).await.unwrap();

    let mut slow = TcpStream::connect(("127.0.0.1", mesh.port)).await.unwrap();
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        accept: */*\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("gateway.request_timeout"), "{text}");
}

#[tokio::test]
async fn running_calls_are_finished_when_the_gateway_stops() {
    let mesh = FakeMesh::start().await;
    let params = json!({ "name": "probe_sleep", "arguments": { "ms": 1_000 } });
    let headers = modern_headers("tools/call", &params);
    let body = modern_body(1, "tools/call", params);
    let port = mesh.port;
    let call = tokio::spawn(async move { http::post(port, &headers, &body).await });
    mesh.until("the plugin works on it", async || {
        mesh.running_sleeps().await == "1"
    })
    .await;
    mesh.stop().await.unwrap();
    let answer = call.await.unwrap().json();
    assert_eq!(answer["result"]["content"][0]["text"], "slept 1000 ms");
    assert!(
        http::try_get(port, "/health").await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn calls_that_do_not_end_within_the_grace_do_not_hold_the_gateway() {
    let mesh = FakeMesh::start_with(|config| {
        config.drain_grace = HumanDuration::from_millis(200);
    })
    .await;
    let params = json!({ "name": "probe_sleep", "arguments": { "ms": 25_000 } });
    let headers = modern_headers("tools/call", &params);
    let body = modern_body(1, "tools/call", params);
    let url = mesh.url();
    tokio::spawn(async move { http::send("POST", &url, &headers, &body).await });
    mesh.until("the plugin works on it", async || {
        mesh.running_sleeps().await == "1"
    })
    .await;
    let started = tokio::time::Instant::now();
    mesh.stop().await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_gateway_starts_from_its_snapshot_when_no_coordinator_answers() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_owned();
    let first = FakeMesh::start_with(|config| config.data_dir = folder.clone()).await;
    first
        .tool("calculator_add", json!({ "a": 2, "b": 3 }))
        .await;
    first.stop().await.unwrap();
    let second = FakeMesh::start_with(|config| {
        config.data_dir = folder;
        // Nothing listens on the discard port of loopback.
        config.coordinators = vec!["http://127.0.0.1:9".to_owned()];
    })
    .await;
    let sum = second
        .tool("calculator_add", json!({ "a": 2, "b": 3 }))
        .await;
    assert_eq!(sum["result"]["content"][0]["text"], "5");
    let ready = http::try_get(second.port, "/ready").await.unwrap();
    assert!(ready.body.contains("which may be old"), "{}", ready.body);
    let refused = second
        .tool("disable_plugin", json!({ "name": "time" }))
        .await;
    assert_eq!(
        refused["error"]["data"]["code"], "no_coordinator",
        "{refused}"
    );
}
