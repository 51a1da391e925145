//! The bare parts: responders that do nothing but answer, each a process of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use harness::raw_codec::RawCodec;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

/// The subject that the bare NATS responder listens on.
pub const SUBJECT: &str = "bench.echo";

/// Runs one responder for ever.
pub async fn serve(kind: &str, address: &str) -> anyhow::Result<()> {
    match kind {
        "nats" => nats(address).await,
        "grpc" => grpc(address.parse()?).await,
        "http" => http(address.parse()?).await,
        "rmcp" => rmcp(address.parse()?).await,
        other => anyhow::bail!("no responder {other:?}: nats, grpc, http and rmcp are there"),
    }
}

async fn nats(url: &str) -> anyhow::Result<()> {
    let client = async_nats::connect(url).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    while let Some(request) = requests.next().await {
        let reply = request.reply.context("a reply subject")?;
        client.publish(reply, request.payload).await?;
    }
    Ok(())
}

/// Unary calls on `/bench.Echo/Unary`, a stream of frames on `/bench.Echo/Stream`.
async fn grpc(address: SocketAddr) -> anyhow::Result<()> {
    let unary = tower::service_fn(|request: http::Request<axum::body::Body>| async {
        let echo = tower::service_fn(|request: Request<Bytes>| async {
            Ok::<_, Status>(Response::new(request.into_inner()))
        });
        let answer = tonic::server::Grpc::new(RawCodec)
            .unary(echo, request)
            .await;
        Ok::<_, Infallible>(answer)
    });
    let stream = tower::service_fn(|request: http::Request<axum::body::Body>| async {
        let echo = tower::service_fn(|request: Request<Streaming<Bytes>>| async {
            Ok::<_, Status>(Response::new(request.into_inner()))
        });
        let answer = tonic::server::Grpc::new(RawCodec)
            .streaming(echo, request)
            .await;
        Ok::<_, Infallible>(answer)
    });
    let routes = axum::Router::new()
        .route_service("/bench.Echo/Unary", unary)
        .route_service("/bench.Echo/Stream", stream);
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_frame_size(256 * 1024)
        .add_routes(tonic::service::Routes::from(routes))
        .serve(address)
        .await?;
    Ok(())
}

async fn http(address: SocketAddr) -> anyhow::Result<()> {
    let echo = axum::Router::new().route("/", axum::routing::post(|body: Bytes| async { body }));
    serve_http(address, echo).await
}

async fn serve_http(address: SocketAddr, routes: axum::Router) -> anyhow::Result<()> {
    use axum::serve::ListenerExt as _;
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes).await?;
    Ok(())
}

/// The same tool as the mesh's: `echo{text}`.
struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let text = arguments.get("text").and_then(serde_json::Value::as_str);
        let text = text.ok_or_else(|| ErrorData::invalid_params("text is missing", None))?;
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn rmcp(address: SocketAddr) -> anyhow::Result<()> {
    let service = StreamableHttpService::new(
        || Ok(Echo),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    serve_http(address, axum::Router::new().nest_service("/mcp", service)).await
}
