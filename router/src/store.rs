//! The routing table of this process: applied in order, and kept on disk for the next start.

mod file;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::revision::Revision;
use mesh_core::table::{ApplyError, Table, TableUpdate};
use tokio::sync::watch;
use tokio::time::sleep;

/// Changes within this time are written at once.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// After a failed write.
const RETRY: Duration = Duration::from_secs(10);

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
pub struct TableStore {
    table: watch::Sender<Arc<Table>>,
    /// Updates are applied one after the other.
    applying: Arc<Mutex<()>>,
}

impl TableStore {
    /// Opens the table: the snapshot at `path` if there is a good one, else an empty table at
    /// revision 0.0. With no path nothing is kept.
    ///
    /// # Errors
    /// [`TableStoreError`] when the folder can't be made or written. A broken snapshot is no error: it
    /// is left out with a warning.
    pub fn open(
        path: Option<PathBuf>,
    ) -> Result<(Self, watch::Receiver<Arc<Table>>, TableStoreDriver), TableStoreError> {
        let table = match &path {
            None => Table::default(),
            Some(path) => {
                file::check_folder(path).map_err(|source| TableStoreError {
                    path: path.clone(),
                    source,
                })?;
                file::load(path).unwrap_or_else(|why| {
                    tracing::warn!(path = %path.display(), %why, "the table snapshot is left out");
                    Table::default()
                })
            }
        };
        let kept = table.revision();
        let sender = watch::Sender::new(Arc::new(table));
        let receiver = sender.subscribe();
        let driver = TableStoreDriver {
            path,
            table: sender.subscribe(),
            kept,
        };
        let store = Self {
            table: sender,
            applying: Arc::default(),
        };
        Ok((store, receiver, driver))
    }

    /// Applies an update and shows the new table to all who watch it.
    ///
    /// # Errors
    /// [`ApplyError`]: the update is older than the table, or one before it is missing.
    pub fn apply(&self, update: &TableUpdate) -> Result<Revision, ApplyError> {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table();
        let after = before.apply(update)?;
        let revision = after.revision();
        self.table.send_replace(Arc::new(after));
        Ok(revision)
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }
}

/// The task that keeps the snapshot on disk.
#[derive(Debug)]
pub struct TableStoreDriver {
    path: Option<PathBuf>,
    table: watch::Receiver<Arc<Table>>,
    /// What is on disk.
    kept: Revision,
}

impl TableStoreDriver {
    /// Writes the table within a second of a change, and once more when `stop` ends.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let Some(path) = self.path.take() else {
            return stop.await;
        };
        tokio::select! {
            () = stop => {}
            () = self.keep(&path) => {}
        }
        if let Err(error) = self.write(&path).await {
            tracing::warn!(path = %path.display(), %error, "the table was not kept");
        }
    }

    async fn keep(&mut self, path: &std::path::Path) {
        while self.table.changed().await.is_ok() {
            sleep(DEBOUNCE).await;
            while let Err(error) = self.write(path).await {
                tracing::warn!(path = %path.display(), %error, "the table could not be kept");
                sleep(RETRY).await;
            }
        }
    }

    async fn write(&mut self, path: &std::path::Path) -> std::io::Result<()> {
        let table = self.table.borrow_and_update().clone();
        if table.revision() != self.kept {
            file::write(path, &table).await?;
            self.kept = table.revision();
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests;
