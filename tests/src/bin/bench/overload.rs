//! More calls than a plugin can take: what is admitted must stay quick, and as much as ever.
//!
//! The generator is an open loop: calls begin at a fixed rate whatever became of those before, and
//! their time counts from when they were to begin.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use harness::load::{self, middle};
use harness::mesh::Plan;
use hdrhistogram::Histogram;
use mesh_core::error::ErrorCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::caller::{Caller, request};
use crate::clients;
use crate::report::{Figure, Target};
use crate::side::Bench;

/// Calls that the plugin takes at a time, and how long it works on one.
const CONCURRENCY: usize = 8;
const WORK_MS: u64 = 5;

/// Arrivals, as multiples of what the plugin can take.
const FACTORS: [f64; 4] = [0.5, 1.0, 2.0, 3.0];

/// The most that the 99th percentile of admitted calls may be.
const P99_MS: f64 = 50.0;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// Not processed, and the caller was told when to come again.
    Shed,
}

/// What one run of the generator saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    goodput: f64,
    p99_ms: f64,
    shed: f64,
    failed: f64,
}

/// What calls have come to so far.
struct Tally {
    /// Nanoseconds from when each was to begin.
    well: Histogram<u64>,
    /// How many of them ended while calls still began.
    in_time: u32,
    shed: u32,
    failed: u32,
}

pub async fn overload(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.wants("overload") {
        return Ok(());
    }
    let mesh = Plan::new()
        .quiet()
        .agent("node-a")
        .plugin_as(
            "probe",
            &["probe"],
            &[("PROBE_CONCURRENCY", &CONCURRENCY.to_string())],
        )
        .start()
        .await;
    mesh.wait_state("probe", "active").await;
    mesh.wait_tool("probe_work").await;

    let caller = Caller::connect(&mesh).await?;
    let arguments = json!({"ms": WORK_MS});
    let call = request("service:probe.work", "probe", arguments.to_string().into())?;
    let by_router = move || {
        let answer = caller.router.call(call.clone());
        async move {
            match answer.finish().await {
                Ok(_) => Ok(Ended::Well),
                Err(error) if error.code == ErrorCode::Overloaded => match error.retry_after {
                    Some(_) => Ok(Ended::Shed),
                    None => Err(format!("it does not say when to come again: {error}")),
                },
                Err(error) => Err(error.to_string()),
            }
        }
    };
    bench.steps("overload.router", by_router).await;

    let send = clients::mcp(&mesh.mcp_url(), "probe_work", &arguments);
    let by_http = move || {
        let answer = send();
        async move {
            let answer = answer.await?;
            let text = || {
                format!(
                    "{}: {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                )
            };
            match answer.status.as_u16() {
                200 if answer.body.windows(6).any(|part| part == b"worked") => Ok(Ended::Well),
                429 | 503 if answer.retry_after => Ok(Ended::Shed),
                _ => Err(text()),
            }
        }
    };
    bench.steps("overload.gateway", by_http).await;
    Ok(())
}

impl Bench {
    /// Finds out what the plugin can take, and offers it parts and multiples of that.
    async fn steps<F, Fut>(&mut self, id: &str, call: F)
    where
        F: Fn() -> Fut + Clone + 'static,
        Fut: Future<Output = Result<Ended, String>> + 'static,
    {
        if !self.wants(id) {
            return;
        }
        let closed = call.clone();
        let closed = load::run(CONCURRENCY, self.time, &[], move || {
            let call = closed();
            async move { call.await.map(drop) }
        });
        let capacity = closed.await.per_second;
        let mut runs = [const { Vec::new() }; FACTORS.len()];
        for _ in 0..self.rounds {
            for (factor, runs) in FACTORS.iter().zip(&mut runs) {
                runs.push(open_loop(factor * capacity, self.time, call.clone()).await);
            }
        }
        let seen = runs.map(|runs| {
            let of = |figure: fn(&Seen) -> f64| middle(runs.iter().map(figure));
            Seen {
                goodput: of(|seen| seen.goodput),
                p99_ms: of(|seen| seen.p99_ms),
                shed: of(|seen| seen.shed),
                // Not one may fail in any round.
                failed: runs.iter().map(|seen| seen.failed).sum(),
            }
        });
        let peak = seen.iter().map(|seen| seen.goodput).fold(0.0, f64::max);
        for (factor, seen) in FACTORS.iter().zip(seen) {
            let mut goodput = Figure::beside("goodput / peak", "calls/s", seen.goodput, peak);
            let mut p99 = Figure::own("p99 of admitted", "ms", seen.p99_ms);
            if *factor > 1.0 {
                goodput = goodput.target(Target::RatioAtLeast(0.8));
                p99 = p99.target(Target::AtMost(P99_MS));
            }
            let shed = Figure::own("shed", "calls/s", seen.shed);
            let failed = Figure::own("failed", "calls", seen.failed).target(Target::AtMost(0.0));
            let case = format!("{factor} × of {capacity:.0} calls/s");
            self.report.add(id, &case, [goodput, p99, shed, failed]);
        }
    }
}

/// Begins `rate` calls per second for a time, and waits for them all. Goodput is what ended within the
/// time, so a queue that is worked off later does not count.
async fn open_loop<F, Fut>(rate: f64, time: Duration, call: F) -> Seen
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Ended, String>> + 'static,
{
    let tally = Rc::new(RefCell::new(Tally {
        well: load::histogram(),
        in_time: 0,
        shed: 0,
        failed: 0,
    }));
    let begin = Instant::now();
    let end = begin + time;
    let mut calls = JoinSet::new();
    let mut begun = 0_u32;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    loop {
        tick.tick().await;
        let now = begin.elapsed();
        if now >= time {
            break;
        }
        while f64::from(begun) < now.as_secs_f64() * rate {
            let due = begin + Duration::from_secs_f64(f64::from(begun) / rate);
            begun += 1;
            let (call, tally) = (call(), tally.clone());
            calls.spawn_local(async move {
                let ended = call.await;
                let mut tally = tally.borrow_mut();
                match ended {
                    Err(why) => {
                        if tally.failed == 0 {
                            println!("a call failed: {why}");
                        }
                        tally.failed += 1;
                    }
                    Ok(Ended::Shed) => tally.shed += 1,
                    Ok(Ended::Well) => {
                        let now = Instant::now();
                        tally.in_time += u32::from(now <= end);
                        let nanos = (now - due).as_nanos();
                        tally
                            .well
                            .saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
                    }
                }
            });
        }
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
    let tally = tally.borrow();
    let seconds = time.as_secs_f64();
    Seen {
        goodput: f64::from(tally.in_time) / seconds,
        p99_ms: tally.well.value_at_quantile(0.99) as f64 / 1e6,
        shed: f64::from(tally.shed) / seconds,
        failed: f64::from(tally.failed),
    }
}
