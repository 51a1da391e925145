//! The coordinator as a service: everything is wired here, and ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_bus::{AuditConfig, AuditLog, BusConfig, BusError, RegistryStore, StoreConfig};
use mesh_engine::engine::{Engine, EngineConfig};
use mesh_runtime::admin::{HttpLimits, admin_only, serve_http};
use mesh_runtime::grpc::{DescriptorError, HealthReporter, in_time, server};
use mesh_runtime::net::{BindError, bind_tcp};
use mesh_runtime::{Context, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::RunConfig;
use crate::actor::Actor;
use crate::clock::Clock;
use crate::feed::Feed;
use crate::grpc::{Services, WATCHES, routes, stop_serving};
use crate::handle::Handle;
use crate::joining::Joining;
use crate::metrics::CoordinatorMetrics;
use crate::store::{Follow, Store};

/// Time that streams get to end, and connections after them.
const CLOSE: Duration = Duration::from_secs(2);

/// The engine is told of time at least so often.
const LONGEST_TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(20);

/// Why the coordinator could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The broker's address or credentials can't be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The services can't be described.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A part ended before it was asked to.
    #[error("a part of the coordinator ended by itself: this is a bug")]
    Ended,
}

/// Runs a coordinator until the context's shutdown.
///
/// # Errors
/// [`RunError`], one line that names the setting where there is one.
pub async fn run(config: RunConfig, context: Context) -> Result<(), RunError> {
    let bus = BusConfig {
        urls: config.nats.url.clone(),
        credentials: config.nats.credentials.clone(),
        client_name: format!("plugmesh coordinator {}", config.coordinator.name),
        mesh: config.mesh.name.clone(),
    };
    let replicas = usize::try_from(config.coordinator.replicas).unwrap_or(usize::MAX);
    let (store, driver) = RegistryStore::open(bus.clone(), StoreConfig { replicas })?;
    let (audit, audit_driver) = AuditLog::open(
        bus,
        AuditConfig {
            replicas,
            max_bytes: config.coordinator.audit_max_size.get(),
            max_age: config.coordinator.audit_max_age.get(),
            is_covered: crate::audit::is_covered,
        },
    )?;
    let follower = store.follow();
    let running = Running::start(&config, &context, (store, follower), audit).await?;
    let stop = running.store_stop.clone();
    context
        .tasks
        .spawn("audit", audit_driver.run(stop.clone().cancelled_owned()));
    context
        .tasks
        .spawn("registry store", driver.run(stop.cancelled_owned()));
    running.until_stopped().await
}

/// A coordinator that runs.
pub(crate) struct Running {
    context: Context,
    /// Where gRPC is listened on.
    pub(crate) listen: SocketAddr,
    health: HealthReporter,
    /// The gRPC server and the actor, in the order in which they end.
    serving: tokio::task::JoinHandle<()>,
    deciding: tokio::task::JoinHandle<()>,
    /// The streams' tasks.
    streams: Tasks,
    accept_stop: CancellationToken,
    actor_stop: CancellationToken,
    store_stop: CancellationToken,
}

impl Running {
    /// Starts everything but the store's own driver.
    pub(crate) async fn start(
        config: &RunConfig,
        context: &Context,
        (store, follower): (impl Store, impl Follow),
        audit: AuditLog,
    ) -> Result<Self, RunError> {
        let settings = &config.coordinator;
        let ready = context.readiness.latch("registry");
        let listener = bind_tcp(settings.listen, "coordinator.listen")?;
        let admin = bind_tcp(settings.admin_listen, "coordinator.admin_listen")?;
        let clock = Arc::new(Clock::default());
        let engine = EngineConfig {
            name: settings.name.clone(),
            run: clock.now().0,
            lease: settings.lease.get(),
            grace: settings.grace.get(),
        };
        let (handle, inputs) = Handle::new();
        let feed = Feed::new();
        let joining = Joining::new();
        let metrics = CoordinatorMetrics::new(&context.metrics);
        let counted = audit.clone();
        context
            .metrics
            .counters("audit", move || counted.counters());
        let (accept_stop, actor_stop) = (CancellationToken::new(), CancellationToken::new());
        let streams = context.tasks.child();
        let services = Services {
            mesh: config.mesh.name.clone(),
            name: settings.name.clone(),
            heartbeat: settings.heartbeat.get(),
            lease: settings.lease.get(),
            handle,
            feed: feed.clone(),
            joining: joining.clone(),
            metrics: metrics.clone(),
            audit: audit.clone(),
            watches: Arc::new(Semaphore::new(WATCHES)),
            tasks: streams.clone(),
        };
        let (health, routes) = routes(services).await?;
        let actor = Actor {
            engine: Engine::new(engine, clock.now()),
            clock,
            store,
            inputs,
            feed,
            metrics,
            audit,
            ready,
            joining,
            tick: tick(config),
        };
        let deciding = actor.run(follower, actor_stop.clone());
        let deciding = context.tasks.spawn("coordinator", deciding);
        let listen = local(&listener, settings.listen);
        let serving = serve(listener, routes, accept_stop.clone());
        let serving = context.tasks.spawn("coordinator grpc", serving);
        let router = admin_only(context.readiness.clone(), context.metrics.clone());
        let (tasks, stop) = (context.tasks.clone(), context.tasks.token());
        context.tasks.spawn("coordinator admin", async move {
            serve_http(admin, router, &tasks, stop, HttpLimits::default()).await;
        });
        tracing::info!(%listen, mesh = %config.mesh.name, "the coordinator listens");
        Ok(Self {
            context: context.clone(),
            listen,
            health,
            serving,
            deciding,
            streams,
            accept_stop,
            actor_stop,
            store_stop: CancellationToken::new(),
        })
    }

    /// Waits for the wish to stop, and ends everything in order: no new connections, the streams with
    /// a word to their peers, the decisions with what the leaving of agents changed, the store.
    pub(crate) async fn until_stopped(mut self) -> Result<(), RunError> {
        let cancelled = self.context.tasks.token();
        let ended = tokio::select! {
            () = self.context.shutdown.wait() => false,
            () = cancelled.cancelled() => false,
            _ = &mut self.deciding => true,
            _ = &mut self.serving => true,
        };
        tracing::info!(listen = %self.listen, "the coordinator stops");
        stop_serving(&self.health).await;
        self.accept_stop.cancel();
        self.streams.cancel();
        self.streams.join(CLOSE).await;
        self.actor_stop.cancel();
        if !self.deciding.is_finished() {
            // A panic was told by the task's owner.
            let _ = (&mut self.deciding).await;
        }
        self.store_stop.cancel();
        // A peer that reads nothing keeps its connection open for as long as it likes.
        if !self.serving.is_finished()
            && tokio::time::timeout(CLOSE, &mut self.serving)
                .await
                .is_err()
        {
            tracing::info!("a peer does not close its connection: it is cut");
            self.serving.abort();
        }
        if ended { Err(RunError::Ended) } else { Ok(()) }
    }
}

/// Often enough that no lease and no grace is overrun by much.
fn tick(config: &RunConfig) -> Duration {
    let shortest = config
        .coordinator
        .lease
        .get()
        .min(config.coordinator.grace.get());
    (shortest / 8).clamp(SHORTEST_TICK, LONGEST_TICK)
}

fn local(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

async fn serve(listener: TcpListener, routes: Routes, stop: CancellationToken) {
    // The server's own setting counts only for listeners that it opens itself.
    let incoming = in_time(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let serving = server().add_routes(routes);
    let served = serving
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}
