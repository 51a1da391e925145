//! Subjects: the one place where names of NATS subjects, streams and buckets are formed and parsed.
//!
//! Every name begins with `pm` and the mesh, so that meshes may share a broker. Tokens are checked
//! types (DNS labels and numbers), so no token can hold a dot, a wildcard or white space.

use std::fmt;

use crate::id::{Generation, InstanceId, MeshName, NodeId, PluginName};

/// A NATS subject that was formed here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    /// The subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one generation of a node takes calls. A ghost of an older one listens elsewhere, so a call
/// to it fails at once with "no responders".
#[must_use]
pub fn node_calls(mesh: &MeshName, node: &NodeId, generation: Generation) -> Subject {
    Subject(format!("pm.{mesh}.node.{node}.{generation}.call"))
}

/// Where one generation of a node publishes how busy its instances are.
#[must_use]
pub fn node_load(mesh: &MeshName, node: &NodeId, generation: Generation) -> Subject {
    Subject(format!("pm.{mesh}.node.{node}.{generation}.load"))
}

/// Where the load of all nodes is heard.
#[must_use]
pub fn all_loads(mesh: &MeshName) -> Subject {
    Subject(format!("pm.{mesh}.node.*.*.load"))
}

/// The inbox of one process: the prefix of all its reply subjects. `owner` is drawn at random by
/// the process.
#[must_use]
pub fn inbox_prefix(mesh: &MeshName, owner: u64) -> Subject {
    Subject(format!("pm.{mesh}.inbox.{owner:016x}"))
}

/// Where all replies to one process are heard.
#[must_use]
pub fn inbox_all(mesh: &MeshName, owner: u64) -> Subject {
    Subject(format!("pm.{mesh}.inbox.{owner:016x}.*"))
}

/// The reply subject of one slot of a process's inbox.
#[must_use]
pub fn inbox_slot(mesh: &MeshName, owner: u64, slot: u64) -> Subject {
    Subject(format!("pm.{mesh}.inbox.{owner:016x}.{slot:x}"))
}

/// The slot that a reply subject of this module names; `None` for any other subject.
#[must_use]
pub fn parse_inbox_slot(subject: &str) -> Option<u64> {
    let (head, slot) = subject.rsplit_once('.')?;
    let (head, owner) = head.rsplit_once('.')?;
    let mesh = head.strip_prefix("pm.")?.strip_suffix(".inbox")?;
    let whole = owner.len() == 16 && !mesh.contains('.');
    // Only what `inbox_slot` writes: lowercase and without leading zeros.
    let canonical = !slot.starts_with('0') || slot.len() == 1;
    let lower = slot
        .bytes()
        .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    (whole && canonical && lower).then_some(())?;
    u64::from_str_radix(slot, 16).ok()
}

/// The node and generation that a load subject names; `None` for any other subject.
#[must_use]
pub fn parse_node_load(subject: &str) -> Option<(NodeId, Generation)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    match tokens.as_slice() {
        ["pm", _, "node", node, generation, "load"] => Some((
            NodeId::new(node).ok()?,
            Generation(generation.parse().ok()?),
        )),
        _ => None,
    }
}

/// A process's message to itself, which proves that its subscriptions have landed.
#[must_use]
pub fn probe(mesh: &MeshName, owner: u64) -> Subject {
    Subject(format!("pm.{mesh}.probe.{owner:016x}"))
}

/// The key-value bucket of a mesh's registry.
#[must_use]
pub fn registry_bucket(mesh: &MeshName) -> String {
    format!("pm-{mesh}-registry")
}

/// Where the registry's bucket repeats each change: this, a dot and the key.
#[must_use]
pub fn registry_changes(mesh: &MeshName) -> Subject {
    Subject(format!("pm.{mesh}.registry"))
}

/// The stream of a mesh's audit.
#[must_use]
pub fn audit_stream(mesh: &MeshName) -> String {
    format!("pm-{mesh}-audit")
}

/// Whom an entry of the audit is about; `None`: not about such a one, or in a filter: whichever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditOf {
    /// The plugin.
    pub plugin: Option<PluginName>,
    /// The node.
    pub node: Option<NodeId>,
    /// The instance.
    pub instance: Option<InstanceId>,
}

/// Where an entry of the audit is stored. `kind` is one of the audit's own words.
#[must_use]
pub fn audit_entry(mesh: &MeshName, kind: &'static str, of: &AuditOf) -> Subject {
    // No name begins with a hyphen.
    audit(mesh, kind, of, "-")
}

/// Where all entries are that are about all whom the filter names.
#[must_use]
pub fn audit_filter(mesh: &MeshName, of: &AuditOf) -> Subject {
    audit(mesh, "*", of, "*")
}

fn audit(mesh: &MeshName, kind: &str, of: &AuditOf, none: &str) -> Subject {
    fn token(name: Option<&impl fmt::Display>, none: &str) -> String {
        name.map_or_else(|| none.to_owned(), ToString::to_string)
    }
    let plugin = token(of.plugin.as_ref(), none);
    let node = token(of.node.as_ref(), none);
    let instance = token(of.instance.as_ref(), none);
    Subject(format!("pm.{mesh}.audit.{kind}.{plugin}.{node}.{instance}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_survives_the_way_through_a_subject() {
        let mesh = MeshName::default();
        for slot in [0, 1, 0xabc, u64::MAX] {
            let subject = inbox_slot(&mesh, 7, slot);
            assert_eq!(parse_inbox_slot(subject.as_str()), Some(slot));
        }
        for bad in [
            "",
            "pm.m.inbox.1.2",
            "pm.m.inbox.0000000000000007.",
            "pm.inbox.0000000000000007.1",
            "pm.a.b.inbox.0000000000000007.1",
            "x.pm.m.inbox.0000000000000007.1",
            "pm.m.inbox.x.0000000000000007.1",
            "x.y.z",
        ] {
            assert_eq!(parse_inbox_slot(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_audit_is_filtered_by_whom_it_is_about() {
        let mesh = MeshName::default();
        let of = AuditOf {
            plugin: PluginName::new("time").ok(),
            ..AuditOf::default()
        };
        let entry = audit_entry(&mesh, "wish", &of);
        assert_eq!(entry.as_str(), "pm.default.audit.wish.time.-.-");
        let filter = audit_filter(&mesh, &of);
        assert_eq!(filter.as_str(), "pm.default.audit.*.time.*.*");
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    }

    proptest! {
        #[test]
        fn names_add_neither_tokens_nor_wildcards(
            mesh in label(), node in label(), generation: u64, owner: u64, slot: u64,
        ) {
            let mesh = MeshName::new(&mesh).expect("a label");
            let node = NodeId::new(&node).expect("a label");
            let generation = Generation(generation);
            let load = node_load(&mesh, &node, generation);
            prop_assert_eq!(parse_node_load(load.as_str()), Some((node.clone(), generation)));
            let answer = inbox_slot(&mesh, owner, slot);
            prop_assert_eq!(parse_inbox_slot(answer.as_str()), Some(slot));
            let all = inbox_all(&mesh, owner);
            let prefix = all.as_str().strip_suffix('*').expect("a wildcard at the end");
            prop_assert!(answer.as_str().starts_with(prefix));
            for (subject, tokens) in [
                (node_calls(&mesh, &node, generation), 6),
                (load, 6),
                (inbox_prefix(&mesh, owner), 4),
                (answer, 5),
                (probe(&mesh, owner), 4),
                (audit_entry(&mesh, "node", &AuditOf::default()), 7),
                (audit_entry(&mesh, "node", &AuditOf { node: Some(node), ..AuditOf::default() }), 7),
            ] {
                prop_assert_eq!(subject.as_str().split('.').count(), tokens);
                prop_assert!(!subject.as_str().contains(['*', '>', ' ']));
            }
            prop_assert!(!registry_bucket(&mesh).contains(['.', '*', '>', ' ']));
            prop_assert!(!audit_stream(&mesh).contains(['.', '*', '>', ' ']));
        }

        #[test]
        fn what_is_no_name_never_reaches_a_subject(text in ".{0,70}") {
            if let Ok(node) = NodeId::new(&text) {
                prop_assert!(!node.as_str().contains(['.', '*', '>', ' ', '\n']));
            }
            let _ = parse_inbox_slot(&text);
            let _ = parse_node_load(&text);
        }
    }
}
