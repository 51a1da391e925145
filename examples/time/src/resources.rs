//! The resources, and the prompt.

use plugmesh_sdk::{Context, ErrorCode, Json, PromptOutput, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;

pub async fn current(_: Context) -> Result<String, ToolError> {
    Ok(clock::rfc3339(&clock::now(clock::zone(None)?)))
}

pub async fn zones(_: Context) -> Result<Json<Vec<String>>, ToolError> {
    let names = jiff::tz::db().available();
    let mut names: Vec<String> = names.map(|name| name.to_string()).collect();
    names.sort();
    Ok(Json(names))
}

#[derive(Deserialize, JsonSchema)]
pub struct ZoneOfUri {
    zone: String,
}

#[derive(Serialize)]
pub struct ZoneNow {
    zone: String,
    time: String,
    /// The offset from UTC, such as +01:00.
    offset: String,
    /// What the zone calls its time now, such as CET.
    abbreviation: String,
    daylight_saving: bool,
}

pub async fn zone(of: ZoneOfUri, _: Context) -> Result<Json<ZoneNow>, ToolError> {
    let zone = clock::zone(Some(&of.zone))
        .map_err(|error| ToolError::with_code(ErrorCode::NotFound, error.message()))?;
    let now = clock::now(zone.clone());
    let info = zone.to_offset_info(now.timestamp());
    Ok(Json(ZoneNow {
        zone: clock::name(&zone),
        time: clock::rfc3339(&now),
        offset: now.strftime("%:z").to_string(),
        abbreviation: info.abbreviation().to_owned(),
        daylight_saving: info.dst().is_dst(),
    }))
}

#[derive(Deserialize, JsonSchema)]
pub struct Meeting {
    /// Time zones of those who meet, separated by commas, such as Europe/Berlin, Asia/Tokyo
    zones: String,
    /// How long they meet, in minutes; the default is 30
    minutes: Option<u32>,
}

pub async fn meeting(args: Meeting, _: Context) -> Result<PromptOutput, ToolError> {
    let minutes = args.minutes.unwrap_or(30);
    let mut lines = Vec::new();
    for name in args.zones.split(',').map(str::trim) {
        let zone = clock::zone(Some(name))
            .map_err(|error| ToolError::with_code(ErrorCode::InvalidArgument, error.message()))?;
        let now = clock::rfc3339(&clock::now(zone.clone()));
        lines.push(format!("- {}: {now} now", clock::name(&zone)));
    }
    let text = format!(
        "Find a time for a meeting of {minutes} minutes, within working hours (9:00 to 17:00) of all \
         these time zones if there is one, else the least bad:\n{}\nGive it in each of the zones.",
        lines.join("\n")
    );
    Ok(PromptOutput::new()
        .description("A time to meet across time zones")
        .user(text))
}
