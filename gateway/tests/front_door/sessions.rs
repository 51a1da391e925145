//! Clients of 2025-11-25: sessions.

use std::time::Duration;

use mesh_runtime::HumanDuration;
use serde_json::{Value, json};

use crate::fake_mesh::FakeMesh;
use crate::http::{self, Answer, Events};

/// A client with a session.
struct Session {
    port: u16,
    id: String,
}

fn headers(session: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
        ("mcp-protocol-version", "2025-11-25".to_owned()),
    ];
    headers.extend(session.map(|id| ("mcp-session-id", id.to_owned())));
    headers
}

fn initialize() -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": { "name": "test", "version": "0" } });
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string()
}

async fn try_open(mesh: &FakeMesh) -> Answer {
    http::post(mesh.port, &headers(None), &initialize()).await
}

impl Session {
    async fn open(mesh: &FakeMesh) -> Self {
        let answer = try_open(mesh).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
        let id = answer.headers["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let session = Self {
            port: mesh.port,
            id,
        };
        let answer = session.notify("notifications/initialized", json!({})).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        session
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        headers(Some(&self.id))
    }

    async fn notify(&self, method: &str, params: Value) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        http::post(self.port, &self.headers(), &body.to_string()).await
    }

    async fn ask(&self, id: u64, method: &str, params: Value) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        http::post(self.port, &self.headers(), &body.to_string()).await
    }

    async fn stream(&self) -> Events {
        Events::open(self.port, "GET", &self.headers(), "").await
    }

    async fn close(&self) -> Answer {
        http::request(self.port, "DELETE", "/mcp", &self.headers(), "").await
    }
}

#[tokio::test]
async fn a_session_lists_calls_and_ends() {
    let mesh = FakeMesh::start().await;
    let session = Session::open(&mesh).await;
    assert_eq!(
        session.ask(1, "ping", json!({})).await.json()["result"],
        json!({})
    );
    let sum = session
        .ask(
            2,
            "tools/call",
            json!({ "name": "calculator_add", "arguments": { "a": 2, "b": 3 } }),
        )
        .await
        .json();
    assert_eq!(sum["result"]["content"][0]["text"], "5");
    assert_eq!(
        sum["result"]["resultType"],
        Value::Null,
        "older clients do not know it"
    );
    // Older clients take objects alone.
    let number = session
        .ask(3, "tools/call", json!({ "name": "probe_number" }))
        .await
        .json();
    assert_eq!(number["result"]["structuredContent"], Value::Null);
    let missing = session
        .ask(4, "resources/read", json!({ "uri": "no://where" }))
        .await
        .json();
    assert_eq!(missing["error"]["code"], -32002);
    let completion = json!({ "ref": { "type": "ref/prompt", "name": "x" },
        "argument": { "name": "a", "value": "b" } });
    let completed = session
        .ask(5, "completion/complete", completion)
        .await
        .json();
    assert_eq!(completed["error"]["code"], -32601);

    assert_eq!(session.close().await.status, 204);
    let gone = session.ask(6, "ping", json!({})).await;
    assert_eq!(gone.status, 404, "{gone:?}");
    assert!(
        gone.body.contains("send initialize to begin a new one"),
        "{}",
        gone.body
    );
}

#[tokio::test]
async fn an_explicit_cancel_reaches_the_plugin() {
    let mesh = FakeMesh::start().await;
    let session = Session::open(&mesh).await;
    let sleep = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": { "name": "probe_sleep", "arguments": { "ms": 60_000 } } });
    let (port, own) = (mesh.port, session.headers());
    let call = tokio::spawn(async move { http::post(port, &own, &sleep.to_string()).await });
    mesh.until("the plugin works on it", async || {
        mesh.running_sleeps().await == "1"
    })
    .await;
    session
        .notify("notifications/cancelled", json!({ "requestId": 7 }))
        .await;
    mesh.until("the plugin stopped", async || {
        mesh.running_sleeps().await == "0"
    })
    .await;
    let answer = call.await.unwrap();
    assert!(
        !answer.body.contains("\"result\""),
        "a cancelled call has no answer: {answer:?}"
    );
}

#[tokio::test]
async fn a_session_is_told_of_changes_and_log_lines_on_its_stream() {
    let mesh = FakeMesh::start().await;
    let session = Session::open(&mesh).await;
    let mut stream = session.stream().await;
    mesh.tool("disable_plugin", json!({ "name": "calculator" }))
        .await;
    let told = stream.next().await.unwrap();
    assert_eq!(told["method"], "notifications/tools/list_changed");

    let level = session
        .ask(1, "logging/setLevel", json!({ "level": "warning" }))
        .await
        .json();
    assert_eq!(level["result"], json!({}));
    for (id, level) in [(2, "info"), (3, "error")] {
        let arguments = json!({ "level": level, "message": level });
        session
            .ask(
                id,
                "tools/call",
                json!({ "name": "probe_log", "arguments": arguments }),
            )
            .await;
    }
    let line = stream.next().await.unwrap();
    assert_eq!(
        line["params"],
        json!({ "level": "error", "logger": "probe", "data": "error" })
    );
}

#[tokio::test]
async fn a_session_with_an_open_stream_is_not_idle_and_one_without_is_closed() {
    let mesh = FakeMesh::start_with(|config| {
        config.session_idle = HumanDuration::from_millis(400);
    })
    .await;
    let (watched, forgotten) = (Session::open(&mesh).await, Session::open(&mesh).await);
    let _stream = watched.stream().await;
    mesh.until("the idle session is closed", async || {
        forgotten.ask(1, "ping", json!({})).await.status == 404 || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            false
        }
    })
    .await;
    assert_eq!(watched.ask(1, "ping", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_session_is_served_by_every_shard() {
    let mesh = FakeMesh::start_with(|config| config.shards = 3).await;
    let session = Session::open(&mesh).await;
    // Each request has a connection of its own, which any shard may get.
    for id in 0..24 {
        let answer = session
            .ask(id, "tools/call", json!({ "name": "probe_running" }))
            .await;
        assert_eq!(
            answer.json()["result"]["content"][0]["text"],
            "0",
            "{answer:?}"
        );
    }
    let ready = http::try_get(mesh.port, "/ready").await.unwrap();
    assert!(ready.body.contains("nats, shard 2"), "{}", ready.body);
    mesh.stop().await.unwrap();
}
