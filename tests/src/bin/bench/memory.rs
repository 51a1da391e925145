//! Resident memory: of a mesh that does nothing, with a hundred plugins, and at load.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use harness::load;
use harness::mesh::{Mesh, Plan};
use harness::process::resident_bytes;

use crate::caller::Caller;
use crate::clients::{self, Call};
use crate::report::{Figure, Target};
use crate::side::{Bench, PAYLOAD};

/// Plugins of the full mesh; each is a process with the Rust SDK.
const PLUGINS: usize = 100;

const MIB: f64 = 1024.0 * 1024.0;

/// Watches the resident memory of processes from a thread of its own.
pub struct Watch {
    processes: Vec<Watched>,
    stop: Arc<AtomicBool>,
}

struct Watched {
    name: &'static str,
    pid: u32,
    before: u64,
    peak: Arc<AtomicU64>,
}

impl Watch {
    pub fn start(processes: &[(&'static str, u32)]) -> Self {
        let watched = |&(name, pid): &(&'static str, u32)| Watched {
            name,
            pid,
            before: resident_bytes(pid),
            peak: Arc::default(),
        };
        let watch = Self {
            processes: processes.iter().map(watched).collect(),
            stop: Arc::default(),
        };
        let peaks: Vec<_> = watch
            .processes
            .iter()
            .map(|process| (process.pid, process.peak.clone()))
            .collect();
        let stop = watch.stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                for (pid, peak) in &peaks {
                    peak.fetch_max(resident_bytes(*pid), Relaxed);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        watch
    }

    /// The most that each process had so far, in bytes.
    fn peaks(&self) -> Vec<u64> {
        let peaks = self.processes.iter();
        peaks.map(|process| process.peak.load(Relaxed)).collect()
    }

    /// Reports what each process had before, at most, and has now.
    pub fn report(self, bench: &mut Bench, id: &str) {
        for process in &self.processes {
            let after = resident_bytes(process.pid);
            let mib = |bytes: u64| bytes as f64 / MIB;
            let figures = [
                Figure::own("before", "MiB", mib(process.before)),
                Figure::own("peak", "MiB", mib(process.peak.load(Relaxed).max(after))),
                Figure::own("after", "MiB", mib(after)),
            ];
            bench.report.add(id, process.name, figures);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Resident memory of agent and gateway as they stand.
fn figures(mesh: &Mesh) -> [Figure; 2] {
    let mib = |pid| resident_bytes(pid) as f64 / MIB;
    [
        Figure::own("agent", "MiB", mib(mesh.agents[0].pid())),
        Figure::own("gateway", "MiB", mib(mesh.gateway.pid())),
    ]
}

/// Lets what was allocated for the start be freed.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

pub async fn memory(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "memory";
    if !bench.wants(id) {
        return Ok(());
    }
    let mesh = Plan::new().quiet().agent("node-a").start().await;
    settle().await;
    let [agent, gateway] = figures(&mesh);
    let agent = agent.target(Target::AtMost(20.0));
    bench.report.add(id, "no plugins", [agent, gateway]);
    drop(mesh);

    let mut plan = Plan::new().quiet().agent("node-a");
    for number in 0..PLUGINS {
        let name = format!("p{number}");
        plan = plan.plugin_as(&name, &["probe"], &[("PROBE_NAME", &name)]);
    }
    let mesh = plan.start().await;
    mesh.wait_instances(PLUGINS).await;
    mesh.wait_tool(&format!("p{}_echo", PLUGINS - 1)).await;
    settle().await;
    bench.report.add(id, "100 plugins", figures(&mesh));

    let caller = Caller::connect(&mesh).await?;
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let echoes: Result<Vec<Call>, _> = (0..PLUGINS)
        .map(|number| caller.echo(&format!("p{number}"), payload.clone()))
        .collect();
    let (echoes, next) = (Rc::new(echoes?), Rc::new(Cell::new(0)));
    let all = move || {
        next.set((next.get() + 1) % PLUGINS);
        echoes[next.get()]()
    };
    let tool = clients::mcp_echo(&mesh.mcp_url(), "p0_echo", &"x".repeat(PAYLOAD));
    let watch = Watch::start(&[
        ("agent", mesh.agents[0].pid()),
        ("gateway", mesh.gateway.pid()),
    ]);
    let time = bench.time * 5;
    futures::join!(
        load::run(256, time, &[], all),
        load::run(32, time, &[], move || tool()),
    );
    let [agent, gateway] = watch.peaks()[..] else {
        anyhow::bail!("two processes are watched");
    };
    bench.report.add(
        id,
        "100 plugins, peak at load",
        [
            Figure::own("agent", "MiB", agent as f64 / MIB),
            Figure::own("gateway", "MiB", gateway as f64 / MIB),
        ],
    );
    settle().await;
    bench
        .report
        .add(id, "100 plugins, after it", figures(&mesh));
    Ok(())
}
