//! Schemas: those of types that have none of their own, for `#[schemars(schema_with = "…")]`, and the
//! whole one of a configuration.

use std::net::SocketAddr;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::telemetry::check_log_level;

/// Format of an address with a port.
const IP_PORT: &str = "ip-port";

/// Format of a filter of log lines.
const LOG_FILTER: &str = "log-filter";

/// A name of a mesh, node or plugin: a DNS label.
#[must_use]
pub fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "title": "1 to 63 lowercase letters, digits and hyphens, with no hyphen at either end",
        "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        "examples": ["node-1"],
    })
}

/// An address with a port.
#[must_use]
pub fn socket_addr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": IP_PORT,
        "examples": ["127.0.0.1:7400"],
    })
}

/// An address with a port, or nothing.
#[must_use]
pub fn optional_socket_addr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "null"],
        "format": IP_PORT,
        "examples": ["127.0.0.1:7400"],
    })
}

/// A filter of log lines.
#[must_use]
pub fn log_filter(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "a filter of log lines: error, warn, info, debug, trace, or pairs",
        "type": "string",
        "format": LOG_FILTER,
        "examples": ["info", "info,gateway=debug"],
    })
}

/// Any JSON object, such as the configuration of a plugin.
#[must_use]
pub fn json_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": true })
}

/// The JSON Schema (draft 2020-12) of a configuration, without references and with every object of
/// named properties closed, so that a mistyped key is a mistake.
#[must_use]
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    close(&mut schema);
    schema
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Checks values against a schema of [`of`].
///
/// # Errors
/// The text of the library when the schema itself is wrong, which is a bug.
pub(super) fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::options()
        .should_validate_formats(true)
        .with_format(IP_PORT, |text: &str| text.parse::<SocketAddr>().is_ok())
        .with_format(LOG_FILTER, |text: &str| check_log_level(text).is_ok())
        .build(schema)
        .map_err(|error| error.to_string())
}

/// The part of a schema that a path of keys and indices leads to; looks through alternatives.
pub(super) fn at<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((key, rest)) = path.split_first() else {
        return Some(schema);
    };
    let named = || schema.get("properties").and_then(|all| all.get(key));
    let open = || {
        schema
            .get("additionalProperties")
            .filter(|schema| schema.is_object())
    };
    let item = || schema.get("items").filter(|_| key.parse::<usize>().is_ok());
    if let Some(next) = named().or_else(open).or_else(item) {
        return at(next, rest);
    }
    alternatives(schema).find_map(|schema| at(schema, path))
}

/// The alternatives of `anyOf` and `oneOf`.
pub(super) fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|word| schema.get(word)?.as_array())
        .flatten()
}

/// The JSON types that a schema allows, those of its alternatives included.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    let mut types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if let Some(Value::String(_)) = schema.get("const") {
        types.push("string");
    }
    types.extend(alternatives(schema).flat_map(types_of));
    types
}

fn types_of(schema: &Value) -> Vec<&str> {
    types(schema)
}

/// The texts that a schema allows, when it allows only certain ones.
pub(super) fn choices(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array);
    let one = schema.get("const").into_iter();
    let own = listed.into_iter().flatten().chain(one);
    own.filter_map(Value::as_str)
        .chain(alternatives(schema).flat_map(choices_of))
        .collect()
}

fn choices_of(schema: &Value) -> Vec<&str> {
    choices(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TelemetryConfig;

    #[test]
    fn choices_and_types_are_found_through_alternatives() {
        let schema = of::<TelemetryConfig>();
        let path = |key: &str| [key.to_owned()];
        let format = at(&schema, &path("log_format"));
        assert_eq!(format.map(choices), Some(vec!["text", "json"]));
        let endpoint = at(&schema, &path("otlp_endpoint"));
        assert_eq!(endpoint.map(types), Some(vec!["string", "null"]));
        assert_eq!(at(&schema, &path("nothing")), None);
    }
}
