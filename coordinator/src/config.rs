//! What can be set on a coordinator.

use std::net::{Ipv4Addr, SocketAddr};

use mesh_core::id::NodeId;
use mesh_runtime::config::{Mistake, Validate, schema};
use mesh_runtime::{ByteSize, HumanDuration, MeshSection, NatsSection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The port that agents, gateways and operators find the coordinator at.
pub const DEFAULT_PORT: u16 = 7400;

/// The port of `/health`, `/ready` and `/metrics`.
pub const DEFAULT_ADMIN_PORT: u16 = 7401;

/// `[coordinator]`: registry, dependency graph, routing table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where agents, gateways and operators connect by gRPC.
    #[schemars(schema_with = "schema::socket_addr")]
    pub listen: SocketAddr,
    /// Where `/health`, `/ready` and `/metrics` are.
    #[schemars(schema_with = "schema::socket_addr")]
    pub admin_listen: SocketAddr,
    /// The coordinator's name; each coordinator of a mesh has its own, and keeps it when it is
    /// restarted.
    #[schemars(schema_with = "schema::name")]
    pub name: NodeId,
    /// How long a node may be out of reach before its plugins are taken out of the table.
    pub lease: HumanDuration,
    /// How often agents renew their lease; at most half of it.
    pub heartbeat: HumanDuration,
    /// How long a plugin that lost a dependency goes on taking calls.
    pub grace: HumanDuration,
    /// Copies of the registry in a NATS cluster; used when the registry is created.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u32,
    /// How much of the audit is kept; the oldest entries go first.
    pub audit_max_size: ByteSize,
    /// How long entries of the audit are kept.
    pub audit_max_age: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT)),
            name: default_name(),
            lease: HumanDuration::from_secs(30),
            heartbeat: HumanDuration::from_secs(10),
            grace: HumanDuration::from_secs(10),
            replicas: 1,
            audit_max_size: ByteSize::from_mib(64),
            audit_max_age: HumanDuration::from_secs(90 * 24 * 60 * 60),
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant that a test covers")]
fn default_name() -> NodeId {
    NodeId::new("coordinator").expect("a DNS label")
}

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.heartbeat.get().is_zero() {
            mistakes.push(Mistake::new(
                "coordinator.heartbeat",
                "is no time at all",
                "give a longer time, such as 10s",
            ));
        }
        if self.heartbeat.get() * 2 > self.lease.get() {
            mistakes.push(Mistake::new(
                "coordinator.lease",
                "is shorter than two heartbeats, so that one that is late costs a node its plugins",
                "give a longer lease, or a shorter coordinator.heartbeat",
            ));
        }
        if self.audit_max_size < ByteSize::from_kib(64) {
            mistakes.push(Mistake::new(
                "coordinator.audit_max_size",
                "is less than 64KiB, which holds a few hundred entries",
                "give a larger size, such as 64MiB",
            ));
        }
        if self.audit_max_age < HumanDuration::from_secs(60) {
            mistakes.push(Mistake::new(
                "coordinator.audit_max_age",
                "is less than a minute",
                "give a longer time, such as 720h",
            ));
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            mistakes.push(Mistake::new(
                "coordinator.admin_listen",
                "is the same as coordinator.listen",
                "choose another port",
            ));
        }
        mistakes
    }
}

/// Everything that [`crate::run`] needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunConfig {
    /// The mesh.
    pub mesh: MeshSection,
    /// The broker.
    pub nats: NatsSection,
    /// The coordinator itself.
    pub coordinator: Config,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_mistakes_and_stay_on_loopback() {
        let config = Config::default();
        assert_eq!(config.validate(), []);
        assert!(config.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
    }

    #[test]
    fn every_mistake_is_named_with_its_field() {
        let config = Config {
            admin_listen: Config::default().listen,
            heartbeat: HumanDuration::from_secs(20),
            ..Config::default()
        };
        let mistakes = config.validate();
        let fields: Vec<&str> = mistakes
            .iter()
            .map(|mistake| mistake.field.as_str())
            .collect();
        assert_eq!(fields, ["coordinator.lease", "coordinator.admin_listen"]);
        let config = Config {
            heartbeat: HumanDuration::from_secs(0),
            audit_max_size: ByteSize::from_kib(1),
            audit_max_age: HumanDuration::from_secs(1),
            ..Config::default()
        };
        assert_eq!(config.validate().len(), 3);
    }
}
