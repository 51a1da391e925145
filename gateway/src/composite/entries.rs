//! From the JSON that a plugin gave to the models of the MCP library.
//!
//! Only what names the entry is replaced, and what MCP demands and the plugin left out is filled in.
//! What the models themselves lose is listed in `docs/mcp.md`, and held to it by the tests below.

use mesh_core::capability::CapabilityEntry;
use rmcp::model::{JsonObject, Prompt, Resource, ResourceTemplate, Tool};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The entry's fields; none when the plugin gave no entry.
fn fields(entry: &CapabilityEntry) -> Result<JsonObject, String> {
    match &entry.entry {
        None => Ok(JsonObject::new()),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| error.to_string()),
    }
}

fn model<T: DeserializeOwned>(fields: JsonObject) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

/// A tool under the name that clients see.
pub fn tool(entry: &CapabilityEntry, public: &str) -> Result<Tool, String> {
    let mut fields = fields(entry)?;
    fields.insert("name".to_owned(), public.into());
    let schema = fields.entry("inputSchema").or_insert_with(|| json!({}));
    check_input_schema(schema)?;
    model(fields)
}

/// What every client demands of the schema of arguments: one that breaks it would cost a strict client
/// the whole list. Without a type it is given the only one that is allowed.
fn check_input_schema(schema: &mut Value) -> Result<(), String> {
    let Value::Object(schema) = schema else {
        return Err("inputSchema is not an object".to_owned());
    };
    let kind = schema.entry("type").or_insert_with(|| "object".into());
    if kind != "object" {
        return Err(format!("inputSchema.type is {kind}, not \"object\""));
    }
    let is_schema = |value: &Value| value.is_object() || value.is_boolean();
    match schema.get("properties") {
        None => {}
        Some(Value::Object(properties)) => {
            if let Some((name, _)) = properties.iter().find(|(_, value)| !is_schema(value)) {
                return Err(format!("inputSchema.properties.{name} is no schema"));
            }
        }
        Some(_) => return Err("inputSchema.properties is not an object".to_owned()),
    }
    match schema.get("required") {
        None => Ok(()),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => Ok(()),
        Some(_) => Err("inputSchema.required is not a list of names".to_owned()),
    }
}

/// A prompt under the name that clients see.
pub fn prompt(entry: &CapabilityEntry, public: &str) -> Result<Prompt, String> {
    let mut fields = fields(entry)?;
    fields.insert("name".to_owned(), public.into());
    model(fields)
}

/// A resource; its URI is the capability's name.
pub fn resource(entry: &CapabilityEntry) -> Result<Resource, String> {
    model(identified(entry, "uri")?)
}

/// A resource template; its URI template is the capability's name.
pub fn template(entry: &CapabilityEntry) -> Result<ResourceTemplate, String> {
    mesh_core::uri_template::validate(&entry.capability.name).map_err(|error| error.to_string())?;
    model(identified(entry, "uriTemplate")?)
}

fn identified(entry: &CapabilityEntry, field: &str) -> Result<JsonObject, String> {
    let identity = &*entry.capability.name;
    let mut fields = fields(entry)?;
    if let Some(other) = fields.get(field).filter(|given| *given != identity) {
        return Err(format!(
            "{field} is {other}, but it is announced as {identity}"
        ));
    }
    let priority = fields
        .get("annotations")
        .and_then(|annotations| annotations.get("priority"));
    let priority = priority.and_then(Value::as_f64);
    if priority.is_some_and(|priority| !(0.0..=1.0).contains(&priority)) {
        return Err("annotations.priority is not between 0 and 1".to_owned());
    }
    fields.insert(field.to_owned(), identity.into());
    fields.entry("name").or_insert_with(|| identity.into());
    Ok(fields)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_core::capability::{Capability, CapabilityKind};

    fn entry(kind: CapabilityKind, name: &str, json: Option<&Value>) -> CapabilityEntry {
        CapabilityEntry {
            capability: Capability::new(kind, name).unwrap(),
            entry: json.map(|json| serde_json::value::to_raw_value(json).unwrap().into()),
            idempotent: false,
            read_only: false,
            streaming: false,
            client_streaming: false,
        }
    }

    /// What a client gets of what a plugin gave.
    fn seen(kind: CapabilityKind, name: &str, json: &Value) -> Value {
        let entry = entry(kind, name, Some(json));
        let seen = match kind {
            CapabilityKind::Tool => serde_json::to_value(tool(&entry, name).unwrap()),
            CapabilityKind::Prompt => serde_json::to_value(prompt(&entry, name).unwrap()),
            CapabilityKind::Resource => serde_json::to_value(resource(&entry).unwrap()),
            _ => serde_json::to_value(template(&entry).unwrap()),
        };
        seen.unwrap()
    }

    #[test]
    fn an_entry_of_fields_that_the_models_know_comes_out_as_it_went_in() {
        let icon = json!([{ "src": "https://a.example/i.png", "mimeType": "image/png",
            "sizes": ["48x48"], "theme": "dark" }]);
        let given = json!({
            "name": "add", "title": "Add", "description": "Adds.",
            "inputSchema": { "type": "object", "properties": { "b": {}, "a": { "x-own": 1 } } },
            "outputSchema": { "type": "object", "$defs": { "z": {}, "y": {} } },
            "annotations": { "title": "t", "readOnlyHint": true, "destructiveHint": false,
                "idempotentHint": true, "openWorldHint": false },
            "icons": icon, "_meta": { "z": 1, "a": { "c": [1, 2] } },
        });
        let out = seen(CapabilityKind::Tool, "add", &given);
        assert_eq!(out, given);
        // The order of keys inside of schemas and `_meta` is kept, too.
        let properties = out
            .pointer("/inputSchema/properties")
            .unwrap()
            .as_object()
            .unwrap();
        assert_eq!(properties.keys().collect::<Vec<_>>(), ["b", "a"]);

        let given = json!({ "uri": "a://b", "name": "b", "title": "B", "description": "d",
            "mimeType": "text/plain", "size": 5, "icons": icon, "_meta": { "k": 1 },
            "annotations": { "audience": ["user"], "priority": 0.5,
                "lastModified": "2026-01-01T00:00:00Z" } });
        assert_eq!(seen(CapabilityKind::Resource, "a://b", &given), given);

        let given = json!({ "name": "greet", "title": "G", "description": "d", "icons": icon,
            "arguments": [{ "name": "n", "title": "N", "description": "d", "required": true }] });
        assert_eq!(seen(CapabilityKind::Prompt, "greet", &given), given);
    }

    #[test]
    fn the_models_lose_exactly_what_the_documentation_says() {
        let page = include_str!("../../../docs/mcp.md");
        for (kind, name, given, lost) in [
            (
                CapabilityKind::Tool,
                "t",
                json!({ "name": "t", "inputSchema": { "type": "object" }, "execution": { "taskSupport": "optional" },
                    "x-own": 1, "annotations": { "x-own": 1 } }),
                vec!["/execution", "/x-own", "/annotations/x-own"],
            ),
            (
                CapabilityKind::Resource,
                "a://b",
                json!({ "uri": "a://b", "name": "b", "x-own": 1, "icons": [{ "src": "s", "x": 1 }] }),
                vec!["/x-own", "/icons/0/x"],
            ),
            (
                CapabilityKind::ResourceTemplate,
                "a://{b}",
                json!({ "uriTemplate": "a://{b}", "name": "b", "x-own": 1, "size": 3 }),
                vec!["/x-own", "/size"],
            ),
            (
                CapabilityKind::Prompt,
                "p",
                json!({ "name": "p", "x-own": 1, "arguments": [{ "name": "a", "schema": {} }] }),
                vec!["/x-own", "/arguments/0/schema"],
            ),
        ] {
            let out = seen(kind, name, &given);
            for pointer in lost {
                assert!(given.pointer(pointer).is_some(), "{pointer}");
                assert!(out.pointer(pointer).is_none(), "{kind} keeps {pointer}");
            }
        }
        assert!(
            page.contains("`execution`"),
            "docs/mcp.md names the lost field"
        );
        // 32 bits of precision.
        let given = json!({ "uri": "a://b", "name": "b", "annotations": { "priority": 0.1 } });
        let out = seen(CapabilityKind::Resource, "a://b", &given);
        let priority = out
            .pointer("/annotations/priority")
            .unwrap()
            .as_f64()
            .unwrap();
        assert!(
            (priority - 0.1).abs() > 1e-12 && (priority - 0.1).abs() < 1e-6,
            "{priority}"
        );
    }

    #[test]
    fn what_mcp_demands_and_the_plugin_left_out_is_filled_in() {
        let bare = tool(&entry(CapabilityKind::Tool, "t", None), "a_t").unwrap();
        assert_eq!(
            serde_json::to_value(bare).unwrap(),
            json!({ "name": "a_t", "inputSchema": { "type": "object" } })
        );
        let bare = resource(&entry(CapabilityKind::Resource, "a://b", None)).unwrap();
        assert_eq!(
            serde_json::to_value(bare).unwrap(),
            json!({ "uri": "a://b", "name": "a://b" })
        );
    }

    #[test]
    fn an_entry_that_breaks_a_rule_is_refused_with_the_field() {
        for (schema, says) in [
            (json!(5), "inputSchema is not an object"),
            (
                json!({ "type": "array" }),
                "inputSchema.type is \"array\", not \"object\"",
            ),
            (
                json!({ "properties": [] }),
                "inputSchema.properties is not an object",
            ),
            (
                json!({ "properties": { "a": 1 } }),
                "inputSchema.properties.a is no schema",
            ),
            (
                json!({ "required": "a" }),
                "inputSchema.required is not a list of names",
            ),
        ] {
            let bad = entry(
                CapabilityKind::Tool,
                "t",
                Some(&json!({ "inputSchema": schema })),
            );
            assert_eq!(tool(&bad, "t").unwrap_err(), says);
        }
        let bad = entry(
            CapabilityKind::Tool,
            "t",
            Some(&json!({ "description": 5 })),
        );
        assert!(tool(&bad, "t").unwrap_err().contains("expected"));
        let given = json!({ "annotations": { "priority": 5 } });
        let bad = entry(CapabilityKind::Resource, "a://b", Some(&given));
        assert_eq!(
            resource(&bad).unwrap_err(),
            "annotations.priority is not between 0 and 1"
        );
        let bad = entry(
            CapabilityKind::Resource,
            "a://b",
            Some(&json!({ "uri": "a://c" })),
        );
        assert_eq!(
            resource(&bad).unwrap_err(),
            "uri is \"a://c\", but it is announced as a://b"
        );
        let bad = entry(CapabilityKind::ResourceTemplate, "a://{", None);
        assert!(template(&bad).unwrap_err().contains("has no }"));
    }
}
