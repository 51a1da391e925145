//! What resources hold: MCP's `ReadResourceResult`.

use base64::Engine;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{object, take_array};
use crate::error::{CallError, ToolError};
use crate::payload::{Json, Payload};
use crate::wire::JSON;

/// What a resource holds: one or more texts or blobs.
///
/// ```
/// use plugmesh_sdk::ResourceOutput;
/// let output = ResourceOutput::new().text("# Notes").mime_type("text/markdown");
/// assert_eq!(output.contents()[0]["mimeType"], "text/markdown");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceOutput {
    contents: Vec<Value>,
}

impl ResourceOutput {
    /// Nothing yet.
    ///
    /// ```
    /// assert!(plugmesh_sdk::ResourceOutput::new().contents().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    ///
    /// ```
    /// let output = plugmesh_sdk::ResourceOutput::new().text("hello");
    /// assert_eq!(output.text_content(), "hello");
    /// ```
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.add("text", text.into())
    }

    /// Adds bytes.
    ///
    /// ```
    /// let output = plugmesh_sdk::ResourceOutput::new().blob(b"abc");
    /// assert_eq!(output.contents()[0]["blob"], "YWJj");
    /// ```
    #[must_use]
    pub fn blob(self, bytes: &[u8]) -> Self {
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.add("blob", data)
    }

    /// Sets the media type of what was added last; the default is the resource's own.
    ///
    /// ```
    /// let output = plugmesh_sdk::ResourceOutput::new().text("a,b").mime_type("text/csv");
    /// assert_eq!(output.contents()[0]["mimeType"], "text/csv");
    /// ```
    #[must_use]
    pub fn mime_type(self, mime_type: impl Into<String>) -> Self {
        self.set("mimeType", mime_type.into())
    }

    /// Sets the URI of what was added last; the default is the one that was read.
    ///
    /// ```
    /// let output = plugmesh_sdk::ResourceOutput::new().text("x").uri("note://1");
    /// assert_eq!(output.contents()[0]["uri"], "note://1");
    /// ```
    #[must_use]
    pub fn uri(self, uri: impl Into<String>) -> Self {
        self.set("uri", uri.into())
    }

    /// The contents, as MCP writes them.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::ResourceOutput::new().text("x").contents().len(), 1);
    /// ```
    #[must_use]
    pub fn contents(&self) -> &[Value] {
        &self.contents
    }

    /// All texts, a line break between two.
    ///
    /// ```
    /// let output = plugmesh_sdk::ResourceOutput::new().text("a").text("b");
    /// assert_eq!(output.text_content(), "a\nb");
    /// ```
    #[must_use]
    pub fn text_content(&self) -> String {
        let texts = self.contents.iter().filter_map(|item| item.get("text"));
        let texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
        texts.join("\n")
    }

    fn add(mut self, key: &str, value: String) -> Self {
        let mut item = Map::new();
        item.insert(key.to_owned(), value.into());
        self.contents.push(item.into());
        self
    }

    fn set(mut self, key: &str, value: String) -> Self {
        if let Some(Value::Object(item)) = self.contents.last_mut() {
            item.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The result's bytes; what has no URI or media type gets these.
    pub(crate) fn encode(self, uri: &str, mime_type: Option<&str>) -> Result<Vec<u8>, ToolError> {
        let complete = |item: Value| {
            let mut whole = Map::new();
            whole.insert("uri".into(), uri.into());
            if let Some(mime_type) = mime_type {
                whole.insert("mimeType".into(), mime_type.into());
            }
            if let Value::Object(item) = item {
                whole.extend(item);
            }
            Value::Object(whole)
        };
        let contents: Vec<Value> = self.contents.into_iter().map(complete).collect();
        let mut result = Map::new();
        result.insert("contents".into(), contents.into());
        Ok(serde_json::to_vec(&result)?)
    }

    pub(crate) fn decode(payload: &Payload) -> Result<Self, CallError> {
        let mut object = object("ReadResourceResult", payload)?;
        Ok(Self {
            contents: take_array(&mut object, "contents"),
        })
    }
}

/// What the handler of a resource can give: a text, [`Bytes`], [`Json`] of a type, a
/// [`serde_json::Value`], or a [`ResourceOutput`].
///
/// ```
/// use plugmesh_sdk::IntoResource;
/// assert_eq!("hello".into_resource().unwrap().text_content(), "hello");
/// ```
pub trait IntoResource {
    /// Makes the contents.
    ///
    /// # Errors
    /// A [`ToolError`] when the value can't be written as JSON.
    ///
    /// ```
    /// use plugmesh_sdk::{IntoResource, Json};
    /// assert_eq!(Json([1]).into_resource().unwrap().text_content(), "[1]");
    /// ```
    fn into_resource(self) -> Result<ResourceOutput, ToolError>;
}

impl IntoResource for ResourceOutput {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        Ok(self)
    }
}

impl IntoResource for String {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        Ok(ResourceOutput::new().text(self))
    }
}

impl IntoResource for &str {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        Ok(ResourceOutput::new().text(self))
    }
}

impl IntoResource for Bytes {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        Ok(ResourceOutput::new().blob(&self))
    }
}

impl IntoResource for Value {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        Json(self).into_resource()
    }
}

impl<T: Serialize> IntoResource for Json<T> {
    fn into_resource(self) -> Result<ResourceOutput, ToolError> {
        let text = serde_json::to_string(&self.0)?;
        Ok(ResourceOutput::new().text(text).mime_type(JSON))
    }
}
