//! What every gRPC port offers beside its own services: health and reflection.

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
pub use tonic_health::server::HealthReporter;

pub use crate::first_request::FirstRequest;
pub use crate::net::{BindError, bind_tcp};

/// Time from the opening of a connection to its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// HTTP/2 frames of this size carry large payloads at more than twice the rate of the default 16 KiB.
pub const MAX_FRAME_SIZE: u32 = 256 * 1024;

/// Window of one stream, in bytes.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// Window of one connection, in bytes.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The descriptor of the services can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the descriptor of the gRPC services can't be read: {0}")]
pub struct DescriptorError(#[from] tonic_reflection::server::Error);

/// Connections whose clients must begin a request in time.
pub fn in_time<T>(
    incoming: impl Stream<Item = io::Result<T>>,
) -> impl Stream<Item = io::Result<FirstRequest<T>>> {
    incoming.map(|opened| opened.map(|io| FirstRequest::new(io, FIRST_REQUEST)))
}

/// Routes that offer `grpc.health.v1` for the named services (all serving; change it through the
/// reporter) and `grpc.reflection.v1` and `v1alpha` of the descriptor. Add the port's own services
/// with [`Routes::add_service`].
///
/// # Errors
/// [`DescriptorError`] when `descriptor` is no encoded `FileDescriptorSet`.
pub async fn health_and_reflection(
    descriptor: &'static [u8],
    services: &[&'static str],
) -> Result<(HealthReporter, Routes), DescriptorError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in services {
        reporter
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptor)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((reporter, routes))
}

/// A gRPC server with the settings that fit the mesh: no delay, large frames, and a ping that finds
/// dead peers.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .max_frame_size(MAX_FRAME_SIZE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broken_descriptor_is_an_error_and_a_good_one_gives_routes() {
        assert!(health_and_reflection(b"\xff\xff", &[]).await.is_err());
        let good = health_and_reflection(tonic_health::pb::FILE_DESCRIPTOR_SET, &["a.B"]).await;
        assert!(good.is_ok());
    }
}
