//! Time zones by name, with errors that a person understands.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use plugmesh_sdk::ToolError;

/// A time zone of the IANA database; none means UTC.
pub fn zone(name: Option<&str>) -> Result<TimeZone, ToolError> {
    match name {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|_| {
            ToolError::new(format!(
                "zone: there is no time zone {name:?}; write a name of the IANA database, such as \
                 Europe/Berlin or UTC (time://zones lists them all)"
            ))
        }),
    }
}

/// The name of a zone.
pub fn name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// A time as RFC 3339, with the zone's offset and whole seconds.
pub fn rfc3339(time: &Zoned) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The time now in a zone.
pub fn now(zone: TimeZone) -> Zoned {
    Timestamp::now().to_zoned(zone)
}
