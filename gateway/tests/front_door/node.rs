//! A node with plugins, in as far as a caller on the bus knows one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::{Bus, BusConfig, ReplyTo};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{Generation, InstanceId, MeshName, NodeId};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, SpecId};
use mesh_proto::common;
use mesh_proto::control::{NodeReply, NodeRequest, node_reply, node_request};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

const GENERATION: Generation = Generation(7);

/// Largest part of an answer.
const PART: usize = 128 * 1024;

pub fn manifests() -> Vec<Manifest> {
    let tool = |name: &str, properties: Value| {
        json!({ "capability": format!("tool:{name}"), "entry": {
            "name": name, "description": format!("The tool {name}"),
            "inputSchema": { "type": "object", "properties": properties } } })
    };
    let resource = |uri: &str| json!({ "capability": format!("resource:{uri}"), "entry": { "uri": uri, "name": uri } });
    let numbers = json!({ "a": { "type": "number" }, "b": { "type": "number" } });
    let all = [
        json!({ "name": "calculator", "version": "1.0.0", "capabilities": [tool("add", numbers)] }),
        json!({ "name": "time", "version": "1.0.0", "capabilities": [
            tool("current_time", json!({})), resource("time://current"), resource("time://zones") ] }),
        json!({ "name": "probe", "version": "1.0.0", "capabilities": [
            tool("echo", json!({ "text": { "type": "string" } })),
            tool("sleep", json!({ "ms": { "type": "integer" } })),
            tool("fail", json!({})), tool("log", json!({})), tool("running", json!({})),
            tool("crash", json!({})), tool("nonsense", json!({})), tool("big", json!({})),
            tool("number", json!({})),
            resource("probe://data"),
            { "capability": "resource_template:probe://item/{id}",
              "entry": { "uriTemplate": "probe://item/{id}", "name": "item" } },
            { "capability": "prompt:greet",
              "entry": { "name": "greet", "arguments": [{ "name": "name", "required": true }] } },
        ] }),
    ];
    let read = |manifest: &Value| serde_json::from_str(&manifest.to_string()).unwrap();
    all.iter().map(read).collect()
}

pub fn route(index: usize, manifest: &Manifest) -> InstanceRoute {
    InstanceRoute {
        instance: InstanceId::new(index as u64 + 1, [1; 10]),
        spec: SpecId::of(manifest),
        node: NodeId::new("node-a").unwrap(),
        generation: GENERATION,
        state: InstanceState::Active,
        reason: String::new(),
        since: Timestamp(1),
        concurrency: 0,
    }
}

/// Takes calls until the test ends.
pub async fn serve(nats: &str) {
    let config = BusConfig {
        urls: nats.to_owned(),
        credentials: None,
        client_name: "node-a".to_owned(),
        mesh: MeshName::default(),
    };
    let (bus, driver) = Bus::connect(config).await.unwrap();
    tokio::spawn(driver.run(std::future::pending()));
    bus.connected()
        .wait_for(|connected| *connected)
        .await
        .unwrap();
    let node = NodeId::new("node-a").unwrap();
    let mut inbox = bus.serve_node(&node, GENERATION).await.unwrap();
    tokio::spawn(async move {
        let mut calls: HashMap<(u64, ReplyTo), Running> = HashMap::new();
        let sleeping = Arc::new(AtomicUsize::new(0));
        while let Some((NodeRequest { call_id, body }, to)) = inbox.recv().await {
            let key = (call_id, to.clone());
            let answer = Answer {
                bus: bus.clone(),
                to,
                id: call_id,
                sleeping: Arc::clone(&sleeping),
            };
            match body {
                Some(node_request::Body::Call(call)) => {
                    let mut call = Box::new(call.whole().unwrap());
                    let payload = std::mem::take(&mut call.payload).to_vec();
                    let more = call.more;
                    calls.insert(key.clone(), Running::Collecting(call, payload));
                    if !more {
                        begin(&mut calls, key, answer);
                    }
                }
                Some(node_request::Body::Chunk(chunk)) => {
                    if let Some(Running::Collecting(_, payload)) = calls.get_mut(&key) {
                        payload.extend_from_slice(&chunk.payload);
                    }
                    if chunk.last {
                        begin(&mut calls, key, answer);
                    }
                }
                Some(node_request::Body::Cancel(_)) => {
                    if let Some(Running::Working(task)) = calls.remove(&key) {
                        task.abort();
                    }
                }
                _ => {}
            }
        }
    });
}

enum Running {
    Collecting(Box<common::Call>, Vec<u8>),
    Working(AbortHandle),
}

fn begin(calls: &mut HashMap<(u64, ReplyTo), Running>, key: (u64, ReplyTo), answer: Answer) {
    if let Some(Running::Collecting(call, payload)) = calls.remove(&key) {
        let task = tokio::spawn(async move { answer.work(&call, &payload).await });
        calls.insert(key, Running::Working(task.abort_handle()));
    }
}

struct Answer {
    bus: Bus,
    to: ReplyTo,
    id: u64,
    sleeping: Arc<AtomicUsize>,
}

/// Counts a call for as long as it runs, however it ends.
struct Sleeping(Arc<AtomicUsize>);

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Answer {
    fn send(&self, body: node_reply::Body) {
        let reply = NodeReply {
            call_id: self.id,
            body: Some(body),
            ..NodeReply::default()
        };
        self.bus.reply(&self.to, reply).unwrap();
    }

    fn progress(&self, done: u64, total: u64) {
        self.send(node_reply::Body::Progress(common::Progress {
            progress: done as f64,
            total: total as f64,
            message: format!("{done} ms"),
        }));
    }

    fn log(&self, level: common::LogLevel, message: &str) {
        let log = common::Log {
            level: level.into(),
            message: message.to_owned(),
            ..common::Log::default()
        };
        self.send(node_reply::Body::Log(log.into()));
    }

    /// Answers in parts where one message would be too large.
    async fn result(&self, value: &Value) {
        let mut payload = Bytes::from(value.to_string());
        let mut sequence = 0;
        while payload.len() > PART {
            self.bus.reply_room().await;
            self.send(node_reply::Body::Chunk(common::Chunk {
                payload: payload.split_to(PART),
                sequence,
                fragment: true,
                last: false,
            }));
            sequence += 1;
        }
        self.send(node_reply::Body::Result(common::Result {
            payload,
            ..common::Result::default()
        }));
    }

    async fn work(self, call: &common::Call, payload: &[u8]) {
        let arguments: Value = serde_json::from_slice(payload).unwrap();
        let capability = call.capability.as_ref().unwrap();
        let text = |text: String| json!({ "content": [{ "type": "text", "text": text }] });
        let uri = &arguments["uri"];
        let read = |text: &str| json!({ "contents": [{ "uri": uri, "text": text }] });
        let value = match capability.name.as_str() {
            "add" => {
                let sum = arguments["a"].as_f64().unwrap() + arguments["b"].as_f64().unwrap();
                json!({ "content": [{ "type": "text", "text": sum.to_string() }],
                    "structuredContent": { "sum": sum } })
            }
            "echo" => text(arguments["text"].as_str().unwrap().to_owned()),
            "current_time" => text("noon".to_owned()),
            "running" => text(self.sleeping.load(Ordering::SeqCst).to_string()),
            "number" => json!({ "content": [], "structuredContent": 5 }),
            "fail" => {
                json!({ "content": [{ "type": "text", "text": "it failed" }], "isError": true })
            }
            "sleep" => {
                let ms = arguments["ms"].as_u64().unwrap();
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                let _sleeping = Sleeping(Arc::clone(&self.sleeping));
                let mut slept = 0;
                while slept < ms {
                    let nap = (ms - slept).min(100);
                    tokio::time::sleep(Duration::from_millis(nap)).await;
                    slept += nap;
                    self.progress(slept, ms);
                }
                text(format!("slept {slept} ms"))
            }
            // More than the system keeps for a client that takes nothing.
            "big" => text("x".repeat(7_000_000)),
            "log" => {
                let level = match arguments["level"].as_str().unwrap() {
                    "debug" => common::LogLevel::Debug,
                    "info" => common::LogLevel::Info,
                    "warning" => common::LogLevel::Warning,
                    _ => common::LogLevel::Error,
                };
                self.log(level, arguments["message"].as_str().unwrap());
                text("logged".to_owned())
            }
            "crash" => {
                let error = MeshError::new(
                    ErrorCode::PluginFailed,
                    "the plugin broke; tell its authors",
                );
                self.send(node_reply::Body::Error(error.into()));
                return;
            }
            "nonsense" => json!({ "nonsense": true }),
            "greet" => json!({ "messages": [{ "role": "user", "content": {
                "type": "text", "text": format!("Say hello to {}", arguments["name"].as_str().unwrap()) } }] }),
            "probe://data" => read("{\"answer\":42}"),
            "probe://item/{id}" => read(&format!("item {uri}")),
            "time://current" | "time://zones" => read("UTC"),
            other => panic!("nobody calls {other}"),
        };
        self.result(&value).await;
    }
}
