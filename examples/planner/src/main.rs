//! An example plugin that needs two others and calls them.

mod finish_time;
mod plan_day;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use plugmesh_sdk::{Plugin, Prompt, Tool};
use schemars::JsonSchema;
use serde::Deserialize;

/// What operators may set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// IANA time zone for those who name none
    zone: String,
    /// Minutes of rest after each task
    #[schemars(range(max = 240))]
    break_minutes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zone: "UTC".to_owned(),
            break_minutes: 0,
        }
    }
}

fn plugin() -> Plugin {
    let finish_time = Tool::new("finish_time")
        .description("Tells when a number of equally long tasks will be done if work begins now")
        .read_only();
    let plan_day = Prompt::new("plan_day").description("Asks for a plan of the day's tasks");
    Plugin::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .description(env!("CARGO_PKG_DESCRIPTION"))
        .license("Apache-2.0")
        .tag("planning")
        .depends_on("calculator", "^1.0")
        .depends_on("time", "^1.0")
        .config::<Config>()
        .tool(finish_time, finish_time::finish_time)
        .prompt(plan_day, plan_day::plan_day)
}

fn main() -> ExitCode {
    plugin().main()
}
