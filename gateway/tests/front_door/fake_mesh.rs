//! A gateway with a mesh behind it: a real broker, and a coordinator and a node that are played here.

use std::net::TcpListener;
use std::time::Duration;

use gateway::{Config, RunConfig, RunError};
use mesh_runtime::{Context, NatsSection};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::coordinator::Coordinator;
use crate::http::{self, Answer};
use crate::nats::Nats;
use crate::node;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct FakeMesh {
    _nats: Nats,
    pub context: Context,
    pub port: u16,
    running: JoinHandle<Result<(), RunError>>,
    _data: tempfile::TempDir,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl FakeMesh {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts everything and waits until the gateway is ready.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let nats = Nats::start();
        let coordinator = Coordinator::new(node::manifests(), node::route);
        node::serve(&nats.url()).await;
        let data = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut config = Config {
            listen: format!("127.0.0.1:{port}").parse().unwrap(),
            coordinators: vec![coordinator.serve().await],
            data_dir: data.path().to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let config = RunConfig {
            nats: NatsSection {
                url: nats.url(),
                credentials: None,
            },
            gateway: config,
            ..RunConfig::default()
        };
        let context = Context::default();
        let running = tokio::spawn(gateway::run(config, context.clone()));
        let mesh = Self {
            _nats: nats,
            context,
            port,
            running,
            _data: data,
        };
        mesh.until("it is ready", async || {
            // It listens only after a moment.
            let answer = http::try_get(mesh.port, "/ready").await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        mesh
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A request as 2026-07-28 has it.
    pub async fn modern(&self, method: &str, params: Value) -> Answer {
        http::post(
            self.port,
            &modern_headers(method, &params),
            &modern_body(1, method, params),
        )
        .await
    }

    /// A tool's answer, to a request as 2026-07-28 has it.
    pub async fn tool(&self, name: &str, arguments: Value) -> Value {
        let params = json!({ "name": name, "arguments": arguments });
        self.modern("tools/call", params).await.json()
    }

    pub async fn running_sleeps(&self) -> String {
        let answer = self.tool("probe_running", json!({})).await;
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Asks the gateway to stop and waits until it has.
    pub async fn stop(self) -> Result<(), RunError> {
        self.context.shutdown.trigger();
        timeout(PATIENCE, self.running)
            .await
            .expect("it stops")
            .unwrap()
    }
}

pub fn modern_headers(method: &str, params: &Value) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", method.to_owned()),
    ];
    let name = params["name"].as_str().or(params["uri"].as_str());
    headers.extend(name.map(|name| ("mcp-name", name.to_owned())));
    headers
}

pub fn modern_body(id: u64, method: &str, mut params: Value) -> String {
    let meta = &mut params["_meta"];
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}
