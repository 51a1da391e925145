//! The reference of a configuration, made from its schema and its defaults, so that it can't drift
//! from what is checked.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{env_name, schema};

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where it stands, such as `gateway.listen`; `[]` stands for each item of a list.
    pub path: String,
    /// What it is, for a person, such as "text", "duration", "list of text".
    pub kind: String,
    /// What is allowed, such as "1 to 65535" or "one of text, json"; may be empty.
    pub range: String,
    /// What the schema says of its default; the defaults of the whole are the configuration's own.
    pub default: Option<Value>,
    /// What it means.
    pub description: String,
}

/// All settings of a schema, in its order.
pub(super) fn fields(whole: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    collect(whole, "", &mut found);
    found
}

fn collect(part: &Value, path: &str, found: &mut Vec<Field>) {
    let Some(properties) = part.get("properties").and_then(Value::as_object) else {
        return;
    };
    // A table's own settings stand together, those of its tables and lists after them.
    let mut inner = Vec::new();
    for (key, schema) in properties {
        if schema.get("x-hidden") == Some(&Value::Bool(true)) {
            continue;
        }
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if schema.get("properties").is_some() {
            inner.push((path, schema));
            continue;
        }
        found.push(Field {
            path: path.clone(),
            kind: kind(schema),
            range: range(schema),
            default: schema.get("default").cloned(),
            description: description(schema),
        });
        if let Some(items) = schema.get("items") {
            inner.push((format!("{path}[]"), items));
        }
    }
    for (path, schema) in inner {
        collect(schema, &path, found);
    }
}

fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    text.unwrap_or_default().replace('\n', " ")
}

/// The schemas of durations and sizes give examples with units; nothing else does.
pub(super) fn kind(schema: &Value) -> String {
    let types = schema::types(schema);
    let is = |kind: &str| types.contains(&kind);
    let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or("");
    let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
    let name = if is("array") {
        let item = schema.get("items").map_or_else(String::new, kind);
        return format!("list of {item}");
    } else if pattern.contains("(ms|s|m|h)") {
        "duration"
    } else if pattern.contains("KiB") {
        "size"
    } else if format == "ip-port" {
        "address:port"
    } else if is("boolean") {
        "true or false"
    } else if is("integer") {
        "whole number"
    } else if is("number") {
        "number"
    } else if is("object") && schema.get("properties").is_some() {
        "table"
    } else if is("object") {
        "table of own keys"
    } else {
        "text"
    };
    name.to_owned()
}

fn range(schema: &Value) -> String {
    let choices = schema::choices(schema);
    if !choices.is_empty() {
        return format!("one of {}", choices.join(", "));
    }
    let number = |key: &str| schema.get(key).map(ToString::to_string);
    let (least, most) = (number("minimum"), number("maximum"));
    match (least, most) {
        (Some(least), Some(most)) => return format!("{least} to {most}"),
        (Some(least), None) => return format!("at least {least}"),
        (None, Some(most)) => return format!("at most {most}"),
        (None, None) => {}
    }
    if schema.get("minItems").is_some_and(|least| *least != 0) {
        return "not empty".to_owned();
    }
    let title = schema.get("title").and_then(Value::as_str);
    title.unwrap_or_default().to_owned()
}

/// All settings of a configuration.
#[must_use]
pub fn settings<T: JsonSchema>() -> Vec<Field> {
    fields(&schema::of::<T>())
}

/// The reference as Markdown: a section for each table, a row for each setting. `defaults_in_words`
/// are pairs of a setting and its default, where that depends on the machine.
#[must_use]
pub fn markdown<T: JsonSchema + Serialize + Default>(defaults_in_words: &[(&str, &str)]) -> String {
    let whole = schema::of::<T>();
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut text = String::new();
    let mut section = String::new();
    for field in fields(&whole) {
        let (table, name) = field.path.rsplit_once('.').unwrap_or(("", &field.path));
        if table != section {
            table.clone_into(&mut section);
            heading(&mut text, table, &whole);
        }
        let in_words = defaults_in_words
            .iter()
            .find(|(path, _)| *path == field.path);
        let default = in_words.map_or_else(
            || default_of(&defaults, &field),
            |(_, words)| (*words).to_owned(),
        );
        let env = if field.path.contains("[]") {
            "in the file only".to_owned()
        } else {
            format!("`{}`", env_name(&field.path))
        };
        let range = match field.range.as_str() {
            "" => String::new(),
            range => format!(", {range}"),
        };
        let meaning = field.description.replace('|', "\\|");
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{name}` | {}{range} | {default} | {env} | {meaning} |",
            field.kind
        );
    }
    text
}

fn heading(text: &mut String, table: &str, whole: &Value) {
    let path: Vec<String> = table
        .split('.')
        .flat_map(|key| match key.strip_suffix("[]") {
            Some(list) => vec![list.to_owned(), "0".to_owned()],
            None => vec![key.to_owned()],
        })
        .collect();
    let about = schema::at(whole, &path)
        .map(description)
        .unwrap_or_default();
    let title = match table.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{table}]"),
    };
    let _ = write!(
        text,
        "\n## `{title}`\n\n{about}{}| setting | type and range | default | environment | meaning |\n\
         |---|---|---|---|---|\n",
        if about.is_empty() { "" } else { "\n\n" }
    );
}

fn default_of(defaults: &Value, field: &Field) -> String {
    let found = if field.path.contains("[]") {
        field.default.as_ref()
    } else {
        defaults.pointer(&format!("/{}", field.path.replace('.', "/")))
    };
    match found {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NatsSection;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, JsonSchema, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        /// The broker.
        nats: NatsSection,
    }

    #[test]
    fn a_row_has_type_default_environment_and_meaning() {
        let text = markdown::<Whole>(&[("nats.credentials", "your home")]);
        assert!(text.contains("## `[nats]`"), "{text}");
        assert!(text.contains(
            "| `url` | text, one or more addresses of NATS servers | `\"nats://127.0.0.1:4222\"` | `PLUGMESH_NATS__URL` | Addresses of \
             the servers, separated by commas. |"
        ), "{text}");
        assert!(
            text.contains("| `credentials` | text | your home | `PLUGMESH_NATS__CREDENTIALS` |")
        );
    }
}
