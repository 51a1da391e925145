//! One try of a call: an MCP request over a connection to one gateway, and how it ended.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mesh_core::error::{ErrorCode, Processed};
use serde_json::Value;
use tokio::net::TcpStream;

/// How a try ended.
#[derive(Debug)]
pub enum Try {
    /// The answer that the plugin gave, as text.
    Answer(String),
    /// The mesh says that it was not processed and may be tried again, perhaps after a wait.
    Refused {
        code: Cow<'static, str>,
        wait: Option<Duration>,
    },
    /// An error that another try does not mend, or might make happen twice.
    Failed {
        code: Cow<'static, str>,
        processed: Processed,
    },
    /// There was no connection to send it on.
    NotSent,
    /// The connection broke before the whole answer was there.
    Lost,
}

/// A kept connection to one gateway.
pub struct Line {
    port: u16,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub fn new(port: u16) -> Self {
        Self { port, sender: None }
    }

    /// Forgets the connection: what was asked on it is not waited for.
    pub fn close(&mut self) {
        self.sender = None;
    }

    async fn open(&mut self) -> Option<&mut SendRequest<Full<Bytes>>> {
        // One that the gateway has closed while nothing was asked on it cost nothing.
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.sender = None;
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::task::spawn_local(connection);
            self.sender = Some(sender);
        }
        self.sender.as_mut()
    }

    /// Calls a tool in the stateless way.
    pub async fn call(&mut self, tool: &str, arguments: &str) -> Try {
        let Some(sender) = self.open().await else {
            return Try::NotSent;
        };
        let answer = match sender.send_request(request(tool, arguments)).await {
            Ok(answer) => answer,
            Err(error) => {
                self.close();
                return if error.is_canceled() {
                    Try::NotSent
                } else {
                    Try::Lost
                };
            }
        };
        let (head, body) = answer.into_parts();
        match body.collect().await {
            Ok(body) => judge(&head, &body.to_bytes()),
            Err(_) => {
                self.close();
                Try::Lost
            }
        }
    }
}

fn request(tool: &str, arguments: &str) -> http::Request<Full<Bytes>> {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\
         \"arguments\":{arguments},\"_meta\":{{\
         \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"chaos\",\"version\":\"0\"}},\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}}}}}}}"
    );
    http::Request::post("/mcp")
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .body(Full::new(Bytes::from(body)))
        .expect("a request")
}

fn judge(head: &http::response::Parts, body: &[u8]) -> Try {
    let text = String::from_utf8_lossy(body);
    let Some(answer) = message(&text) else {
        // An answer that was cut off on its way ends like this, too, when it is a stream of events.
        return if text.trim().is_empty() {
            Try::Lost
        } else {
            unknown(format!("http_{}: {text}", head.status.as_u16()))
        };
    };
    let result = &answer["result"];
    if let Some(text) = result["content"][0]["text"].as_str() {
        if result["isError"] == true {
            let code = format!("tool_error: {text}").into();
            let processed = Processed::Yes;
            return Try::Failed { code, processed };
        }
        return Try::Answer(text.to_owned());
    }
    let data = &answer["error"]["data"];
    let known = |code: &&ErrorCode| data["code"] == code.name();
    let Some(code) = ErrorCode::ALL.iter().find(known) else {
        // The gateway's own refusals have no code of the mesh.
        if matches!(head.status.as_u16(), 429 | 503) {
            let code = format!("http_{}", head.status.as_u16()).into();
            let wait = retry_after(head, data);
            return Try::Refused { code, wait };
        }
        return unknown(format!("http_{}: {answer}", head.status.as_u16()));
    };
    let name = code.name().into();
    // A client may rely on what the page of the code says, and on nothing else.
    if code.processed() == Processed::No && matches!(code.http_status(), 429 | 503) {
        let wait = retry_after(head, data);
        return Try::Refused { code: name, wait };
    }
    let processed = code.processed();
    Try::Failed {
        code: name,
        processed,
    }
}

fn unknown(code: String) -> Try {
    let processed = Processed::Unknown;
    let code = code.into();
    Try::Failed { code, processed }
}

fn retry_after(head: &http::response::Parts, data: &Value) -> Option<Duration> {
    let millis = data["retry_after_ms"].as_u64();
    let header = || {
        let value = head.headers.get("retry-after")?.to_str().ok()?;
        value.parse::<u64>().ok().map(|seconds| seconds * 1_000)
    };
    millis.or_else(header).map(Duration::from_millis)
}

/// The JSON-RPC answer of a body, or of the last event of a stream of them.
fn message(text: &str) -> Option<Value> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    parse(text).or_else(|| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let mut answers = lines.rev().filter_map(parse);
        answers.find(|one| one["result"].is_object() || one["error"].is_object())
    })
}
