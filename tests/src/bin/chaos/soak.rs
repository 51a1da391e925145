//! A long run at half of the peak with a fault every ten seconds: memory and descriptors of every
//! process must stay flat, and every call is accounted for as in `chaos`.
//!
//! Faults hit only what is there to be hit (node b and c, and the last of three gateways), so that
//! a process of every kind lives through the whole run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::chaos::client::{Clients, End, Pace, Plan, Seen};
use harness::chaos::fault::{self, Fault};
use harness::chaos::rounds::{self, Report};
use harness::chaos::world::{NODES, World};
use harness::process;
use serde::Serialize;
use tokio::time::{sleep, sleep_until};

use crate::{evidence, table, target};

const CLIENTS: usize = 256;
const HOLD: Duration = Duration::from_millis(10);
const GATEWAYS: usize = 3;

/// A fault begins every so often.
const TURN: Duration = Duration::from_secs(10);

/// The most that the memory or the descriptors of a process may grow.
const GROWTH: f64 = 1.05;

/// Processes that faults replace are compared at this age.
const AGE: std::ops::Range<u64> = 20..60;

/// Seconds of a run whose first window has seen every fault at least once.
const JUDGED: u64 = 600;

/// One look at one process.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    at_s: u64,
    pid: u32,
    age_s: u64,
    resident: u64,
    descriptors: u64,
}

/// All looks at all processes, by role.
#[derive(Default, Serialize)]
struct Samples {
    roles: BTreeMap<String, Vec<Sample>>,
}

impl Samples {
    fn take(&mut self, world: &mut World, begun: Instant) {
        let at_s = begun.elapsed().as_secs();
        let mesh = &mut world.mesh;
        let mut pids = vec![
            ("nats-server".to_owned(), mesh.nats.process.pid()),
            ("coordinator".to_owned(), mesh.coordinator.pid()),
        ];
        pids.extend(mesh.gateways_mut().map(|one| (one.name.clone(), one.pid())));
        for (index, node) in NODES.iter().enumerate() {
            pids.push((format!("agent {node}"), world.mesh.agents[index].pid()));
            if let Some(pid) = world.plugin(index) {
                pids.push((format!("plugin {node}"), pid));
            }
        }
        for (role, pid) in pids {
            let samples = self.roles.entry(role).or_default();
            let first = samples.iter().find(|one| one.pid == pid);
            let born = first.map_or(at_s, |one| one.at_s);
            samples.push(Sample {
                at_s,
                pid,
                age_s: at_s - born,
                resident: process::resident_bytes(pid),
                descriptors: process::descriptors(pid),
            });
        }
    }

    /// Compares the medians of two windows for each role, prints them, and says whether all is flat.
    fn judge(&self, total: u64) -> bool {
        let window = total / 6;
        println!(
            "\nmedians of minute {:.1} to {:.1} and of the last {:.1}; of processes that faults \
             replaced at the age of {} to {} s",
            window as f64 / 60.0,
            window as f64 / 30.0,
            window as f64 / 60.0,
            AGE.start,
            AGE.end
        );
        println!(
            "{:<16} {:>6} {:>12} {:>12} {:>7} {:>8} {:>8}  verdict",
            "process", "lives", "first KiB", "last KiB", "ratio", "first fd", "last fd"
        );
        let mut all = true;
        for (role, samples) in &self.roles {
            let later: Vec<&Sample> = samples.iter().filter(|one| one.at_s >= window).collect();
            let mut pids: Vec<u32> = later.iter().map(|one| one.pid).collect();
            pids.dedup();
            let of_age = |one: &&&Sample| pids.len() == 1 || AGE.contains(&one.age_s);
            let median = |from: u64, to: u64, figure: fn(&Sample) -> u64| {
                let inside = later.iter().filter(of_age);
                let inside = inside.filter(|one| (from..to).contains(&one.at_s));
                let mut values: Vec<u64> = inside.map(|one| figure(one)).collect();
                values.sort_unstable();
                values.get(values.len() / 2).copied()
            };
            let pair = |figure: fn(&Sample) -> u64| {
                let first = median(window, 2 * window, figure);
                first.zip(median(total - window, u64::MAX, figure))
            };
            let (Some(memory), Some(files)) =
                (pair(|one| one.resident), pair(|one| one.descriptors))
            else {
                println!("{role:<16} {:>6}  too few samples of that age", pids.len());
                all = false;
                continue;
            };
            let ratio = memory.1 as f64 / memory.0.max(1) as f64;
            // One descriptor more or less is a connection that was just being made.
            let few = files.1 as f64 <= (files.0 as f64 * GROWTH).max(files.0 as f64 + 1.0);
            let flat = ratio <= GROWTH && few;
            all &= flat;
            println!(
                "{role:<16} {:>6} {:>12} {:>12} {ratio:>7.3} {:>8} {:>8}  {}",
                pids.len(),
                memory.0 / 1_024,
                memory.1 / 1_024,
                files.0,
                files.1,
                if flat { "flat" } else { "GROWS" }
            );
        }
        if total < JUDGED {
            println!("less than ten minutes: growth is shown and not judged");
            return true;
        }
        all
    }
}

/// Runs for so many minutes.
pub async fn run(minutes: u64) -> anyhow::Result<bool> {
    anyhow::ensure!(minutes > 0, "--minutes: at least 1");
    let mut world = World::start(GATEWAYS, 1).await;
    let mut plan = Plan {
        gateways: world.gateways(),
        clients: CLIENTS,
        hold: HOLD,
        payload: 0,
        pace: Pace::Closed,
        first: 1,
    };
    let (peak, early) = peak(plan.clone()).await;
    let rate = peak / 2.0;
    println!(
        "the peak is {peak:.0} calls/s: {minutes} minutes at {rate:.0}, a fault every {TURN:?}"
    );
    (plan.pace, plan.first) = (Pace::Open(rate), 1 << 40);
    let clients = Clients::start(plan);
    let (begun, total) = (Instant::now(), Duration::from_secs(minutes * 60));
    let (mut samples, mut turn) = (Samples::default(), 0);
    while begun.elapsed() + TURN <= total {
        let start = begun + TURN * u32::try_from(turn)?;
        world.wait_well().await;
        strike(&mut world, turn).await;
        for part in [2, 1] {
            sleep_until((start + TURN / part - Duration::from_millis(100)).into()).await;
            samples.take(&mut world, begun);
        }
        turn += 1;
        if turn % 6 == 0 {
            progress(&clients, turn / 6);
        }
    }
    world.wait_well().await;
    let settled = rounds::settle(&world, clients, early).await;
    let skipped = settled.seen.skipped;
    let report = Report::new("soak", &[], &settled);
    println!();
    table::head();
    table::row(&report);
    println!("calls that no client was free for: {skipped}");
    let folder = target()?;
    let text = serde_json::to_string(&serde_json::json!({
        "minutes": minutes, "peak": peak, "rate": rate, "skipped": skipped,
        "calls": report, "samples": samples,
    }))?;
    std::fs::write(folder.join("soak.json"), text + "\n")?;
    let flat = samples.judge(total.as_secs());
    if !report.is_good() {
        evidence::show(&world, &folder.join("soak"), &settled.found)?;
    }
    println!(
        "{}",
        if flat && report.is_good() {
            "good"
        } else {
            "WRONG"
        }
    );
    Ok(flat && report.is_good())
}

/// The most good calls per second, and what was seen meanwhile.
async fn peak(plan: Plan) -> (f64, Seen) {
    let clients = Clients::start(plan);
    sleep(Duration::from_secs(3)).await;
    let good = || clients.look(|seen| seen.records.iter().filter(|one| one.end == End::Ok).count());
    let (before, begun) = (good(), Instant::now());
    sleep(Duration::from_secs(5)).await;
    let rate = (good() - before) as f64 / begun.elapsed().as_secs_f64();
    (rate, clients.finish())
}

async fn strike(world: &mut World, turn: usize) {
    let (b, c) = (1, 2);
    let faults = [
        (Fault::PluginKill, b),
        (Fault::AgentKill, c),
        (Fault::GatewayKill, GATEWAYS - 1),
        (Fault::PluginStop, b),
        (Fault::AgentStop, b),
        (Fault::SlowPlugin, c),
        (Fault::FloodingPlugin, b),
    ];
    match faults[turn % faults.len()] {
        (Fault::GatewayKill, index) => fault::kill_gateway(world, index).await,
        (fault, node) => fault.strike_node(world, node, turn).await,
    }
}

fn progress(clients: &Clients, minute: usize) {
    clients.look(|seen| {
        let failed = seen.records.iter().filter(|one| one.end != End::Ok).count();
        println!(
            "minute {minute}: {} calls, {failed} failed, {} tries again, {} skipped",
            seen.records.len(),
            seen.retries.values().sum::<u64>(),
            seen.skipped
        );
    });
}
