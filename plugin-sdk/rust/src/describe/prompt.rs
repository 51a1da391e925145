//! Describes a prompt: MCP's `Prompt`.

use serde_json::{Map, Value, json};

use super::{check_name, entry, set};
use crate::check::Report;
use crate::wire::common::{CapabilityEntry, CapabilityKind};

/// Describes a prompt. Its arguments are those of the handler's argument type, unless they are given
/// here.
///
/// ```
/// use plugmesh_sdk::{Plugin, Prompt};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Review {
///     /// The language of the code
///     language: String,
/// }
/// let review = Prompt::new("review").description("Asks for a code review");
/// let plugin = Plugin::new("coder", "1.0.0")
///     .prompt(review, async |args: Review, _| Ok(format!("Review this {} code", args.language)));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Prompt {
    name: String,
    fields: Map<String, Value>,
    arguments: Vec<Value>,
}

impl Prompt {
    /// A prompt of this name: 1 to 64 letters, digits and `_ . / -`.
    ///
    /// ```
    /// let prompt = plugmesh_sdk::Prompt::new("review");
    /// # let _ = prompt;
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            fields: Map::new(),
            arguments: Vec::new(),
        }
    }

    /// The name that people see.
    ///
    /// ```
    /// let prompt = plugmesh_sdk::Prompt::new("review").title("Review code");
    /// # let _ = prompt;
    /// ```
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.field("title", title.into())
    }

    /// What the prompt is for.
    ///
    /// ```
    /// let prompt = plugmesh_sdk::Prompt::new("review").description("Asks for a code review");
    /// # let _ = prompt;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.field("description", text.into())
    }

    /// Describes an argument, in place of those that the handler's type gives.
    ///
    /// ```
    /// let prompt = plugmesh_sdk::Prompt::new("review").argument("language", "Of the code", true);
    /// # let _ = prompt;
    /// ```
    #[must_use]
    pub fn argument(
        mut self,
        name: impl Into<String>,
        description: impl Into<String>,
        required: bool,
    ) -> Self {
        self.arguments.push(json!({
            "name": name.into(),
            "description": description.into(),
            "required": required,
        }));
        self
    }

    /// Sets any other field of the entry, such as `icons`; clients get it as it is.
    ///
    /// ```
    /// use serde_json::json;
    /// let prompt = plugmesh_sdk::Prompt::new("review").field("_meta", json!({"team": "core"}));
    /// # let _ = prompt;
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn build(mut self, schema: &Value, report: &mut Report<'_>) -> CapabilityEntry {
        if let Err(rule) = check_name(&self.name) {
            report.add("name", format!("{:?} is not valid: {rule}", self.name));
        }
        if self.arguments.is_empty() {
            self.arguments = arguments_of(schema);
        }
        let mut fields = Map::new();
        set(&mut fields, "name", self.name.as_str());
        fields.extend(self.fields);
        if !self.arguments.is_empty() {
            set(&mut fields, "arguments", self.arguments);
        }
        CapabilityEntry {
            idempotent: true,
            read_only: true,
            ..entry(CapabilityKind::Prompt, &self.name, Some(fields))
        }
    }
}

impl From<&str> for Prompt {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// MCP's arguments, made of the properties of a type's schema.
fn arguments_of(schema: &Value) -> Vec<Value> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let required = schema.get("required").and_then(Value::as_array);
    let argument = |(name, property): (&String, &Value)| {
        let mut argument = Map::new();
        set(&mut argument, "name", name.as_str());
        if let Some(text) = property.get("description") {
            set(&mut argument, "description", text.clone());
        }
        let needed = required.is_some_and(|list| list.iter().any(|item| item == name.as_str()));
        set(&mut argument, "required", needed);
        Value::Object(argument)
    };
    properties.iter().map(argument).collect()
}
