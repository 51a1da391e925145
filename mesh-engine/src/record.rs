//! Records: how facts stand in the registry's store, as JSON with a format version.
//!
//! Only facts and noted transitions are stored; states are derived from them. A record that can't be
//! read is an error that names its key; the engine reports it and goes on without it.

mod epoch;
mod lease;
mod rollout;
mod split;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use mesh_core::id::{Generation, InstanceId, NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;
use mesh_core::table::NodeRoute;

pub use self::epoch::EpochRecord;
pub use self::lease::LeaseRecord;
pub use self::rollout::{Doing, Mover, RolloutPlan, RolloutRecord, RolloutState};
pub use self::split::SplitRecord;

/// The format that is written. One that is greater comes from a newer coordinator.
pub const FORMAT: u32 = 1;

/// What a key of the store stands for: `node.<name>`, `instance.<uuid>`, `wish.<plugin>`,
/// `split.<plugin>`, `rollout.<plugin>`, `coordinator.<name>`, and `epoch` and `lease`, of which there is
/// one each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An agent-node.
    Node(NodeId),
    /// A running plugin.
    Instance(InstanceId),
    /// What operators want of a plugin.
    Wish(PluginName),
    /// Which versions of a plugin get which shares of its calls.
    Split(PluginName),
    /// A plugin's way to a new version.
    Rollout(PluginName),
    /// A coordinator.
    Coordinator(NodeId),
    /// Which life of the registry this is.
    Epoch,
    /// Who may evict nodes.
    Lease,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node.{node}"),
            Self::Instance(instance) => write!(f, "instance.{instance}"),
            Self::Wish(plugin) => write!(f, "wish.{plugin}"),
            Self::Split(plugin) => write!(f, "split.{plugin}"),
            Self::Rollout(plugin) => write!(f, "rollout.{plugin}"),
            Self::Coordinator(name) => write!(f, "coordinator.{name}"),
            Self::Epoch => f.write_str("epoch"),
            Self::Lease => f.write_str("lease"),
        }
    }
}

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is none of the registry's.
    #[error("key {key:?} is not one of the registry's: {why}")]
    Key {
        /// The key, shortened to 80 characters.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer coordinator wrote it.
    #[error(
        "record {key} has format {format}, and this coordinator reads up to {FORMAT}: upgrade it"
    )]
    Newer {
        /// The key.
        key: String,
        /// Its format.
        format: u32,
    },
    /// It is not what it should be.
    #[error("record {key} can't be read: {why}")]
    Broken {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FromStr for Key {
    type Err = RecordError;
    fn from_str(text: &str) -> Result<Self, RecordError> {
        let bad = |why: String| RecordError::Key {
            key: text.chars().take(80).collect(),
            why,
        };
        match text {
            "epoch" => return Ok(Self::Epoch),
            "lease" => return Ok(Self::Lease),
            _ => {}
        }
        fn named<T: FromStr<Err: fmt::Display>>(name: &str) -> Result<T, String> {
            name.parse().map_err(|error: T::Err| error.to_string())
        }
        let (kind, name) = text.split_once('.').unwrap_or((text, ""));
        match kind {
            "node" => named(name).map(Self::Node).map_err(bad),
            "instance" => named(name).map(Self::Instance).map_err(bad),
            "wish" => named(name).map(Self::Wish).map_err(bad),
            "split" => named(name).map(Self::Split).map_err(bad),
            "rollout" => named(name).map(Self::Rollout).map_err(bad),
            "coordinator" => named(name).map(Self::Coordinator).map_err(bad),
            _ => Err(bad(
                "they begin with node, instance, wish, split, rollout or coordinator, or are epoch or \
                 lease"
                    .to_owned(),
            )),
        }
    }
}

/// An agent-node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node as it stands in the table.
    pub route: NodeRoute,
    /// Who has its session; `None`: nobody, it was closed.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// How its last session ended, when nobody has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parting: Option<Parting>,
}

/// How an agent's session ended, as far as its coordinator could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parting {
    /// The agent took leave: it stops.
    Left,
    /// Its connection broke though it was heard until then: its process has ended, most likely.
    Broken,
    /// It fell silent first: its machine is down, cut off, or stands still.
    Silent,
    /// The coordinator ended it.
    SentOn,
}

/// The session of a node at a coordinator. The last one that was written is the valid one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The coordinator's name.
    pub coordinator: NodeId,
    /// When that coordinator was started, in milliseconds since 1970.
    pub run: u64,
    /// The session, unique within the run.
    pub session: u64,
}

/// A running plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// What its agent says.
    pub facts: Facts,
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    /// Sequence of its first record; `None` in the first record itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<u64>,
    /// Where it stands since when, as last noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// What an agent says of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The node that it runs on.
    pub node: NodeId,
    /// The generation of that node.
    pub generation: Generation,
    /// How it is.
    pub phase: Phase,
    /// Why, for a person.
    pub reason: String,
    /// Since when, by the agent's clock; 0: not known.
    pub since: Timestamp,
    /// Calls in flight that its host allows; 0: the router's default.
    pub concurrency: u32,
    /// Its agent can start it again.
    pub supervised: bool,
}

/// Where an instance that is ready stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// It takes calls.
    Active,
    /// It takes calls though its health is failing.
    Unhealthy,
    /// It takes calls though a dependency is lost, until the grace period is over.
    Losing,
    /// It takes none, as a dependency is missing.
    Blocked,
    /// It takes none, as operators want it so.
    Held,
}

impl Stand {
    /// Whether the instance takes calls, or did until a moment ago.
    #[must_use]
    pub fn is_in_use(self) -> bool {
        matches!(self, Self::Active | Self::Unhealthy | Self::Losing)
    }
}

/// Where an instance stands and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where.
    pub stand: Stand,
    /// Since when, by the store's clock.
    pub since: Timestamp,
}

/// What operators want of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It runs again after an unload.
    Enabled,
    /// It takes no calls; its processes go on.
    Disabled,
    /// It is drained and its processes end.
    Unloaded,
}

/// What operators want of a plugin, who says so, why and since when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WishRecord {
    /// What.
    pub wish: Wish,
    /// Who, as far as is known.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// Since when, by the clock of the coordinator that took it.
    pub since: Timestamp,
    /// What was unloaded, so that it can still be shown; newest version first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Arc<Manifest>>,
}

impl Wish {
    /// The wish as written in tables and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Unloaded => "unloaded",
        }
    }
}

impl WishRecord {
    /// Whether two records say the same of the same moment.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.wish, self.since) == (other.wish, other.since)
            && (&self.by, &self.reason) == (&other.by, &other.reason)
    }
}

/// A coordinator that lives: it writes this anew about once per lease while there are others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorRecord {
    /// When it was started, in milliseconds since 1970.
    pub run: u64,
    /// How often it was written.
    pub renewals: u64,
    /// Its lease in milliseconds: it renews so often.
    pub lease_ms: u64,
}

impl Key {
    /// The plugin, where the key stands for what operators want of one.
    #[must_use]
    pub fn wished(&self) -> Option<&PluginName> {
        match self {
            Self::Wish(plugin) | Self::Split(plugin) | Self::Rollout(plugin) => Some(plugin),
            _ => None,
        }
    }
}

/// One record.
#[derive(Debug, Clone)]
pub enum Record {
    /// An agent-node.
    Node(NodeRecord),
    /// A running plugin.
    Instance(InstanceRecord),
    /// What operators want of a plugin.
    Wish(WishRecord),
    /// Which versions of a plugin get which shares of its calls.
    Split(SplitRecord),
    /// A plugin's way to a new version.
    Rollout(Box<RolloutRecord>),
    /// A coordinator.
    Coordinator(CoordinatorRecord),
    /// Which life of the registry this is.
    Epoch(EpochRecord),
    /// Who may evict nodes.
    Lease(LeaseRecord),
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    record: T,
}

impl Record {
    /// The record as it is stored.
    ///
    /// # Errors
    /// [`RecordError::Broken`] when it has no JSON form, which no checked record is known to do.
    pub fn encode(&self, key: &Key) -> Result<Vec<u8>, RecordError> {
        fn write<T: Serialize>(record: T) -> serde_json::Result<Vec<u8>> {
            serde_json::to_vec(&Envelope {
                format: FORMAT,
                record,
            })
        }
        let written = match self {
            Self::Node(record) => write(record),
            Self::Instance(record) => write(record),
            Self::Wish(record) => write(record),
            Self::Split(record) => write(record),
            Self::Rollout(record) => write(record),
            Self::Coordinator(record) => write(record),
            Self::Epoch(record) => write(record),
            Self::Lease(record) => write(record),
        };
        written.map_err(|error| RecordError::Broken {
            key: key.to_string(),
            why: error.to_string(),
        })
    }

    /// Reads the record of a key.
    ///
    /// # Errors
    /// [`RecordError`] that names the key.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Self, RecordError> {
        let broken = |why: String| RecordError::Broken {
            key: key.to_string(),
            why,
        };
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        if head.format > FORMAT {
            return Err(RecordError::Newer {
                key: key.to_string(),
                format: head.format,
            });
        }
        fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
            let read: serde_json::Result<Envelope<T>> = serde_json::from_slice(bytes);
            read.map(|envelope| envelope.record)
                .map_err(|error| error.to_string())
        }
        match key {
            Key::Node(node) => {
                let record: NodeRecord = read(bytes).map_err(broken)?;
                if record.route.node != *node {
                    return Err(broken(format!("it tells of node {}", record.route.node)));
                }
                Ok(Self::Node(record))
            }
            Key::Instance(_) => read(bytes).map(Self::Instance).map_err(broken),
            Key::Wish(_) => read(bytes).map(Self::Wish).map_err(broken),
            Key::Split(plugin) => {
                let record: SplitRecord = read(bytes).map_err(broken)?;
                if record.split.plugin != *plugin {
                    return Err(broken(format!("it tells of {}", record.split.plugin)));
                }
                Ok(Self::Split(record))
            }
            Key::Rollout(plugin) => {
                let record: Box<RolloutRecord> = read(bytes).map_err(broken)?;
                if record.plugin != *plugin {
                    return Err(broken(format!("it tells of {}", record.plugin)));
                }
                Ok(Self::Rollout(record))
            }
            Key::Coordinator(_) => read(bytes).map(Self::Coordinator).map_err(broken),
            Key::Epoch => read(bytes).map(Self::Epoch).map_err(broken),
            Key::Lease => read(bytes).map(Self::Lease).map_err(broken),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "tests fail by panicking"
    )]
    use super::*;

    fn error(key: &str, text: &str) -> String {
        let key: Key = key.parse().unwrap();
        Record::decode(&key, text.as_bytes())
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn keys_go_there_and_back() {
        for text in [
            "node.a",
            "wish.calculator",
            "split.calculator",
            "rollout.calculator",
            "coordinator.main",
            "epoch",
            "lease",
            "instance.01890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "node",
            "node.",
            "node.A",
            "instance.7",
            "wish.a.b",
            "split.",
            "lease.a",
            "epoch.a",
        ] {
            let error = bad.parse::<Key>().expect_err(bad).to_string();
            assert!(
                error.starts_with(&format!("key {bad:?} is not one of")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_by_its_key() {
        for text in [
            "",
            "{}",
            "[1]",
            "\u{0}",
            r#"{"format":1}"#,
            r#"{"format":1,"record":{}}"#,
        ] {
            let error = error("node.a", text);
            assert!(
                error.starts_with("record node.a can't be read: "),
                "{error}"
            );
        }
        let newer = error("wish.time", r#"{"format":2,"anything":true}"#);
        assert!(newer.contains("wish.time has format 2"), "{newer}");
        assert!(newer.ends_with("upgrade it"), "{newer}");
        let other = r#"{"format":1,"record":{"route":{"node":"b","generation":1}}}"#;
        assert!(error("node.a", other).ends_with("it tells of node b"));
        let other = r#"{"format":1,"record":{"split":{"plugin":"b","shares":{"1.0.0":1}},"by":"",
            "reason":"","since":1}}"#;
        assert!(error("split.a", other).ends_with("it tells of b"));
    }

    #[test]
    fn an_instance_goes_there_and_back_and_keeps_its_entries_as_given() {
        let manifest = r#"{"name":"a","version":"1.0.0","capabilities":[
            {"capability":"tool:t","entry":{"z":1.10,"a":12345678901234567890123}}]}"#;
        let record = Record::Instance(InstanceRecord {
            facts: Facts {
                node: "n".parse().unwrap(),
                generation: Generation(7),
                phase: Phase::Ready,
                reason: "ready".into(),
                since: Timestamp(5),
                concurrency: 4,
                supervised: true,
            },
            manifest: Arc::new(serde_json::from_str(manifest).unwrap()),
            admitted: Some(3),
            standing: Some(Standing {
                stand: Stand::Losing,
                since: Timestamp(9),
            }),
        });
        let key = Key::Instance(InstanceId::new(1, [0; 10]));
        let bytes = record.encode(&key).unwrap();
        assert!(
            String::from_utf8_lossy(&bytes).contains(r#"{"z":1.10,"a":12345678901234567890123}"#)
        );
        let again = Record::decode(&key, &bytes).unwrap().encode(&key).unwrap();
        assert_eq!(bytes, again);
    }
}
