//! Reads JSON into types and says which field does not fit, and what was expected.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::code::ErrorCode;
use crate::error::ToolError;

/// Reads a JSON text; an empty one is read as `{}`. `root` is what errors call the whole; the schema,
/// if given, tells what was expected of a field that is missing.
pub(crate) fn parse<T: DeserializeOwned>(
    root: &str,
    json: &[u8],
    schema: Option<&Value>,
) -> Result<T, ToolError> {
    let json = if json.is_empty() { b"{}" } else { json };
    // The path is tracked only when there is something to say, as tracking costs.
    serde_json::from_slice(json)
        .or_else(|_| {
            let mut reader = serde_json::Deserializer::from_slice(json);
            let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
                let path = error.path().to_string();
                explain(root, &path, error.inner(), schema)
            })?;
            reader
                .end()
                .map_err(|error| explain(root, ".", &error, None))?;
            Ok(value)
        })
        .map_err(|message: String| ToolError::with_code(ErrorCode::InvalidArgument, message))
}

/// No arguments, for handlers that need none.
///
/// ```
/// use plugmesh_sdk::{NoArgs, Plugin, Tool};
/// let plugin = Plugin::new("dice", "1.0.0").tool(Tool::new("roll"), async |_: NoArgs, _| Ok("4"));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub struct NoArgs {}

/// Reads texts into the numbers and truth values that the schema asks for: the arguments of prompts
/// and the values of URI templates are always texts.
pub(crate) fn from_texts(mut object: Map<String, Value>, schema: &Value) -> Value {
    for (name, value) in &mut object {
        let Value::String(text) = &*value else {
            continue;
        };
        let kinds = schema.pointer(&format!("/properties/{name}/type"));
        let asks = |kind: &str| match kinds {
            Some(Value::String(only)) => only == kind,
            Some(Value::Array(any)) => any.iter().any(|one| one == kind),
            _ => false,
        };
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        let fits = match &parsed {
            Some(Value::Number(_)) => asks("number") || asks("integer"),
            Some(Value::Bool(_)) => asks("boolean"),
            _ => false,
        };
        if let Some(parsed) = parsed.filter(|_| fits && !asks("string")) {
            *value = parsed;
        }
    }
    Value::Object(object)
}

fn explain(root: &str, path: &str, error: &serde_json::Error, schema: Option<&Value>) -> String {
    let text = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return format!("{root}: not valid JSON: {text}");
    }
    let field = if path == "." {
        root.to_owned()
    } else {
        format!("{root}.{path}")
    };
    // Where in the text it stands helps nobody who has the field's name.
    let problem = text
        .split_once(" at line ")
        .map_or(text.as_str(), |(problem, _)| problem);
    let missing = problem
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    match missing {
        None => format!("{field}: {problem}"),
        Some(name) => {
            let expected = (path == ".")
                .then(|| expected(schema?.pointer(&format!("/properties/{name}"))?))
                .flatten();
            match expected {
                Some(expected) => format!("{field}.{name}: missing, expected {expected}"),
                None => format!("{field}.{name}: missing"),
            }
        }
    }
}

/// What a field's schema asks for, in words.
fn expected(schema: &Value) -> Option<String> {
    let name = match schema.get("type")? {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" or ")
        }
        _ => return None,
    };
    let described = schema.get("description").and_then(Value::as_str);
    Some(match described {
        Some(text) => format!("{name} ({text})"),
        None => name,
    })
}

#[cfg(test)]
mod tests {
    //! The exact line for each way of not fitting.

    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u8,
    }

    #[derive(Debug, Deserialize)]
    struct Args {
        #[serde(rename = "a")]
        _a: f64,
        #[serde(default, rename = "list")]
        _list: Vec<Inner>,
    }

    #[test]
    fn the_field_and_what_was_expected_are_named() {
        let schema = json!({"properties": {"a": {"type": "number", "description": "First"}}});
        for (given, said) in [
            ("", "arguments.a: missing, expected number (First)"),
            ("{}", "arguments.a: missing, expected number (First)"),
            (
                r#"{"a":"x"}"#,
                "arguments.a: invalid type: string \"x\", expected f64",
            ),
            (
                r#"{"a":1,"list":[{"count":1},{"count":300}]}"#,
                "arguments.list[1].count: invalid value: integer `300`, expected u8",
            ),
            (r#"{"a":1,"list":[{}]}"#, "arguments.list[0].count: missing"),
            (
                "[]",
                "arguments: invalid length 0, expected struct Args with 2 elements",
            ),
            (
                "{\"a\":1} x",
                "arguments: not valid JSON: trailing characters at line 1 column 9",
            ),
        ] {
            let error = parse::<Args>("arguments", given.as_bytes(), Some(&schema));
            match error {
                Ok(args) => panic!("{given} was taken as {args:?}"),
                Err(error) => assert_eq!(error.message(), said, "{given}"),
            }
        }
    }

    #[test]
    fn texts_become_what_the_schema_asks_for() {
        let schema = json!({"properties": {
            "n": {"type": ["integer", "null"]}, "b": {"type": "boolean"}, "s": {"type": "string"},
        }});
        let given = json!({"n": "7", "b": "true", "s": "8", "x": "9"});
        let Value::Object(given) = given else {
            panic!("it is an object");
        };
        let expected = json!({"n": 7, "b": true, "s": "8", "x": "9"});
        assert_eq!(from_texts(given, &schema), expected);
    }
}
