//! Lists: pages of the catalog. No plugin is asked.

use rmcp::model::{ErrorData, PaginatedRequestParams, Tool};

use super::errors::invalid_params;
use crate::composite::Section;
use crate::composite::cursor::{self, List};

/// One page: copies of the entries, and the cursor of the next page.
///
/// # Errors
/// -32602 that names the cursor.
pub fn page<T: Clone>(
    section: &Section<T>,
    list: List,
    request: Option<PaginatedRequestParams>,
    size: usize,
) -> Result<(Vec<T>, Option<String>), ErrorData> {
    let after = match request.and_then(|request| request.cursor) {
        None => None,
        Some(cursor) => {
            let read = cursor::decode(list, &cursor);
            Some(read.map_err(|error| invalid_params(error.to_string()))?)
        }
    };
    let (items, next) = section.page(after.as_deref(), size);
    let entries = items.iter().map(|item| item.entry.clone()).collect();
    Ok((entries, next.map(|key| cursor::encode(list, key))))
}

/// Before 2026-07-28 the output of a tool is an object, and clients refuse a whole list with any other
/// schema in it.
pub fn fit_older_client(tool: &mut Tool) {
    tool.output_schema
        .take_if(|schema| schema.get("type").is_none_or(|kind| kind != "object"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn older_clients_get_no_output_schema_that_they_would_refuse() {
        let schema = |value: serde_json::Value| Arc::new(value.as_object().unwrap().clone());
        let tool = || Tool::new_with_raw("t", None, schema(json!({ "type": "object" })));
        for (output, kept) in [
            (json!({ "type": "object" }), true),
            (json!({ "type": "array" }), false),
            (json!({}), false),
        ] {
            let mut tool = tool().with_raw_output_schema(schema(output));
            fit_older_client(&mut tool);
            assert_eq!(tool.output_schema.is_some(), kept);
        }
    }
}
