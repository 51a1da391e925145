//! The routing table of this process: applied in order, and kept on disk for the next start.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::revision::Revision;
use mesh_core::table::{ApplyError, Table, TableUpdate};
use tokio::sync::watch;

/// Why the folder of the snapshot can't be used.
#[derive(Debug, thiserror::Error)]
#[error("table snapshot {}: {source}; give a folder that this user can write", path.display())]
pub struct TableStoreError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub source: std::io::Error,
}

/// The routing table of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableStore {}

impl TableStore {
    /// Opens the table: the snapshot at `path` if there is a good one, else an empty table at
    /// revision 0.0. With no path nothing is kept.
    ///
    /// # Errors
    /// [`TableStoreError`] when the folder can't be written. A broken snapshot is no error: it is
    /// left out with a warning.
    pub fn open(
        path: Option<PathBuf>,
    ) -> Result<(Self, watch::Receiver<Arc<Table>>, TableStoreDriver), TableStoreError> {
        let _ = path;
        unimplemented!()
    }

    /// Applies an update and shows the new table to all who watch it.
    ///
    /// # Errors
    /// [`ApplyError`]: the update is older than the table, or one before it is missing.
    pub fn apply(&self, update: &TableUpdate) -> Result<Revision, ApplyError> {
        let _ = update;
        unimplemented!()
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        unimplemented!()
    }
}

/// The task that keeps the snapshot on disk.
#[derive(Debug)]
pub struct TableStoreDriver {}

impl TableStoreDriver {
    /// Writes the table within a second of a change, and once more when `stop` ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
    }
}
