//! What handlers of MCP's kinds give back, and what callers of them get.

mod prompt;
mod resource;
mod tool;

pub use prompt::{IntoPrompt, PromptOutput};
pub use resource::{IntoResource, ResourceOutput};
pub(crate) use tool::encode_failure;
pub use tool::{IntoToolOutput, ToolOutput};

use serde_json::Value;

use crate::code::ErrorCode;
use crate::error::CallError;
use crate::payload::Payload;

/// Reads the result of a provider as a JSON object; `what` names MCP's type in the error.
fn object(what: &str, payload: &Payload) -> Result<serde_json::Map<String, Value>, CallError> {
    match serde_json::from_slice(&payload.bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(unreadable(what, "it is no JSON object")),
        Err(error) => Err(unreadable(what, &error.to_string())),
    }
}

fn unreadable(what: &str, why: &str) -> CallError {
    CallError::new(
        ErrorCode::PluginFailed,
        format!("the provider's answer is not a {what}: {why}"),
    )
}

/// The array under a key; empty when there is none.
fn take_array(object: &mut serde_json::Map<String, Value>, key: &str) -> Vec<Value> {
    match object.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}
