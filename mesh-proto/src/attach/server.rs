//! The service `plugmesh.plugin.v1.PluginHost` over the tolerant codec, written by hand because the
//! generated one is bound to tonic's own.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{FrameCodec, Inbound};
use super::greeting::{Greeted, Greeting, StrangersBody};
use super::host::HostMessage;
use crate::plugin::{PluginFrame, plugin_host_server};

/// Largest message that is read at all, to answer it with an error; a larger one ends the stream,
/// since reading it would cost the host that much memory.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

const ATTACH_PATH: &str = "/plugmesh.plugin.v1.PluginHost/Attach";

/// What the plugin sends: each item is one message. An error is the connection's and is the last.
pub type AttachFrames = Streaming<Inbound<PluginFrame>>;

/// Who is at the other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerInfo {
    /// A process of any machine that reaches the port.
    Tcp(SocketAddr),
    /// A process of this machine.
    Unix {
        /// Its process id, where the system tells.
        pid: Option<u32>,
        /// The user that it runs as.
        uid: u32,
    },
    /// The transport does not say.
    Unknown,
}

impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { pid: Some(pid), .. } => write!(f, "process {pid}"),
            Self::Unix { pid: None, uid } => write!(f, "a process of user {uid}"),
            Self::Unknown => f.write_str("an unknown peer"),
        }
    }
}

impl PeerInfo {
    /// Reads what the transport left in a request's extensions.
    fn of(extensions: &http::Extensions) -> Self {
        if let Some(own) = extensions.get::<Self>() {
            return own.clone();
        }
        if let Some(unix) = extensions.get::<UdsConnectInfo>() {
            return unix.peer_cred.map_or(Self::Unknown, |peer| Self::Unix {
                pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()),
                uid: peer.uid(),
            });
        }
        let tcp = extensions.get::<TcpConnectInfo>();
        tcp.and_then(TcpConnectInfo::remote_addr)
            .map_or(Self::Unknown, Self::Tcp)
    }
}

/// Takes attaching plugins.
pub trait AttachHandler: Send + Sync + 'static {
    /// What is sent to a plugin. Dropped when the plugin's connection is gone.
    type Frames: Stream<Item = Result<HostMessage, Status>> + Send + 'static;

    /// Begins a session. It should return at once: the plugin sees nothing before.
    ///
    /// # Errors
    /// A status that refuses the plugin before any frame.
    fn attach(
        &self,
        peer: PeerInfo,
        frames: AttachFrames,
    ) -> impl Future<Output = Result<Self::Frames, Status>> + Send;
}

/// Makes the service of a handler.
pub fn attach_server<H: AttachHandler>(handler: H) -> AttachServer<H> {
    AttachServer {
        handler: Arc::new(handler),
    }
}

/// The service; add it to a `tonic::transport::Server` or serve it with hyper. A transport of its own
/// kind may put a [`PeerInfo`] into the request's extensions.
#[derive(Debug)]
pub struct AttachServer<H> {
    handler: Arc<H>,
}

impl<H> Clone for AttachServer<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
        }
    }
}

impl<H> NamedService for AttachServer<H> {
    const NAME: &'static str = plugin_host_server::SERVICE_NAME;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Attach<H>(Arc<H>, Greeted);

impl<H: AttachHandler> StreamingService<Inbound<PluginFrame>> for Attach<H> {
    type Response = HostMessage;
    type ResponseStream = Greeting<H::Frames>;
    type Future = BoxFuture<Result<Response<Greeting<H::Frames>>, Status>>;

    fn call(&mut self, request: Request<AttachFrames>) -> Self::Future {
        let (handler, greeted) = (Arc::clone(&self.0), self.1.clone());
        Box::pin(async move {
            let peer = PeerInfo::of(request.extensions());
            let frames = handler.attach(peer, request.into_inner()).await?;
            Ok(Response::new(Greeting::new(frames, greeted)))
        })
    }
}

impl<H, B> Service<http::Request<B>> for AttachServer<H>
where
    H: AttachHandler,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != ATTACH_PATH {
            let status = Status::unimplemented("PluginHost has one method: Attach");
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let greeted = Greeted::default();
        let method = Attach(Arc::clone(&self.handler), greeted.clone());
        let request = request.map(|body| StrangersBody::new(body, greeted));
        Box::pin(async move {
            let mut grpc = Grpc::new(FrameCodec::default())
                .apply_max_message_size_config(Some(MAX_MESSAGE_BYTES), None);
            Ok(grpc.streaming(method, request).await)
        })
    }
}
