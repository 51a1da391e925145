//! Errors of the mesh as JSON-RPC errors.

use mesh_core::error::{ErrorCode, MeshError, Place};
use rmcp::model::{ErrorCode as RpcCode, ErrorData};
use serde_json::{Map, Value, json};

/// The JSON-RPC error of an error of the mesh: its code, its text, and in `data` what programs need.
#[must_use]
pub fn rpc_error(error: &MeshError) -> ErrorData {
    let code = i32::try_from(error.code.json_rpc()).unwrap_or(RpcCode::INTERNAL_ERROR.0);
    let mut data = facts(error.code);
    let Place {
        plugin,
        version,
        instance,
        node,
    } = &*error.place;
    let place = [
        ("plugin", plugin),
        ("version", version),
        ("instance", instance),
        ("node", node),
    ];
    for (field, value) in place.into_iter().filter(|(_, value)| !value.is_empty()) {
        data.insert(field.to_owned(), json!(value));
    }
    if let Some(wait) = error.retry_after {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        data.insert("retry_after_ms".to_owned(), json!(millis));
    }
    let details = error.details.as_deref().map(serde_json::from_str::<Value>);
    if let Some(Ok(details)) = details {
        data.insert("details".to_owned(), details);
    }
    ErrorData::new(
        RpcCode(code),
        error.message.clone(),
        Some(Value::Object(data)),
    )
}

fn facts(code: ErrorCode) -> Map<String, Value> {
    let docs = format!("docs/errors/{}.md", code.slug());
    Map::from_iter([
        ("code".to_owned(), json!(code.name())),
        ("docs".to_owned(), json!(docs)),
    ])
}

/// Arguments or names that break a rule; the text names the field.
#[must_use]
pub fn invalid_params(text: impl Into<String>) -> ErrorData {
    rpc_error(&MeshError::new(ErrorCode::InvalidArgument, text.into()))
}

/// No entry has this name; `near` are those that may have been meant.
#[must_use]
pub fn unknown(what: &str, name: &str, list: &str, near: &[&str]) -> ErrorData {
    let shown: String = name.chars().take(80).collect();
    let hint = match near {
        [] => format!("{list} shows which there are"),
        near => format!("did you mean {}? {list} shows all", near.join(", ")),
    };
    let mut data = facts(ErrorCode::NotFound);
    if !near.is_empty() {
        data.insert("nearest".to_owned(), json!(near));
    }
    ErrorData::new(
        RpcCode::INVALID_PARAMS,
        format!("there is no {what} {shown:?}: {hint}"),
        Some(Value::Object(data)),
    )
}

/// No plugin serves this URI. Newer clients get the code of invalid params for it, older ones the
/// code that their version has for it; the MCP library chooses.
#[must_use]
pub fn unknown_uri(uri: &str) -> ErrorData {
    let shown: String = uri.chars().take(200).collect();
    let mut data = facts(ErrorCode::NotFound);
    data.insert("uri".to_owned(), json!(shown));
    ErrorData::new(
        RpcCode::RESOURCE_NOT_FOUND,
        format!(
            "no plugin has the resource {shown:?}, and it matches no template: resources/list and \
             resources/templates/list show which there are"
        ),
        Some(Value::Object(data)),
    )
}

/// A plugin's answer is not what MCP demands.
#[must_use]
pub fn invalid_answer(place: &Place, expected: &str, why: &str) -> MeshError {
    let text = format!(
        "the plugin's answer is no {expected}: {why}; this is a fault of the plugin, tell its \
         authors"
    );
    MeshError::new(ErrorCode::PluginFailed, text).at(place.clone())
}

/// The one word that an error is counted under.
#[must_use]
pub fn outcome(error: &ErrorData) -> &'static str {
    let name = error
        .data
        .as_ref()
        .and_then(|data| data.get("code")?.as_str());
    let known = |code: &&ErrorCode| Some(code.name()) == name;
    match ErrorCode::ALL.iter().find(known) {
        Some(code) => code.name(),
        None if error.code == RpcCode::METHOD_NOT_FOUND => "method_not_found",
        None if error.code == RpcCode::INVALID_PARAMS => "invalid_argument",
        None => "error",
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_code_of_the_mesh_keeps_its_json_rpc_code_name_and_page() {
        for code in ErrorCode::ALL {
            let error = rpc_error(&MeshError::new(*code, "text"));
            assert_eq!(i64::from(error.code.0), code.json_rpc());
            let data = error.data.clone().unwrap();
            assert_eq!(data["code"], code.name());
            assert_eq!(data["docs"], format!("docs/errors/{}.md", code.slug()));
            assert_eq!(outcome(&error), code.name());
        }
    }

    #[test]
    fn the_place_the_wait_and_the_details_are_in_the_data() {
        let mut error = MeshError::new(ErrorCode::Overloaded, "busy").at(Place {
            plugin: "time".to_owned(),
            version: "1.0.0".to_owned(),
            instance: "i".to_owned(),
            node: "a".to_owned(),
        });
        error = error.retry_after(Duration::from_millis(250));
        error.details = Some("{\"queue\":3}".to_owned());
        let data = rpc_error(&error).data.unwrap();
        assert_eq!(
            data,
            json!({
                "code": "overloaded", "docs": "docs/errors/overloaded.md", "plugin": "time",
                "version": "1.0.0", "instance": "i", "node": "a", "retry_after_ms": 250,
                "details": { "queue": 3 },
            })
        );
    }

    #[test]
    fn what_is_not_known_is_not_in_the_data() {
        let data = rpc_error(&MeshError::new(ErrorCode::Internal, "x"))
            .data
            .unwrap();
        assert_eq!(data.as_object().unwrap().len(), 2);
    }

    #[test]
    fn an_unknown_tool_is_named_with_those_that_may_have_been_meant() {
        let error = unknown("tool", "ad", "tools/list", &["calculator_add"]);
        assert_eq!(error.code, RpcCode::INVALID_PARAMS);
        assert_eq!(
            error.message,
            "there is no tool \"ad\": did you mean calculator_add? tools/list shows all"
        );
        assert_eq!(error.data.unwrap()["nearest"], json!(["calculator_add"]));
        assert_eq!(outcome(&unknown_uri("x://y")), "not_found");
    }
}
