//! Everything that the SDK runs beside the session. Nothing else in it spawns.

use std::io;
use std::panic::resume_unwind;

/// Runs work that computes for long or blocks on a thread of its own, so that the plugin goes on
/// taking calls and answers its host's health checks.
///
/// # Panics
/// When the work panics, so does the handler that waits for it, which ends that call only.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// let sum = plugmesh_sdk::blocking(|| (1..=1_000_000u64).sum::<u64>()).await;
/// assert_eq!(sum, 500_000_500_000);
/// # Ok(()) }) }
/// ```
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is ending, and so is whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A thread that runs one future. Dropping it waits until the thread has ended, so that nothing of it
/// outlives a test; whoever drops it has told the future to end before.
pub(crate) struct Worker(Option<std::thread::JoinHandle<()>>);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic has been printed, and the test learns of it by what is missing.
            let _ = thread.join();
        }
    }
}

/// Runs one future on a thread of its own, with a single-threaded runtime; for test hosts, which end it
/// by the future.
pub(crate) fn run_on_thread<F>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<Worker>
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            runtime.block_on(make());
            // What a handler left to compute has no one to compute for.
            runtime.shutdown_background();
        })?;
    Ok(Worker(Some(thread)))
}
