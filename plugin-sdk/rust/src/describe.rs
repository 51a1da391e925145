//! Descriptions of what a plugin provides, as the plugin's author writes them.

mod orchestrator;
mod prompt;
mod resource;
mod service;
mod tool;

pub use orchestrator::Orchestrator;
pub use prompt::Prompt;
pub use resource::{Resource, ResourceTemplate};
pub use service::Service;
pub use tool::Tool;

use serde_json::{Map, Value};

use crate::wire::common::{self, CapabilityKind};

/// Checks a name of a tool or prompt: what MCP clients take everywhere.
fn check_name(name: &str) -> Result<(), &'static str> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_./-".contains(&c);
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err("use 1 to 64 letters, digits and _ . / -")
    }
}

/// Checks a URI or URI template for what every one of them has.
fn check_uri(uri: &str) -> Result<(), &'static str> {
    let scheme_char = |c: u8| c.is_ascii_alphanumeric() || b"+-.".contains(&c);
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Err("it has no scheme; write for example notes://today");
    };
    let scheme_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(scheme_char)
        && !rest.is_empty();
    if !scheme_good {
        Err("it is no URI; write for example notes://today")
    } else if uri.len() > 256 {
        Err("it is longer than 256 bytes")
    } else if uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Err("it has no spaces and no control characters; percent-encode them")
    } else {
        Ok(())
    }
}

/// The entry of a capability on the wire.
fn entry(
    kind: CapabilityKind,
    name: &str,
    fields: Option<Map<String, Value>>,
) -> common::CapabilityEntry {
    let json = fields.map(|fields| Value::Object(fields).to_string().into_bytes());
    common::CapabilityEntry {
        capability: Some(common::Capability {
            kind: kind.into(),
            name: name.to_owned(),
        }),
        entry: json.unwrap_or_default().into(),
        ..common::CapabilityEntry::default()
    }
}

/// A text under a key.
fn set(fields: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    fields.insert(key.to_owned(), value.into());
}
