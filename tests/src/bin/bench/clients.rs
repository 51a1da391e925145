//! Callers of the bare parts and of the mesh, each as a closure that makes one call.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use harness::raw_codec::{IdCodec, RawCodec};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::bare;

/// Makes one call.
pub type Call = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

pub fn call<Fut>(make: impl Fn() -> Fut + 'static) -> Call
where
    Fut: Future<Output = Result<(), String>> + 'static,
{
    Rc::new(move || Box::pin(make()))
}

/// Bytes of a chunk, and how many of a call are on their way at a time: as the mesh has them.
const CHUNK: usize = 128 << 10;
const WINDOW: usize = 64;

/// Request and reply by the client library's own means, by several subjects in turns. A payload over [`CHUNK`] goes as many requests,
/// each of which is answered as soon as it arrives.
pub async fn nats(
    url: &str,
    subjects: &'static [&'static str],
    payload: Bytes,
) -> anyhow::Result<Call> {
    let client = bare::connect_nats(url).await?;
    let turn = Cell::new(0);
    Ok(call(move || {
        let (client, payload) = (client.clone(), payload.clone());
        turn.set((turn.get() + 1) % subjects.len());
        let subject = subjects[turn.get()];
        async move {
            let sent = payload.len();
            let request = |chunk: Bytes| async {
                let answer = client.request(subject, chunk).await;
                Ok(answer.map_err(|error| error.to_string())?.payload.len())
            };
            if sent <= CHUNK {
                return same_length(request(payload).await?, sent);
            }
            let parts = (0..sent)
                .step_by(CHUNK)
                .map(|begin| payload.slice(begin..sent.min(begin + CHUNK)));
            let got = futures::stream::iter(parts)
                .map(request)
                .buffered(WINDOW)
                .try_fold(0, |sum, length| {
                    std::future::ready(Ok::<_, String>(sum + length))
                })
                .await?;
            same_length(got, sent)
        }
    }))
}

pub fn same_length(got: usize, sent: usize) -> Result<(), String> {
    if got == sent {
        return Ok(());
    }
    Err(format!("{got} bytes came back of {sent}"))
}

/// Connects to an URL or to the path of a Unix socket, with the settings of a plugin's stream.
pub async fn channel(address: &str) -> anyhow::Result<Channel> {
    let configure = |endpoint: Endpoint| {
        endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(256 << 10)
    };
    if !address.starts_with('/') {
        let endpoint = configure(Endpoint::from_shared(address.to_owned())?);
        return Ok(endpoint.connect().await?);
    }
    let path = address.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = configure(Endpoint::from_static("http://localhost"));
    Ok(endpoint.connect_with_connector(connect).await?)
}

/// Opens the stream of frames with an id.
pub async fn open_stream(
    address: &str,
    frames: impl Stream<Item = (u64, Bytes)> + Send + 'static,
) -> anyhow::Result<Streaming<(u64, Bytes)>> {
    let mut client = tonic::client::Grpc::new(channel(address).await?);
    client.ready().await?;
    let path = PathAndQuery::from_static("/bench.Echo/Stream");
    let request = tonic::Request::new(frames);
    Ok(client.streaming(request, path, IdCodec).await?.into_inner())
}

/// Unary gRPC.
pub async fn grpc_unary(address: &str, payload: Bytes) -> anyhow::Result<Call> {
    let channel = channel(address).await?;
    Ok(call(move || {
        let (channel, payload) = (channel.clone(), payload.clone());
        async move {
            let mut client =
                tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
            client.ready().await.map_err(|error| error.to_string())?;
            let path = PathAndQuery::from_static("/bench.Echo/Unary");
            let request = tonic::Request::new(payload.clone());
            let answer = client.unary(request, path, RawCodec).await;
            let answer = answer.map_err(|error| error.to_string())?;
            same_length(answer.into_inner().len(), payload.len())
        }
    }))
}

/// Chunks of a server-streaming call.
pub async fn grpc_count(address: &str, count: u32) -> anyhow::Result<Streaming<Bytes>> {
    let mut client = tonic::client::Grpc::new(channel(address).await?);
    client.ready().await?;
    let path = PathAndQuery::from_static("/bench.Echo/Count");
    let request = tonic::Request::new(Bytes::from(count.to_string()));
    let answer = client.server_streaming(request, path, RawCodec).await?;
    Ok(answer.into_inner())
}

/// How many messages of a client-streaming call were taken.
pub async fn grpc_take(
    address: &str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> anyhow::Result<Bytes> {
    let mut client = tonic::client::Grpc::new(channel(address).await?);
    client.ready().await?;
    let path = PathAndQuery::from_static("/bench.Echo/Take");
    let request = tonic::Request::new(messages);
    let answer = client.client_streaming(request, path, RawCodec).await?;
    Ok(answer.into_inner())
}

/// Frames with an id on one gRPC stream, as the plugin protocol has them.
pub async fn grpc_stream(address: &str, payload: Bytes) -> anyhow::Result<Call> {
    let (frames, queue) = mpsc::channel(1_024);
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let mut answers = open_stream(address, stream).await?;
    let waiting: Rc<RefCell<slab::Slab<oneshot::Sender<usize>>>> = Rc::default();
    let arrived = waiting.clone();
    tokio::task::spawn_local(async move {
        while let Ok(Some((id, payload))) = answers.message().await {
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            let sender = arrived.borrow_mut().try_remove(id);
            if let Some(sender) = sender {
                let _ = sender.send(payload.len());
            }
        }
    });
    Ok(call(move || {
        let (frames, waiting, payload) = (frames.clone(), waiting.clone(), payload.clone());
        async move {
            let (sender, answer) = oneshot::channel();
            let id = waiting.borrow_mut().insert(sender) as u64;
            let sent = payload.len();
            let queued = frames.send((id, payload)).await;
            queued.map_err(|_| "the stream is gone".to_owned())?;
            let got = answer.await.map_err(|error| error.to_string())?;
            same_length(got, sent)
        }
    }))
}

fn http_client() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// HTTP/1.1 with connections kept alive.
pub fn http(url: &str, payload: Bytes) -> Call {
    let (client, url) = (http_client(), url.to_owned());
    call(move || {
        let (client, url, payload) = (client.clone(), url.clone(), payload.clone());
        async move {
            let request = http::Request::post(url).body(Full::new(payload.clone()));
            let request = request.map_err(|error| error.to_string())?;
            let answer = client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            same_length(body.to_bytes().len(), payload.len())
        }
    })
}

/// How an MCP call ended.
pub struct McpAnswer {
    pub status: http::StatusCode,
    pub retry_after: bool,
    pub body: Bytes,
}

/// Sends MCP `tools/call`, stateless, protocol of 2026-07-28.
pub fn mcp(
    url: &str,
    tool: &str,
    arguments: &serde_json::Value,
) -> impl Fn() -> futures::future::LocalBoxFuture<'static, Result<McpAnswer, String>> + Clone + 'static
{
    let params = json!({
        "name": tool,
        "arguments": arguments,
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "0"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let body = Bytes::from(body.to_string());
    let (client, url, tool) = (http_client(), url.to_owned(), tool.to_owned());
    move || {
        let (client, url, tool, body) = (client.clone(), url.clone(), tool.clone(), body.clone());
        Box::pin(async move {
            let request = http::Request::post(url)
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", tool)
                .body(Full::new(body))
                .map_err(|error| error.to_string())?;
            let answer = client.request(request).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let status = answer.status();
            let retry_after = answer.headers().contains_key("retry-after");
            let body = answer.into_body().collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(McpAnswer {
                status,
                retry_after,
                body,
            })
        })
    }
}

/// A tool that gives its text back, called over MCP.
pub fn mcp_echo(url: &str, tool: &str, text: &str) -> Call {
    let send = mcp(url, tool, &json!({"text": text}));
    let wanted = format!("\"text\":\"{text}\"");
    call(move || {
        let (answer, wanted) = (send(), wanted.clone());
        async move {
            let body = answer.await?.body;
            let text = String::from_utf8_lossy(&body);
            if text.contains(&wanted) {
                return Ok(());
            }
            Err(text.into_owned())
        }
    })
}
