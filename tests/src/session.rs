//! A session of MCP, as clients of 2025-11-25 have it.

use serde_json::{Value, json};

use crate::http_client::{self, Answer};

const VERSION: &str = "2025-11-25";

/// A session that has begun. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    url: String,
    id: String,
}

impl Session {
    pub async fn begin(url: &str) -> Self {
        let mut session = Self {
            url: url.to_owned(),
            id: String::new(),
        };
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": VERSION, "capabilities": {},
            "clientInfo": {"name": "plugmesh-tests", "version": "0"}}});
        let begun = session.post(initialize).await.expect("a session");
        let id = begun.headers.get("mcp-session-id").expect("its id");
        session.id = id.to_str().expect("an id of text").to_owned();
        session.notify("notifications/initialized", json!({})).await;
        session
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        if !self.id.is_empty() {
            headers.push(("mcp-session-id", &self.id));
            headers.push(("mcp-protocol-version", VERSION));
        }
        headers
    }

    /// Sends a message and reads the answer to its end.
    pub async fn post(&self, message: Value) -> anyhow::Result<Answer> {
        http_client::request("POST", &self.url, &self.headers(), message.to_string()).await
    }

    /// Sends a notification, which must be taken.
    pub async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let answer = self.post(message).await.expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    pub async fn call_tool(&self, id: u64, tool: &str, arguments: Value) -> anyhow::Result<Answer> {
        let params = json!({"name": tool, "arguments": arguments});
        let method = "tools/call";
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(call).await
    }

    /// Reads the stream that is the session's own until it ends.
    pub async fn listen(&self) -> anyhow::Result<Answer> {
        http_client::request("GET", &self.url, &self.headers(), "").await
    }
}
