//! The table against a model: whatever the updates, it equals one made from scratch.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::capability::Capability;
use crate::manifest::{CapabilityDraft, ManifestDraft};
use crate::split::Group;

pub(crate) fn manifest(name: &str, version: &str, services: &[&str]) -> Arc<Manifest> {
    let capability = |service: &&str| CapabilityDraft {
        field: "capabilities[0]".into(),
        kind: "service".into(),
        name: (*service).into(),
        ..CapabilityDraft::default()
    };
    let draft = ManifestDraft {
        name: name.into(),
        version: version.into(),
        capabilities: services.iter().map(capability).collect(),
        ..ManifestDraft::default()
    };
    Arc::new(draft.check().expect("valid"))
}

pub(crate) fn route(number: u64, spec: &SpecId, node: &str, state: InstanceState) -> InstanceRoute {
    InstanceRoute {
        instance: InstanceId::new(number, [0; 10]),
        spec: spec.clone(),
        node: NodeId::new(node).unwrap(),
        generation: Generation(1),
        state,
        reason: String::new(),
        since: Timestamp(0),
        concurrency: 0,
    }
}

pub(crate) fn revision(sequence: u64) -> Revision {
    Revision { epoch: 1, sequence }
}

fn specs() -> Vec<(SpecId, Arc<Manifest>)> {
    [
        manifest("a", "1.0.0", &["x", "y"]),
        manifest("a", "2.0.0", &["x"]),
        manifest("b", "1.0.0", &["y", "z"]),
        manifest("c", "1.0.0", &[]),
    ]
    .into_iter()
    .map(|manifest| (SpecId::of(&manifest), manifest))
    .collect()
}

#[derive(Debug, Clone)]
enum Change {
    Spec(usize),
    Instance(u64, usize, InstanceState),
    Node(u8),
    RemoveSpec(usize),
    RemoveInstance(u64),
    RemoveNode(u8),
    /// Plugin `p` and a number gets this weight and, when that is odd, a test group; 0: none.
    Split(u8, u32),
}

fn change() -> impl Strategy<Value = Change> {
    let state = proptest::sample::select(InstanceState::ALL.to_vec());
    prop_oneof![
        3 => (0..4usize).prop_map(Change::Spec),
        6 => (0..12u64, 0..4usize, state).prop_map(|(id, spec, state)| Change::Instance(id, spec, state)),
        1 => (0..4u8).prop_map(Change::Node),
        1 => (0..4usize).prop_map(Change::RemoveSpec),
        3 => (0..12u64).prop_map(Change::RemoveInstance),
        1 => (0..4u8).prop_map(Change::RemoveNode),
        2 => (0..3u8, 0..4u32).prop_map(|(plugin, weight)| Change::Split(plugin, weight)),
    ]
}

/// The same table in plain maps.
#[derive(Default)]
struct Model {
    specs: BTreeMap<SpecId, Arc<Manifest>>,
    instances: BTreeMap<InstanceId, InstanceRoute>,
    nodes: BTreeMap<NodeId, NodeRoute>,
    splits: BTreeMap<PluginName, Split>,
}

impl Model {
    /// Makes the changes and writes down the update that tells of them. An update names each thing
    /// once: what it adds it does not remove.
    fn update(&mut self, changes: &[Change], from: Revision, to: Revision) -> TableUpdate {
        let mut update = TableUpdate {
            from: Some(from),
            to,
            ..TableUpdate::default()
        };
        let mut named = BTreeSet::new();
        for change in changes {
            let key = match change {
                Change::Spec(spec) | Change::RemoveSpec(spec) => (0, *spec as u64),
                Change::Instance(id, ..) | Change::RemoveInstance(id) => (1, *id),
                Change::Node(node) | Change::RemoveNode(node) => (2, u64::from(*node)),
                Change::Split(plugin, _) => (3, u64::from(*plugin)),
            };
            if !named.insert(key) {
                continue;
            }
            match change {
                Change::Spec(spec) => {
                    let (id, manifest) = specs()[*spec].clone();
                    self.specs.insert(id.clone(), Arc::clone(&manifest));
                    update.specs.push((id, manifest));
                }
                Change::Instance(id, spec, state) => {
                    let route = route(*id, &specs()[*spec].0, &format!("n{}", id % 4), *state);
                    self.instances.insert(route.instance, route.clone());
                    update.instances.push(route);
                }
                Change::Node(node) => {
                    let node = NodeRoute {
                        node: NodeId::new(&format!("n{node}")).unwrap(),
                        generation: Generation(to.sequence),
                        zone: format!("z{}", to.sequence % 2),
                        labels: BTreeMap::new(),
                        software: String::new(),
                    };
                    self.nodes.insert(node.node.clone(), node.clone());
                    update.nodes.push(node);
                }
                Change::RemoveSpec(spec) => {
                    let id = specs()[*spec].0.clone();
                    self.specs.remove(&id);
                    update.removed_specs.push(id);
                }
                Change::RemoveInstance(id) => {
                    let id = InstanceId::new(*id, [0; 10]);
                    self.instances.remove(&id);
                    update.removed_instances.push(id);
                }
                Change::RemoveNode(node) => {
                    let node = NodeId::new(&format!("n{node}")).unwrap();
                    self.nodes.remove(&node);
                    update.removed_nodes.push(node);
                }
                Change::Split(plugin, weight) => {
                    let plugin = PluginName::new(&format!("p{plugin}")).unwrap();
                    if *weight == 0 {
                        self.splits.remove(&plugin);
                        update.removed_splits.push(plugin);
                        continue;
                    }
                    let version = semver::Version::new(1, 0, 0);
                    let group = Group {
                        header: "x".to_owned(),
                        value: weight.to_string(),
                        version: version.clone(),
                    };
                    let split = Split {
                        plugin: plugin.clone(),
                        shares: [(version, *weight)].into(),
                        groups: if weight % 2 == 1 {
                            vec![group]
                        } else {
                            Vec::new()
                        },
                    };
                    self.splits.insert(plugin, split.clone());
                    update.splits.push(split);
                }
            }
        }
        update
    }

    fn check(&self, table: &Table) {
        assert!(table.instances().eq(self.instances.values()));
        assert!(table.nodes().eq(self.nodes.values()));
        assert!(table.manifests().map(|(id, _)| id).eq(self.specs.keys()));
        assert!(table.splits().eq(self.splits.values()));
        let groups = self.splits.values().flat_map(|split| &split.groups);
        let groups: BTreeSet<&str> = groups.map(|group| &*group.value).collect();
        let known = table.groups().iter().map(|group| &*group.value);
        assert_eq!(known.clone().collect::<BTreeSet<_>>(), groups);
        assert_eq!(known.count(), groups.len());
        // The index equals a scan.
        let mut providers = BTreeMap::<Capability, Vec<InstanceId>>::new();
        let mut plugins = BTreeMap::<PluginName, Vec<InstanceId>>::new();
        for route in self.instances.values() {
            plugins
                .entry(route.spec.plugin().unwrap())
                .or_default()
                .push(route.instance);
            let Some(manifest) = self.specs.get(&route.spec) else {
                continue;
            };
            for entry in &manifest.capabilities {
                providers
                    .entry(entry.capability.clone())
                    .or_default()
                    .push(route.instance);
            }
        }
        let ids = table
            .capabilities()
            .map(|(capability, ids)| (capability.clone(), ids.to_vec()));
        assert_eq!(ids.collect::<BTreeMap<_, _>>(), providers);
        for (capability, ids) in &providers {
            let providing = table.providing(capability).unwrap();
            let rows = &providing.rows;
            let manifests: BTreeSet<_> = rows.iter().map(|row| &row.route.spec).collect();
            assert_eq!(providing.alike, manifests.len() == 1);
            assert!(
                rows.iter()
                    .map(|row| row.route.instance)
                    .eq(ids.iter().copied())
            );
            assert!(
                rows.iter()
                    .all(|row| row.entry().unwrap().capability == *capability)
            );
            let zone = |node| self.nodes.get(node).map_or("", |node| &node.zone);
            assert!(rows.iter().all(|row| *row.zone == *zone(&row.route.node)));
            assert!(
                rows.iter()
                    .all(|row| table.instance(row.route.instance) == Some(&*row.route))
            );
        }
        assert!(table.plugins().eq(plugins.keys()));
        for (plugin, ids) in &plugins {
            assert!(
                table
                    .instances_of(plugin)
                    .map(|route| route.instance)
                    .eq(ids.iter().copied())
            );
        }
    }
}

proptest! {
    #[test]
    fn updates_one_by_one_a_snapshot_and_a_table_from_scratch_are_the_same(
        updates in proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..20),
    ) {
        let (mut model, mut table) = (Model::default(), Table::default());
        let from = Some(table.revision());
        let mut all = TableUpdate { from, ..TableUpdate::default() };
        for (place, changes) in updates.iter().enumerate() {
            let to = revision(place as u64 + 1);
            let update = model.update(changes, table.revision(), to);
            all = all.and(update.clone());
            let before = table.revision();
            table = table.apply(&update).expect("continues");
            prop_assert!(table.revision() > before);
            model.check(&table);
        }
        for whole in [&table.to_snapshot(), &all] {
            let scratch = Table::default().apply(whole).expect("it leads from nothing");
            prop_assert_eq!(scratch.revision(), table.revision());
            prop_assert_eq!(scratch.digest(), table.digest());
            model.check(&scratch);
        }
    }

    #[test]
    fn the_revision_never_goes_back_and_no_gap_is_jumped(
        steps in proptest::collection::vec((any::<bool>(), 0..3u64, 0..4u64, 0..3u64, 0..4u64), 0..40),
    ) {
        let mut table = Table::default();
        for (whole, epoch, sequence, to_epoch, to_sequence) in steps {
            let from = Revision { epoch, sequence };
            let to = Revision { epoch: to_epoch, sequence: to_sequence };
            let update = TableUpdate {
                from: (!whole).then_some(from),
                to,
                removed_nodes: vec![NodeId::new("n").unwrap()],
                ..TableUpdate::default()
            };
            let have = table.revision();
            match table.apply(&update) {
                Ok(next) => {
                    prop_assert_eq!(next.revision(), to);
                    prop_assert!(to >= have && (whole || from == have));
                    table = next;
                }
                Err(ApplyError::Older { .. }) => prop_assert!(to <= have),
                Err(ApplyError::Gap { needs, .. }) => prop_assert!(needs == from && from != have),
            }
        }
    }
}

#[test]
fn a_manifest_that_comes_after_its_instance_completes_it() {
    let (spec, manifest) = specs().remove(0);
    let capability: Capability = "service:x".parse().unwrap();
    let without = TableUpdate {
        from: Some(Revision::default()),
        to: revision(1),
        instances: vec![route(1, &spec, "n", InstanceState::Active)],
        ..TableUpdate::default()
    };
    let table = Table::default().apply(&without).unwrap();
    assert!(table.providers(&capability).is_empty());
    let later = TableUpdate {
        from: Some(revision(1)),
        to: revision(2),
        specs: vec![(spec, manifest)],
        ..TableUpdate::default()
    };
    let table = table.apply(&later).unwrap();
    assert_eq!(table.providers(&capability).len(), 1);
}

#[test]
fn an_empty_update_to_the_same_revision_changes_nothing() {
    let same = TableUpdate {
        from: Some(Revision::default()),
        ..TableUpdate::default()
    };
    assert!(Table::default().apply(&same).is_ok());
    let older = TableUpdate {
        to: Revision::default(),
        ..TableUpdate::default()
    };
    let table = Table::default()
        .apply(&TableUpdate {
            to: revision(5),
            ..TableUpdate::default()
        })
        .unwrap();
    assert_eq!(
        table.apply(&older).expect_err("older").to_string(),
        "the update leads to revision 0.0, but 1.5 is applied already"
    );
}

#[test]
fn the_id_of_a_manifest_is_the_same_on_every_machine() {
    let id = SpecId::of(&manifest("time", "1.2.3", &["time.now"]));
    assert_eq!(id.to_string(), "time@1.2.3#dcc2fa68e2ff8e53");
    assert_eq!(id.plugin().unwrap().as_str(), "time");
    assert_ne!(id, SpecId::of(&manifest("time", "1.2.3", &["time.then"])));
}
