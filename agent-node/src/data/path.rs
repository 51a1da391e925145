//! The data path put together: its tasks, and what the streams of plugins need.

use std::sync::Arc;
use std::time::Duration;

use mesh_bus::Bus;
use mesh_core::id::Generation;
use mesh_core::table::Table;
use mesh_runtime::Tasks;
use router::{LocalHost, Router, RouterConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::inbox::serve_inbox;
use super::plane::{Plane, PlaneConfig};
use super::pulse;
use super::stream::Streams;
use super::sweep::sweep;
use super::welcome::Door;
use crate::metrics::AgentMetrics;

/// What the data path is made of.
#[derive(Debug)]
pub(crate) struct DataPath {
    /// The plane's part.
    pub(crate) plane: PlaneConfig,
    /// The router's part.
    pub(crate) router: RouterConfig,
    /// Where calls come from and go to.
    pub(crate) bus: Bus,
    /// Where calls of plugins are routed by.
    pub(crate) tables: watch::Receiver<Arc<Table>>,
    /// This generation of the node.
    pub(crate) generation: Generation,
    /// What is counted.
    pub(crate) metrics: AgentMetrics,
    /// Who may attach.
    pub(crate) door: Door,
    /// Time that a plugin gets to end its calls when it asks to leave.
    pub(crate) grace: Duration,
}

impl DataPath {
    /// Starts its tasks, which end with `stop`.
    pub(crate) fn start(self, tasks: &Tasks, stop: &CancellationToken) -> Streams {
        let plane = Plane::new(self.plane, self.bus.clone(), self.metrics);
        let local: Arc<dyn LocalHost> = Arc::new(plane.clone());
        let (router, driver) = Router::new(self.router, self.bus.clone(), self.tables, Some(local));
        tasks.spawn("router", driver.run(stop.clone().cancelled_owned()));
        tasks.spawn("deadlines", sweep(plane.clone(), stop.clone()));
        tasks.spawn("plugins' pulse", pulse::watch(plane.clone(), stop.clone()));
        tasks.spawn(
            "torn uploads",
            end_torn_uploads(plane.clone(), self.bus.clone(), stop.clone()),
        );
        tasks.spawn(
            "node inbox",
            take_calls(plane.clone(), self.bus, self.generation, stop.clone()),
        );
        Streams {
            plane,
            router,
            door: self.door,
            tasks: tasks.clone(),
            grace: self.grace,
        }
    }
}

/// Ends what was torn whenever the connection to the broker was lost.
async fn end_torn_uploads(plane: Plane, bus: Bus, stop: CancellationToken) {
    let mut connected = bus.connected();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = connected.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        // Whether it is back by now or not.
        plane.end_torn_uploads();
    }
}

/// Takes calls from the bus once the subscription has landed.
async fn take_calls(plane: Plane, bus: Bus, generation: Generation, stop: CancellationToken) {
    let _left = plane.shared.left.clone().drop_guard();
    let served = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = plane.shared.leaving.cancelled() => return,
        served = bus.serve_node(plane.node(), generation) => served,
    };
    match served {
        Ok(inbox) => serve_inbox(plane, inbox, stop).await,
        Err(error) => tracing::error!(%error, "no calls are taken from the bus"),
    }
}
