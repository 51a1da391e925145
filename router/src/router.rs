//! The handle that callers hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_bus::Bus;
use mesh_core::id::PluginName;
use mesh_core::table::Table;
use mesh_proto::control;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::CallStream;
use crate::config::RouterConfig;
use crate::driver::RouterDriver;
use crate::local::LocalHost;
use crate::request::CallRequest;
use crate::stats::PluginStats;

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
pub struct Router {}

impl Router {
    /// A router over a table. `local` serves instances of the node of the router's name.
    #[must_use]
    pub fn new(
        config: RouterConfig,
        bus: Bus,
        table: watch::Receiver<Arc<Table>>,
        local: Option<Arc<dyn LocalHost>>,
    ) -> (Self, RouterDriver) {
        let _ = (config, bus, table, local);
        unimplemented!()
    }

    /// Begins a call; it is sent at once.
    #[must_use]
    pub fn call(&self, request: CallRequest) -> CallStream {
        let _ = request;
        unimplemented!()
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        unimplemented!()
    }

    /// What this router's calls came to, per plugin.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<PluginName, PluginStats> {
        unimplemented!()
    }

    /// The last beacon of every node that was heard within the last minute.
    #[must_use]
    pub fn loads(&self) -> Vec<NodeLoad> {
        unimplemented!()
    }
}
