//! The prompt `plan_day`.

use plugmesh_sdk::{Context, PromptOutput, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Config;

#[derive(Deserialize, JsonSchema)]
pub struct PlanDay {
    /// What is to be done, one task after the other, separated by commas
    tasks: String,
    /// Hours that are free today; the default is 8
    hours: Option<f64>,
}

pub async fn plan_day(args: PlanDay, ctx: Context) -> Result<PromptOutput, ToolError> {
    let config = ctx.config::<Config>()?;
    let tasks: Vec<String> = args
        .tasks
        .split(',')
        .map(|task| format!("- {}", task.trim()))
        .collect();
    let text = format!(
        "Plan my day. I have {} hours, want {} minutes of rest after each task, and live in the time \
         zone {}. Ask the tool finish_time when I will be done. My tasks:\n{}",
        args.hours.unwrap_or(8.0),
        config.break_minutes,
        config.zone,
        tasks.join("\n")
    );
    Ok(PromptOutput::new()
        .description("A plan of the day")
        .user(text))
}
