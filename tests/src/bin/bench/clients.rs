//! Callers of the bare parts and of the mesh, each as a closure that makes one call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use harness::raw_codec::RawCodec;
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
use tonic::transport::Endpoint;

/// Makes one call.
pub type Call = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

fn call<Fut>(make: impl Fn() -> Fut + 'static) -> Call
where
    Fut: Future<Output = Result<(), String>> + 'static,
{
    Rc::new(move || Box::pin(make()))
}

/// Request and reply by the client library's own means.
pub async fn nats(url: &str, payload: Bytes) -> anyhow::Result<Call> {
    let client = async_nats::connect(url).await?;
    Ok(call(move || {
        let (client, payload) = (client.clone(), payload.clone());
        async move {
            let answer = client.request(crate::bare::SUBJECT, payload.clone()).await;
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

async fn channel(url: &str) -> anyhow::Result<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
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
pub async fn grpc_stream(url: &str, payload: Bytes) -> anyhow::Result<Call> {
    let mut client = tonic::client::Grpc::new(channel(url).await?);
    client.ready().await?;
    let (frames, queue) = mpsc::channel::<Bytes>(1_024);
    let path = PathAndQuery::from_static("/bench.Echo/Stream");
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let request = tonic::Request::new(stream);
    let mut answers = client
        .streaming(request, path, RawCodec)
        .await?
        .into_inner();
    let waiting: Rc<RefCell<slab::Slab<oneshot::Sender<usize>>>> = Rc::default();
    let arrived = waiting.clone();
    tokio::task::spawn_local(async move {
        while let Ok(Some(mut frame)) = answers.message().await {
            let id = frame.get_u64();
            let sender = arrived
                .borrow_mut()
                .try_remove(usize::try_from(id).unwrap_or(0));
            if let Some(sender) = sender {
                let _ = sender.send(frame.remaining());
            }
        }
    });
    Ok(call(move || {
        let (frames, waiting, payload) = (frames.clone(), waiting.clone(), payload.clone());
        async move {
            let (sender, answer) = oneshot::channel();
            let id = waiting.borrow_mut().insert(sender);
            let mut frame = BytesMut::with_capacity(8 + payload.len());
            frame.put_u64(id as u64);
            frame.put_slice(&payload);
            let sent = frames.send(frame.freeze()).await;
            sent.map_err(|_| "the stream is gone".to_owned())?;
            let got = answer.await.map_err(|error| error.to_string())?;
            same_length(got, payload.len())
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
    tokio::task::spawn_local(bus_driver.run(std::future::pending()));
    let (store, table, _) = TableStore::open(None)?;
    store.apply(&fetch_table(coordinator).await?)?;
    let config = RouterConfig::new(NodeId::new("bench")?);
    let (router, driver) = Router::new(config, bus.clone(), table, None);
    tokio::task::spawn_local(driver.run(std::future::pending()));
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
