//! What a caller asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::MessageSource;
use mesh_core::call::{Caller, TraceContext};
use mesh_core::capability::Capability;
use mesh_core::id::PluginName;
use mesh_core::split::Groups;
use mesh_core::version::Requirement;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// The plugin that must serve it; `None`: any that provides the capability.
    pub plugin: Option<PluginName>,
    /// What is called.
    pub capability: Capability,
    /// The payload, whole.
    pub payload: Bytes,
    /// Its media type; empty: application/json.
    pub content_type: String,
    /// Time until the deadline; zero: the router's default.
    pub timeout: Duration,
    /// The caller's trace.
    pub trace: TraceContext,
    /// On whose behalf. An empty node is filled in with the router's name.
    pub caller: Caller,
    /// Which versions will do; `None`: the newest stable one.
    pub requirement: Option<Requirement>,
    /// Calls of equal key go to the same instance while it lives; empty: no preference.
    pub affinity_key: String,
    /// What is handed to the plugin beside the payload; at most 32 entries, 8 KiB.
    pub metadata: BTreeMap<String, String>,
    /// The test groups that the request belongs to.
    pub groups: Groups,
    /// The caller wants Progress events.
    pub want_progress: bool,
    /// Messages that follow the payload; only to a capability that takes them. Once one was taken, the
    /// call is not begun anew on another instance.
    pub messages: Option<MessageSource>,
}

impl CallRequest {
    /// A call with nothing but a payload.
    #[must_use]
    pub fn new(capability: Capability, payload: Bytes) -> Self {
        Self {
            plugin: None,
            capability,
            payload,
            content_type: String::new(),
            timeout: Duration::ZERO,
            trace: TraceContext::default(),
            caller: Caller::default(),
            requirement: None,
            affinity_key: String::new(),
            metadata: BTreeMap::new(),
            groups: Groups::new(),
            want_progress: false,
            messages: None,
        }
    }

    /// Only this plugin may serve it.
    #[must_use]
    pub fn to_plugin(mut self, plugin: PluginName) -> Self {
        self.plugin = Some(plugin);
        self
    }

    /// Sets the time until the deadline.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
