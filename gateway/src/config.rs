//! What can be set on a gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mesh_core::id::NodeId;
use mesh_runtime::config::{Mistake, Validate, schema};
use mesh_runtime::{ByteSize, HumanDuration, MeshSection, NatsSection, RouterSection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::composite::PrefixPolicy;
use crate::http::origin::{AllowedHost, AllowedOrigin};

/// The port that MCP clients find the gateway at.
pub const DEFAULT_PORT: u16 = 8087;

/// `[gateway]`: the front door of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where MCP clients connect: `http://ADDRESS/mcp`. `/health`, `/ready` and `/metrics` are there,
    /// too.
    #[schemars(schema_with = "schema::socket_addr")]
    pub listen: SocketAddr,
    /// Coordinators, in the order in which they are tried; a name stands for all addresses that it has.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://[^\s/]+/?$")))]
    pub coordinators: Vec<String>,
    /// Folder for the last routing table, from which the gateway starts when no coordinator answers.
    pub data_dir: PathBuf,
    /// The gateway's name in the mesh.
    #[schemars(schema_with = "schema::name")]
    pub name: NodeId,
    /// The zone that the gateway is in, such as a data centre; free form.
    pub zone: String,
    /// When the plugin's name stands before the names of its tools and prompts.
    pub prefix: PrefixPolicy,
    /// Names that clients may call the gateway by (the `Host` header), without or with a port; "*"
    /// allows any, which lets web pages reach a gateway on a private network.
    #[schemars(length(min = 1))]
    pub allowed_hosts: Vec<String>,
    /// Web pages that may use the gateway (the `Origin` header), as scheme://host without or with a
    /// port; "*" allows any.
    pub allowed_origins: Vec<String>,
    /// Threads that serve clients, each with its own connection to NATS.
    #[schemars(range(min = 1, max = 256))]
    pub shards: u16,
    /// Time that a call may take.
    pub call_timeout: HumanDuration,
    /// Entries of one page of a list.
    #[schemars(range(min = 1, max = 10_000))]
    pub page_size: u32,
    /// Largest request.
    pub max_body: ByteSize,
    /// Time that a client may take to send the headers of a request, and then its body.
    pub request_timeout: HumanDuration,
    /// A client that takes nothing of an answer for so long is disconnected.
    pub stall_timeout: HumanDuration,
    /// A session (2025-11-25 and older) without any message and without an open stream is closed
    /// after this.
    pub session_idle: HumanDuration,
    /// Sessions at once, and beside them subscriptions (2026-07-28) at once; further ones get 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_sessions: u32,
    /// Requests that are worked on at once; further ones get 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: u32,
    /// Bytes of requests and answers that are held at once; further requests get 503. The last quarter
    /// is for requests up to 64 KiB. Large answers that are still coming have as much beside it, and slow
    /// down past it.
    pub max_bytes_in_flight: ByteSize,
    /// Open connections; further ones wait in the system's queue.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Time that running calls get when the gateway stops.
    pub drain_grace: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |scheme: &str| {
            ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{scheme}{host}"))
        };
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            coordinators: vec!["http://127.0.0.1:7400".to_owned()],
            data_dir: PathBuf::from(".plugmesh/gateway"),
            name: default_name(),
            zone: String::new(),
            prefix: PrefixPolicy::default(),
            allowed_hosts: loopback("").to_vec(),
            allowed_origins: [loopback("http://"), loopback("https://")].concat(),
            shards: 1,
            call_timeout: HumanDuration::from_secs(30),
            page_size: 100,
            max_body: ByteSize::from_mib(4),
            request_timeout: HumanDuration::from_secs(30),
            stall_timeout: HumanDuration::from_secs(30),
            session_idle: HumanDuration::from_secs(3_600),
            max_sessions: 10_000,
            max_in_flight: 4_096,
            max_bytes_in_flight: ByteSize::from_mib(256),
            max_connections: 16_384,
            drain_grace: HumanDuration::from_secs(10),
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant that a test covers")]
fn default_name() -> NodeId {
    NodeId::new("gateway").expect("a DNS label")
}

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for host in &self.allowed_hosts {
            if let Err(why) = AllowedHost::parse(host) {
                let remedy = "write a name such as mesh.example or mesh.example:8087";
                mistakes.push(Mistake::new("gateway.allowed_hosts", why, remedy));
            }
        }
        for origin in &self.allowed_origins {
            if let Err(why) = AllowedOrigin::parse(origin) {
                let remedy = "write scheme://host, such as https://app.example";
                mistakes.push(Mistake::new("gateway.allowed_origins", why, remedy));
            }
        }
        let spans = [
            ("call_timeout", self.call_timeout),
            ("request_timeout", self.request_timeout),
            ("stall_timeout", self.stall_timeout),
            ("session_idle", self.session_idle),
        ];
        for (field, span) in spans {
            if span.get().is_zero() {
                let remedy = "give a longer time, such as 30s";
                mistakes.push(Mistake::new(
                    format!("gateway.{field}"),
                    "is no time at all",
                    remedy,
                ));
            }
        }
        if self.max_body.get() < 1_024 {
            let remedy = "give at least 1KiB, such as 4MiB";
            mistakes.push(Mistake::new("gateway.max_body", "holds no request", remedy));
        }
        let (body, room) = (self.max_body.get(), self.max_bytes_in_flight.get());
        if room - room / 4 < body {
            let problem = "holds no request of the size of gateway.max_body";
            let remedy = format!(
                "give at least {}",
                ByteSize::from_bytes(body.saturating_mul(2))
            );
            mistakes.push(Mistake::new("gateway.max_bytes_in_flight", problem, remedy));
        }
        if self.max_in_flight == 0 {
            let problem = "is 0, so no request would be taken";
            mistakes.push(Mistake::new(
                "gateway.max_in_flight",
                problem,
                "give at least 1",
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
    /// Which instance gets a call.
    pub router: RouterSection,
    /// The gateway itself.
    pub gateway: Config,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_mistakes_and_stay_on_loopback() {
        let config = Config::default();
        assert_eq!(config.validate(), []);
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.listen.port(), DEFAULT_PORT);
    }

    #[test]
    fn every_mistake_is_named_with_its_field() {
        let config = Config {
            allowed_hosts: vec!["https://mesh.example".to_owned()],
            allowed_origins: vec!["mesh.example".to_owned()],
            call_timeout: HumanDuration::from_secs(0),
            max_body: ByteSize::from_bytes(10),
            max_bytes_in_flight: ByteSize::from_bytes(9),
            max_in_flight: 0,
            ..Config::default()
        };
        let fields: Vec<String> = config
            .validate()
            .into_iter()
            .map(|mistake| mistake.field)
            .collect();
        assert_eq!(
            fields,
            [
                "gateway.allowed_hosts",
                "gateway.allowed_origins",
                "gateway.call_timeout",
                "gateway.max_body",
                "gateway.max_bytes_in_flight",
                "gateway.max_in_flight"
            ]
        );
    }
}
