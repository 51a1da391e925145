//! The gRPC server of a test host: plugins attach over streams in memory, programs over a socket.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::wire::{HostFrame, PluginFrame};

/// Frames to a plugin that wait.
const OUTBOUND: usize = 1024;

/// A plugin that has opened its stream.
pub(crate) struct Arrival {
    pub inbound: Streaming<PluginFrame>,
    pub outbound: mpsc::Sender<HostFrame>,
}

/// Serves plugins of this process until the listener ends.
pub(crate) async fn serve_memory(
    listener: mpsc::Receiver<tokio::io::DuplexStream>,
    arrivals: mpsc::Sender<Arrival>,
) {
    serve(ReceiverStream::new(listener).map(Ok), arrivals).await;
}

/// Serves programs that attach to a socket.
#[cfg(unix)]
pub(crate) async fn serve_socket(
    listener: tokio::net::UnixListener,
    arrivals: mpsc::Sender<Arrival>,
) {
    let connections = tokio_stream::wrappers::UnixListenerStream::new(listener);
    serve(connections, arrivals).await;
}

async fn serve<I>(
    connections: impl Stream<Item = Result<I, std::io::Error>>,
    arrivals: mpsc::Sender<Arrival>,
) where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let served = tonic::transport::Server::builder()
        .max_frame_size(256 << 10)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .serve_with_incoming(AttachServer { arrivals }, connections);
    // When it fails, whoever waits for the plugins learns that they are gone.
    let _ = served.await;
}

#[derive(Clone)]
struct AttachServer {
    arrivals: mpsc::Sender<Arrival>,
}

impl NamedService for AttachServer {
    const NAME: &'static str = "plugmesh.plugin.v1.PluginHost";
}

impl Service<http::Request<Body>> for AttachServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let attach = self.clone();
        async move {
            if request.uri().path() != "/plugmesh.plugin.v1.PluginHost/Attach" {
                return Ok(Status::unimplemented("the only method is Attach").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<HostFrame, PluginFrame>::default());
            Ok(grpc.streaming(attach, request).await)
        }
        .boxed()
    }
}

impl StreamingService<PluginFrame> for AttachServer {
    type Response = HostFrame;
    type ResponseStream = BoxStream<'static, Result<HostFrame, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<PluginFrame>>) -> Self::Future {
        let arrivals = self.arrivals.clone();
        async move {
            let (outbound, frames) = mpsc::channel(OUTBOUND);
            let arrival = Arrival {
                inbound: request.into_inner(),
                outbound,
            };
            let sent = arrivals.send(arrival).await;
            sent.map_err(|_| Status::unavailable("the test host has ended"))?;
            Ok(Response::new(ReceiverStream::new(frames).map(Ok).boxed()))
        }
        .boxed()
    }
}
