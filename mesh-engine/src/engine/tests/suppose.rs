//! What would follow from a change: exactly what follows when it is made.

use super::*;
use InstanceState::Active;

/// `top` needs `middle` needs `base`; `extra` would like `base`, `aside` needs nothing. Two nodes.
fn chain() -> World {
    let mut world = World::new(1);
    let base = manifest("base@1.2.0", &[], &["service:base.get"]);
    let middle = manifest("middle@1.0.0", &["base ^1"], &[]);
    let top = manifest("top@1.0.0", &["middle ^1"], &[]);
    let extra = manifest("extra@1.0.0", &["?base >=1"], &[]);
    let aside = manifest("aside@1.0.0", &[], &[]);
    world.open(0, 1, "a", 1);
    world.open(0, 2, "b", 1);
    for (session, number, manifest) in [
        (1, 1, &base),
        (1, 2, &middle),
        (2, 3, &top),
        (2, 4, &extra),
        (2, 5, &aside),
        (1, 6, &aside),
    ] {
        world.report(0, session, report(number, manifest, Phase::Ready));
    }
    for number in 1..=6 {
        assert_eq!(world.state(id(number)), Some(Active));
    }
    world
}

fn suppose(world: &World, supposition: Supposition) -> Impact {
    world.coordinators[0].engine.suppose(&supposition).unwrap()
}

fn labels(affected: &[Affected]) -> Vec<&str> {
    affected.iter().map(|it| it.label.as_str()).collect()
}

#[test]
fn an_unload_blocks_those_who_need_it_in_a_chain_and_names_the_order_of_the_stops() {
    let mut world = chain();
    let before = world.store.told.len();
    let impact = suppose(&world, Supposition::Unload("base".parse().unwrap()));
    assert_eq!(impact.gone, ["base@1.2.0"]);
    assert_eq!(labels(&impact.blocked), ["middle@1.0.0", "top@1.0.0"]);
    assert!(impact.blocked[0].why[0].contains("base ^1"), "{impact:?}");
    assert_eq!(labels(&impact.degraded), ["extra@1.0.0"]);
    assert_eq!(impact.degraded[0].why, ["it would do without base >=1"]);
    assert_eq!(impact.unaffected, ["aside@1.0.0"]);
    assert_eq!(impact.stops, ["top@1.0.0", "middle@1.0.0", "base@1.2.0"]);
    assert_eq!(impact.starts, [""; 0]);
    // Nothing was done.
    assert_eq!(world.store.told.len(), before);
    world.settle();
    assert_eq!(world.state(id(1)), Some(Active));
    let done = world.ask("base", Change::Unload { cascade: true }).unwrap();
    assert_eq!(names(&done.changed), ["top", "middle", "base"]);
}

#[test]
fn what_is_disabled_stops_nothing_and_blocks_the_same() {
    let impact = suppose(&chain(), Supposition::Disable("middle".parse().unwrap()));
    assert_eq!(impact.gone, ["middle@1.0.0"]);
    assert_eq!(labels(&impact.blocked), ["top@1.0.0"]);
    assert_eq!((impact.stops.len(), impact.degraded.len()), (0, 0));
}

#[test]
fn an_upgrade_blocks_those_who_do_not_accept_the_version() {
    let version = |text: &str| text.parse().unwrap();
    let base: PluginName = "base".parse().unwrap();
    let world = chain();
    let minor = suppose(&world, Supposition::Upgrade(base.clone(), version("1.3.0")));
    assert_eq!(labels(&minor.blocked), [""; 0]);
    assert_eq!(minor.unaffected.len(), 4, "{minor:?}");
    assert_eq!(minor.gone, ["base@1.2.0"]);
    assert_eq!(minor.modelled_on.as_deref(), Some("base@1.2.0"));
    assert_eq!(
        (&minor.stops, &minor.starts),
        (
            &vec!["base@1.2.0".to_owned()],
            &vec!["base@1.3.0".to_owned()]
        )
    );
    let major = suppose(&world, Supposition::Upgrade(base, version("2.0.0")));
    assert_eq!(labels(&major.blocked), ["middle@1.0.0", "top@1.0.0"]);
    assert!(major.unaffected.contains(&"extra@1.0.0".to_owned()));
}

#[test]
fn a_version_that_runs_already_is_judged_by_its_own_manifest() {
    let mut world = chain();
    let new = manifest("base@2.0.0", &["absent ^1"], &[]);
    world.report(0, 2, report(7, &new, Phase::Ready));
    let upgrade = Supposition::Upgrade("base".parse().unwrap(), "2.0.0".parse().unwrap());
    let impact = suppose(&world, upgrade);
    assert_eq!(impact.modelled_on, None);
    assert_eq!(impact.starts, [""; 0]);
    assert_eq!(
        labels(&impact.degraded),
        ["extra@1.0.0"],
        "it is blocked itself"
    );
}

#[test]
fn the_loss_of_a_node_takes_what_only_it_has() {
    let impact = suppose(&chain(), Supposition::Lose("a".parse().unwrap()));
    assert_eq!(impact.gone, ["base@1.2.0", "middle@1.0.0"]);
    assert_eq!(labels(&impact.blocked), ["top@1.0.0"]);
    assert_eq!(labels(&impact.degraded), ["aside@1.0.0", "extra@1.0.0"]);
    assert_eq!(impact.degraded[0].why, ["1 of 2 instances would be left"]);
    assert_eq!(impact.starts, ["aside@1.0.0", "base@1.2.0", "middle@1.0.0"]);
    assert_eq!(impact.stops, ["middle@1.0.0", "base@1.2.0", "aside@1.0.0"]);
}

#[test]
fn what_is_not_there_is_named() {
    let world = chain();
    for (supposition, text) in [
        (
            Supposition::Unload("nobody".parse().unwrap()),
            "plugin nobody",
        ),
        (
            Supposition::Lose("nowhere".parse().unwrap()),
            "node nowhere",
        ),
    ] {
        let error = world.coordinators[0].engine.suppose(&supposition);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
