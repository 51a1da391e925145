//! Which instance is chosen, and what is said when none is.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::revision::Revision;
use crate::state::InstanceState;
use crate::table::tests::{manifest, revision, route};
use crate::table::{InstanceRoute, SpecId, TableUpdate};

/// A table of instances, each as plugin, version, node and state; the first has id 0.
fn table(rows: &[(&str, &str, &str, InstanceState)]) -> Table {
    let mut update = TableUpdate {
        from: Some(Revision::default()),
        to: revision(1),
        ..TableUpdate::default()
    };
    for (number, (plugin, version, node, state)) in rows.iter().enumerate() {
        let manifest = manifest(plugin, version, &["add"]);
        let spec = SpecId::of(&manifest);
        let reason = match state {
            InstanceState::Blocked => "needs time ^1, which nobody provides".to_owned(),
            _ => String::new(),
        };
        update.instances.push(InstanceRoute {
            reason,
            concurrency: 10,
            ..route(number as u64, &spec, node, *state)
        });
        update.specs.push((spec, manifest));
    }
    Table::default().apply(&update).unwrap()
}

fn id(number: u64) -> InstanceId {
    InstanceId::new(number, [0; 10])
}

struct Ask<'a> {
    plugin: Option<&'a str>,
    requirement: Option<&'a str>,
    avoid: Vec<u64>,
    node: Option<&'a str>,
    loads: Vec<(u64, u32)>,
    seed: u64,
}

const ASK: Ask<'static> = Ask {
    plugin: None,
    requirement: None,
    avoid: Vec::new(),
    node: None,
    loads: Vec::new(),
    seed: 0,
};

impl Ask<'_> {
    fn of(&self, table: &Table) -> Result<u64, String> {
        let capability = "service:add".parse().unwrap();
        let plugin = self.plugin.map(|name| PluginName::new(name).unwrap());
        let requirement: Option<Requirement> = self.requirement.map(|text| text.parse().unwrap());
        let node = self.node.map(|name| NodeId::new(name).unwrap());
        let avoid: Vec<_> = self.avoid.iter().map(|number| id(*number)).collect();
        let loads: HashMap<_, _> = self
            .loads
            .iter()
            .map(|(number, load)| (id(*number), *load))
            .collect();
        let target = Target {
            plugin: plugin.as_ref(),
            capability: &capability,
            requirement: requirement.as_ref(),
        };
        let in_flight = |instance| loads.get(&instance).copied().unwrap_or(0);
        select(table, &target, &avoid, node.as_ref(), &in_flight, self.seed)
            .map(|selected| {
                (0..100)
                    .find(|number| id(*number) == selected.instance)
                    .unwrap()
            })
            .map_err(|error| error.to_string())
    }
}

use InstanceState::{Active, Blocked, Degraded, Draining};

#[test]
fn ties_are_broken_in_turn_and_the_fewest_calls_win() {
    let table = table(&[
        ("a", "1.0.0", "m", Active),
        ("a", "1.0.0", "n", Active),
        ("a", "1.0.0", "o", Active),
    ]);
    let turns: Vec<_> = (0..4)
        .map(|seed| Ask { seed, ..ASK }.of(&table).unwrap())
        .collect();
    assert_eq!(turns, [0, 1, 2, 0]);
    let busy = Ask {
        loads: vec![(0, 3), (1, 2), (2, 5)],
        ..ASK
    };
    assert_eq!(busy.of(&table), Ok(1));
}

#[test]
fn the_own_node_is_preferred_until_it_is_full() {
    let table = table(&[("a", "1.0.0", "m", Active), ("a", "1.0.0", "n", Active)]);
    assert_eq!(
        Ask {
            node: Some("n"),
            loads: vec![(1, 9)],
            ..ASK
        }
        .of(&table),
        Ok(1)
    );
    assert_eq!(
        Ask {
            node: Some("n"),
            loads: vec![(1, 10)],
            ..ASK
        }
        .of(&table),
        Ok(0)
    );
    assert_eq!(
        Ask {
            node: Some("elsewhere"),
            seed: 1,
            ..ASK
        }
        .of(&table),
        Ok(1)
    );
}

#[test]
fn the_newest_stable_version_that_is_allowed_and_can_serves() {
    let table = table(&[
        ("a", "1.0.0", "m", Active),
        ("a", "1.5.0", "m", Active),
        ("a", "2.0.0", "m", Blocked),
        ("a", "3.0.0-rc.1", "m", Active),
    ]);
    assert_eq!(ASK.of(&table), Ok(1));
    assert_eq!(
        Ask {
            requirement: Some("=1.0.0"),
            ..ASK
        }
        .of(&table),
        Ok(0)
    );
    assert_eq!(
        Ask {
            requirement: Some("^3.0.0-rc"),
            ..ASK
        }
        .of(&table),
        Ok(3)
    );
    assert_eq!(
        Ask {
            avoid: vec![1],
            ..ASK
        }
        .of(&table),
        Ok(0),
        "an older one rather than none"
    );
    assert_eq!(
        Ask {
            avoid: vec![0, 1],
            ..ASK
        }
        .of(&table),
        Ok(3)
    );
}

#[test]
fn of_several_plugins_each_counts_with_its_own_newest() {
    let table = table(&[("a", "1.0.0", "m", Active), ("b", "9.0.0", "m", Active)]);
    let turns: Vec<_> = (0..2)
        .map(|seed| Ask { seed, ..ASK }.of(&table).unwrap())
        .collect();
    assert_eq!(turns, [0, 1]);
    assert_eq!(
        Ask {
            plugin: Some("a"),
            seed: 1,
            ..ASK
        }
        .of(&table),
        Ok(0)
    );
}

#[test]
fn a_degraded_instance_serves_when_no_healthy_one_does_even_on_the_own_node() {
    let table = table(&[("a", "1.0.0", "m", Degraded), ("a", "1.0.0", "n", Active)]);
    let near = Ask {
        node: Some("m"),
        ..ASK
    };
    assert_eq!(near.of(&table), Ok(1));
    assert_eq!(
        Ask {
            loads: vec![(1, 5)],
            ..ASK
        }
        .of(&table),
        Ok(1)
    );
    assert_eq!(
        Ask {
            avoid: vec![1],
            ..ASK
        }
        .of(&table),
        Ok(0)
    );
}

#[test]
fn a_refusal_says_why_of_each_instance() {
    let rows = [
        ("a", "1.0.0", "m", Blocked),
        ("a", "1.0.0", "n", Draining),
        ("a", "1.0.0", "o", Active),
    ];
    assert_eq!(
        Ask {
            avoid: vec![2],
            plugin: Some("a"),
            ..ASK
        }
        .of(&table(&rows))
        .expect_err("none"),
        "unavailable: 3 instances provide service:add, none takes this call now: a@1.0.0 on m: \
         blocked, needs time ^1, which nobody provides; a@1.0.0 on n: draining; a@1.0.0 on o: has \
         failed this call already (plugin a)"
    );
    let many = table(&[rows[1]; 7]);
    let line = ASK.of(&many).expect_err("none");
    assert!(line.ends_with("; and 3 more"), "{line}");
}

#[test]
fn what_nobody_provides_is_no_provider() {
    let one = table(&[("a", "1.0.0", "m", Active)]);
    assert_eq!(
        ASK.of(&Table::default()).expect_err("none"),
        "no_provider: no plugin provides service:add: start one that does, or check the name"
    );
    assert_eq!(
        Ask {
            plugin: Some("b"),
            ..ASK
        }
        .of(&one)
        .expect_err("none"),
        "no_provider: no plugin b that provides service:add is in the mesh: start it, or check both \
         names (plugin b)"
    );
    assert_eq!(
        Ask {
            plugin: Some("a"),
            requirement: Some("^2"),
            ..ASK
        }
        .of(&one)
        .expect_err("none"),
        "no_provider: no version ^2 of a plugin provides service:add, only a@1.0.0: start a matching \
         version or loosen the requirement (plugin a)"
    );
}

proptest! {
    #[test]
    fn only_what_takes_calls_and_is_allowed_is_ever_chosen(
        states in proptest::collection::vec(proptest::sample::select(InstanceState::ALL.to_vec()), 0..9),
        avoid in proptest::collection::vec(0..9u64, 0..4),
        seed: u64,
    ) {
        let rows: Vec<_> = states.iter().map(|state| ("a", "1.0.0", "m", *state)).collect();
        let good = |number: usize| {
            states[number].takes_calls() && !avoid.contains(&(number as u64))
        };
        match (Ask { avoid: avoid.clone(), seed, ..ASK }).of(&table(&rows)) {
            Ok(number) => prop_assert!(good(number as usize)),
            Err(_) => prop_assert!((0..states.len()).all(|number| !good(number))),
        }
    }
}
