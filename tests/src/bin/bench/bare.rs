//! The bare parts: responders that do nothing but answer, each a process of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

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

use crate::clients;
use crate::control::fanout;

/// The subject that the bare NATS responder listens on.
pub const ECHO: [&str; 1] = ["bench.echo"];

/// The subjects that compositions listen on.
pub const COMPOSED: [&str; 8] = [
    "bench.composed.0",
    "bench.composed.1",
    "bench.composed.2",
    "bench.composed.3",
    "bench.composed.4",
    "bench.composed.5",
    "bench.composed.6",
    "bench.composed.7",
];

/// Runs one responder for ever.
pub async fn serve(words: &[&str]) -> anyhow::Result<()> {
    match words {
        ["nats", url] => nats(url).await,
        ["grpc", address] => grpc(address).await,
        ["forward", url, subject, socket] => forward(url, subject, socket).await,
        ["share", url, subject, sockets @ ..] => share(url, subject, sockets).await,
        ["fanout", address] => fanout::serve(address).await,
        ["http", address] => http(address.parse()?).await,
        ["rmcp", address] => rmcp(address.parse()?).await,
        other => anyhow::bail!("no responder {other:?}"),
    }
}

/// A connection with the settings of the mesh's own.
pub async fn connect_nats(url: &str) -> anyhow::Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::new().skip_subject_validation(true);
    Ok(options.connect(url).await?)
}

async fn nats(url: &str) -> anyhow::Result<()> {
    let client = connect_nats(url).await?;
    let mut requests = client.subscribe(ECHO[0]).await?;
    while let Some(request) = requests.next().await {
        let reply = request.reply.context("a reply subject")?;
        client.publish(reply, request.payload).await?;
    }
    Ok(())
}

/// The middle of the composition: each message goes out on one gRPC stream, its answer back to the
/// subject that the message named. The subscription itself is the stream's source, a second task
/// takes the answers, and nothing else is done: no limits, deadlines, credits or task for each call.
async fn forward(url: &str, subject: &str, socket: &str) -> anyhow::Result<()> {
    let client = connect_nats(url).await?;
    let requests = client.subscribe(subject.to_owned()).await?;
    let waiting = Waiting::default();
    let sent = waiting.clone();
    let frames = requests.filter_map(move |request| {
        let frame = request.reply.map(|reply| {
            let mut waiting = sent.lock().unwrap_or_else(PoisonError::into_inner);
            (waiting.insert(reply) as u64, request.payload)
        });
        std::future::ready(frame)
    });
    let answers = clients::open_stream(socket, frames).await?;
    pass_back(answers, waiting, client).await
}

/// Those who wait for the answer to a message, by its id.
type Waiting = Arc<Mutex<slab::Slab<async_nats::Subject>>>;

/// Takes the answers of a stream, each to whom it belongs.
async fn pass_back(
    mut answers: Streaming<(u64, Bytes)>,
    waiting: Waiting,
    client: async_nats::Client,
) -> anyhow::Result<()> {
    while let Some((id, payload)) = answers.message().await? {
        let reply = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(usize::try_from(id)?);
        client.publish(reply, payload).await?;
    }
    Ok(())
}

/// As [`forward`], but the messages are shared out over several streams in turns.
async fn share(url: &str, subject: &str, sockets: &[&str]) -> anyhow::Result<()> {
    let client = connect_nats(url).await?;
    let mut requests = client.subscribe(subject.to_owned()).await?;
    let mut streams = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for socket in sockets {
        let waiting = Waiting::default();
        let (frames, taken) = tokio::sync::mpsc::unbounded_channel();
        let taken = tokio_stream::wrappers::UnboundedReceiverStream::new(taken);
        let answers = clients::open_stream(socket, taken).await?;
        streams.push((waiting.clone(), frames));
        tasks.spawn(pass_back(answers, waiting, client.clone()));
    }
    let mut turns = streams.iter().cycle();
    while let Some(request) = requests.next().await {
        let (waiting, frames) = turns.next().context("a stream")?;
        let reply = request.reply.context("a reply subject")?;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        frames.send((waiting.insert(reply) as u64, request.payload))?;
    }
    Ok(())
}

/// Unary calls on `/bench.Echo/Unary`, a stream of frames on `/bench.Echo/Stream`, numbers up to one on
/// `/bench.Echo/Count`, how many messages came on `/bench.Echo/Take`; `address` is one of TCP or the path of a Unix socket.
async fn grpc(address: &str) -> anyhow::Result<()> {
    let unary = tower::service_fn(|request: http::Request<axum::body::Body>| async {
        let echo = tower::service_fn(|request: Request<Bytes>| async {
            Ok::<_, Status>(Response::new(request.into_inner()))
        });
        let answer = tonic::server::Grpc::new(RawCodec)
            .max_decoding_message_size(usize::MAX)
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
    let count = tower::service_fn(|request: http::Request<axum::body::Body>| async {
        let count = tower::service_fn(|request: Request<Bytes>| async move {
            let most: u32 = std::str::from_utf8(request.get_ref())
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Status::invalid_argument("a number"))?;
            let numbers = (0..most).map(|number| Ok::<_, Status>(Bytes::from(number.to_string())));
            Ok::<_, Status>(Response::new(futures::stream::iter(numbers)))
        });
        let answer = tonic::server::Grpc::new(RawCodec)
            .server_streaming(count, request)
            .await;
        Ok::<_, Infallible>(answer)
    });
    let take = tower::service_fn(|request: http::Request<axum::body::Body>| async {
        let take = tower::service_fn(|request: Request<Streaming<Bytes>>| async move {
            let mut messages = request.into_inner();
            let mut taken = 0_u32;
            while messages.message().await?.is_some() {
                taken += 1;
            }
            Ok::<_, Status>(Response::new(Bytes::from(taken.to_string())))
        });
        let answer = tonic::server::Grpc::new(RawCodec)
            .client_streaming(take, request)
            .await;
        Ok::<_, Infallible>(answer)
    });
    let routes = axum::Router::new()
        .route_service("/bench.Echo/Count", count)
        .route_service("/bench.Echo/Take", take)
        .route_service("/bench.Echo/Unary", unary)
        .route_service("/bench.Echo/Stream", stream);
    let server = mesh_runtime::grpc::server().add_routes(tonic::service::Routes::from(routes));
    if address.starts_with('/') {
        let listener = tokio::net::UnixListener::bind(address)?;
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        server.serve_with_incoming(incoming).await?;
    } else {
        server.serve(address.parse()?).await?;
    }
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
