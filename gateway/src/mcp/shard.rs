//! What the handlers of a gateway share.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::id::NodeId;
use mesh_core::table::Table;
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use router::Router;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::notify::Notifier;
use crate::composite::Catalog;
use crate::coordinator::Coordinators;
use crate::metrics::GatewayMetrics;

/// What a client is told about this server.
const INSTRUCTIONS: &str = "The tools, resources and prompts of all plugins of a Plugmesh mesh. Names \
    begin with the plugin's name. list_plugins shows the plugins and how they are, get_plugin_info \
    tells all of one.";

/// What all shards share and nobody changes.
pub struct Parts {
    /// The gateway's name in the mesh.
    pub name: NodeId,
    /// Time that a call may take.
    pub call_timeout: Duration,
    /// Entries of one page.
    pub page_size: usize,
    /// Spans are exported.
    pub exporting: bool,
    /// Counters.
    pub metrics: GatewayMetrics,
    /// The catalog as it is.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// The table as it is.
    pub table: watch::Receiver<Arc<Table>>,
    /// Those who change the mesh.
    pub coordinators: Coordinators,
    /// Tells clients that lists changed.
    pub notifier: Notifier,
    /// Cancelled when the gateway stops.
    pub stopping: CancellationToken,
    /// Cancelled when calls have had their time to end since then.
    pub giving_up: CancellationToken,
}

/// What all shards share.
pub struct Shared {
    parts: Parts,
    /// Subscriptions that are open.
    pub open_subscriptions: AtomicUsize,
    routers: Mutex<Vec<Router>>,
    info: ServerConfig,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Shared {
    /// No shards yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        #[expect(deprecated, reason = "clients still ask for logs")]
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_logging()
            .build();
        let own = Implementation::new("plugmesh", env!("CARGO_PKG_VERSION")).with_title("Plugmesh");
        let info = ServerConfig::new(capabilities)
            .with_server_info(own)
            .with_instructions(INSTRUCTIONS);
        Self {
            parts,
            open_subscriptions: AtomicUsize::new(0),
            routers: Mutex::default(),
            info,
        }
    }

    /// What a client is told about this server.
    #[must_use]
    pub fn info(&self) -> ServerConfig {
        self.info.clone()
    }

    /// The catalog as it is now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.parts.catalog.borrow())
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.parts.table.borrow())
    }

    /// Remembers a shard's router, for what only routers know.
    pub fn add_router(&self, router: Router) {
        let mut routers = self.routers.lock().unwrap_or_else(PoisonError::into_inner);
        routers.push(router);
    }

    /// The routers of all shards.
    #[must_use]
    pub fn routers(&self) -> Vec<Router> {
        self.routers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the handlers of one thread share.
pub struct Shard {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// The thread's own way to the plugins.
    pub router: Router,
}
