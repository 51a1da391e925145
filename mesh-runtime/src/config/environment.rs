//! Settings from the environment: `PLUGMESH_GATEWAY__LISTEN` is `gateway.listen`.
//!
//! A value is read as the schema wants it, so that a name such as `5` stays a text. An empty value is
//! no value. Names without a double underscore are not settings, unless they only lack it.

use serde_json::{Map, Value};

use super::{ENV_PREFIX, Mistake, near, reference, schema};

/// What the environment gives.
pub(super) struct Environment {
    /// Shaped like the configuration.
    pub values: Value,
    /// Names that are mistyped, or name what can't be set.
    pub mistakes: Vec<Mistake>,
}

/// Reads pairs of names and values.
pub(super) fn read(pairs: &[(String, String)], whole: &Value) -> Environment {
    let mut values = Value::Object(Map::new());
    let mut mistakes = Vec::new();
    for (name, text) in pairs {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if text.is_empty() {
            continue;
        }
        if !rest.contains("__") {
            mistakes.extend(lacks_underscore(name, whole));
            continue;
        }
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        match schema::at(whole, &path) {
            Some(schema) => set(&mut values, &path, parse(text, schema)),
            None => mistakes.push(unknown(name, whole)),
        }
    }
    Environment { values, mistakes }
}

fn known(whole: &Value) -> Vec<String> {
    reference::fields(whole)
        .into_iter()
        .map(|field| super::env_name(&field.path))
        .collect()
}

fn unknown(name: &str, whole: &Value) -> Mistake {
    let known = known(whole);
    let remedy = near::nearest(name, known.iter().map(String::as_str)).map_or_else(
        || "remove it, or see `plugmesh config schema` for the settings there are".to_owned(),
        |meant| format!("did you mean {meant}?"),
    );
    mistake(name, "no such setting", remedy)
}

/// `PLUGMESH_GATEWAY_LISTEN` is no setting, and whoever writes it wants one.
fn lacks_underscore(name: &str, whole: &Value) -> Option<Mistake> {
    let plain = |name: &str| name.replace("__", "_");
    let meant = known(whole)
        .into_iter()
        .find(|known| plain(known) == *name)?;
    let remedy = format!("two underscores separate section and setting: write {meant}");
    Some(mistake(name, "no such setting", remedy))
}

fn mistake(name: &str, problem: &str, remedy: String) -> Mistake {
    let mut mistake = Mistake::new(name, problem, remedy);
    mistake.source = format!("env {name}");
    mistake
}

/// The text as the schema wants it; as a text when it is nothing of the kind, so that the check of
/// the whole says what it should be.
fn parse(text: &str, schema: &Value) -> Value {
    let types = schema::types(schema);
    let wants = |kind: &str| types.contains(&kind);
    let trimmed = text.trim();
    let json = || serde_json::from_str::<Value>(trimmed).ok();
    let scalar = || match json() {
        Some(Value::Bool(value)) if wants("boolean") => Some(Value::Bool(value)),
        Some(Value::Number(value)) if wants("integer") || wants("number") => {
            Some(Value::Number(value))
        }
        _ => None,
    };
    let list = || match json() {
        Some(Value::Array(items)) => Value::Array(items),
        _ => trimmed.split(',').map(str::trim).collect(),
    };
    if wants("array") {
        list()
    } else if wants("object") {
        json()
            .filter(Value::is_object)
            .unwrap_or_else(|| text.into())
    } else {
        scalar().unwrap_or_else(|| text.into())
    }
}

fn set(values: &mut Value, path: &[String], value: Value) {
    let Some((last, sections)) = path.split_last() else {
        return;
    };
    let mut place = values;
    for section in sections {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(object) = place else {
            return;
        };
        place = object.entry(section.clone()).or_insert(Value::Null);
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    if let Value::Object(object) = place {
        object.insert(last.clone(), value);
    }
}
