//! `plugmesh rollout`: from the old versions of a plugin to a new one, step by step.

use mesh_proto::admin::{
    AbortRolloutRequest, ListRolloutsRequest, RolloutPlan, RolloutState, RolloutView,
    StartRolloutRequest,
};
use serde_json::{Value, json};
use tonic::Code;

use super::change;
use super::plugin::unknown;
use crate::admin::Admin;
use crate::args::{RolloutArgs, RolloutCommand, RolloutStartArgs};
use crate::exit::Failure;
use crate::output::{self, Output};

/// Begins, shows or ends rollouts.
///
/// # Errors
/// A wrong percentage, or what the coordinator says.
pub async fn run(args: RolloutArgs, output: Output) -> Result<(), Failure> {
    match args.what {
        RolloutCommand::Start(start) => {
            let (name, ask) = (start.name.clone(), start.ask.clone());
            let request = begin(start)?;
            let mut admin = Admin::connect(&ask).await?;
            let answer = admin.client().start_rollout(Admin::request(request)).await;
            change::show("rollout begun", &name, &mut admin, answer, output).await
        }
        RolloutCommand::Abort { ask, name, reason } => {
            let mut admin = Admin::connect(&ask).await?;
            let request = Admin::request(AbortRolloutRequest {
                name: name.clone(),
                reason,
            });
            match admin.client().abort_rollout(request).await {
                // It says what is not there: the plugin, or its rollout.
                Err(status) => Err(admin.failure(&status)),
                answer => change::show("rollout aborted", &name, &mut admin, answer, output).await,
            }
        }
        RolloutCommand::Status { ask, name } => {
            let mut admin = Admin::connect(&ask).await?;
            status(&mut admin, name.unwrap_or_default(), output).await
        }
    }
}

fn begin(args: RolloutStartArgs) -> Result<StartRolloutRequest, Failure> {
    let millis = |time: mesh_runtime::HumanDuration| {
        u64::try_from(time.get().as_millis()).unwrap_or(u64::MAX)
    };
    let max_errors_ppm = parts_of_a_million(&args.max_error_rate).ok_or_else(|| {
        let given = &args.max_error_rate;
        Failure::data(format!(
            "--max-error-rate: {given:?} is no percentage from 0 to 100; write for example 5% or 0.5%"
        ))
    })?;
    Ok(StartRolloutRequest {
        name: args.name,
        plan: Some(RolloutPlan {
            to: args.to,
            steps: args.steps,
            interval_ms: millis(args.interval),
            max_errors_ppm,
            within_ms: millis(args.within),
        }),
        reason: args.reason,
    })
}

/// A percentage, with or without its sign.
fn parts_of_a_million(text: &str) -> Option<u32> {
    let percent: f64 = text.trim().trim_end_matches('%').trim().parse().ok()?;
    // Within these bounds it fits.
    (0.0..=100.0)
        .contains(&percent)
        .then_some((percent * 10_000.0).round() as u32)
}

async fn status(admin: &mut Admin, plugin: String, output: Output) -> Result<(), Failure> {
    let request = Admin::request(ListRolloutsRequest {
        plugin: plugin.clone(),
    });
    let rollouts = match admin.client().list_rollouts(request).await {
        Ok(answer) => answer.into_inner().rollouts,
        Err(status) if status.code() == Code::NotFound => {
            return Err(unknown(admin, &plugin).await);
        }
        Err(status) => return Err(admin.failure(&status)),
    };
    if output == Output::Json {
        let rollouts: Vec<Value> = rollouts.iter().map(as_json).collect();
        return output::json(&json!({ "rollouts": rollouts }));
    }
    if rollouts.is_empty() {
        output::note("no rollouts");
        return Ok(());
    }
    output::line(for_people(&rollouts))
}

fn state(rollout: &RolloutView) -> &'static str {
    match rollout.state() {
        RolloutState::Unspecified => "unknown",
        RolloutState::Waiting => "waiting",
        RolloutState::Shifting => "shifting",
        RolloutState::Done => "done",
        RolloutState::Returned => "returned",
        RolloutState::Aborted => "aborted",
    }
}

fn as_json(rollout: &RolloutView) -> Value {
    let plan = rollout.plan.clone().unwrap_or_default();
    let share = |it: &mesh_proto::control::VersionShare| json!({ "version": it.version, "weight": it.weight });
    json!({
        "plugin": rollout.plugin,
        "to": plan.to,
        "steps": plan.steps,
        "interval_ms": plan.interval_ms,
        "max_errors_ppm": plan.max_errors_ppm,
        "within_ms": plan.within_ms,
        "before": rollout.before.iter().map(share).collect::<Vec<_>>(),
        "state": state(rollout),
        "percent": rollout.percent,
        "retired": rollout.retired,
        "reason": rollout.reason,
        "by": rollout.by,
        "why": rollout.why,
        "begun_ms": rollout.begun_ms,
        "since_ms": rollout.since_ms,
    })
}

fn for_people(rollouts: &[RolloutView]) -> String {
    let head = ["NAME", "FROM", "TO", "STATE", "PERCENT", "SINCE", "REASON"];
    let rows = rollouts.iter().map(|rollout| {
        let from: Vec<&str> = rollout
            .before
            .iter()
            .map(|it| it.version.as_str())
            .collect();
        let plan = rollout.plan.clone().unwrap_or_default();
        [
            rollout.plugin.clone(),
            from.join(","),
            plan.to,
            state(rollout).to_owned(),
            rollout.percent.to_string(),
            output::ago(rollout.since_ms),
            rollout.reason.clone(),
        ]
    });
    output::table(head, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_a_number_from_0_to_100() {
        for (text, parts) in [
            ("5%", Some(50_000)),
            ("0.5", Some(5_000)),
            ("0", Some(0)),
            ("100 %", Some(1_000_000)),
            ("101%", None),
            ("-1", None),
            ("NaN", None),
            ("many", None),
            ("", None),
        ] {
            assert_eq!(parts_of_a_million(text), parts, "{text}");
        }
    }
}
