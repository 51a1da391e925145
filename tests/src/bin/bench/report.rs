//! Tables for people, `target/bench/summary.json` for programs, `target/bench/summary.md` for the docs.

use std::path::Path;

use anyhow::Context as _;
use harness::load::Figures;
use serde::Serialize;

/// One figure of ours beside the same of a bare part.
#[derive(Serialize)]
struct Row {
    id: String,
    in_flight: usize,
    payload: usize,
    metric: &'static str,
    unit: &'static str,
    ours: f64,
    bare: f64,
    ratio: f64,
    rounds: usize,
}

/// Collects what the parts of a run measure.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// What was measured and how.
pub struct Case<'a> {
    pub id: &'a str,
    pub in_flight: usize,
    /// Bytes of the payload.
    pub payload: usize,
    pub rounds: usize,
}

impl Report {
    /// Prints one comparison and keeps it.
    pub fn add(&mut self, case: &Case<'_>, ours: &Figures, bare: &Figures) {
        let metrics = [
            ("p50", "us", ours.p50_us, bare.p50_us),
            ("p99", "us", ours.p99_us, bare.p99_us),
            ("throughput", "calls/s", ours.per_second, bare.per_second),
            ("cpu_per_call", "us", ours.cpu_us, bare.cpu_us),
        ];
        for (metric, unit, ours, bare) in metrics {
            let ratio = ours / bare;
            println!(
                "{:<28} {:>9} {:>8} {:<13} {:<8} {ours:>12.1} {bare:>12.1} {ratio:>7.2}",
                case.id, case.in_flight, case.payload, metric, unit
            );
            self.rows.push(Row {
                id: case.id.to_owned(),
                in_flight: case.in_flight,
                payload: case.payload,
                metric,
                unit,
                ours: round(ours),
                bare: round(bare),
                ratio: round(ratio),
                rounds: case.rounds,
            });
        }
    }

    /// The head of the table.
    pub fn print_head() {
        println!(
            "{:<28} {:>9} {:>8} {:<13} {:<8} {:>12} {:>12} {:>7}",
            "id", "in flight", "payload", "metric", "unit", "ours", "bare", "ratio"
        );
    }

    /// Writes `bench/summary.json` in the target folder; figures of parts that did not run this time
    /// stay as they were.
    pub fn write(self, target: &Path) -> anyhow::Result<()> {
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("summary.json");
        let mut all: Vec<serde_json::Value> = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let is_new = |old: &serde_json::Value| self.rows.iter().any(|row| old["id"] == row.id);
        all.retain(|old| !is_new(old));
        for row in &self.rows {
            all.push(serde_json::to_value(row)?);
        }
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
        std::fs::write(folder.join("summary.md"), markdown(&all))?;
        println!("\nwritten to {}", file.display());
        Ok(())
    }
}

/// One line for each case, as `docs/performance.md` has them: ours / bare (ratio).
fn markdown(rows: &[serde_json::Value]) -> String {
    let mut text = format!(
        "{}, {} cores\n\n| id | in flight | p50 µs | p99 µs | calls/s | CPU µs per call |\n\
         |---|---|---|---|---|---|\n",
        processor(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    for case in rows.chunks(4) {
        let cell = |row: &serde_json::Value| {
            let number = |name: &str| row[name].as_f64().unwrap_or_default();
            let digits = usize::from(number("ours") < 100.0);
            format!(
                " {:.digits$} / {:.digits$} (**{:.2}**) |",
                number("ours"),
                number("bare"),
                number("ratio")
            )
        };
        let id = case[0]["id"].as_str().unwrap_or_default();
        text += &format!("| `{id}` | {} |", case[0]["in_flight"]);
        text.extend(case.iter().map(cell));
        text.push('\n');
    }
    text
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split(": ").nth(1));
    name.unwrap_or("unknown processor").to_owned()
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
