//! Which instance is chosen, and what is said when none is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::revision::Revision;
use crate::split::Group;
use crate::state::InstanceState;
use crate::table::tests::{manifest, revision, route};
use crate::table::{InstanceRoute, NodeRoute, SpecId, TableUpdate};

mod nobody;

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

/// What is asked of a table in which instance 0 is the first.
#[derive(Clone)]
struct Ask<'a> {
    plugin: Option<&'a str>,
    requirement: Option<&'a str>,
    avoid: Vec<u64>,
    node: &'a str,
    zone: &'a str,
    prefer: &'a [Near],
    key: Option<u64>,
    groups: &'a [(&'a str, &'a str)],
    stopping: bool,
    signals: Vec<(u64, Signal)>,
    seed: u64,
}

const ASK: Ask<'static> = Ask {
    plugin: None,
    requirement: None,
    avoid: Vec::new(),
    node: "caller",
    zone: "",
    prefer: &[Near::Node, Near::Zone],
    key: None,
    groups: &[],
    stopping: false,
    signals: Vec::new(),
    seed: 0,
};

fn calls(in_flight: u32) -> Signal {
    Signal {
        in_flight,
        ..Signal::default()
    }
}

fn health(health: Health) -> Signal {
    Signal {
        health,
        ..Signal::default()
    }
}

impl Ask<'_> {
    fn of(&self, table: &Table) -> Result<u64, String> {
        let signals: HashMap<_, _> = self.signals.iter().copied().collect();
        let signal = |number| signals.get(&number).copied().unwrap_or_default();
        self.with(table, &signal)
    }

    fn with(&self, table: &Table, signal: &dyn Fn(u64) -> Signal) -> Result<u64, String> {
        let capability = "service:add".parse().unwrap();
        let plugin = self.plugin.map(|name| PluginName::new(name).unwrap());
        let requirement: Option<Requirement> = self.requirement.map(|text| text.parse().unwrap());
        let node = NodeId::new(self.node).unwrap();
        let avoid: Vec<_> = self.avoid.iter().map(|number| id(*number)).collect();
        let own = |text: &str| text.to_owned();
        let groups = self.groups.iter();
        let groups = groups.map(|(header, value)| (own(header), own(value)));
        let groups: Groups = groups.collect();
        let wish = Wish {
            target: Target {
                plugin: plugin.as_ref(),
                capability: &capability,
                requirement: requirement.as_ref(),
            },
            avoid: &avoid,
            origin: Origin {
                node: &node,
                zone: self.zone,
                prefer: self.prefer,
            },
            key: self.key,
            groups: &groups,
            stopping: self.stopping,
            seed: self.seed,
        };
        static KNOWN: LazyLock<HashMap<InstanceId, u64>> =
            LazyLock::new(|| (0..2_000).map(|number| (id(number), number)).collect());
        let number = |instance| *KNOWN.get(&instance).unwrap();
        select(table, &wish, &|instance| signal(number(instance)))
            .map(|selected| number(selected.instance))
            .map_err(|error| error.to_string())
    }

    /// How often each instance is chosen.
    fn spread(&self, table: &Table, asks: u64) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for seed in 0..asks {
            let ask = Ask {
                seed,
                ..self.clone()
            };
            *counts.entry(ask.of(table).unwrap()).or_default() += 1;
        }
        counts
    }
}

use InstanceState::{Active, Blocked, Degraded, Draining};

#[test]
fn idle_instances_get_about_equally_many_calls() {
    for many in [1_u64, 2, 3, 7] {
        let table = table(&vec![("a", "1.0.0", "m", Active); many as usize]);
        let counts = ASK.spread(&table, 1_000 * many);
        assert_eq!(counts.len() as u64, many);
        for (number, count) in counts {
            assert!((850..1_150).contains(&count), "{number} of {many}: {count}");
        }
    }
}

#[test]
fn of_two_the_one_with_fewer_and_shorter_calls_is_chosen() {
    let table = table(&[("a", "1.0.0", "m", Active), ("a", "1.0.0", "n", Active)]);
    let always = |one, other| {
        let signals = vec![(0, one), (1, other)];
        Ask { signals, ..ASK }.spread(&table, 50)
    };
    let timed = |in_flight, ms| Signal {
        in_flight,
        latency: Duration::from_millis(ms),
        ..Signal::default()
    };
    assert_eq!(always(calls(3), calls(2)), [(1, 50)].into());
    assert_eq!(always(timed(2, 50), timed(4, 10)), [(1, 50)].into());
    // A measure is worth no more than fourfold the calls, and none is as good as the other's.
    assert_eq!(always(timed(2, 50_000), timed(9, 10)), [(1, 50)].into());
    assert_eq!(always(timed(0, 50_000), timed(9, 10)), [(0, 50)].into());
    assert_eq!(always(timed(1, 50), timed(2, 0)), [(0, 50)].into());
    // A quarter is noise: the calls decide, or the draw.
    assert_eq!(always(timed(1, 10), timed(2, 8)), [(0, 50)].into());
    assert_eq!(always(timed(1, 10), timed(1, 9)).len(), 2);
    let mut tiny = timed(1, 0);
    tiny.latency = Duration::from_micros(300);
    assert_eq!(always(tiny, timed(0, 1)), [(1, 50)].into());
    tiny.latency = Duration::from_micros(10);
    let mut less = tiny;
    less.latency = Duration::from_micros(200);
    assert_eq!(always(tiny, less).len(), 2);
}

#[test]
fn a_thousand_instances_stay_about_equally_busy_and_few_of_them_are_looked_at() {
    let table = table(&[("a", "1.0.0", "m", Active); 1_000]);
    let busy = RefCell::new(HashMap::<u64, u32>::new());
    let looks = Cell::new(0);
    let signal = |number| {
        looks.set(looks.get() + 1);
        calls(busy.borrow().get(&number).copied().unwrap_or(0))
    };
    for seed in 0..3_000 {
        let chosen = Ask { seed, ..ASK }.with(&table, &signal).unwrap();
        *busy.borrow_mut().entry(chosen).or_default() += 1;
    }
    assert_eq!(looks.get(), 6_000);
    // One random choice would give some instance ten and more of the three calls that each should get.
    let most = busy.borrow().values().copied().max();
    assert!(most <= Some(6), "{most:?}");
}

#[test]
fn near_instances_are_preferred_until_they_are_full_or_out() {
    let mut table = table(&[
        ("a", "1.0.0", "m", Active),
        ("a", "1.0.0", "n", Active),
        ("a", "1.0.0", "o", Active),
    ]);
    let node = |name, zone: &str| NodeRoute {
        node: NodeId::new(name).unwrap(),
        generation: Generation(1),
        zone: zone.to_owned(),
        labels: BTreeMap::new(),
        software: String::new(),
    };
    let update = TableUpdate {
        from: Some(revision(1)),
        to: revision(2),
        nodes: vec![node("m", "east"), node("n", "west"), node("o", "west")],
        ..TableUpdate::default()
    };
    table = table.apply(&update).unwrap();
    let ask = Ask {
        node: "n",
        zone: "west",
        ..ASK
    };
    let of = |signals: &[(u64, Signal)]| {
        let signals = signals.to_vec();
        let chosen = Ask {
            signals,
            ..ask.clone()
        }
        .spread(&table, 30);
        chosen.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(of(&[(1, calls(9))]), [1]);
    for out in [
        calls(10),
        health(Health::Refusing),
        health(Health::Ejected),
        health(Health::Silent),
    ] {
        assert_eq!(of(&[(1, out)]), [2], "{out:?}");
        assert_eq!(of(&[(1, out), (2, out)]), [0], "{out:?}");
        assert_eq!(of(&[(0, calls(3)), (1, out), (2, out)]), [0], "{out:?}");
        // Where there is nothing better the near one does.
        assert_eq!(of(&[(0, out), (1, out), (2, out)]), [1], "{out:?}");
    }
    let other = |prefer| {
        let ask = Ask {
            prefer,
            ..ask.clone()
        };
        ask.spread(&table, 60).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(other(&[Near::Zone]), [1, 2]);
    assert_eq!(other(&[]), [0, 1, 2]);
}

#[test]
fn those_that_are_left_out_come_last_the_silent_after_the_rest() {
    let table = table(&[("a", "1.0.0", "m", Active); 5]);
    let mut signals = vec![
        (0, health(Health::Silent)),
        (1, health(Health::Ejected)),
        (2, health(Health::Refusing)),
        (3, calls(10)),
        (4, calls(9)),
    ];
    for expected in [4, 3, 2, 1, 0] {
        let ask = Ask {
            signals: signals.clone(),
            avoid: (expected + 1..5).collect(),
            ..ASK
        };
        assert_eq!(
            ask.spread(&table, 50).into_keys().collect::<Vec<_>>(),
            [expected]
        );
        signals.pop();
    }
}

/// The table with a split of plugin a.
fn split(table: &Table, shares: &[(&str, u32)], groups: &[(&str, &str, &str)]) -> Table {
    let group = |(header, value, version): &(&str, &str, &str)| Group {
        header: (*header).to_owned(),
        value: (*value).to_owned(),
        version: version.parse().unwrap(),
    };
    let shares = shares.iter();
    let shares = shares.map(|(version, weight)| (version.parse().unwrap(), *weight));
    let split = Split {
        plugin: PluginName::new("a").unwrap(),
        shares: shares.collect(),
        groups: groups.iter().map(group).collect(),
    };
    let update = TableUpdate {
        from: Some(table.revision()),
        to: revision(table.revision().sequence + 1),
        splits: vec![split],
        ..TableUpdate::default()
    };
    table.apply(&update).unwrap()
}

#[test]
fn a_split_shares_calls_among_the_versions_that_are_there() {
    let table = table(&[
        ("a", "1.0.0", "m", Active),
        ("a", "1.0.0", "n", Active),
        ("a", "2.0.0", "m", Active),
        ("a", "3.0.0", "m", Active),
        ("b", "1.0.0", "m", Active),
    ]);
    let shares = [("1.0.0", 3), ("2.0.0", 1), ("9.0.0", 50), ("3.0.0", 0)];
    let table = split(&table, &shares, &[]);
    let ask = Ask {
        plugin: Some("a"),
        ..ASK
    };
    let counts = ask.spread(&table, 4_000);
    assert!(
        (2_850..3_150).contains(&(counts[&0] + counts[&1])),
        "{counts:?}"
    );
    // Which instance of a version is drawn has nothing to do with which version was.
    assert!((1_350..1_650).contains(&counts[&0]), "{counts:?}");
    assert!((850..1_150).contains(&counts[&2]), "{counts:?}");
    assert!(!counts.contains_key(&3));
    // A requirement goes before, and without a share for what is left the newest serves.
    let bound = |requirement| Ask {
        requirement: Some(requirement),
        ..ask.clone()
    };
    assert_eq!(bound("^2").spread(&table, 20), [(2, 20)].into());
    assert_eq!(bound("^3").spread(&table, 20), [(3, 20)].into());
    // One key stays with one version.
    let sticky = Ask {
        key: Some(7),
        ..ask
    };
    assert_eq!(sticky.spread(&table, 50).len(), 1);
}

#[test]
fn the_share_of_what_is_not_active_moves_to_the_rest() {
    let rows = |one, two| table(&[("a", "1.0.0", "m", one), ("a", "2.0.0", "m", two)]);
    let half = [("1.0.0", 1), ("2.0.0", 1)];
    let serves = |table: &Table, shares: &[(&str, u32)]| {
        ASK.spread(&split(table, shares, &[]), 40)
            .into_keys()
            .collect::<Vec<_>>()
    };
    assert_eq!(serves(&rows(Active, Active), &half), [0, 1]);
    assert_eq!(serves(&rows(Active, Degraded), &half), [0]);
    assert_eq!(serves(&rows(Degraded, Degraded), &half), [0, 1]);
    assert_eq!(serves(&rows(Blocked, Active), &half), [1]);
    // Rather one without a share than none.
    let old = [("1.0.0", 1), ("2.0.0", 0)];
    assert_eq!(serves(&rows(Blocked, Active), &old), [1]);
    assert_eq!(serves(&rows(Active, Active), &old), [0]);
    assert_eq!(
        serves(&rows(Active, Active), &[("3.0.0", 1)]),
        [1],
        "as without a split"
    );
}

#[test]
fn a_test_group_is_served_by_its_own_version_while_that_is_there_and_allowed() {
    let rows = [
        ("a", "1.0.0", "m", Active),
        ("a", "2.0.0", "m", Active),
        ("a", "3.0.0", "m", Blocked),
    ];
    let groups = [("x", "beta", "2.0.0"), ("x", "gone", "3.0.0")];
    let table = split(&table(&rows), &[("1.0.0", 1), ("2.0.0", 0)], &groups);
    let serves = |groups: &[(&str, &str)], requirement| {
        let ask = Ask {
            groups,
            requirement,
            ..ASK
        };
        ask.spread(&table, 20).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(serves(&[], None), [0]);
    assert_eq!(serves(&[("x", "beta")], None), [1]);
    assert_eq!(serves(&[("x", "other"), ("y", "beta")], None), [0]);
    assert_eq!(
        serves(&[("x", "beta")], Some("^1")),
        [0],
        "only what is accepted"
    );
    assert_eq!(serves(&[("x", "gone")], None), [0], "only what takes calls");
}

#[test]
fn a_key_leaves_its_instance_only_when_that_is_full_or_left_out() {
    let table = table(&[
        ("a", "1.0.0", "m", Active),
        ("a", "1.0.0", "n", Degraded),
        ("a", "1.0.0", "o", Active),
        ("a", "1.0.0", "p", Active),
    ]);
    let home = |key, signals: &[(u64, Signal)], node| {
        let ask = Ask {
            key: Some(key),
            signals: signals.to_vec(),
            node,
            ..ASK
        };
        let chosen: Vec<_> = ask.spread(&table, 3).into_keys().collect();
        assert_eq!(chosen.len(), 1);
        chosen[0]
    };
    let mut keys = [0; 4];
    for key in 0..400 {
        let own = home(key, &[], "m");
        keys[own as usize] += 1;
        let others = [(own, calls(9)), ((own + 1) % 4, calls(0))];
        assert_eq!(home(key, &others, "elsewhere"), own);
        for out in [calls(10), health(Health::Ejected), health(Health::Silent)] {
            let second = home(key, &[(own, out)], "m");
            assert_ne!(second, own);
            // Only keys of the one that is out move.
            for other in (0..4).filter(|other| *other != own) {
                assert_eq!(home(key, &[(other, out)], "m"), own);
            }
            // All are out alike: back to where the key belongs.
            let all: Vec<_> = (0..4).map(|number| (number, out)).collect();
            assert_eq!(home(key, &all, "m"), own);
        }
    }
    assert!(keys.iter().all(|keys| (60..140).contains(keys)), "{keys:?}");
}

#[test]
fn a_version_that_is_silent_or_left_out_gives_way_to_another() {
    let table = table(&[("a", "1.0.0", "m", Active), ("a", "2.0.0", "n", Active)]);
    for (out, seed) in [(Health::Ejected, 1), (Health::Silent, 2)] {
        let ask = |signals: Vec<(u64, Signal)>| {
            let ask = Ask {
                signals,
                seed,
                ..ASK
            };
            ask.of(&table).unwrap()
        };
        assert_eq!(ask(vec![]), 1);
        assert_eq!(ask(vec![(1, health(out))]), 0);
        // Where there is nothing better, the newest it is.
        assert_eq!(ask(vec![(0, health(out)), (1, health(out))]), 1);
    }
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
    assert_eq!(
        ASK.spread(&table, 20).into_keys().collect::<Vec<_>>(),
        [0, 1]
    );
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
    let near = Ask { node: "m", ..ASK };
    assert_eq!(near.of(&table), Ok(1));
    assert_eq!(
        Ask {
            signals: vec![(1, calls(5))],
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
