//! Checks a merged configuration against its schema, in words for a person.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use super::load::join;
use super::{Mistake, near, schema};

/// Every mistake with its path.
pub(super) fn mistakes_of(
    validator: &jsonschema::Validator,
    schema: &Value,
    value: &Value,
) -> Vec<(Vec<String>, Mistake)> {
    let mut found = Vec::new();
    for error in validator.iter_errors(value) {
        describe(&error, schema, &mut found);
    }
    found
}

fn describe(error: &ValidationError<'_>, whole: &Value, found: &mut Vec<(Vec<String>, Mistake)>) {
    let path: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|key| key.replace("~1", "/").replace("~0", "~"))
        .collect();
    let schema = schema::at(whole, &path).unwrap_or(&Value::Null);
    let given = error.instance();
    let mut add = |path: Vec<String>, problem: String, remedy: String| {
        let mistake = Mistake::new(join(&path), problem, remedy);
        found.push((path, mistake));
    };
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for key in unexpected {
                let mut inner = path.clone();
                inner.push(key.clone());
                add(inner, "no such setting".to_owned(), meant(key, schema));
            }
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            let choices = schema::choices(schema);
            if !choices.is_empty() {
                add(path, show(given), one_of(given, &choices));
            } else if let Some(errors) = meant_alternative(error, context) {
                for inner in errors {
                    describe(inner, whole, found);
                }
            } else {
                let problem = must_be(given, &schema::types(schema));
                add(path, problem, example(schema));
            }
        }
        Kind::Enum { .. } | Kind::Constant { .. } => {
            let choices = schema::choices(schema);
            add(path, show(given), one_of(given, &choices));
        }
        Kind::Type { kind } => {
            let types: Vec<String> = match kind {
                TypeKind::Single(one) => vec![one.to_string()],
                TypeKind::Multiple(many) => many.iter().map(|one| one.to_string()).collect(),
            };
            add(path, must_be(given, &types), example(schema));
        }
        Kind::Required { property } => {
            let mut inner = path.clone();
            let key = property.as_str().unwrap_or_default();
            inner.push(key.to_owned());
            let schema = schema::at(whole, &inner).unwrap_or(&Value::Null);
            add(inner, "is missing".to_owned(), example(schema));
        }
        Kind::Minimum { limit } => {
            let problem = format!("{} is too small", show(given));
            add(path, problem, format!("give at least {limit}"));
        }
        Kind::Maximum { limit } => {
            let problem = format!("{} is too large", show(given));
            add(path, problem, format!("give at most {limit}"));
        }
        Kind::MinItems { limit } => {
            let problem = "has too few items".to_owned();
            add(path, problem, format!("give at least {limit}"));
        }
        Kind::MinLength { .. } => add(path, "is empty".to_owned(), example(schema)),
        Kind::Format { .. } | Kind::Pattern { .. } => {
            let problem = format!("{} is not {}", show(given), what(schema));
            add(path, problem, example(schema));
        }
        _ => add(path, error.to_string(), example(schema)),
    }
}

/// The mistakes in the alternative that is meant: the one whose type fits.
fn meant_alternative<'a>(
    error: &ValidationError<'_>,
    context: &'a [Vec<ValidationError<'static>>],
) -> Option<&'a Vec<ValidationError<'static>>> {
    context.iter().find(|errors| {
        !errors.iter().any(|inner| {
            matches!(inner.kind(), Kind::Type { .. })
                && inner.instance_path() == error.instance_path()
        })
    })
}

/// What a text that is held by a pattern or format is.
fn what(schema: &Value) -> String {
    let field = super::reference::kind(schema);
    match field.as_str() {
        "duration" => "a duration".to_owned(),
        "size" => "a size".to_owned(),
        "address:port" => "an address with a port".to_owned(),
        _ => match schema.get("title").and_then(Value::as_str) {
            Some(title) => title.to_owned(),
            None => "what is wanted here".to_owned(),
        },
    }
}

fn meant(key: &str, parent: &Value) -> String {
    let mut known: Vec<&str> = properties(parent);
    known.extend(schema::alternatives(parent).flat_map(properties));
    match near::nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("remove it; there are {}", known.join(", ")),
    }
}

fn properties(schema: &Value) -> Vec<&str> {
    let all = schema.get("properties").and_then(Value::as_object);
    all.map(|all| all.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

fn one_of(given: &Value, choices: &[&str]) -> String {
    let nearest = given
        .as_str()
        .and_then(|text| near::nearest(text, choices.iter().copied()));
    let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    format!("write one of {}{hint}", choices.join(", "))
}

fn must_be(given: &Value, types: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = types
        .iter()
        .map(AsRef::as_ref)
        .filter(|kind| *kind != "null")
        .map(|kind| match kind {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a table",
            other => other,
        })
        .collect();
    format!("must be {}, and is {}", words.join(" or "), show(given))
}

/// The value as it stands in JSON, shortened.
fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        return text;
    }
    let short: String = text.chars().take(77).collect();
    format!("{short}…")
}

fn example(schema: &Value) -> String {
    let examples: Vec<String> = schema
        .get("examples")
        .and_then(Value::as_array)
        .map(|all| all.iter().map(plain).collect())
        .unwrap_or_default();
    match examples.as_slice() {
        [] => String::new(),
        all => format!("write for example {}", all.join(" or ")),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
