//! Callers of the bare parts and of the mesh, each as a closure that makes one call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::Stream;
use harness::raw_codec::{IdCodec, RawCodec};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mesh_bus::{Bus, BusConfig};
use mesh_core::capability::Capability;
use mesh_core::id::{MeshName, NodeId, PluginName};
use mesh_core::table::TableUpdate;
use mesh_proto::control;
use router::{CallRequest, Router, RouterConfig, TableStore};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::bare;

/// Makes one call.
pub type Call = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

fn call<Fut>(make: impl Fn() -> Fut + 'static) -> Call
where
    Fut: Future<Output = Result<(), String>> + 'static,
{
    Rc::new(move || Box::pin(make()))
}

/// Request and reply by the client library's own means.
pub async fn nats(url: &str, subject: &'static str, payload: Bytes) -> anyhow::Result<Call> {
    let client = bare::connect_nats(url).await?;
    Ok(call(move || {
        let (client, payload) = (client.clone(), payload.clone());
        async move {
            let answer = client.request(subject, payload.clone()).await;
            let answer = answer.map_err(|error| error.to_string())?;
            same_length(answer.payload.len(), payload.len())
        }
    }))
}

fn same_length(got: usize, sent: usize) -> Result<(), String> {
    if got == sent {
        return Ok(());
    }
    Err(format!("{got} bytes came back of {sent}"))
}

/// Connects to an URL or to the path of a Unix socket, with the settings of a plugin's stream.
async fn channel(address: &str) -> anyhow::Result<Channel> {
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
pub async fn grpc_unary(url: &str, payload: Bytes) -> anyhow::Result<Call> {
    let channel = channel(url).await?;
    Ok(call(move || {
        let (channel, payload) = (channel.clone(), payload.clone());
        async move {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.map_err(|error| error.to_string())?;
            let path = PathAndQuery::from_static("/bench.Echo/Unary");
            let request = tonic::Request::new(payload.clone());
            let answer = client.unary(request, path, RawCodec).await;
            let answer = answer.map_err(|error| error.to_string())?;
            same_length(answer.into_inner().len(), payload.len())
        }
    }))
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

/// MCP `tools/call` of a tool that gives its text back, stateless, protocol of 2026-07-28.
pub fn mcp(url: &str, tool: &str, text: &str) -> Call {
    let params = json!({
        "name": tool,
        "arguments": {"text": text},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "0"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let body = Bytes::from(body.to_string());
    let (client, url, tool) = (http_client(), url.to_owned(), tool.to_owned());
    let wanted = format!("\"text\":\"{text}\"");
    call(move || {
        let (client, url, tool) = (client.clone(), url.clone(), tool.clone());
        let (body, wanted) = (body.clone(), wanted.clone());
        async move {
            let request = http::Request::post(url)
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", tool)
                .body(Full::new(body))
                .map_err(|error| error.to_string())?;
            let answer = client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            let body = body.to_bytes();
            let text = String::from_utf8_lossy(&body);
            if text.contains(&wanted) {
                return Ok(());
            }
            Err(text.into_owned())
        }
    })
}

/// A capability call through a router of this process's own, as a gateway makes it.
pub async fn mesh(nats_url: &str, coordinator: &str, payload: Bytes) -> anyhow::Result<Call> {
    let config = BusConfig {
        urls: nats_url.to_owned(),
        credentials: None,
        client_name: "bench".to_owned(),
        mesh: MeshName::default(),
    };
    let (bus, bus_driver) = Bus::connect(config).await?;
    // Tasks of the runtime, as in a gateway: callers of the local set are not polled for them.
    tokio::spawn(bus_driver.run(std::future::pending()));
    let (store, table, _) = TableStore::open(None)?;
    store.apply(&fetch_table(coordinator).await?)?;
    let config = RouterConfig::new(NodeId::new("bench")?);
    let (router, driver) = Router::new(config, bus.clone(), table, None);
    tokio::spawn(driver.run(std::future::pending()));
    let mut connected = bus.connected();
    connected.wait_for(|connected| *connected).await?;
    let capability = Capability::from_str("service:probe.echo")?;
    let plugin = PluginName::new("probe")?;
    Ok(call(move || {
        let request = CallRequest::new(capability.clone(), payload.clone())
            .to_plugin(plugin.clone())
            .with_timeout(Duration::from_secs(10));
        let (router, sent) = (router.clone(), payload.len());
        // The store must live as long as its table is used.
        let _keep = &store;
        async move {
            let answer = router.call(request).finish().await;
            let answer = answer.map_err(|error| error.to_string())?;
            same_length(answer.payload.len(), sent)
        }
    }))
}

/// One snapshot of the table.
async fn fetch_table(coordinator: &str) -> anyhow::Result<TableUpdate> {
    let channel = channel(coordinator).await?;
    let mut feed = control::table_feed_client::TableFeedClient::new(channel);
    let hello = control::TableFeedHello {
        mesh: MeshName::default().to_string(),
        name: "bench".to_owned(),
        table: None,
    };
    let request = control::TableFeedRequest {
        body: Some(control::table_feed_request::Body::Hello(hello)),
    };
    let requests =
        futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut updates = feed.follow(requests).await?.into_inner();
    let update = updates.message().await?.context("a table")?;
    let update = update.table.context("a table")?;
    Ok(update.try_into()?)
}
