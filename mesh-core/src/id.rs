//! Names and ids: one newtype for each, so that none is mistaken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// What was to be named, such as "plugin name".
    pub what: &'static str,
    /// The text that was given, shortened to 80 characters.
    pub given: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// The rule for every name: a DNS label.
const LABEL_RULE: &str =
    "use 1 to 63 lowercase letters, digits and hyphens, with no hyphen at either end";

fn check_label(what: &'static str, text: &str) -> Result<(), NameError> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid {
        return Ok(());
    }
    Err(NameError {
        what,
        given: text.chars().take(80).collect(),
        rule: LABEL_RULE,
    })
}

/// Declares a newtype over a checked, cheaply cloned text.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text: 1 to 63 lowercase letters, digits and hyphens (a DNS label).
            ///
            /// # Errors
            /// [`NameError`] with the rule that the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_label($what, text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A mesh: a namespace that nothing crosses.
    MeshName,
    "mesh name"
);
name_type!(
    /// An agent-node or gateway of a mesh.
    NodeId,
    "node name"
);
name_type!(
    /// A plugin.
    PluginName,
    "plugin name"
);

impl Default for MeshName {
    fn default() -> Self {
        Self("default".into())
    }
}

/// One start of an agent-node: the time of the start in milliseconds since 1970. A greater one
/// makes all smaller ones of the same node ghosts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One attachment of one plugin: a UUID, version 7 (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Uuid);

impl InstanceId {
    /// Makes an id of the time in milliseconds since 1970 and ten random bytes.
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// The 16 bytes, as they travel on the bus.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads the 16 bytes.
    ///
    /// # Errors
    /// [`NameError`] when there are not exactly 16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| NameError {
            what: "instance id",
            given: format!("{} bytes", bytes.len()),
            rule: "it has 16 bytes",
        })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Uuid::parse_str(text).map(Self).map_err(|_| NameError {
            what: "instance id",
            given: text.chars().take(80).collect(),
            rule: "it is a UUID",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "calculator", "my-plugin-2", &"x".repeat(63)] {
            assert!(PluginName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "é",
            "a b",
            &"x".repeat(64),
        ] {
            let error = PluginName::new(bad).expect_err(bad).to_string();
            assert!(error.starts_with("plugin name"), "{error}");
            assert!(error.contains("lowercase"), "{error}");
        }
    }

    #[test]
    fn instance_ids_keep_the_order_of_their_times() {
        let early = InstanceId::new(1, [255; 10]);
        let late = InstanceId::new(2, [0; 10]);
        assert!(early < late);
        assert_eq!(InstanceId::from_bytes(early.as_bytes()), Ok(early));
        assert_eq!(early.to_string().parse(), Ok(early));
    }
}
