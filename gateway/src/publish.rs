//! From the table to the catalog, whenever the table changes; what can't be shown as its plugin gave
//! it is logged once.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::table::Table;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::composite::{Catalog, Compositor};
use crate::metrics::GatewayMetrics;

/// Keeps the catalog as new as the table.
pub struct Publisher {
    compositor: Compositor,
    metrics: GatewayMetrics,
    table: watch::Receiver<Arc<Table>>,
    catalog: watch::Sender<Arc<Catalog>>,
    reported: BTreeSet<String>,
}

impl Publisher {
    /// Makes the first catalog.
    #[must_use]
    pub fn new(
        compositor: Compositor,
        metrics: GatewayMetrics,
        table: watch::Receiver<Arc<Table>>,
    ) -> Self {
        let (catalog, _) = watch::channel(compositor.last());
        let mut publisher = Self {
            compositor,
            metrics,
            table,
            catalog,
            reported: BTreeSet::new(),
        };
        publisher.publish();
        publisher
    }

    /// The catalog as it is, and as it becomes.
    #[must_use]
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.table.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.publish();
                }
            }
        }
    }

    fn publish(&mut self) {
        let table = Arc::clone(&self.table.borrow_and_update());
        self.metrics.table(table.revision().sequence);
        let catalog = self.compositor.compose(&table);
        let is_new = !Arc::ptr_eq(&catalog, &self.catalog.borrow());
        if is_new {
            self.metrics.catalog(&catalog);
            self.report(&catalog);
            self.catalog.send_replace(catalog);
        }
    }

    fn report(&mut self, catalog: &Catalog) {
        let problems: BTreeSet<String> = catalog.problems.iter().map(ToString::to_string).collect();
        for problem in problems.difference(&self.reported) {
            tracing::warn!(
                problem,
                "an entry is not in the catalog as its plugin gave it"
            );
        }
        self.reported = problems;
    }
}
