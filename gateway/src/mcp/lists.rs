//! Lists: pages of the catalog. No plugin is asked.

use rmcp::model::{ErrorData, PaginatedRequestParams};

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
