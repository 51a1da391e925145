//! Waiting for a condition, with a bound.

use std::future::Future;
use std::time::{Duration, Instant};

/// Polls until the condition holds; panics with what was last seen when it does not in time.
pub async fn until<T, E, F, Fut>(what: &str, limit: Duration, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let begin = Instant::now();
    loop {
        let seen = match condition().await {
            Ok(value) => return value,
            Err(seen) => seen.to_string(),
        };
        assert!(
            begin.elapsed() < limit,
            "{what}: not within {limit:?}; last seen: {seen}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
