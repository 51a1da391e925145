//! An example plugin: the time, anywhere.

mod clock;
mod resources;
#[cfg(test)]
mod tests;
mod tools;

use std::process::ExitCode;

use plugmesh_sdk::{Plugin, Prompt, Resource, ResourceTemplate, Tool};

fn plugin() -> Plugin {
    let current_time = Tool::new("current_time")
        .description("Tells what time it is now, in a time zone of the IANA database")
        .read_only();
    let format_time = Tool::new("format_time")
        .description("Writes a point in time in another time zone or another form")
        .read_only()
        .idempotent();
    let current = Resource::new("time://current")
        .name("current")
        .description("The time now, in UTC (RFC 3339)")
        .mime_type("text/plain");
    let zones = Resource::new("time://zones")
        .name("zones")
        .description("The names of all time zones, as a JSON array")
        .mime_type("application/json");
    let zone = ResourceTemplate::new("time://zone/{zone}")
        .name("zone")
        .description(
            "A time zone and the time there now; percent-encode the name, such as Europe%2FBerlin",
        )
        .mime_type("application/json");
    let meeting = Prompt::new("meeting").description("Asks for a good time for people to meet");

    Plugin::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .description(env!("CARGO_PKG_DESCRIPTION"))
        .license("Apache-2.0")
        .tag("time")
        .tool(current_time, tools::current_time)
        .tool(format_time, tools::format_time)
        .resource(current, resources::current)
        .resource(zones, resources::zones)
        .resource_template(zone, resources::zone)
        .prompt(meeting, resources::meeting)
}

fn main() -> ExitCode {
    plugin().main()
}
