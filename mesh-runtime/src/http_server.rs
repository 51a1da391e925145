//! An HTTP server that a slow or silent client can't hold: bounded headers, bounded connections,
//! a bounded end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{BoxError, Router};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::stall::StallGuard;
use crate::{Tasks, net};

/// Time that connections get to be made whose making had begun when the server was told to stop.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// What one client may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Time from the opening of a connection, or the end of its last request, to the end of the
    /// next one's headers.
    pub header_timeout: Duration,
    /// Time that a client may take nothing of an answer.
    pub stall: Duration,
    /// Open connections; further ones wait in the system's queue.
    pub connections: usize,
    /// Time that open requests get when [`serve_http`] stops.
    pub grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            connections: 16_384,
            grace: Duration::from_secs(5),
        }
    }
}

/// How a server is told to end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// No more connections are taken.
    pub stop: CancellationToken,
    /// Open connections end with the answer that is on its way.
    pub close: CancellationToken,
}

/// Serves HTTP/1.1 and HTTP/2 until `stop` is cancelled; then takes no new connections and gives
/// those that are open [`HttpLimits::grace`] to end.
pub async fn serve_http(
    listener: TcpListener,
    router: Router,
    tasks: &Tasks,
    stop: CancellationToken,
    limits: HttpLimits,
) {
    let connections = tasks.child();
    let ending = Ending {
        close: stop.clone(),
        stop,
    };
    let service = TowerToHyperService::new(router);
    serve(
        listener,
        service,
        &connections,
        ending,
        limits,
        Gauge::default(),
    )
    .await;
    connections.join(limits.grace).await;
}

/// Takes connections of HTTP/1.1 and HTTP/2 until it is told to stop. Returns without waiting for
/// them: they are tasks of `tasks`, and counted in `open`.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    tasks: &Tasks,
    ending: Ending,
    limits: HttpLimits,
    open: Gauge,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let begin = |stream, permit: Option<OwnedSemaphorePermit>| {
        let (service, ending, open) = (service.clone(), ending.clone(), open.clone());
        // Here and not in the task: who waits for all to end must not miss one that has not begun.
        open.inc();
        tasks.spawn("http connection", async move {
            serve_connection(stream, service, ending, limits).await;
            open.dec();
            drop(permit);
        });
    };
    accept(&listener, limits.connections, &ending.stop, &begin).await;
    // Those that still wait in the system's queue would break with the listener.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, _)) = listener.accept() {
        let stream = stream.set_nonblocking(true).map(|()| stream);
        if let Ok(stream) = stream.and_then(TcpStream::from_std) {
            begin(stream, None);
        }
    }
}

/// Takes connections until `stop`, and those whose making had begun by then.
async fn accept(
    listener: &TcpListener,
    connections: usize,
    stop: &CancellationToken,
    begin: impl Fn(TcpStream, Option<OwnedSemaphorePermit>),
) {
    let mut stopped = std::pin::pin!(async {
        stop.cancelled().await;
        match net::hold_off(listener) {
            Ok(()) => tokio::time::sleep(HANDSHAKES).await,
            Err(error) => tracing::debug!(%error, "clients can't be held off"),
        }
    });
    let permits = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stopped => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => begin(stream, permit.ok()),
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

async fn serve_connection<S, B>(stream: TcpStream, service: S, ending: Ending, limits: HttpLimits)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was closed at once");
        return;
    }
    // What a client has sent already is answered although all is to close.
    let spoke = tokio::select! {
        biased;
        spoke = speaks_in_time(&stream, limits.header_timeout) => spoke,
        () = ending.close.cancelled() => false,
    };
    if !spoke {
        return;
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(20));
    let io = TokioIo::new(StallGuard::new(stream, limits.stall));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = ending.close.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until it can be told which version of HTTP a client speaks, from where on the protocol's own
/// time-outs hold. False: it said too little in time, or has gone.
pub async fn speaks_in_time(stream: &TcpStream, limit: Duration) -> bool {
    let known = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            let count = stream.peek(&mut seen).await.unwrap_or(0);
            let begin = seen.get(..count).unwrap_or_default();
            if count == 0 {
                return false;
            }
            if count == PREFACE.len() || !PREFACE.starts_with(begin) {
                return true;
            }
            // What was peeked at stays readable, so there is nothing to wait for but time.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, known).await.unwrap_or(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Connections that were made, before none could be; each is to be answered.
    fn ask_until_refused(address: std::net::SocketAddr) -> usize {
        let mut asked = 0;
        while let Ok(mut stream) = std::net::TcpStream::connect(address) {
            let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{asked}: {answer}");
            asked += 1;
        }
        asked
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_connection_that_was_made_is_served_while_a_server_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tasks = Tasks::new();
        let server = {
            let (tasks, stop) = (tasks.child(), stop.clone());
            let ending = Ending {
                stop,
                close: CancellationToken::new(),
            };
            let router = Router::new().fallback(|| async { "well" });
            let service = TowerToHyperService::new(router);
            let limits = HttpLimits::default();
            tokio::spawn(async move {
                serve(listener, service, &tasks, ending, limits, Gauge::default()).await;
                tasks
            })
        };
        let clients: Vec<_> = (0..8)
            .map(|_| tokio::task::spawn_blocking(move || ask_until_refused(address)))
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
        let served = server.await.unwrap();
        let mut asked = 0;
        for client in clients {
            asked += client.await.unwrap();
        }
        assert!(asked > 8, "{asked}");
        served.join(Duration::from_secs(5)).await;
    }
}
