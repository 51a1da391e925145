//! Waiting until what was started can work.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::capability::CapabilityKind;
use mesh_core::state::InstanceState;
use serde_json::Value;
use tokio::time::Instant;

use super::nats::greet;
use super::plan::Plan;
use super::plugins::Launch;
use crate::admin::Admin;
use crate::args::{CoordinatorFlags, GatewayFlags};
use crate::commands::plugins::list;
use crate::commands::tools::text;
use crate::exit::Failure;
use crate::http::HttpClient;
use crate::mcp::Mcp;
use crate::view::PluginView;

/// How often is asked.
const PERIOD: Duration = Duration::from_millis(20);

/// When nothing has changed for so long, what is blocked stays so.
const AT_REST: Duration = Duration::from_secs(1);

/// How long a role may take to be ready.
const ROLE: Duration = Duration::from_secs(30);

/// How long the plugins may take to be active.
const PLUGINS: Duration = Duration::from_secs(30);

/// How long the plugins of `--plugin`, which may have reasons of their own, may take to appear.
const OTHERS: Duration = Duration::from_secs(5);

/// Waits for the broker's greeting.
///
/// # Errors
/// When there is none in time.
pub async fn nats(address: SocketAddr) -> Result<(), Failure> {
    let end = Instant::now() + ROLE;
    loop {
        let why = match greet(address).await {
            Ok(greeting) if greeting.jetstream => return Ok(()),
            Ok(_) => "JetStream is not ready".to_owned(),
            Err(why) => why,
        };
        late("nats-server", end, &why)?;
        tokio::time::sleep(PERIOD).await;
    }
}

/// Waits until a role's `/ready` says so.
///
/// # Errors
/// When it does not in time, with what is missing.
pub async fn role(name: &str, admin: SocketAddr) -> Result<(), Failure> {
    let uri: http::Uri = format!("http://{admin}/ready")
        .parse()
        .map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    let http = HttpClient::new();
    let end = Instant::now() + ROLE;
    loop {
        let why = match http.get(uri.clone(), Duration::from_secs(2)).await {
            Ok(page) if page.status.is_success() => return Ok(()),
            Ok(page) => missing(&page.text),
            Err(why) => why,
        };
        late(name, end, &why)?;
        tokio::time::sleep(PERIOD).await;
    }
}

fn late(name: &str, end: Instant, why: &str) -> Result<(), Failure> {
    if Instant::now() < end {
        return Ok(());
    }
    let limit = ROLE.as_secs();
    Err(Failure::failed(format!(
        "{name} was not ready within {limit} s: {why}; its log says more"
    )))
}

/// The parts that `/ready` says are not.
pub fn missing(text: &str) -> String {
    let report: Value = serde_json::from_str(text).unwrap_or_default();
    let checks = report.get("checks").and_then(Value::as_array);
    let parts: Vec<String> = checks
        .into_iter()
        .flatten()
        .filter(|check| check.get("ready") == Some(&Value::Bool(false)))
        .map(|check| {
            let get = |key| check.get(key).and_then(Value::as_str).unwrap_or_default();
            format!("{}: {}", get("name"), get("detail"))
        })
        .collect();
    if parts.is_empty() {
        return "it does not say why".to_owned();
    }
    parts.join(", ")
}

/// Waits until the example plugins are active and the others have appeared, and gives what there is
/// then; that one is late is no error.
///
/// # Errors
/// When the coordinator can't be asked at all.
pub async fn plugins(plan: &Plan) -> Result<Vec<PluginView>, Failure> {
    let ask = CoordinatorFlags {
        coordinator: plan.coordinator_url(),
    };
    let mut admin = Admin::connect(&ask).await?;
    let begun = Instant::now();
    let (mut states, mut changed) = (Vec::new(), begun);
    loop {
        let all = list(&mut admin, String::new(), String::new()).await?;
        let now: Vec<(String, String)> = all
            .iter()
            .map(|plugin| (plugin.name.to_string(), plugin.state.clone()))
            .collect();
        if now != states {
            (states, changed) = (now, Instant::now());
        }
        let at_rest = changed.elapsed() > AT_REST;
        let waiting = plan.plugins.iter().any(|launch| {
            let found = all.iter().find(|plugin| plugin.name == launch.name);
            let limit = if launch.example { PLUGINS } else { OTHERS };
            !found.is_some_and(|plugin| is_settled(plugin, launch, at_rest))
                && begun.elapsed() < limit
        });
        if !waiting {
            return Ok(all);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether a plugin's state will not change by itself.
fn is_settled(plugin: &PluginView, launch: &Launch, at_rest: bool) -> bool {
    let wished = plugin.disabled || plugin.unloaded;
    // What it needs may be disabled, and then it stays blocked.
    let blocked = at_rest && plugin.state == InstanceState::Blocked.as_str();
    let appeared = !launch.example && !plugin.instances.is_empty();
    wished || blocked || appeared || plugin.is_active()
}

/// Waits until the gateway serves the tools of all active plugins, but not for long: it follows the
/// coordinator by itself.
///
/// # Errors
/// When the gateway does not speak MCP.
pub async fn tools(plan: &Plan, plugins: &[PluginView]) -> Result<(), Failure> {
    let ask = GatewayFlags {
        gateway: plan.mcp(),
    };
    let mcp = Mcp::new(&ask)?;
    let wanted: Vec<&str> = plugins
        .iter()
        .filter(|plugin| plugin.is_active())
        .flat_map(|plugin| plugin.names(CapabilityKind::Tool))
        .collect();
    let end = Instant::now() + OTHERS;
    loop {
        let served = mcp.tools().await?;
        // Names may have a prefix.
        let serves = |name: &&str| {
            served
                .iter()
                .any(|tool| text(tool, "name").ends_with(*name))
        };
        if wanted.iter().all(serves) || Instant::now() >= end {
            return Ok(());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_is_named() {
        let text = r#"{"ready":false,"checks":[{"name":"bus","ready":false,"detail":"no"},
            {"name":"table","ready":true,"detail":""}]}"#;
        assert_eq!(missing(text), "bus: no");
        assert_eq!(missing("nonsense"), "it does not say why");
    }
}
