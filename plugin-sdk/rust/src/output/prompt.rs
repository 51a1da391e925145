//! Prompts filled in: MCP's `GetPromptResult`.

use serde_json::{Map, Value, json};

use super::{object, take_array};
use crate::error::{CallError, ToolError};
use crate::payload::Payload;

/// A prompt filled in: messages for a language model.
///
/// ```
/// use plugmesh_sdk::PromptOutput;
/// let output = PromptOutput::new().user("What is 2 + 2?").assistant("4").user("And 3 + 3?");
/// assert_eq!(output.messages()[1]["role"], "assistant");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptOutput {
    description: Option<Value>,
    messages: Vec<Value>,
}

impl PromptOutput {
    /// Without messages yet.
    ///
    /// ```
    /// assert!(plugmesh_sdk::PromptOutput::new().messages().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what this prompt is for.
    ///
    /// ```
    /// let output = plugmesh_sdk::PromptOutput::new().description("Plans a day").user("Plan!");
    /// assert_eq!(output.messages().len(), 1);
    /// ```
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into().into());
        self
    }

    /// Adds a text by the user.
    ///
    /// ```
    /// let output = plugmesh_sdk::PromptOutput::new().user("Hello");
    /// assert_eq!(output.messages()[0]["content"]["text"], "Hello");
    /// ```
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Self {
        self.add("user", text.into())
    }

    /// Adds a text by the assistant.
    ///
    /// ```
    /// let output = plugmesh_sdk::PromptOutput::new().assistant("Hello");
    /// assert_eq!(output.messages()[0]["role"], "assistant");
    /// ```
    #[must_use]
    pub fn assistant(self, text: impl Into<String>) -> Self {
        self.add("assistant", text.into())
    }

    /// Adds a message as MCP writes it, such as one with an image.
    ///
    /// ```
    /// use serde_json::json;
    /// let message = json!({"role": "user", "content": {"type": "text", "text": "Hi"}});
    /// let output = plugmesh_sdk::PromptOutput::new().message(message.clone());
    /// assert_eq!(output.messages(), [message]);
    /// ```
    #[must_use]
    pub fn message(mut self, message: Value) -> Self {
        self.messages.push(message);
        self
    }

    /// The messages, as MCP writes them.
    ///
    /// ```
    /// let output = plugmesh_sdk::PromptOutput::new().user("Hello");
    /// assert_eq!(output.messages()[0]["role"], "user");
    /// ```
    #[must_use]
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    fn add(self, role: &str, text: String) -> Self {
        self.message(json!({"role": role, "content": {"type": "text", "text": text}}))
    }

    pub(crate) fn encode(self) -> Result<Vec<u8>, ToolError> {
        let mut result = Map::new();
        if let Some(description) = self.description {
            result.insert("description".into(), description);
        }
        result.insert("messages".into(), self.messages.into());
        Ok(serde_json::to_vec(&result)?)
    }

    pub(crate) fn decode(payload: &Payload) -> Result<Self, CallError> {
        let mut object = object("GetPromptResult", payload)?;
        Ok(Self {
            messages: take_array(&mut object, "messages"),
            description: object.remove("description"),
        })
    }
}

/// What the handler of a prompt can give: a [`PromptOutput`], or a text that becomes one message by
/// the user.
///
/// ```
/// use plugmesh_sdk::IntoPrompt;
/// assert_eq!("Plan my day".into_prompt().messages().len(), 1);
/// ```
pub trait IntoPrompt {
    /// Makes the messages.
    ///
    /// ```
    /// use plugmesh_sdk::{IntoPrompt, PromptOutput};
    /// assert!(PromptOutput::new().into_prompt().messages().is_empty());
    /// ```
    fn into_prompt(self) -> PromptOutput;
}

impl IntoPrompt for PromptOutput {
    fn into_prompt(self) -> PromptOutput {
        self
    }
}

impl IntoPrompt for String {
    fn into_prompt(self) -> PromptOutput {
        PromptOutput::new().user(self)
    }
}

impl IntoPrompt for &str {
    fn into_prompt(self) -> PromptOutput {
        PromptOutput::new().user(self)
    }
}
