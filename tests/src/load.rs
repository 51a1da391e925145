//! A closed loop of calls, and what it shows: latency, throughput, processor time.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process;

/// What one run showed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Median time of a call, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the time of a call, in microseconds.
    pub p99_us: f64,
    /// Calls that ended well, per second.
    pub per_second: f64,
    /// Processor time of all processes that took part, per call, in microseconds.
    pub cpu_us: f64,
}

/// Keeps `in_flight` calls running for a time, after a tenth of it to warm up; `pids` are the
/// processes whose processor time counts. Panics on the first call that fails.
pub async fn run<F, Fut>(in_flight: usize, time: Duration, pids: &[u32], call: F) -> Figures
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = Result<(), String>>,
{
    lane_group(in_flight, time / 10, call.clone()).await;
    let cpu = || pids.iter().map(|&pid| process::cpu_nanos(pid)).sum::<u64>();
    let (cpu_before, begin) = (cpu(), Instant::now());
    let histogram = lane_group(in_flight, time, call).await;
    let elapsed = begin.elapsed();
    let calls = histogram.len().max(1) as f64;
    Figures {
        p50_us: histogram.value_at_quantile(0.50) as f64 / 1_000.0,
        p99_us: histogram.value_at_quantile(0.99) as f64 / 1_000.0,
        per_second: calls / elapsed.as_secs_f64(),
        cpu_us: (cpu() - cpu_before) as f64 / 1_000.0 / calls,
    }
}

/// For nanoseconds, up to a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds")
}

async fn lane_group<F, Fut>(lanes: usize, time: Duration, call: F) -> Histogram<u64>
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = Result<(), String>>,
{
    let histogram = Rc::new(RefCell::new(histogram()));
    let end = Instant::now() + time;
    let lane = || {
        let (call, histogram) = (call.clone(), histogram.clone());
        async move {
            loop {
                let begin = Instant::now();
                if begin >= end {
                    return;
                }
                if let Err(error) = call().await {
                    panic!("a call failed: {error}");
                }
                let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                histogram.borrow_mut().saturating_record(nanos);
            }
        }
    };
    let lanes: futures::stream::FuturesUnordered<_> = (0..lanes).map(|_| lane()).collect();
    futures::StreamExt::collect::<Vec<()>>(lanes).await;
    Rc::into_inner(histogram)
        .expect("all lanes ended")
        .into_inner()
}

/// The middle one of several values; of an even number the upper one.
pub fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The middle one of several runs, figure by figure.
pub fn median(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| middle(runs.iter().map(figure));
    Figures {
        p50_us: of(|run| run.p50_us),
        p99_us: of(|run| run.p99_us),
        per_second: of(|run| run.per_second),
        cpu_us: of(|run| run.cpu_us),
    }
}
