//! The gateway as a service: everything is wired here, and ended in order.
//!
//! Shards are threads with runtimes of their own, each with its listener, its connection to NATS and
//! its router: limits of the runtime and not of the machine would bound one that steals work. What
//! they share is read-only or lock-free, except for sessions, which may be used from any of them.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_bus::{Bus, BusConfig, BusError, BusLimits};
use mesh_core::table::Table;
use mesh_runtime::coordinators::TableStanding;
use mesh_runtime::http_server::{Ending, HttpLimits, serve};
use mesh_runtime::net::BindError;
use mesh_runtime::tasks::ThreadError;
use mesh_runtime::{Context, ReadyLatch, Tasks, ThreadHandle, admin};
use prometheus_client::metrics::gauge::Gauge;
use router::{Router, RouterConfig, TableStore, TableStoreError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::RunConfig;
use crate::composite::Compositor;
use crate::coordinator::{Coordinators, follow};
use crate::http::body::Works;
use crate::http::front::Front;
use crate::http::listener;
use crate::http::room::Room;
use crate::mcp::notify::Notifier;
use crate::mcp::sessions::Sessions;
use crate::mcp::{Link, Parts, Shard, Shared};
use crate::metrics::GatewayMetrics;
use crate::publish::Publisher;

/// Time that connections and sessions get to end once their work is done.
const CLOSE: Duration = Duration::from_secs(2);

/// Time in which the next request of a connection is still refused in words, before all that are open
/// are closed: a client can't tell whether a request on a connection that just closes was processed. One
/// that was refused elsewhere and comes back to a connection that it kept shall be in time.
const LINGER: Duration = Duration::from_secs(2);

/// How often it is asked whether all of them are closed.
const LOOK: Duration = Duration::from_millis(25);

/// Why the gateway could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The port can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The folder for data can't be made.
    #[error("gateway.data_dir {}: {source}; give a folder that this user can write", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The snapshot of the table can't be kept.
    #[error(transparent)]
    Table(#[from] TableStoreError),
    /// The broker's address or credentials can't be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A listener could not be handed to its thread.
    #[error("gateway.listen: {0}")]
    Listener(std::io::Error),
    /// A thread broke.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// A thread ended before it was asked to.
    #[error("a thread of the gateway ended by itself: this is a bug")]
    Ended,
}

/// Runs a gateway until the context's shutdown.
///
/// # Errors
/// [`RunError`], one line that names the setting where there is one.
pub async fn run(config: RunConfig, context: Context) -> Result<(), RunError> {
    Gateway::start(config, context)?.until_stopped().await
}

/// A gateway that runs.
struct Gateway {
    config: RunConfig,
    context: Context,
    /// Everything beside the shards' threads.
    tasks: Tasks,
    threads: Vec<ThreadHandle<Result<(), RunError>>>,
    sessions: Arc<Sessions>,
    work: Works,
    room: Room,
    connections: Gauge,
    /// No more connections and calls are taken.
    stop: CancellationToken,
    /// Calls that still run are given up.
    give_up: CancellationToken,
    /// Streams and connections end.
    close: CancellationToken,
    /// The shards' threads end.
    end: CancellationToken,
}

impl Gateway {
    fn start(config: RunConfig, context: Context) -> Result<Self, RunError> {
        let settings = &config.gateway;
        let table_ready = context.readiness.latch("table");
        let listeners = listener::bind(settings.listen, settings.shards)?;
        std::fs::create_dir_all(&settings.data_dir).map_err(|source| RunError::DataDir {
            path: settings.data_dir.clone(),
            source,
        })?;
        let path = settings.data_dir.join("table.snapshot");
        let (store, table, store_driver) = TableStore::open(Some(path))?;
        let standing = TableStanding::new(
            table_ready,
            &context.metrics,
            &settings.coordinators,
            store.table().revision(),
        );

        let tasks = context.tasks.child();
        let metrics = GatewayMetrics::new(&context.metrics);
        let stop = context.shutdown.token().child_token();
        let [give_up, close, end] = std::array::from_fn(|_| CancellationToken::new());
        let compositor = Compositor::new(settings.prefix, crate::manage::definitions());
        let publisher = Publisher::new(compositor, metrics.clone(), table.clone());
        let coordinators = Coordinators::new(
            settings.coordinators.clone(),
            config.mesh.name.clone(),
            settings.name.clone(),
        );
        let shared = Arc::new(Shared::new(Parts {
            name: settings.name.clone(),
            call_timeout: settings.call_timeout.get(),
            page_size: usize::try_from(settings.page_size).unwrap_or(usize::MAX),
            exporting: context.telemetry.is_exporting(),
            metrics: metrics.clone(),
            catalog: publisher.catalog(),
            table: table.clone(),
            coordinators: coordinators.clone(),
            notifier: Notifier::default(),
            stopping: stop.clone(),
            giving_up: give_up.clone(),
        }));
        let sessions = Arc::new(Sessions::new(
            usize::try_from(settings.max_sessions).unwrap_or(usize::MAX),
            settings.session_idle.get(),
            metrics.sessions.clone(),
        ));

        let ending = tasks.token();
        tasks.spawn("table snapshot", {
            let ending = ending.clone();
            async move { store_driver.run(ending.cancelled_owned()).await }
        });
        tasks.spawn(
            "table follower",
            follow(coordinators, store, standing, ending.clone()),
        );
        tasks.spawn("catalog", publisher.run(ending.clone()));
        let notifier = shared.notifier.clone();
        tasks.spawn(
            "list changes",
            notifier.run(shared.catalog.clone(), ending.clone()),
        );
        tasks.spawn("sessions", {
            let sessions = Arc::clone(&sessions);
            async move { sessions.keep_alive(ending).await }
        });

        let room = Room::new(
            settings.max_bytes_in_flight.as_usize(),
            metrics.bytes_in_flight.clone(),
        );
        let mut gateway = Self {
            config,
            context,
            tasks,
            threads: Vec::new(),
            sessions,
            work: Works::default(),
            room,
            connections: metrics.connections,
            stop,
            give_up,
            close,
            end,
        };
        gateway.start_shards(listeners, &shared, &table);
        Ok(gateway)
    }

    fn start_shards(
        &mut self,
        listeners: Vec<TcpListener>,
        shared: &Arc<Shared>,
        table: &watch::Receiver<Arc<Table>>,
    ) {
        let several = listeners.len() > 1;
        for (index, listener) in listeners.into_iter().enumerate() {
            let part = if several {
                format!("nats, shard {index}")
            } else {
                "nats".to_owned()
            };
            let seed = Seed {
                config: self.config.clone(),
                context: self.context.clone(),
                listener,
                shared: Arc::clone(shared),
                table: table.clone(),
                sessions: Arc::clone(&self.sessions),
                work: self.work.clone(),
                room: self.room.clone(),
                ready: self.context.readiness.latch(&part),
                stop: self.stop.clone(),
                close: self.close.clone(),
                end: self.end.clone(),
            };
            let name = format!("gateway-{index}");
            let thread = self
                .context
                .tasks
                .spawn_thread(&name, |tasks| seed.run(tasks));
            self.threads.push(thread);
        }
    }

    async fn until_stopped(mut self) -> Result<(), RunError> {
        let cancelled = self.context.tasks.token();
        let broke = {
            let ended = self
                .threads
                .iter_mut()
                .map(|thread| Box::pin(thread.join()));
            tokio::select! {
                () = self.stop.cancelled() => None,
                () = cancelled.cancelled() => None,
                (ended, ..) = futures::future::select_all(ended) => Some(match ended {
                    Ok(Ok(())) => RunError::Ended,
                    Ok(Err(error)) => error,
                    Err(error) => error.into(),
                }),
            }
        };
        let failed = self.stop_in_order(broke.is_some()).await;
        broke.or(failed).map_or(Ok(()), Err)
    }

    /// Takes no more connections and calls, finishes what runs, closes streams and sessions, ends the
    /// threads.
    async fn stop_in_order(&mut self, broken: bool) -> Option<RunError> {
        self.stop.cancel();
        let grace = self.config.gateway.drain_grace.get();
        let (calls, subscriptions) = (&self.work.calls, &self.work.subscriptions);
        if !broken && timeout(grace, calls.idle()).await.is_err() {
            let running = calls.running();
            tracing::warn!(running, ?grace, "requests still run and are given up");
            self.give_up.cancel();
            // Their clients are told so.
            let _ = timeout(CLOSE, calls.idle()).await;
        }
        // They have been told already; some clients may not have taken it.
        let _ = timeout(CLOSE, subscriptions.idle()).await;
        if !broken {
            let _ = timeout(LINGER, self.no_connections()).await;
        }
        self.close.cancel();
        self.sessions.close_all(CLOSE).await;
        self.end.cancel();
        let mut failed = None;
        if !broken {
            for thread in &mut self.threads {
                failed = match thread.join().await {
                    Ok(Ok(())) => failed,
                    Ok(Err(error)) => Some(error),
                    Err(error) => Some(error.into()),
                };
            }
        }
        self.tasks.cancel();
        self.tasks.join(CLOSE).await;
        failed
    }
}

impl Gateway {
    /// Waits until the clients have closed their connections: each answer tells them to.
    async fn no_connections(&self) {
        while self.connections.get() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What one shard grows from.
struct Seed {
    config: RunConfig,
    context: Context,
    listener: TcpListener,
    shared: Arc<Shared>,
    table: watch::Receiver<Arc<Table>>,
    sessions: Arc<Sessions>,
    work: Works,
    room: Room,
    ready: ReadyLatch,
    stop: CancellationToken,
    close: CancellationToken,
    end: CancellationToken,
}

impl Seed {
    async fn run(self, tasks: Tasks) -> Result<(), RunError> {
        let settings = &self.config.gateway;
        let limits = BusLimits {
            max_payload: self.config.router.max_payload.as_usize(),
            max_gathered: settings.max_bytes_in_flight.as_usize()
                / usize::from(settings.shards.max(1)),
            ..BusLimits::default()
        };
        let bus_config = BusConfig {
            urls: self.config.nats.url.clone(),
            credentials: self.config.nats.credentials.clone(),
            client_name: format!("plugmesh gateway {}", settings.name),
            mesh: self.config.mesh.name.clone(),
        };
        let (bus, driver) = Bus::connect_with(bus_config, limits).await?;
        let ending = || tasks.token().cancelled_owned();
        tasks.spawn("nats", driver.run(ending()));
        self.context.metrics.counters("bus", bus.counters());
        self.context.metrics.gauges("bus", bus.gauges());
        tasks.spawn(
            "nats readiness",
            self.ready
                .follow(bus.connected(), mesh_bus::NOT_CONNECTED, tasks.token()),
        );

        let mut config = RouterConfig::new(settings.name.clone());
        config.default_timeout = settings.call_timeout.get();
        config.zone.clone_from(&settings.zone);
        config.prefer = self.config.router.near();
        config.patience = self.config.router.patience.get();
        if self.shared.exporting {
            config.tracing = Some(Arc::new(Link));
        }
        let (router, driver) = Router::new(config, bus, self.table, None);
        tasks.spawn("router", driver.run(ending()));
        self.context.metrics.counters("router", router.counters());
        self.context.metrics.gauges("router", router.gauges());
        self.shared.add_router(router.clone());

        let shard = Arc::new(Shard {
            shared: Arc::clone(&self.shared),
            router,
        });
        let routes =
            admin::admin_routes(self.context.readiness.clone(), self.context.metrics.clone());
        let front = Arc::new(Front::new(
            settings,
            shard,
            self.sessions,
            routes.fallback(crate::http::front::no_such_path),
            self.close.clone(),
            self.work,
            self.room,
        ));
        let connections = usize::try_from(settings.max_connections).unwrap_or(usize::MAX);
        let limits = HttpLimits {
            header_timeout: settings.request_timeout.get(),
            stall: settings.stall_timeout.get(),
            connections: connections.div_ceil(usize::from(settings.shards)),
            grace: CLOSE,
        };
        let ending = Ending {
            stop: self.stop,
            close: self.close,
        };
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let front = Arc::clone(&front);
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        });
        let listener =
            tokio::net::TcpListener::from_std(self.listener).map_err(RunError::Listener)?;
        let open = self.shared.metrics.connections.clone();
        let served = tasks.child();
        serve(listener, service, &served, ending, limits, open).await;
        // Answers and streams that are on their way need this runtime.
        self.end.cancelled().await;
        served.join(limits.grace).await;
        Ok(())
    }
}

/// A line that calls a tool of the `calculator` example when it is pasted into a shell.
#[must_use]
pub fn example_curl(address: SocketAddr) -> String {
    example_call(address, "calculator_add", r#"{"a":2,"b":3}"#)
}

/// A line that calls a tool when it is pasted into a shell. `arguments` is a JSON object.
#[must_use]
pub fn example_call(address: SocketAddr, tool: &str, arguments: &str) -> String {
    let mut reached = address;
    if address.ip().is_unspecified() {
        reached.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
    .replace('\'', r"'\''");
    format!("curl -sS http://{reached}/mcp -H 'Content-Type: application/json' -d '{body}'")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_one_line_to_an_address_that_can_be_reached() {
        let line = example_curl("0.0.0.0:8087".parse().unwrap());
        assert_eq!(
            line,
            "curl -sS http://127.0.0.1:8087/mcp -H 'Content-Type: application/json' -d \
             '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\
             \"calculator_add\",\"arguments\":{\"a\":2,\"b\":3}}}'"
        );
    }
}
