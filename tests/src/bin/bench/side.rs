//! What all groups are made of: the two sides of a comparison, and how they take turns.

use std::time::Duration;

use anyhow::Context as _;
use harness::load::{self, Figures};
use harness::mesh::Mesh;
use serde_json::json;
use tempfile::TempDir;

use crate::clients::Call;
use crate::report::{Figure, Report, Target};

/// Bytes of a small call's payload.
pub const PAYLOAD: usize = 128;
/// Calls in flight that small calls are measured with.
pub const IN_FLIGHT: [usize; 3] = [1, 32, 256];

/// A run of the benchmarks.
pub struct Bench {
    /// Only ids that begin so.
    pub only: String,
    /// Turns that each side has.
    pub rounds: usize,
    /// How long a turn lasts.
    pub time: Duration,
    /// Logs and sockets of bare parts.
    pub folder: TempDir,
    pub report: Report,
}

/// One side of a comparison: the call and the processes that take part in it.
pub struct Side {
    pub call: Call,
    pub pids: Vec<u32>,
}

/// What a comparison must reach, if anything.
#[derive(Clone, Copy, Default)]
pub struct Targets {
    pub p50: Option<Target>,
    pub throughput: Option<Target>,
    pub cpu: Option<Target>,
}

impl Bench {
    /// Whether an id, or ids that begin so, are to run.
    pub fn wants(&self, id: &str) -> bool {
        id.starts_with(&self.only) || self.only.starts_with(id)
    }

    /// Lets both sides call in turns and reports the medians.
    pub async fn compare(
        &mut self,
        id: &str,
        in_flight: usize,
        ours: &Side,
        bare: &Side,
        targets: Targets,
    ) {
        let (ours, bare) = self.turns(in_flight, ours, bare).await;
        self.calls(id, &format!("{in_flight} in flight"), &ours, &bare, targets);
    }

    /// Lets both sides call in turns.
    pub async fn turns(
        &self,
        in_flight: usize,
        ours: &Side,
        bare: &Side,
    ) -> (Vec<Figures>, Vec<Figures>) {
        let (mut our_runs, mut bare_runs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            our_runs.push(ours.run(in_flight, self.time).await);
            bare_runs.push(bare.run(in_flight, self.time).await);
        }
        (our_runs, bare_runs)
    }

    /// Reports the medians of both sides' runs.
    pub fn calls(
        &mut self,
        id: &str,
        case: &str,
        ours: &[Figures],
        bare: &[Figures],
        targets: Targets,
    ) {
        let (ours, bare) = (load::median(ours), load::median(bare));
        let mut figures = [
            Figure::beside("p50", "µs", ours.p50_us, bare.p50_us),
            Figure::beside("p99", "µs", ours.p99_us, bare.p99_us),
            Figure::beside("throughput", "calls/s", ours.per_second, bare.per_second),
            Figure::beside("CPU per call", "µs", ours.cpu_us, bare.cpu_us),
        ];
        let targets = [targets.p50, None, targets.throughput, targets.cpu];
        for (figure, target) in figures.iter_mut().zip(targets) {
            figure.target = target;
        }
        self.report.add(id, case, figures);
    }
}

impl Side {
    /// One turn.
    pub async fn run(&self, in_flight: usize, time: Duration) -> Figures {
        let call = self.call.clone();
        load::run(in_flight, time, &self.pids, move || call()).await
    }
}

/// The process id of a plugin, from its own tool.
pub async fn plugin_pid(mesh: &Mesh, plugin: &str) -> anyhow::Result<u32> {
    let answer = mesh.call_tool(&format!("{plugin}_pid"), json!({})).await?;
    let text = answer["result"]["content"][0]["text"].as_str();
    text.and_then(|text| text.parse().ok())
        .with_context(|| answer.to_string())
}
