//! The rules of what a plugin provides.
//!
//! An entry of an MCP kind goes to clients as it is, in one list with those of all other plugins, and
//! one wrong entry makes strict clients refuse the whole list. So the fields that MCP names are
//! checked here, once; all others pass untouched.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::draft::{CapabilityDraft, Mistakes};
use crate::capability::{Capability, CapabilityEntry, CapabilityKind};
use crate::uri_template;

/// Most capabilities of one plugin.
pub const MAX_CAPABILITIES: usize = 1_024;

impl CapabilityDraft {
    /// Checks a list of capabilities by itself.
    ///
    /// # Errors
    /// All [`Mistakes`], each with its field.
    pub fn check_all(drafts: Vec<Self>) -> Result<Vec<CapabilityEntry>, Mistakes> {
        let mut mistakes = Mistakes::default();
        let entries = check_all(drafts, &mut mistakes);
        if mistakes.0.is_empty() {
            Ok(entries)
        } else {
            Err(mistakes)
        }
    }
}

pub(super) fn check_all(
    drafts: Vec<CapabilityDraft>,
    found: &mut Mistakes,
) -> Vec<CapabilityEntry> {
    if drafts.len() > MAX_CAPABILITIES {
        found.add(
            "capabilities",
            format_args!(
                "has {} entries, {MAX_CAPABILITIES} is the most: split the plugin",
                drafts.len()
            ),
        );
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let field = draft.field.clone();
        if let Some(entry) = check(draft, found) {
            if !seen.insert(entry.capability.clone()) {
                let text = format!("{} stands here twice: keep one of them", entry.capability);
                found.add(field, text);
                continue;
            }
            entries.push(entry);
        }
    }
    entries
}

fn check(draft: CapabilityDraft, found: &mut Mistakes) -> Option<CapabilityEntry> {
    let field = &draft.field;
    let kind = match draft.kind.parse::<CapabilityKind>() {
        Ok(kind) => kind,
        Err(error) => {
            found.add(format!("{field}.kind"), error);
            return None;
        }
    };
    let shape = Shape::of(kind);
    let name_field = format!("{field}.{}", name_field(kind));
    let before = found.0.len();
    let capability = match Capability::new(kind, &draft.name) {
        Ok(capability) => match check_name(kind, &draft.name) {
            Ok(()) => Some(capability),
            Err(rule) => {
                found.add(name_field, rule);
                None
            }
        },
        Err(error) => {
            found.add(name_field, error);
            None
        }
    };
    let mut entry = None;
    if !draft.entry.is_empty() {
        match json_object(draft.entry) {
            Ok((raw, object)) => {
                if let Some(shape) = shape {
                    shape.check(&object, &draft.name, field, found);
                }
                entry = Some(raw);
            }
            Err(rule) => found.add(format!("{field}.entry"), rule),
        }
    } else if let Some(shape) = shape {
        found.add(
            format!("{field}.entry"),
            format_args!("is missing: give {} as a JSON object", shape.what),
        );
    }
    let takes_messages = matches!(kind, CapabilityKind::Service | CapabilityKind::Orchestrator);
    if draft.client_streaming && !takes_messages {
        let problem = "only services and orchestrators take a stream of messages: leave it out";
        found.add(format!("{field}.client_streaming"), problem);
    }
    if found.0.len() > before {
        return None;
    }
    Some(CapabilityEntry {
        capability: capability?,
        entry,
        idempotent: draft.idempotent,
        read_only: draft.read_only,
        streaming: draft.streaming,
        client_streaming: draft.client_streaming,
    })
}

fn check_name(kind: CapabilityKind, name: &str) -> Result<(), String> {
    let given: String = name.chars().take(80).collect();
    let refuse = |rule: &str| Err(format!("{given:?} is not valid: {rule}"));
    match kind {
        CapabilityKind::Tool | CapabilityKind::Prompt => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
            if name.len() > 128 || !name.chars().all(plain) {
                return refuse("use 1 to 128 letters, digits, _, -, . and /");
            }
        }
        CapabilityKind::Resource => {
            if !is_absolute(name) {
                return refuse("write an absolute URI, such as time://current (RFC 3986)");
            }
        }
        CapabilityKind::ResourceTemplate => {
            uri_template::validate(name).map_err(|error| error.to_string())?;
            if !is_absolute(name) {
                return refuse(
                    "write an absolute URI template, such as time://zone/{name} (RFC 6570)",
                );
            }
        }
        CapabilityKind::Route => {
            if !name.starts_with('/') || name.contains(char::is_whitespace) {
                return refuse("write a path that begins with /");
            }
        }
        CapabilityKind::Service | CapabilityKind::Orchestrator => {
            if name.contains(char::is_whitespace) {
                return refuse("write service.method, without white space");
            }
        }
        CapabilityKind::Hook => {}
    }
    Ok(())
}

/// Whether a text begins with a scheme and has something after it (RFC 3986, section 3.1).
fn is_absolute(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(inner)
        && !rest.is_empty()
        && !uri.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Reads a JSON object and keeps its text.
pub(super) fn json_object(
    bytes: Vec<u8>,
) -> Result<(Arc<RawValue>, Map<String, Value>), &'static str> {
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let value: Value = serde_json::from_str(&text).map_err(|_| "is not valid JSON")?;
    let Value::Object(object) = value else {
        return Err("is not a JSON object");
    };
    let raw = RawValue::from_string(text).map_err(|_| "is not valid JSON")?;
    Ok((raw.into(), object))
}

/// What MCP says of the entries of a kind. Each may also have what [`COMMON`] names.
struct Shape {
    what: &'static str,
    /// The field that names the entry, equal to the capability's name.
    name: &'static str,
    /// Fields that must be there, beside the name.
    required: &'static [&'static str],
    /// Fields with the JSON type that each must have where it is there.
    fields: &'static [(&'static str, &'static str)],
}

const COMMON: &[(&str, &str)] = &[
    ("name", "string"),
    ("title", "string"),
    ("description", "string"),
    ("icons", "array"),
    ("_meta", "object"),
];

const TOOL: Shape = Shape {
    what: "an MCP tool",
    name: "name",
    required: &["inputSchema"],
    fields: &[
        ("inputSchema", "object"),
        ("outputSchema", "object"),
        ("annotations", "object"),
        ("execution", "object"),
    ],
};

const RESOURCE: Shape = Shape {
    what: "an MCP resource",
    name: "uri",
    required: &["name"],
    fields: &[
        ("uri", "string"),
        ("mimeType", "string"),
        ("size", "number"),
        ("annotations", "object"),
    ],
};

const RESOURCE_TEMPLATE: Shape = Shape {
    what: "an MCP resource template",
    name: "uriTemplate",
    required: &["name"],
    fields: &[
        ("uriTemplate", "string"),
        ("mimeType", "string"),
        ("annotations", "object"),
    ],
};

const PROMPT: Shape = Shape {
    what: "an MCP prompt",
    name: "name",
    required: &[],
    fields: &[("arguments", "array")],
};

impl Shape {
    fn of(kind: CapabilityKind) -> Option<&'static Self> {
        match kind {
            CapabilityKind::Tool => Some(&TOOL),
            CapabilityKind::Resource => Some(&RESOURCE),
            CapabilityKind::ResourceTemplate => Some(&RESOURCE_TEMPLATE),
            CapabilityKind::Prompt => Some(&PROMPT),
            _ => None,
        }
    }

    fn check(&self, entry: &Map<String, Value>, name: &str, field: &str, found: &mut Mistakes) {
        let mut wrong = |key: &str, problem: String| {
            found.add(format!("{field}.entry.{key}"), problem);
        };
        for (key, wanted) in COMMON.iter().chain(self.fields) {
            if let Some(value) = entry.get(*key)
                && type_name(value) != *wanted
            {
                wrong(
                    key,
                    format!("is of type {}, but must be of {wanted}", type_name(value)),
                );
            }
        }
        for key in self.required.iter().chain([&self.name]) {
            if !entry.contains_key(*key) {
                wrong(key, format!("is missing: {} must have it", self.what));
            }
        }
        if let Some(Value::String(own)) = entry.get(self.name)
            && own != name
        {
            wrong(
                self.name,
                format!("is {own:?}, but the capability is named {name:?}: make them equal"),
            );
        }
        if let Some(Value::Object(schema)) = entry.get("inputSchema")
            && schema.get("type").and_then(Value::as_str) != Some("object")
        {
            let rule = "must be \"object\": a tool takes its arguments as a JSON object";
            wrong("inputSchema.type", rule.to_owned());
        }
        if let Some(Value::Array(arguments)) = entry.get("arguments") {
            for (place, argument) in arguments.iter().enumerate() {
                if argument.get("name").and_then(Value::as_str).is_none() {
                    let rule = "is missing: each argument of a prompt has a name";
                    wrong(&format!("arguments[{place}].name"), rule.to_owned());
                }
            }
        }
    }
}

/// The field that names an entry of a kind.
pub(super) fn name_field(kind: CapabilityKind) -> &'static str {
    Shape::of(kind).map_or("name", |shape| shape.name)
}

/// The fields of an entry that are known: those of MCP, or of a service's description.
pub(super) fn known_fields(kind: CapabilityKind) -> Vec<&'static str> {
    let own = Shape::of(kind).map_or(&[][..], |shape| shape.fields);
    let service: &[_] = match kind {
        CapabilityKind::Service | CapabilityKind::Orchestrator => &["inputSchema", "outputSchema"],
        _ => &[],
    };
    let keys = COMMON.iter().chain(own).map(|(key, _)| *key);
    keys.chain(service.iter().copied()).collect()
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
