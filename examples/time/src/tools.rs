//! The tools.

use jiff::Timestamp;
use jiff::fmt::strtime;
use plugmesh_sdk::{Context, Json, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;

#[derive(Deserialize, JsonSchema)]
pub struct CurrentTime {
    /// IANA time zone, such as Europe/Berlin; the default is UTC
    zone: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Moment {
    /// The time (RFC 3339)
    time: String,
    /// The time zone
    zone: String,
    /// The same in seconds since 1970 began in UTC
    unix_seconds: i64,
}

pub async fn current_time(args: CurrentTime, _: Context) -> Result<Json<Moment>, ToolError> {
    let zone = clock::zone(args.zone.as_deref())?;
    let name = clock::name(&zone);
    let now = clock::now(zone);
    Ok(Json(Moment {
        time: clock::rfc3339(&now),
        zone: name,
        unix_seconds: now.timestamp().as_second(),
    }))
}

#[derive(Deserialize, JsonSchema)]
pub struct FormatTime {
    /// The point in time (RFC 3339), such as 2026-11-20T10:00:00Z
    time: String,
    /// IANA time zone to write it in, such as Europe/Berlin; the default is UTC
    zone: Option<String>,
    /// Form in the manner of strftime, such as %d.%m.%Y %H:%M; the default is that of RFC 3339
    format: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Formatted {
    /// The time as it was asked for
    text: String,
}

pub async fn format_time(args: FormatTime, _: Context) -> Result<Json<Formatted>, ToolError> {
    let time: Timestamp = args.time.parse().map_err(|error| {
        ToolError::new(format!(
            "time: {:?} is not a time of RFC 3339, such as 2026-11-20T10:00:00Z: {error}",
            args.time
        ))
    })?;
    let time = time.to_zoned(clock::zone(args.zone.as_deref())?);
    let text = match &args.format {
        None => clock::rfc3339(&time),
        Some(format) => strtime::format(format, &time).map_err(|error| {
            ToolError::new(format!(
                "format: {format:?} is not a form of strftime, such as %Y-%m-%d %H:%M: {error}"
            ))
        })?,
    };
    Ok(Json(Formatted { text }))
}
