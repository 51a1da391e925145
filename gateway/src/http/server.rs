//! One shard's connections: taken, served, and ended in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use mesh_runtime::Tasks;
use mesh_runtime::http_server::speaks_in_time;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::stall::StallGuard;

/// What one client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections of this shard; further ones wait in the system's queue.
    pub connections: usize,
    /// Time for the headers of a request, from the opening of the connection or the end of the last
    /// request.
    pub headers: Duration,
    /// Time that a client may take nothing of an answer.
    pub stall: Duration,
}

/// Serves connections until `stop`: then takes no new ones, and those that are open end with the
/// answer that is on its way. Returns without waiting for them: they are tasks of `tasks`.
pub async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    tasks: &Tasks,
    stop: CancellationToken,
    limits: Limits,
    open: Gauge,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (front, stop, open) = (Arc::clone(&front), stop.clone(), open.clone());
                tasks.spawn("gateway connection", async move {
                    open.inc();
                    serve_connection(stream, front, stop, limits).await;
                    open.dec();
                    drop(permit);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Errors of one connection cost nothing; those of the process (no more file descriptors) would make
/// the loop spin.
async fn pause_after(error: &io::Error) {
    let one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !one_connection {
        tracing::warn!(%error, "can't accept connections; check `ulimit -n`");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    front: Arc<Front>,
    stop: CancellationToken,
    limits: Limits,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was closed at once");
        return;
    }
    let spoke = tokio::select! {
        spoke = speaks_in_time(&stream, limits.headers) => spoke,
        () = stop.cancelled() => false,
    };
    if !spoke {
        return;
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(20));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let front = Arc::clone(&front);
        async move { Ok::<_, std::convert::Infallible>(front.answer(request).await) }
    });
    let io = TokioIo::new(StallGuard::new(stream, limits.stall));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
