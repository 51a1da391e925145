//! Describes a tool: MCP's `Tool`.

use serde_json::{Map, Value};

use super::{check_name, entry, set};
use crate::check::Report;
use crate::schema;
use crate::wire::common::{CapabilityEntry, CapabilityKind};

/// Describes a tool. The schemas are added from the types of its handler.
///
/// ```
/// use plugmesh_sdk::{NoArgs, Plugin, Tool};
/// let roll = Tool::new("roll").description("Rolls a die").read_only();
/// let plugin = Plugin::new("dice", "1.0.0").tool(roll, async |_: NoArgs, _| Ok("4"));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Tool {
    name: String,
    fields: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl Tool {
    /// A tool of this name: 1 to 64 letters, digits and `_ . / -`.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("add");
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            fields: Map::new(),
            annotations: Map::new(),
        }
    }

    /// The name that people see.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("add").title("Add two numbers");
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.field("title", title.into())
    }

    /// What the tool does; a language model decides by this text.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("add").description("Adds two numbers");
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.field("description", text.into())
    }

    /// Repeating a call has no further effect: the mesh may send a call again whose outcome is
    /// unknown.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("set_title").idempotent();
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.annotation("idempotentHint", true)
    }

    /// A call changes nothing: the mesh may send a call again whose outcome is unknown.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("list_files").read_only();
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn read_only(self) -> Self {
        self.annotation("readOnlyHint", true)
    }

    /// Sets an annotation of MCP, such as `destructiveHint` or `openWorldHint`.
    ///
    /// ```
    /// let tool = plugmesh_sdk::Tool::new("delete").annotation("destructiveHint", true);
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Sets any other field of the entry, such as `icons` or `_meta`; clients get it as it is.
    ///
    /// ```
    /// use serde_json::json;
    /// let icons = json!([{"src": "https://example.org/add.png"}]);
    /// let tool = plugmesh_sdk::Tool::new("add").field("icons", icons);
    /// # let _ = tool;
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Checks the tool with the schemas of its handler, and makes its entry. The mistakes go to
    /// `report` with the field.
    pub(crate) fn build(
        self,
        input: &Value,
        output: Option<Value>,
        report: &mut Report<'_>,
    ) -> CapabilityEntry {
        if let Err(rule) = check_name(&self.name) {
            report.add("name", format!("{:?} is not valid: {rule}", self.name));
        }
        if !schema::is_object(input) {
            report.add(
                "arguments",
                "the handler's argument type is not a JSON object: use a struct with named \
                 fields, or NoArgs"
                    .to_owned(),
            );
        }
        if output
            .as_ref()
            .is_some_and(|schema| !schema::is_object(schema))
        {
            report.add(
                "result",
                "the type in Json is not a JSON object: use a struct with named fields, or return \
                 a serde_json::Value, which promises no schema"
                    .to_owned(),
            );
        }
        let hint = |name: &str| self.annotations.get(name) == Some(&Value::Bool(true));
        let (idempotent, read_only) = (hint("idempotentHint"), hint("readOnlyHint"));
        let mut fields = Map::new();
        set(&mut fields, "name", self.name.as_str());
        fields.extend(self.fields);
        fields.entry("inputSchema").or_insert_with(|| input.clone());
        if let Some(output) = output {
            fields.entry("outputSchema").or_insert(output);
        }
        if !self.annotations.is_empty() {
            set(&mut fields, "annotations", self.annotations);
        }
        CapabilityEntry {
            idempotent,
            read_only,
            ..entry(CapabilityKind::Tool, &self.name, Some(fields))
        }
    }
}

impl From<&str> for Tool {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
