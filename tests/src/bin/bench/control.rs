//! The control plane by size: 100, 1,000 and 10,000 plugins, each with five dependencies and three
//! instances, on a tenth as many nodes.
//!
//! `control.engine` is the engine alone. `control.mesh` is a coordinator's process over a real
//! `nats-server` with JetStream, and simulated agents with a gRPC session each. `control.growth.*` has
//! the exponents: n log n, which nothing may pass, is 1.18 from 100 to 1,000 and 1.12 from there to
//! 10,000.

mod agents;
mod engine;
pub mod fanout;
mod graph;
mod mesh;

use std::time::Duration;

use anyhow::Context as _;

use crate::report::{Figure, Target};
use crate::side::Bench;

const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// What n log n has from one of the sizes to the next, and a tenth for what measuring varies by.
const N_LOG_N: [f64; 2] = [1.18 + 0.1, 1.12 + 0.1];

/// How long one size may take with a whole mesh.
const PATIENCE: Duration = Duration::from_secs(240);

/// The figures of one size.
type Measured = Vec<Figure>;

pub async fn control(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.wants("control.engine") {
        let mut measured = Vec::new();
        for size in SIZES {
            let figures = engine::measure(size);
            show(bench, "control.engine", size, &figures);
            measured.push(figures);
        }
        growth(bench, "control.growth.engine", &measured);
    }
    if bench.wants("control.mesh") {
        let mut measured = Vec::new();
        for size in SIZES {
            let measuring = mesh::measure(size, bench.folder.path());
            let figures = tokio::time::timeout(PATIENCE, measuring).await;
            let figures = figures
                .with_context(|| format!("it has not ended within {PATIENCE:?}"))
                .flatten();
            match figures {
                Ok(figures) => {
                    show(bench, "control.mesh", size, &figures);
                    measured.push(figures);
                }
                Err(why) if measured.is_empty() => return Err(why),
                Err(why) => {
                    println!("control.mesh: this machine does not carry {size} plugins: {why:#}");
                    break;
                }
            }
        }
        growth(bench, "control.growth.mesh", &measured);
    }
    Ok(())
}

fn show(bench: &mut Bench, id: &str, size: usize, figures: &Measured) {
    let case = format!("{size} plugins");
    bench.report.add(id, &case, figures.iter().copied());
}

fn growth(bench: &mut Bench, id: &str, sizes: &[Measured]) {
    let names = ["100 to 1,000", "1,000 to 10,000"];
    for (place, Figure { metric, .. }) in sizes[0].iter().enumerate() {
        let value = |size: &Measured| size[place].ours.max(1e-9);
        let exponents = sizes
            .windows(2)
            .map(|pair| (value(&pair[1]) / value(&pair[0])).log10());
        let figures = exponents.zip(names).zip(N_LOG_N);
        let figures = figures.map(|((exponent, name), most)| {
            Figure::own(name, "exponent", exponent).target(Target::AtMost(most))
        });
        bench.report.add(id, metric, figures);
    }
}
