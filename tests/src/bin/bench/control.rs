//! The control plane by size: 100, 1,000 and 10,000 plugins, each with five dependencies and three
//! instances, on a tenth as many nodes.
//!
//! `control.engine` is the engine alone. `control.growth` has the exponents: n log n, which nothing may
//! pass, is 1.18 from 100 to 1,000 and 1.12 from there to 10,000.

mod engine;
mod graph;

use crate::report::{Figure, Target};
use crate::side::Bench;

const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// What n log n has from one of the sizes to the next, and a tenth for what measuring varies by.
const N_LOG_N: [f64; 2] = [1.18 + 0.1, 1.12 + 0.1];

/// The figures of one size, by name.
type Measured = Vec<(&'static str, &'static str, f64, Option<Target>)>;

pub fn control(bench: &mut Bench) {
    if bench.wants("control.engine") {
        let mut measured = Vec::new();
        for size in SIZES {
            measured.push(engine::measure(size));
            show(bench, "control.engine", &measured);
        }
        growth(bench, "control.growth.engine", &measured);
    }
}

/// Shows the size that was measured last.
fn show(bench: &mut Bench, id: &str, sizes: &[Measured]) {
    for (size, measured) in SIZES.iter().zip(sizes).skip(sizes.len() - 1) {
        let case = format!("{size} plugins");
        let figures = measured.iter().map(|(metric, unit, value, target)| Figure {
            target: *target,
            ..Figure::own(metric, unit, *value)
        });
        bench.report.add(id, &case, figures);
    }
}

fn growth(bench: &mut Bench, id: &str, sizes: &[Measured]) {
    for (place, (metric, ..)) in sizes[0].iter().enumerate() {
        let value = |size: usize| sizes[size][place].2.max(1e-9);
        let exponent = |from: usize| (value(from + 1) / value(from)).log10();
        let figures = [("100 to 1,000", 0), ("1,000 to 10,000", 1)];
        let figures = figures.map(|(name, from)| {
            Figure::own(name, "exponent", exponent(from)).target(Target::AtMost(N_LOG_N[from]))
        });
        bench.report.add(id, metric, figures);
    }
}
