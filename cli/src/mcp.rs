//! The client's side of MCP over Streamable HTTP (2026-07-28, without a session): one POST for each
//! request, answered by JSON or by a stream of events.

mod events;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::args::GatewayFlags;
use crate::exit::{self, Failure};
use crate::http::{HttpClient, read};
use events::Events;

/// The version that is spoken.
const VERSION: &str = "2026-07-28";

/// Largest event, in bytes.
const LARGEST_EVENT: usize = 64 << 20;

/// JSON-RPC code of arguments that are not right.
pub const INVALID_PARAMS: i64 = -32602;

/// A gateway.
#[derive(Debug, Clone)]
pub struct Mcp {
    url: String,
    uri: Uri,
    http: HttpClient,
}

/// Why a request has no result.
#[derive(Debug)]
pub enum McpError {
    /// The gateway answered with an error of JSON-RPC.
    Rpc {
        /// Its code.
        code: i64,
        /// Its text.
        message: String,
    },
    /// There is no answer.
    Other(Failure),
}

impl From<McpError> for Failure {
    fn from(error: McpError) -> Self {
        match error {
            McpError::Rpc { code, message } => {
                // The codes of mesh-core's errors that say "not there now".
                let unavailable = matches!(code, -32010 | -32011);
                let exit = match code {
                    INVALID_PARAMS => exit::DATA,
                    _ if unavailable => exit::UNAVAILABLE,
                    _ => exit::FAILED,
                };
                Self::new(exit, message)
            }
            McpError::Other(failure) => failure,
        }
    }
}

impl Mcp {
    /// Checks the address.
    ///
    /// # Errors
    /// [`exit::USAGE`] for a wrong one.
    pub fn new(flags: &GatewayFlags) -> Result<Self, Failure> {
        let url = flags.gateway.clone();
        let uri: Option<Uri> = url.parse().ok();
        let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        let Some(uri) = uri else {
            let message = format!(
                "--gateway: {url:?} is not the address of a gateway; write for example \
                 http://127.0.0.1:8087/mcp (flag --gateway or env PLUGMESH_GATEWAY)"
            );
            return Err(Failure::new(exit::USAGE, message));
        };
        let http = HttpClient::new();
        Ok(Self { url, uri, http })
    }

    /// Sends a request and waits for its result; what the gateway says before it goes to `hear`
    /// (method and parameters).
    ///
    /// # Errors
    /// [`McpError`].
    pub async fn request(
        &self,
        method: &str,
        mut params: Map<String, Value>,
        mut hear: impl FnMut(&str, &Value),
    ) -> Result<Value, McpError> {
        params.insert(
            "_meta".to_owned(),
            json!({
                "io.modelcontextprotocol/protocolVersion": VERSION,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {
                    "name": "plugmesh",
                    "version": env!("CARGO_PKG_VERSION"),
                },
                "io.modelcontextprotocol/logLevel": "info",
                "progressToken": 1,
            }),
        );
        let name = params
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| McpError::Other(Failure::data(format!("the name: {error}"))))?;
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|why| self.unreachable(&why))?;
        let streams = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        if streams {
            return self.follow(answer, &mut hear).await;
        }
        let status = answer.status();
        let text = read(answer).await.map_err(|why| self.unreachable(&why))?;
        match serde_json::from_str::<Value>(&text) {
            Ok(message) => self.result(&message, status),
            Err(_) => Err(self.no_mcp(status, &text)),
        }
    }

    /// Reads events up to the result.
    async fn follow(
        &self,
        answer: Response<Incoming>,
        hear: &mut impl FnMut(&str, &Value),
    ) -> Result<Value, McpError> {
        let status = answer.status();
        let mut body = answer.into_body();
        let mut events = Events::new(LARGEST_EVENT);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error.to_string()))?;
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            let found = events.push(bytes);
            let found = found.map_err(|why| McpError::Other(Failure::failed(why)))?;
            for text in found {
                let Ok(message) = serde_json::from_str::<Value>(&text) else {
                    continue;
                };
                match message.get("method").and_then(Value::as_str) {
                    Some(method) => hear(method, message.get("params").unwrap_or(&Value::Null)),
                    None => return self.result(&message, status),
                }
            }
        }
        Err(self.unreachable("the answer broke off"))
    }

    fn result(&self, message: &Value, status: StatusCode) -> Result<Value, McpError> {
        if let Some(result) = message.get("result") {
            return Ok(result.clone());
        }
        match message.get("error") {
            Some(error) => Err(McpError::Rpc {
                code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
                message: error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or("an error without a text")
                    .to_owned(),
            }),
            None => Err(self.no_mcp(status, &message.to_string())),
        }
    }

    fn no_mcp(&self, status: StatusCode, text: &str) -> McpError {
        let text: String = text.chars().take(200).collect();
        McpError::Other(Failure::unavailable(format!(
            "{} does not speak MCP (HTTP {status}: {}); give the gateway's address with its path, \
             such as http://127.0.0.1:8087/mcp",
            self.url,
            text.trim()
        )))
    }

    fn unreachable(&self, why: &str) -> McpError {
        McpError::Other(Failure::unavailable(format!(
            "the gateway at {} can't be reached: {why}; start a mesh with `plugmesh dev`, or name \
             another gateway with --gateway or PLUGMESH_GATEWAY",
            self.url
        )))
    }

    /// All tools, page by page.
    ///
    /// # Errors
    /// [`McpError`].
    pub async fn tools(&self) -> Result<Vec<Value>, McpError> {
        let mut tools = Vec::new();
        let mut cursor: Option<Value> = None;
        loop {
            let mut params = Map::new();
            if let Some(cursor) = &cursor {
                params.insert("cursor".to_owned(), cursor.clone());
            }
            let page = self.request("tools/list", params, |_, _| {}).await?;
            let found = page.get("tools").and_then(Value::as_array);
            tools.extend(found.into_iter().flatten().cloned());
            let next = page.get("nextCursor").filter(|next| next.is_string());
            match next {
                // A server that gives the same page again would never end.
                Some(next) if Some(next) != cursor.as_ref() => cursor = Some(next.clone()),
                _ => return Ok(tools),
            }
        }
    }
}
