//! Tables for people, `target/bench/summary.json` for programs, `target/bench/summary.md` for the docs.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What a figure must reach.
#[derive(Clone, Copy)]
pub enum Target {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Of the number itself, not of the ratio.
    AtMost(f64),
}

impl Target {
    fn is_met(self, ours: f64, ratio: Option<f64>) -> bool {
        let ratio = ratio.unwrap_or(f64::NAN);
        match self {
            Self::RatioAtMost(most) => ratio <= most,
            Self::RatioAtLeast(least) => ratio >= least,
            Self::AtMost(most) => ours <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtMost(most) => write!(f, "≤ {most} ×"),
            Self::RatioAtLeast(least) => write!(f, "≥ {least} ×"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// One number of ours, beside the same of a bare part if there is one.
#[derive(Clone, Copy)]
pub struct Figure {
    pub metric: &'static str,
    pub unit: &'static str,
    pub ours: f64,
    pub bare: Option<f64>,
    pub target: Option<Target>,
}

impl Figure {
    /// A number that stands alone.
    pub fn own(metric: &'static str, unit: &'static str, ours: f64) -> Self {
        Self {
            metric,
            unit,
            ours,
            bare: None,
            target: None,
        }
    }

    /// A number beside another.
    pub fn beside(metric: &'static str, unit: &'static str, ours: f64, bare: f64) -> Self {
        Self {
            bare: Some(bare),
            ..Self::own(metric, unit, ours)
        }
    }

    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }
}

/// A figure as the files hold it.
#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    case: String,
    metric: String,
    unit: String,
    ours: f64,
    bare: Option<f64>,
    ratio: Option<f64>,
    target: Option<String>,
    met: Option<bool>,
}

/// Collects what the parts of a run measure.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// The head of the table.
    pub fn print_head() {
        println!(
            "{:<30} {:<24} {:<13} {:<9} {:>12} {:>12} {:>7}  target",
            "id", "case", "metric", "unit", "ours", "bare", "ratio"
        );
    }

    /// Prints the figures of one case and keeps them.
    pub fn add(&mut self, id: &str, case: &str, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            let ratio = figure.bare.map(|bare| figure.ours / bare);
            let met = figure
                .target
                .map(|target| target.is_met(figure.ours, ratio));
            let row = Row {
                id: id.to_owned(),
                case: case.to_owned(),
                metric: figure.metric.to_owned(),
                unit: figure.unit.to_owned(),
                ours: round(figure.ours),
                bare: figure.bare.map(round),
                ratio: ratio.map(round),
                target: figure.target.map(|target| target.to_string()),
                met,
            };
            let number = |value: Option<f64>, digits| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            println!(
                "{id:<30} {case:<24} {:<13} {:<9} {:>12.*} {:>12} {:>7}  {}",
                row.metric,
                row.unit,
                digits(row.ours),
                row.ours,
                number(row.bare, 1),
                number(row.ratio, 2),
                row.verdict()
            );
            self.rows.push(row);
        }
    }

    /// Writes both files into the target folder; figures of ids that did not run this time stay as
    /// they were.
    pub fn write(self, target: &Path) -> anyhow::Result<()> {
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("summary.json");
        let mut all: Vec<Row> = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        all.retain(|old| !self.rows.iter().any(|row| old.id == row.id));
        all.extend(self.rows);
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
        std::fs::write(folder.join("summary.md"), markdown(&all))?;
        println!("\nwritten to {}", file.display());
        Ok(())
    }
}

impl Row {
    fn verdict(&self) -> String {
        let target = self.target.as_deref().unwrap_or_default();
        match self.met {
            None => String::new(),
            Some(true) => format!("{target} met"),
            Some(false) => format!("{target} MISSED"),
        }
    }

    fn cell(&self) -> String {
        let digits = digits(self.ours);
        let mut text = match (self.bare, self.ratio) {
            (Some(bare), Some(ratio)) => {
                format!("{:.digits$} / {bare:.digits$} (**{ratio:.2}**)", self.ours)
            }
            _ => format!("{:.digits$}", self.ours),
        };
        if self.target.is_some() {
            text += &format!("; {}", self.verdict());
        }
        text
    }
}

/// How many digits of a number say something.
fn digits(value: f64) -> usize {
    usize::from(value < 100.0) + usize::from(value < 10.0)
}

/// One line for each case, and a table for each run of cases with the same metrics.
fn markdown(rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {} cores\n",
        processor(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    let mut columns: Vec<String> = Vec::new();
    for line in rows.chunk_by(|one, other| one.id == other.id && one.case == other.case) {
        let these: Vec<String> = line
            .iter()
            .map(|row| format!(" {} {} |", row.metric, row.unit))
            .collect();
        if these != columns {
            text += &format!("\n| id | case |{}\n", these.concat());
            text += &format!("|---|---|{}\n", "---|".repeat(these.len()));
            columns = these;
        }
        if let [first, ..] = line {
            text += &format!("| `{}` | {} |", first.id, first.case);
        }
        text.extend(line.iter().map(|row| format!(" {} |", row.cell())));
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
