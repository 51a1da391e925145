//! The sockets that plugins attach to: a Unix socket and TCP, with health and reflection.

mod socket;
mod unix;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_proto::DESCRIPTOR;
use mesh_proto::attach::{AttachFrames, AttachHandler, AttachServer, PeerInfo, attach_server};
use mesh_runtime::grpc::{self, bind_tcp};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::config::{Config, MAX_SOCKET_PATH};
use crate::data::{OutStream, Streams, open};
use crate::error::AgentError;

use unix::{UnixSocket, bind as bind_unix};

/// The service's name, as health checks know it.
const SERVICE: &str = "plugmesh.plugin.v1.PluginHost";

/// Takes attaching plugins.
#[derive(Debug)]
struct Handler {
    streams: Streams,
}

impl AttachHandler for Handler {
    type Frames = OutStream;

    async fn attach(&self, peer: PeerInfo, frames: AttachFrames) -> Result<OutStream, Status> {
        open(&self.streams, &peer, frames)
    }
}

/// Everything that plugins attach to.
#[derive(Debug)]
pub(crate) struct Sockets {
    unix: UnixSocket,
    tcp: Option<(TcpListener, SocketAddr)>,
}

impl Sockets {
    /// Listens as the configuration says. Call it within the runtime that shall serve.
    ///
    /// # Errors
    /// One line that names the setting and the remedy.
    pub(crate) fn bind(config: &Config) -> Result<Self, AgentError> {
        let field = match config.attach_unix {
            Some(_) => "agent.attach_unix",
            None => "agent.data_dir",
        };
        let unix = bind_unix(&config.socket_path(), field)?;
        let tcp = match config.attach_tcp {
            None => None,
            Some(address) => {
                let listener = bind_tcp(address, "agent.attach_tcp")?;
                let address = listener.local_addr().unwrap_or(address);
                Some((listener, address))
            }
        };
        Ok(Self { unix, tcp })
    }

    /// Where started plugins attach: the Unix socket, or TCP when its whole path is too long.
    pub(crate) fn for_plugins(&self) -> String {
        let path = std::path::absolute(self.unix.path());
        let path = path.unwrap_or_else(|_| self.unix.path().to_owned());
        match &self.tcp {
            Some((_, address)) if path.as_os_str().len() > MAX_SOCKET_PATH => {
                format!("http://{}", reachable(*address))
            }
            _ => format!("unix://{}", path.display()),
        }
    }

    /// Serves until `stop` is cancelled and all streams have ended, or one of the servers fails. From
    /// when `leaving` is cancelled, health checks say that nobody should come any more.
    ///
    /// # Errors
    /// When a server fails.
    pub(crate) async fn serve(
        self,
        streams: Streams,
        leaving: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), AgentError> {
        let (health, routes) = grpc::health_and_reflection(DESCRIPTOR, &[SERVICE]).await?;
        let routes = routes.add_service(attach_server(Handler { streams }));
        let (unix, path) = self.unix.into_parts();
        let place = path.path().display().to_string();
        tracing::info!(socket = place, tcp = ?self.tcp.as_ref().map(|tcp| tcp.1), "plugins may attach");
        let unix = grpc::server()
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(
                grpc::in_time(UnixListenerStream::new(unix).map(socket::accepted)),
                stop.clone().cancelled_owned(),
            );
        let unix = async {
            unix.await
                .map_err(|source| AgentError::Server { place, source })
        };
        let tcp = async {
            match self.tcp {
                None => Ok(()),
                Some((listener, address)) => serve_tcp(listener, address, routes, stop).await,
            }
        };
        let not_serving = async {
            leaving.cancelled().await;
            health.set_not_serving::<AttachServer<Handler>>().await;
            // The servers end by themselves.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = async { tokio::try_join!(unix, tcp) } => { ended?; }
            () = not_serving => {}
        }
        drop(path);
        Ok(())
    }
}

async fn serve_tcp(
    listener: TcpListener,
    address: SocketAddr,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let incoming = grpc::in_time(TcpIncoming::from(listener).with_nodelay(Some(true)));
    grpc::server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .map_err(|source| AgentError::Server {
            place: address.to_string(),
            source,
        })
}

/// An address that a process of this machine can connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_told_an_address_that_they_can_connect_to() {
        let any = SocketAddr::from(([0, 0, 0, 0], 7410));
        assert_eq!(reachable(any).to_string(), "127.0.0.1:7410");
        let one = SocketAddr::from(([10, 0, 0, 1], 7410));
        assert_eq!(reachable(one), one);
    }
}
