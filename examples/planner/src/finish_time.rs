//! The tool `finish_time`: asks the calculator and the clock.

use jiff::Timestamp;
use plugmesh_sdk::{Context, Json, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Config;

#[derive(Deserialize, JsonSchema)]
pub struct FinishTime {
    /// Minutes that one task takes
    #[schemars(range(min = 0, max = 100_000))]
    minutes_per_task: f64,
    /// How many tasks there are
    #[schemars(range(max = 100_000))]
    tasks: u32,
    /// IANA time zone for the answer, such as Europe/Berlin; the default is set by the operator
    zone: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Finish {
    /// When all is done, for people
    finish: String,
    /// Minutes until then, breaks included
    minutes: f64,
    /// The time zone of the answer
    zone: String,
}

/// What the calculator's tools give.
#[derive(Deserialize)]
struct Answer {
    result: f64,
}

/// What `current_time` gives.
#[derive(Deserialize)]
struct Moment {
    zone: String,
    unix_seconds: i64,
}

/// What `format_time` gives.
#[derive(Deserialize)]
struct Formatted {
    text: String,
}

pub async fn finish_time(args: FinishTime, ctx: Context) -> Result<Json<Finish>, ToolError> {
    if !(0.0..=100_000.0).contains(&args.minutes_per_task) || args.tasks > 100_000 {
        return Err(ToolError::new(
            "minutes_per_task and tasks: both are from 0 to 100000",
        ));
    }
    let config = ctx.config::<Config>()?;
    let zone = args.zone.as_deref().unwrap_or(&config.zone);

    ctx.progress(0.0, 3.0, "adding up the tasks");
    let each = args.minutes_per_task + f64::from(config.break_minutes);
    let factors = json!({"a": each, "b": args.tasks});
    let product = ctx.call_tool("calculator", "multiply", &factors).await?;
    let minutes = product.parse::<Answer>()?.result;

    ctx.progress(1.0, 3.0, "looking at the clock");
    let asked = json!({ "zone": zone });
    let now = ctx.call_tool("time", "current_time", &asked).await?;
    let now: Moment = now.parse()?;

    ctx.progress(2.0, 3.0, "writing the answer");
    // At most ten thousand million minutes, so the seconds fit with room to spare.
    let seconds = (minutes * 60.0).round() as i64;
    let finish =
        Timestamp::from_second(now.unix_seconds.saturating_add(seconds)).map_err(|_| {
            ToolError::new("that is too far in the future: give fewer or shorter tasks")
        })?;
    let asked = json!({
        "time": finish.to_string(),
        "zone": now.zone,
        "format": "%A, %-d %B %Y, %H:%M",
    });
    let text = ctx.call_tool("time", "format_time", &asked).await?;
    let text = text.parse::<Formatted>()?.text;
    ctx.progress(3.0, 3.0, "done");
    Ok(Json(Finish {
        finish: text,
        minutes,
        zone: now.zone,
    }))
}
