//! The table on stdout: a line for each fault, as docs/chaos.md explains them.

use harness::chaos::rounds::Report;

pub fn head() {
    println!(
        "{:<16} {:>6} {:>7} {:>7} {:>5} {:>6} {:>9} {:>4} {:>11} {:>11} {:>11} {:>9}  verdict",
        "fault",
        "rounds",
        "calls",
        "retries",
        "safe✗",
        "double",
        "dishonest",
        "hung",
        "mended ms",
        "gap ms",
        "recovery ms",
        "longest ms"
    );
}

/// One fault: times as median/longest of its rounds, then retries and failures by reason.
pub fn row(report: &Report) {
    let recoveries: Vec<u64> = report.recoveries.iter().flatten().copied().collect();
    println!(
        "{:<16} {:>6} {:>7} {:>7} {:>5} {:>6} {:>9} {:>4} {:>11} {:>11} {:>11} {:>9}  {}",
        report.fault,
        report.rounds,
        report.calls,
        report.retries.values().sum::<u64>(),
        report.failed_safe,
        report.double,
        report.dishonest,
        report.hung,
        pair(&report.mended),
        pair(&report.gaps),
        pair(&recoveries),
        report.longest_call,
        verdict(report)
    );
    if report.repeated > 0 {
        println!("    repeated {:>7} × safe, by the mesh", report.repeated);
    }
    for (what, counts) in [("retried", &report.retries), ("failed", &report.failures)] {
        for (reason, count) in counts {
            println!("    {what:<8} {count:>7} × {reason}");
        }
    }
}

fn verdict(report: &Report) -> String {
    match report.not_back {
        _ if report.is_good() => "good".to_owned(),
        0 => "WRONG".to_owned(),
        rounds => format!("WRONG ({rounds} rounds: the rate was not back)"),
    }
}

fn pair(values: &[u64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(longest)) => format!("{middle}/{longest}"),
        _ => "-".to_owned(),
    }
}

/// The whole of it in one line.
pub fn foot(reports: &[Report]) {
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    println!(
        "\n{} calls, {} of them good; idempotent calls that failed: {}, double executions: {}, \
         dishonest: {}, hung: {}",
        sum(|one| one.calls),
        sum(|one| one.good),
        sum(|one| one.failed_safe),
        sum(|one| one.double),
        sum(|one| one.dishonest),
        sum(|one| one.hung)
    );
    let bad: Vec<&str> = reports
        .iter()
        .filter(|report| !report.is_good())
        .map(|report| report.fault.as_str())
        .collect();
    match bad.as_slice() {
        [] => println!("good"),
        bad => println!("WRONG: {}", bad.join(", ")),
    }
}
