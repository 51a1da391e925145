//! Results of tools: MCP's `CallToolResult`.

use base64::Engine;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{object, take_array};
use crate::code::ErrorCode;
use crate::error::{CallError, ToolError};
use crate::payload::{Json, Payload};
use crate::schema;

/// The result of a tool: content for a reader, and optionally a JSON object for a program.
///
/// ```
/// use plugmesh_sdk::ToolOutput;
/// use serde_json::json;
/// let output = ToolOutput::new().text("3 files").structured(json!({"files": 3}));
/// assert_eq!(output.text_content(), "3 files");
/// assert_eq!(output.structured_content(), Some(&json!({"files": 3})));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    content: Vec<Value>,
    structured: Option<Value>,
    is_error: bool,
    /// What else the provider's result held, such as `_meta`.
    rest: Map<String, Value>,
}

impl ToolOutput {
    /// An empty result.
    ///
    /// ```
    /// assert!(plugmesh_sdk::ToolOutput::new().content().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    ///
    /// ```
    /// let output = plugmesh_sdk::ToolOutput::new().text("one").text("two");
    /// assert_eq!(output.text_content(), "one\ntwo");
    /// ```
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.item(json!({"type": "text", "text": text.into()}))
    }

    /// Adds an image.
    ///
    /// ```
    /// let output = plugmesh_sdk::ToolOutput::new().image(b"abc", "image/png");
    /// assert_eq!(output.content()[0]["data"], "YWJj");
    /// ```
    #[must_use]
    pub fn image(self, bytes: &[u8], mime_type: impl Into<String>) -> Self {
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.item(json!({"type": "image", "data": data, "mimeType": mime_type.into()}))
    }

    /// Adds a content block of any sort that MCP knows, such as an embedded resource.
    ///
    /// ```
    /// use serde_json::json;
    /// let link = json!({"type": "resource_link", "uri": "time://current", "name": "now"});
    /// assert_eq!(plugmesh_sdk::ToolOutput::new().item(link.clone()).content(), [link]);
    /// ```
    #[must_use]
    pub fn item(mut self, block: Value) -> Self {
        self.content.push(block);
        self
    }

    /// Sets the result for programs, a JSON object.
    ///
    /// ```
    /// use serde_json::json;
    /// let output = plugmesh_sdk::ToolOutput::new().structured(json!({"sum": 3}));
    /// assert_eq!(output.structured_content(), Some(&json!({"sum": 3})));
    /// ```
    #[must_use]
    pub fn structured(mut self, object: Value) -> Self {
        self.structured = Some(object);
        self
    }

    /// Says that the tool failed; the content tells why.
    ///
    /// ```
    /// assert!(plugmesh_sdk::ToolOutput::new().text("disk full").error().is_error());
    /// ```
    #[must_use]
    pub fn error(mut self) -> Self {
        self.is_error = true;
        self
    }

    /// The content blocks, as MCP writes them.
    ///
    /// ```
    /// let output = plugmesh_sdk::ToolOutput::new().text("hello");
    /// assert_eq!(output.content()[0]["text"], "hello");
    /// ```
    #[must_use]
    pub fn content(&self) -> &[Value] {
        &self.content
    }

    /// All texts of the content, a line break between two.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ToolOutput::new().text("hello").text_content(), "hello");
    /// ```
    #[must_use]
    pub fn text_content(&self) -> String {
        let texts = self.content.iter().filter_map(|block| block.get("text"));
        let texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
        texts.join("\n")
    }

    /// The result for programs, if there is one.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ToolOutput::new().structured_content(), None);
    /// ```
    #[must_use]
    pub fn structured_content(&self) -> Option<&Value> {
        self.structured.as_ref()
    }

    /// Whether the tool failed.
    ///
    /// ```
    /// assert!(!plugmesh_sdk::ToolOutput::new().is_error());
    /// ```
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// The result, or what the tool said of its failure.
    ///
    /// # Errors
    /// The text of a result that says it is an error.
    ///
    /// ```
    /// use plugmesh_sdk::ToolOutput;
    /// let failed = ToolOutput::new().text("division by zero").error();
    /// assert_eq!(failed.into_result().unwrap_err().message(), "division by zero");
    /// ```
    pub fn into_result(self) -> Result<Self, ToolError> {
        if self.is_error {
            return Err(ToolError::new(self.text_content()));
        }
        Ok(self)
    }

    /// Reads the structured content into a type; without one, reads the text as JSON.
    ///
    /// # Errors
    /// The text of a result that says it is an error; the field that does not fit the type.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Sum { sum: f64 }
    /// let output = plugmesh_sdk::ToolOutput::new().structured(serde_json::json!({"sum": 3.5}));
    /// assert_eq!(output.parse::<Sum>().unwrap().sum, 3.5);
    /// ```
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, ToolError> {
        let output = self.into_result()?;
        let json = output
            .structured
            .as_ref()
            .map_or_else(|| output.text_content(), Value::to_string);
        crate::arguments::parse("result", json.as_bytes(), None)
    }

    /// Reads a provider's result.
    pub(crate) fn decode(payload: &Payload) -> Result<Self, CallError> {
        let mut object = object("CallToolResult", payload)?;
        Ok(Self {
            content: take_array(&mut object, "content"),
            structured: object.remove("structuredContent"),
            is_error: object.remove("isError") == Some(Value::Bool(true)),
            rest: object,
        })
    }
}

/// What the handler of a tool can give.
///
/// | type | content | `structuredContent` | `outputSchema` |
/// |---|---|---|---|
/// | [`Json<T>`](Json) | the JSON as text | yes | of `T` |
/// | [`serde_json::Value`] | the JSON as text | if it is an object | |
/// | `String`, `&str` | the text | | |
/// | `()` | nothing | | |
/// | [`ToolOutput`] | as given | as given | |
///
/// ```
/// use plugmesh_sdk::IntoToolOutput;
/// assert_eq!("hello".into_tool_output().unwrap().text_content(), "hello");
/// ```
pub trait IntoToolOutput: Sized {
    /// The JSON Schema of the structured content, if there is one.
    ///
    /// ```
    /// use plugmesh_sdk::IntoToolOutput;
    /// assert!(String::output_schema().is_none());
    /// ```
    #[must_use]
    fn output_schema() -> Option<Value> {
        None
    }

    /// Makes the result.
    ///
    /// # Errors
    /// A [`ToolError`] when the value can't be written as JSON.
    ///
    /// ```
    /// use plugmesh_sdk::IntoToolOutput;
    /// assert!(().into_tool_output().unwrap().content().is_empty());
    /// ```
    fn into_tool_output(self) -> Result<ToolOutput, ToolError>;

    /// Whether the result says that the tool failed.
    #[doc(hidden)]
    fn says_failed(&self) -> bool {
        false
    }

    /// Makes the result's bytes; the types that are JSON already skip the way through a value.
    #[doc(hidden)]
    fn encode(self) -> Result<Vec<u8>, ToolError> {
        let output = self.into_tool_output()?;
        let mut object = Map::new();
        object.insert("content".into(), Value::Array(output.content));
        if let Some(structured) = output.structured {
            object.insert("structuredContent".into(), structured);
        }
        object.insert("isError".into(), output.is_error.into());
        object.extend(output.rest);
        Ok(serde_json::to_vec(&object)?)
    }
}

impl IntoToolOutput for ToolOutput {
    fn says_failed(&self) -> bool {
        self.is_error
    }

    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        Ok(self)
    }
}

impl IntoToolOutput for String {
    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new().text(self))
    }
}

impl IntoToolOutput for &str {
    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new().text(self))
    }
}

impl IntoToolOutput for () {
    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new())
    }
}

impl IntoToolOutput for Value {
    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        let output = ToolOutput::new().text(self.to_string());
        Ok(if self.is_object() {
            output.structured(self)
        } else {
            output
        })
    }

    fn encode(self) -> Result<Vec<u8>, ToolError> {
        encode_json(&self.to_string())
    }
}

impl<T: Serialize + schemars::JsonSchema> IntoToolOutput for Json<T> {
    fn output_schema() -> Option<Value> {
        Some(schema::of::<T>())
    }

    fn into_tool_output(self) -> Result<ToolOutput, ToolError> {
        serde_json::to_value(self.0)?.into_tool_output()
    }

    fn encode(self) -> Result<Vec<u8>, ToolError> {
        encode_json(&serde_json::to_string(&self.0)?)
    }
}

/// The result that holds a JSON text both as content and, when it is an object, structured.
fn encode_json(json: &str) -> Result<Vec<u8>, ToolError> {
    let mut bytes = Vec::with_capacity(json.len() * 2 + json.len() / 4 + 96);
    bytes.extend_from_slice(br#"{"content":[{"type":"text","text":"#);
    serde_json::to_writer(&mut bytes, json)?;
    bytes.extend_from_slice(b"}]");
    if json.starts_with('{') {
        bytes.extend_from_slice(br#","structuredContent":"#);
        bytes.extend_from_slice(json.as_bytes());
    }
    bytes.extend_from_slice(br#","isError":false}"#);
    Ok(bytes)
}

/// The result of a tool whose handler failed; an error when the handler gave a code.
pub(crate) fn encode_failure(error: ToolError) -> Result<Vec<u8>, CallError> {
    if error.code().is_some() {
        return Err(error.into_call_error());
    }
    let output = ToolOutput::new().text(error.message()).error();
    output
        .encode()
        .map_err(|error| CallError::new(ErrorCode::Internal, error.message()))
}

#[cfg(test)]
mod tests {
    //! The bytes that go over the wire.

    use super::*;

    /// What goes over the wire, as text.
    fn text<E: std::fmt::Debug>(made: Result<Vec<u8>, E>) -> String {
        match made {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn an_object_is_both_text_and_structured() {
        let expected = r#"{"content":[{"type":"text","text":"{\"sum\":3}"}],"structuredContent":{"sum":3},"isError":false}"#;
        assert_eq!(text(json!({"sum": 3}).encode()), expected);
        let through_a_value = json!({"sum": 3})
            .into_tool_output()
            .and_then(IntoToolOutput::encode);
        assert_eq!(text(through_a_value), expected);
    }

    #[test]
    fn what_is_no_object_is_text_only() {
        let expected = r#"{"content":[{"type":"text","text":"[1]"}],"isError":false}"#;
        assert_eq!(text(json!([1]).encode()), expected);
    }

    #[test]
    fn a_failure_is_a_result_unless_it_has_a_code() {
        let failed = encode_failure(ToolError::new("no"));
        assert_eq!(
            text(failed),
            r#"{"content":[{"type":"text","text":"no"}],"isError":true}"#
        );
        let coded = encode_failure(ToolError::with_code(ErrorCode::NotFound, "no"));
        assert_eq!(coded.map_err(|error| error.code), Err(ErrorCode::NotFound));
    }

    #[test]
    fn what_a_provider_gave_beside_is_kept() {
        let given = r#"{"content":[],"isError":true,"_meta":{"a":1}}"#;
        let decoded = ToolOutput::decode(&Payload::new(given, ""));
        let output = decoded.unwrap_or_else(|error| panic!("{error}"));
        assert!(output.is_error());
        assert_eq!(text(output.encode()), given);
    }
}
