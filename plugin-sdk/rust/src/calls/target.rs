//! What is called, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::common::{self, CapabilityKind};

/// What is called, and how.
///
/// ```
/// use std::time::Duration;
/// use plugmesh_sdk::{Context, Json, Target, ToolError};
/// async fn sum(ctx: Context) -> Result<f64, ToolError> {
///     let add = Target::tool("add")
///         .plugin("calculator")
///         .requirement("^1.0")
///         .timeout(Duration::from_secs(2));
///     let call = ctx.call(add, Json(serde_json::json!({"a": 1, "b": 2}))).await?;
///     # let _ = call;
///     # Ok(3.0)
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Target {
    plugin: String,
    kind: CapabilityKind,
    name: String,
    timeout: Option<Duration>,
    requirement: String,
    affinity_key: String,
    metadata: BTreeMap<String, String>,
    want_progress: bool,
}

/// A target with all that the call carries beside the payload.
pub(crate) struct Request {
    pub call: common::Call,
    pub timeout: Option<Duration>,
}

impl Target {
    /// A tool. The payload is its arguments as a JSON object, the answer an MCP `CallToolResult`.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::tool("add").plugin("calculator");
    /// # let _ = target;
    /// ```
    pub fn tool(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Tool, name.into())
    }

    /// A service of any plugin that provides it.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::service("embedding.embed");
    /// # let _ = target;
    /// ```
    pub fn service(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Service, name.into())
    }

    /// An orchestrator of any plugin that provides it.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::orchestrator("db.migrate");
    /// # let _ = target;
    /// ```
    pub fn orchestrator(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Orchestrator, name.into())
    }

    /// A resource. The payload is `{"uri": …}`, the answer an MCP `ReadResourceResult`.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::resource("time://current");
    /// # let _ = target;
    /// ```
    pub fn resource(uri: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Resource, uri.into())
    }

    /// A resource template. The payload is `{"uri": …}`, the answer an MCP `ReadResourceResult`.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::resource_template("time://zone/{zone}");
    /// # let _ = target;
    /// ```
    pub fn resource_template(template: impl Into<String>) -> Self {
        Self::new(CapabilityKind::ResourceTemplate, template.into())
    }

    /// A prompt. The payload is its arguments as a JSON object, the answer an MCP `GetPromptResult`.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::prompt("plan_day").plugin("planner");
    /// # let _ = target;
    /// ```
    pub fn prompt(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Prompt, name.into())
    }

    /// Only this plugin may serve the call; the default is any that provides the capability.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::service("logs.tail").plugin("logs");
    /// # let _ = target;
    /// ```
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.plugin = name.into();
        self
    }

    /// The plugin's version must fulfil this; the default is what the caller's manifest requires of
    /// the plugin.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::tool("add").plugin("calculator").requirement("^1.2");
    /// # let _ = target;
    /// ```
    pub fn requirement(mut self, requirement: impl Into<String>) -> Self {
        self.requirement = requirement.into();
        self
    }

    /// The time that the call may take; never more than the time that the caller itself has left,
    /// which is also the default.
    ///
    /// ```
    /// use std::time::Duration;
    /// let target = plugmesh_sdk::Target::service("logs.tail").timeout(Duration::from_secs(5));
    /// # let _ = target;
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Calls of equal key go to the same instance while it lives.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::service("cart.add").affinity_key("customer-7");
    /// # let _ = target;
    /// ```
    pub fn affinity_key(mut self, key: impl Into<String>) -> Self {
        self.affinity_key = key.into();
        self
    }

    /// Hands a text to the provider beside the payload; at most 32 of them, 8 KiB in all.
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::service("cart.add").metadata("tenant", "acme");
    /// # let _ = target;
    /// ```
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Asks for progress, which comes as [`CallEvent::Progress`](crate::CallEvent::Progress).
    ///
    /// ```
    /// let target = plugmesh_sdk::Target::tool("finish_time").plugin("planner").want_progress();
    /// # let _ = target;
    /// ```
    pub fn want_progress(mut self) -> Self {
        self.want_progress = true;
        self
    }

    fn new(kind: CapabilityKind, name: String) -> Self {
        Self {
            plugin: String::new(),
            kind,
            name,
            timeout: None,
            requirement: String::new(),
            affinity_key: String::new(),
            metadata: BTreeMap::new(),
            want_progress: false,
        }
    }

    pub(crate) fn into_request(self) -> Request {
        Request {
            call: common::Call {
                plugin: self.plugin,
                capability: Some(common::Capability {
                    kind: self.kind.into(),
                    name: self.name,
                }),
                requirement: self.requirement,
                affinity_key: self.affinity_key,
                metadata: self.metadata,
                want_progress: self.want_progress,
                ..common::Call::default()
            },
            timeout: self.timeout,
        }
    }
}
