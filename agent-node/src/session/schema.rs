//! Bounds of a plugin's schema of its configuration: it comes from a stranger and is worked on here.
//!
//! A schema of a few hundred bytes can take for ever, when each definition names the one before twice. So
//! the work is counted before it is begun: every part once for each way that leads to it.

use std::collections::HashMap;

use serde_json::Value;

/// Largest schema in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// The most parts, each counted as often as references lead to it.
const MAX_PARTS: u64 = 50_000;

/// What a schema may be, or why it is refused.
///
/// # Errors
/// What is wrong with it and what to do, for a person.
pub(super) fn check(text: &str) -> Result<Value, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "it has {} bytes, {MAX_BYTES} are allowed",
            text.len()
        ));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut count = Count {
        root: &schema,
        known: HashMap::new(),
        references: 0,
    };
    if count.parts(&schema, 0)? > MAX_PARTS {
        return Err(format!(
            "it has more than {MAX_PARTS} parts when its references are followed; name each \
             definition from fewer places"
        ));
    }
    Ok(schema)
}

struct Count<'a> {
    root: &'a Value,
    /// Parts behind each reference; `None` while they are counted.
    known: HashMap<&'a str, Option<u64>>,
    /// References that are being followed.
    references: usize,
}

impl<'a> Count<'a> {
    fn parts(&mut self, value: &'a Value, depth: usize) -> Result<u64, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
        }
        let mut parts: u64 = 1;
        match value {
            Value::Array(items) => {
                for item in items {
                    parts = parts.saturating_add(self.parts(item, depth + 1)?);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    let more = match (name.as_str(), field) {
                        ("$ref", Value::String(reference)) => self.behind(reference)?,
                        // What they lead to depends on how it was come to, so it can't be counted.
                        ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                            return Err(format!("{name} is not taken; use $ref"));
                        }
                        _ => self.parts(field, depth + 1)?,
                    };
                    parts = parts.saturating_add(more);
                }
            }
            _ => {}
        }
        Ok(parts)
    }

    fn behind(&mut self, reference: &'a str) -> Result<u64, String> {
        match self.known.get(reference) {
            Some(Some(parts)) => return Ok(*parts),
            // A schema may name itself: a tree of nodes does.
            Some(None) => return Ok(1),
            None => {}
        }
        if self.references >= MAX_DEPTH {
            return Err(format!(
                "more than {MAX_DEPTH} references lead from one to the next"
            ));
        }
        let target = reference
            .strip_prefix('#')
            .filter(|pointer| pointer.is_empty() || pointer.starts_with('/'))
            .ok_or_else(|| {
                format!(
                    "$ref {reference:?} leads outside; refer to a place within, as #/$defs/name"
                )
            })?;
        let root = self.root;
        let found = root
            .pointer(target)
            .or_else(|| root.pointer(&decoded(target)));
        let found = found.ok_or_else(|| format!("$ref {reference:?} leads nowhere"))?;
        self.known.insert(reference, None);
        self.references += 1;
        let parts = self.parts(found, 0)?;
        self.references -= 1;
        self.known.insert(reference, Some(parts));
        Ok(parts)
    }
}

/// A pointer in a URI may be percent-encoded (RFC 6901, section 6).
fn decoded(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> String {
        check(&schema.to_string()).unwrap_err()
    }

    #[test]
    fn a_schema_that_doubles_with_each_reference_is_refused_before_it_is_worked_on() {
        let mut defs = serde_json::Map::new();
        defs.insert("d0".to_owned(), json!({"type": "object"}));
        for number in 1..40 {
            let before = json!({"$ref": format!("#/$defs/d{}", number - 1)});
            defs.insert(format!("d{number}"), json!({"allOf": [before, before]}));
        }
        let schema = json!({"$ref": "#/$defs/d39", "$defs": defs});
        assert!(refused(&schema).contains("50000 parts"));
    }

    #[test]
    fn a_schema_that_is_too_deep_or_too_large_is_refused() {
        let mut deep = json!(true);
        for _ in 0..40 {
            deep = json!({"items": {"not": deep}});
        }
        assert!(refused(&deep).contains("deeper than 64"));
        let large = json!({"description": "x".repeat(MAX_BYTES)});
        assert!(refused(&large).contains("65536 are allowed"));
    }

    #[test]
    fn references_lead_to_places_within() {
        for (reference, why) in [
            ("http://example.com/schema.json", "leads outside"),
            ("#anchor", "leads outside"),
            ("#/$defs/none", "leads nowhere"),
        ] {
            let text = refused(&json!({"$ref": reference}));
            assert!(text.contains(why), "{text}");
        }
        assert!(refused(&json!({"$dynamicRef": "#x"})).contains("use $ref"));
    }

    #[test]
    fn a_schema_of_a_tree_and_one_with_an_encoded_name_are_taken() {
        let schema = json!({
            "type": "object",
            "properties": {
                "children": {"type": "array", "items": {"$ref": "#"}},
                "pair": {"$ref": "#/$defs/Pair%3CA%3E"},
                // A property of that name is no reference.
                "$ref": {"type": "string"},
            },
            "$defs": {"Pair<A>": {"type": "array"}},
        });
        assert_eq!(check(&schema.to_string()).unwrap(), schema);
    }
}
