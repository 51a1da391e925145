//! JSON Schemas of Rust types, as MCP wants them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema of a type in JSON Schema 2020-12, which is MCP's default and so is not named in it.
/// Types are written out where they are used, as not every model follows references.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The name of a Rust type says nothing to those who read the schema.
    if schema.get("title").and_then(Value::as_str) == Some(&*T::schema_name()) {
        schema.remove("title");
    }
    schema.to_value()
}

/// Whether the schema describes JSON objects, as MCP demands of arguments and structured results.
pub(crate) fn is_object(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

#[cfg(test)]
mod tests {
    //! The schema of a small type.

    use super::*;
    use serde_json::json;

    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        n: u8,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Args {
        /// First addend
        a: f64,
        inner: Option<Inner>,
    }

    #[test]
    fn types_are_written_out_and_their_rust_names_left_out() {
        let schema = of::<Args>();
        assert!(is_object(&schema));
        assert_eq!(schema["properties"]["a"]["description"], "First addend");
        assert_eq!(schema["required"], json!(["a"]));
        let text = schema.to_string();
        assert!(
            !text.contains("$ref") && !text.contains("\"title\""),
            "{text}"
        );
        assert!(!is_object(&of::<Vec<u8>>()));
    }
}
