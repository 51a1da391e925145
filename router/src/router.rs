//! The handle that callers hold.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_bus::{Bus, Reading};
use mesh_core::hash::spread;
use mesh_core::id::PluginName;
use mesh_core::table::Table;
use mesh_proto::control;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::CallStream;
use crate::config::RouterConfig;
use crate::driver::RouterDriver;
use crate::flight::Flights;
use crate::local::LocalHost;
use crate::request::CallRequest;
use crate::stats::{PluginStats, Stats};

/// How long a node's last beacon is worth something.
pub(crate) const BEACON_LIFE: Duration = Duration::from_secs(60);

/// The last beacon of one node.
#[derive(Debug, Clone)]
pub struct NodeLoad {
    /// What it said.
    pub beacon: control::LoadBeacon,
    /// When it was heard.
    pub heard: Instant,
}

/// Routes calls to instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Router {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: RouterConfig,
    pub bus: Bus,
    pub table: watch::Receiver<Arc<Table>>,
    pub local: Option<Arc<dyn LocalHost>>,
    pub flights: Flights,
    pub stats: Stats,
    loads: Mutex<HashMap<String, NodeLoad>>,
    seed: AtomicU64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The seed of the next choice.
    pub fn next_seed(&self) -> u64 {
        self.seed.fetch_add(1, Ordering::Relaxed)
    }

    pub fn loads(&self) -> MutexGuard<'_, HashMap<String, NodeLoad>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    /// A router over a table. `local` serves instances of the node of the router's name.
    #[must_use]
    pub fn new(
        config: RouterConfig,
        bus: Bus,
        table: watch::Receiver<Arc<Table>>,
        local: Option<Arc<dyn LocalHost>>,
    ) -> (Self, RouterDriver) {
        let inner = Arc::new(Inner {
            // Far from those of other routers, although each counts up.
            seed: AtomicU64::new(spread(config.seed)),
            config,
            bus,
            table,
            local,
            flights: Flights::new(),
            stats: Stats::default(),
            loads: Mutex::default(),
        });
        let driver = RouterDriver::new(inner.clone());
        (Self { inner }, driver)
    }

    /// Begins a call; it is sent at once.
    #[must_use]
    pub fn call(&self, request: CallRequest) -> CallStream {
        CallStream::begin(self.inner.clone(), request)
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.inner.table.borrow().clone()
    }

    /// What this router's calls came to, per plugin.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<PluginName, PluginStats> {
        self.inner.stats.all()
    }

    /// Reads what this router did about failures, for whoever shows metrics. Nothing once the router
    /// is gone.
    pub fn counters(&self) -> impl Fn() -> Vec<Reading> + Send + Sync + use<> {
        let inner = Arc::downgrade(&self.inner);
        move || match inner.upgrade() {
            Some(inner) => inner.flights.remedies().all(),
            None => Vec::new(),
        }
    }

    /// As [`Router::counters`], for what goes up and down.
    pub fn gauges(&self) -> impl Fn() -> Vec<Reading> + Send + Sync + use<> {
        let inner = Arc::downgrade(&self.inner);
        move || match inner.upgrade() {
            Some(inner) => {
                let out = inner.flights.ejected() as u64;
                vec![("outliers", "Instances that are left out", out)]
            }
            None => Vec::new(),
        }
    }

    /// The last beacon of every node that was heard within the last minute.
    #[must_use]
    pub fn loads(&self) -> Vec<NodeLoad> {
        let loads = self.inner.loads();
        let fresh = loads
            .values()
            .filter(|load| load.heard.elapsed() < BEACON_LIFE);
        fresh.cloned().collect()
    }
}
