//! How the parts of an agent are put together, and how they end.
//!
//! Two threads: the data path (bus, attach server, router) and the control side (coordinator, processes,
//! admin endpoints). The end goes in a stated order: tell the mesh and refuse new calls, let end what
//! runs, drain the plugins, close their streams, end their processes, leave the coordinator, close the
//! data path.

use std::sync::Arc;
use std::time::Duration;

use mesh_bus::{Bus, BusConfig, BusLimits};
use mesh_core::id::Generation;
use mesh_core::table::{NodeRoute, Table};
use mesh_runtime::admin::{HttpLimits, admin_only, serve_http};
use mesh_runtime::coordinators::TableStanding;
use mesh_runtime::grpc::bind_tcp;
use mesh_runtime::tasks::ThreadError;
use mesh_runtime::{Context, ReadyLatch, Tasks};
use router::{RouterConfig, SpanLink, TableStore, TableStoreDriver};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::attach::Sockets;
use crate::config::RunConfig;
use crate::control::{Beacons, Control, follow_coordinators};
use crate::data::{CHECKS, DataPath, Door, Plane, PlaneConfig};
use crate::drain::Drain;
use crate::error::AgentError;
use crate::generation;
use crate::launch::LaunchBook;
use crate::metrics::AgentMetrics;
use crate::roster::{self, Roster, new_instance};
use crate::spans::Link;
use crate::supervisor::{Supervisor, SupervisorConfig};

/// Time that the control side gets to end after all else has.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// Time that processes get to end; their supervisor kills them well before.
const PROCESS_GRACE: Duration = Duration::from_secs(15);

/// What both threads share.
#[derive(Clone)]
struct Parts {
    config: Arc<RunConfig>,
    context: Context,
    roster: Roster,
    book: LaunchBook,
    metrics: AgentMetrics,
    generation: Generation,
    table: TableStore,
    tables: watch::Receiver<Arc<Table>>,
    stages: Stages,
}

/// What is told to end, in this order.
#[derive(Debug, Clone)]
pub(crate) struct Stages {
    /// No process is started any more.
    pub(crate) restarts: CancellationToken,
    /// All processes end.
    pub(crate) processes: CancellationToken,
    /// The coordinator is left.
    control: CancellationToken,
    /// The data path is closed.
    data: CancellationToken,
}

/// What the data thread gives once it works.
#[derive(Debug)]
struct DataSide {
    plane: Plane,
    bus: Bus,
    /// Where started plugins attach.
    agent: String,
}

/// Runs an agent until the context's shutdown is triggered and everything has ended.
///
/// # Errors
/// [`AgentError`], one line that names the setting, when it can't start or a part of it fails.
pub async fn run(config: RunConfig, context: Context) -> Result<(), AgentError> {
    let dir = &config.agent.data_dir;
    std::fs::create_dir_all(dir).map_err(|source| AgentError::DataDir {
        path: dir.clone(),
        source,
    })?;
    let generation =
        generation::draw(dir, roster::now().0).map_err(|source| AgentError::DataDir {
            path: dir.clone(),
            source,
        })?;
    let (table, tables, table_driver) = TableStore::open(Some(dir.join("table.snapshot")))?;
    let latches = Latches::new(&context);
    let standing = TableStanding::new(
        latches.table,
        &context.metrics,
        &config.agent.coordinators,
        table.table().revision(),
    );
    let tasks = context.tasks.clone();
    let parts = Parts {
        metrics: AgentMetrics::new(&context.metrics),
        stages: Stages::new(&tasks),
        config: Arc::new(config),
        context,
        roster: Roster::default(),
        book: LaunchBook::default(),
        generation,
        table,
        tables,
    };
    let (up, data_side) = oneshot::channel();
    let for_data = parts.clone();
    let mut data = tasks.spawn_thread("agent data", move |tasks| {
        run_data(for_data, tasks, latches.attach, latches.bus, up)
    });
    let Ok(side) = data_side.await else {
        // It ended before it worked, and says why.
        return data.join().await?;
    };
    let plane = side.plane.clone();
    let for_control = parts.clone();
    let mut control = tasks.spawn_thread("agent control", move |tasks| {
        run_control(for_control, tasks, side, standing, table_driver)
    });
    let (mut data_ended, mut control_ended) = (None, None);
    tokio::select! {
        () = parts.context.shutdown.wait() => {}
        ended = data.join() => data_ended = Some(ended),
        ended = control.join() => control_ended = Some(ended),
    }
    parts.stages.restarts.cancel();
    if data_ended.is_none() && control_ended.is_none() {
        drain(&parts, &plane).await;
    }
    parts.stages.processes.cancel();
    let control_ended = match control_ended {
        Some(ended) => ended,
        // It bounds its own end.
        None => control.join().await,
    };
    parts.stages.data.cancel();
    let data_ended = match data_ended {
        Some(ended) => ended,
        None => data.join().await,
    };
    data_ended.flatten_into().and(control_ended.flatten_into())
}

/// A thread's end as one result.
trait FlattenInto {
    fn flatten_into(self) -> Result<(), AgentError>;
}

impl FlattenInto for Result<Result<(), AgentError>, ThreadError> {
    fn flatten_into(self) -> Result<(), AgentError> {
        self.map_err(AgentError::from).flatten()
    }
}

impl Stages {
    fn new(tasks: &Tasks) -> Self {
        let end = tasks.token();
        Self {
            restarts: end.child_token(),
            processes: end.child_token(),
            control: end.child_token(),
            data: end.child_token(),
        }
    }
}

/// What must be there before the agent is called ready.
struct Latches {
    attach: ReadyLatch,
    bus: ReadyLatch,
    table: ReadyLatch,
}

impl Latches {
    fn new(context: &Context) -> Self {
        Self {
            attach: context.readiness.latch("attach"),
            bus: context.readiness.latch("bus"),
            table: context.readiness.latch("table"),
        }
    }
}

/// The first steps of the end: tell the mesh, refuse new calls, let end what runs.
async fn drain(parts: &Parts, plane: &Plane) {
    let reason = "the agent stops";
    tracing::info!(in_flight = plane.in_flight(), "draining");
    parts.roster.drain_all(reason);
    plane.drain();
    parts.drain(plane, reason).all().await;
    plane.leave().await;
}

impl Parts {
    fn drain(&self, plane: &Plane, reason: &str) -> Drain {
        Drain {
            plane: plane.clone(),
            roster: self.roster.clone(),
            grace: self.config.agent.drain_grace.get(),
            reason: reason.to_owned(),
        }
    }
}

/// The data thread.
async fn run_data(
    parts: Parts,
    tasks: Tasks,
    attach_ready: ReadyLatch,
    bus_ready: ReadyLatch,
    up: oneshot::Sender<DataSide>,
) -> Result<(), AgentError> {
    let (config, stop) = (&parts.config, &parts.stages.data);
    let agent = &config.agent;
    let sockets = Sockets::bind(agent)?;
    let limits = BusLimits {
        max_payload: config.router.max_payload.as_usize(),
        max_gathered: agent.max_bytes_in_flight.as_usize(),
        ..BusLimits::default()
    };
    let bus_config = BusConfig {
        urls: config.nats.url.clone(),
        credentials: config.nats.credentials.clone(),
        client_name: format!("plugmesh agent {}", agent.node),
        mesh: config.mesh.name.clone(),
    };
    let (bus, driver) = Bus::connect_with(bus_config, limits).await?;
    tasks.spawn("bus", driver.run(stop.clone().cancelled_owned()));
    parts.context.metrics.counters("bus", bus.counters());
    parts.context.metrics.gauges("bus", bus.gauges());
    let exporting = parts.context.telemetry.is_exporting();
    let mut router_config = RouterConfig::new(agent.node.clone());
    router_config.zone.clone_from(&agent.zone);
    router_config.prefer = config.router.near();
    router_config.patience = config.router.patience.get();
    router_config.tracing = exporting.then(|| Arc::new(Link) as Arc<dyn SpanLink>);
    let path = DataPath {
        plane: PlaneConfig {
            mesh: config.mesh.name.clone(),
            node: agent.node.clone(),
            max_in_flight: agent.max_in_flight as usize,
            max_per_instance: agent.max_in_flight_per_instance,
            max_bytes: agent.max_bytes_in_flight.as_usize(),
            max_bytes_per_instance: agent.max_bytes_in_flight_per_instance.as_usize(),
            max_payload: config.router.max_payload.as_usize(),
            exporting,
        },
        router: router_config,
        bus: bus.clone(),
        tables: parts.tables.clone(),
        generation: parts.generation,
        metrics: parts.metrics.clone(),
        door: Door {
            checks: Arc::new(Semaphore::new(CHECKS)),
            book: parts.book.clone(),
            plugin_config: Arc::new(agent.plugin_config.clone()),
            roster: parts.roster.clone(),
            draw: new_instance,
        },
        grace: agent.drain_grace.get(),
    };
    let streams = path.start(&tasks, stop);
    let plane = streams.plane.clone();
    let metrics = &parts.context.metrics;
    metrics.counters("router", streams.router.counters());
    metrics.gauges("router", streams.router.gauges());
    tasks.spawn(
        "bus readiness",
        bus_ready.follow(bus.connected(), mesh_bus::NOT_CONNECTED, stop.clone()),
    );
    let address = sockets.for_plugins();
    let leaving = parts.stages.restarts.clone();
    let servers = sockets.serve(streams, leaving, stop.clone());
    attach_ready.set_ready();
    // Nobody waits for it when the agent stops already.
    let _ = up.send(DataSide {
        plane,
        bus,
        agent: address,
    });
    servers.await
}

/// The control thread.
async fn run_control(
    parts: Parts,
    tasks: Tasks,
    side: DataSide,
    standing: TableStanding,
    table_driver: TableStoreDriver,
) -> Result<(), AgentError> {
    let (agent, stages) = (&parts.config.agent, &parts.stages);
    let admin = bind_tcp(agent.admin_listen, "agent.admin_listen")?;
    let drain = parts.drain(&side.plane, "");
    let supervisor = Supervisor::new(SupervisorConfig {
        plugins: agent.plugins.clone(),
        launcher: agent.launcher.clone(),
        agent: side.agent,
        otlp: parts.context.telemetry.endpoint().map(str::to_owned),
        book: parts.book.clone(),
        drain: drain.clone(),
        metrics: parts.metrics.clone(),
    });
    let stop = stages.control.clone();
    tasks.spawn(
        "table snapshot",
        table_driver.run(stop.clone().cancelled_owned()),
    );
    let control = Control {
        mesh: parts.config.mesh.name.clone(),
        node: NodeRoute {
            node: agent.node.clone(),
            generation: parts.generation,
            zone: agent.zone.clone(),
            labels: agent.labels.clone(),
            software: concat!("plugmesh/", env!("CARGO_PKG_VERSION")).to_owned(),
        },
        coordinators: Arc::new(agent.coordinators.clone()),
        roster: parts.roster.clone(),
        table: parts.table.clone(),
        plane: side.plane.clone(),
        supervisor: supervisor.clone(),
        drain,
        tasks: tasks.clone(),
        standing: Arc::new(standing),
    };
    tasks.spawn("coordinator", follow_coordinators(control, stop.clone()));
    let beacons = Beacons {
        plane: side.plane,
        bus: side.bus,
        interval: agent.beacon_interval.get(),
        generation: parts.generation,
        book: parts.book.clone(),
        roster: parts.roster.clone(),
        metrics: parts.metrics.clone(),
    };
    tasks.spawn("load beacons", beacons.run(stop.clone()));
    let routes = admin_only(
        parts.context.readiness.clone(),
        parts.context.metrics.clone(),
    );
    let (for_http, stop_http) = (tasks.clone(), stop.clone());
    tasks.spawn("admin endpoints", async move {
        serve_http(admin, routes, &for_http, stop_http, HttpLimits::default()).await;
    });
    let processes = tasks.child();
    supervisor.start(&processes, stages);
    stages.processes.cancelled().await;
    processes.join(PROCESS_GRACE).await;
    stop.cancel();
    tasks.cancel();
    tasks.join(LAST_GRACE).await;
    Ok(())
}

#[cfg(test)]
mod tests;
