//! The graph against small worlds that are easy to judge by hand, and against naive answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A manifest from `name@version`, its needs (`name req`, `?` in front: optional, `kind:name req`:
/// a capability) and what it provides (`kind:name`).
fn manifest(id: &str, wants: &[&str], provides: &[&str]) -> Arc<Manifest> {
    let (name, version) = id.split_once('@').unwrap();
    let mut dependencies = serde_json::Map::new();
    let mut requires = serde_json::Map::new();
    for want in wants {
        let optional = want.starts_with('?');
        let (what, requirement) = want.trim_start_matches('?').split_once(' ').unwrap();
        let need = json!({"requirement": requirement, "optional": optional});
        let map = if what.contains(':') {
            &mut requires
        } else {
            &mut dependencies
        };
        map.insert(what.to_owned(), need);
    }
    let capabilities: Vec<_> = provides
        .iter()
        .map(|it| json!({"capability": it}))
        .collect();
    let text = json!({
        "name": name, "version": version, "dependencies": dependencies, "requires": requires,
        "capabilities": capabilities,
    });
    Arc::new(serde_json::from_str(&text.to_string()).unwrap())
}

fn graph(manifests: &[Arc<Manifest>]) -> Graph {
    let mut graph = Graph::default();
    for manifest in manifests {
        graph.add(SpecId::of(manifest), Arc::clone(manifest));
    }
    graph
}

/// Whether a candidate closes a ring with those who are here.
fn check(here: &Graph, candidate: &Manifest) -> Result<(), Cycle> {
    here.check_candidate_beside(candidate, &Graph::default(), &|_| false)
}

fn path(result: Result<(), Cycle>) -> String {
    result.expect_err("a ring").path.join(" -> ")
}

#[test]
fn a_ring_is_refused_with_its_whole_path() {
    let here = graph(&[
        manifest("b@1.0.0", &["c ^1"], &[]),
        manifest("c@1.0.0", &["a ^1"], &[]),
    ]);
    let refused = check(&here, &manifest("a@1.0.0", &["b ^1"], &[]));
    assert_eq!(path(refused), "a@1.0.0 -> b@1.0.0 -> c@1.0.0 -> a@1.0.0");
    let alone = manifest("a@1.0.0", &["service:x.y ^1"], &["service:x.y"]);
    assert_eq!(path(check(&Graph::default(), &alone)), "a@1.0.0 -> a@1.0.0");
}

#[test]
fn a_ring_of_two_that_arrive_together_is_refused() {
    let other = manifest("b@1.0.0", &["a ^1"], &[]);
    let candidate = manifest("a@1.0.0", &["b ^1"], &[]);
    let refused = Graph::default().check_candidate_beside(&candidate, &graph(&[other]), &|_| false);
    assert_eq!(path(refused), "a@1.0.0 -> b@1.0.0 -> a@1.0.0");
}

#[test]
fn what_is_not_here_yet_and_what_is_optional_closes_no_ring() {
    let here = graph(&[manifest("b@1.0.0", &["?a ^1"], &[])]);
    assert_eq!(
        check(&here, &manifest("a@1.0.0", &["b ^1", "gone ^1"], &[])),
        Ok(())
    );
    // The version that b needs is another one than the candidate's.
    let here = graph(&[manifest("b@1.0.0", &["a ^2"], &[])]);
    assert_eq!(check(&here, &manifest("a@1.0.0", &["b ^1"], &[])), Ok(()));
}

#[test]
fn a_ring_with_a_way_in_is_accepted_and_ordered_by_it() {
    let here = graph(&[
        manifest("b@1.0.0", &["a ^1"], &["service:x.y"]),
        manifest("c@1.0.0", &[], &["service:x.y"]),
    ]);
    let candidate = manifest("a@1.0.0", &["service:x.y ^1"], &[]);
    assert_eq!(check(&here, &candidate), Ok(()));
    let mut here = here;
    here.add(SpecId::of(&candidate), candidate);
    assert_eq!(here.start_order(), ["c@1.0.0", "a@1.0.0", "b@1.0.0"]);
    assert_eq!(here.stop_order(), ["b@1.0.0", "a@1.0.0", "c@1.0.0"]);
}

#[test]
fn a_ring_that_is_here_names_its_members_unless_one_runs() {
    let a = manifest("a@1.0.0", &["b ^1"], &[]);
    let b = manifest("b@1.0.0", &["a ^1"], &[]);
    let user = manifest("user@1.0.0", &["a ^1"], &[]);
    let here = graph(&[a.clone(), b.clone(), user.clone()]);
    let ring = here
        .stuck([SpecId::of(&b)], &|_| false)
        .ring_of(&SpecId::of(&b))
        .expect("a ring");
    assert_eq!(
        ring.members,
        BTreeSet::from([SpecId::of(&a), SpecId::of(&b)])
    );
    assert_eq!(ring.path.join(" -> "), "b@1.0.0 -> a@1.0.0 -> b@1.0.0");
    let all = [&a, &b, &user].map(|m| SpecId::of(m));
    assert_eq!(
        here.stuck(all.clone(), &|_| false)
            .ring_of(&SpecId::of(&user)),
        None
    );
    let a_runs = SpecId::of(&a);
    assert_eq!(
        here.stuck(all, &|spec| *spec == a_runs)
            .ring_of(&SpecId::of(&b)),
        None
    );
}

#[test]
fn an_unmet_need_names_both_sides() {
    let here = graph(&[
        manifest("calculator@1.0.0", &[], &[]),
        manifest("embedder@0.9.0", &[], &["service:embedding.embed"]),
    ]);
    let line = |want: &str| {
        let unmet = here.unmet(&manifest("planner@1.0.0", &[want], &[]), &|_| false);
        unmet
            .iter()
            .map(Unmet::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(
        line("calculator ^2.0"),
        "planner@1.0.0 needs calculator ^2.0, but only 1.0.0 is here"
    );
    assert_eq!(
        line("calculator ^1.0"),
        "planner@1.0.0 needs calculator ^1.0, but calculator@1.0.0 is not active"
    );
    assert_eq!(
        line("time ^1"),
        "planner@1.0.0 needs time ^1, which is not here"
    );
    assert_eq!(
        line("service:embedding.embed >=1"),
        "planner@1.0.0 needs service:embedding.embed >=1, but only embedder@0.9.0 provides it"
    );
    assert_eq!(
        line("tool:add *"),
        "planner@1.0.0 needs tool:add *, which no plugin here provides"
    );
    assert_eq!(line("?time ^1"), "");
}

#[test]
fn dependents_are_found_through_others_but_not_over_optional_needs() {
    let base = manifest("base@1.0.0", &[], &["tool:t"]);
    let middle = manifest("middle@1.0.0", &["base ^1"], &[]);
    let top = manifest("top@1.0.0", &["middle ^1"], &[]);
    let loose = manifest("loose@1.0.0", &["?base ^1"], &[]);
    let here = graph(&[base.clone(), middle.clone(), top.clone(), loose.clone()]);
    let found = here.with_dependents([SpecId::of(&base)]);
    assert_eq!(found, [&base, &middle, &top].map(|m| SpecId::of(m)).into());
    assert!(
        here.dependents(&SpecId::of(&base), true)
            .contains(&SpecId::of(&loose))
    );
}

/// Small worlds: up to 8 of 6 names in two versions, with needs among them.
fn worlds() -> impl Strategy<Value = Vec<Arc<Manifest>>> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let version = prop::sample::select(vec!["1.0.0", "2.0.0"]);
    let capability = prop::sample::select(vec!["tool:x", "tool:y", "tool:z"]);
    let what = prop_oneof![3 => name.clone(), 1 => capability.clone()];
    let requirement = prop::sample::select(vec!["^1", "^2", "*"]);
    let want = (prop::bool::weighted(0.2), what, requirement).prop_map(|(optional, what, req)| {
        format!("{}{what} {req}", if optional { "?" } else { "" })
    });
    let one = (
        name,
        version,
        prop::collection::vec(want, 0..3),
        prop::collection::vec(capability, 0..2),
    );
    let one = one.prop_map(|(name, version, wants, provides)| {
        let wants: Vec<&str> = wants.iter().map(String::as_str).collect();
        manifest(&format!("{name}@{version}"), &wants, &provides)
    });
    prop::collection::vec(one, 1..8)
}

/// Who can start in good hope, by repeating the definition until nothing changes.
fn startable(graph: &Graph) -> BTreeSet<SpecId> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (spec, manifest) in graph.nodes() {
            let good = required(manifest).all(|need| {
                let mut providers = graph.providers(need).peekable();
                providers.peek().is_none() || providers.any(|(one, _)| found.contains(one))
            });
            if good {
                found.insert(spec.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

proptest! {
    #[test]
    fn what_is_accepted_one_by_one_can_start(world in worlds()) {
        let mut here = Graph::default();
        for candidate in world {
            if check(&here, &candidate).is_ok() {
                here.add(SpecId::of(&candidate), candidate);
            } else {
                let mut with = here.clone();
                with.add(SpecId::of(&candidate), Arc::clone(&candidate));
                prop_assert!(!startable(&with).contains(&SpecId::of(&candidate)));
            }
            prop_assert_eq!(startable(&here).len(), here.nodes().count());
        }
    }

    #[test]
    fn the_start_order_respects_every_edge_and_the_stop_order_reverses_it(world in worlds()) {
        let here = graph(&world);
        let order = here.start_order();
        let name = |spec: &SpecId| label(here.manifest(spec).unwrap());
        let place = |name: &String| order.iter().position(|one| one == name).unwrap();
        let labels: BTreeSet<String> = here.nodes().map(|(_, m)| label(m)).collect();
        prop_assert_eq!(order.len(), labels.len());
        let edges: BTreeSet<_> = here.edges().map(|e| (name(&e.from), name(&e.to))).collect();
        let reach = |start: &String| {
            let mut seen = BTreeSet::from([start.clone()]);
            loop {
                let next = edges.iter().filter(|(from, _)| seen.contains(from));
                let next: Vec<String> = next.map(|(_, to)| to.clone()).collect();
                let before = seen.len();
                seen.extend(next);
                if seen.len() == before {
                    return seen;
                }
            }
        };
        for (from, to) in &edges {
            // Only where the needs run in a circle an edge may point forward.
            prop_assert!(reach(to).contains(from) || place(to) < place(from), "{from} {to} {order:?}");
        }
        let mut reversed = here.stop_order();
        reversed.reverse();
        prop_assert_eq!(order, reversed);
    }

    #[test]
    fn everybody_who_can_start_starts_after_somebody_for_each_need(world in worlds()) {
        let mut here = Graph::default();
        for candidate in world {
            if check(&here, &candidate).is_ok() {
                here.add(SpecId::of(&candidate), candidate);
            }
        }
        let order = here.start_order();
        let mut started: BTreeSet<String> = BTreeSet::new();
        for label_now in order {
            let mut good = false;
            for (_, manifest) in here.nodes().filter(|(_, m)| label(m) == label_now) {
                good |= required(manifest).all(|need| {
                    let mut providers = here.providers(need).map(|(_, m)| label(m)).peekable();
                    providers.peek().is_none() || providers.any(|one| started.contains(&one))
                });
            }
            prop_assert!(good, "{} can't start after {:?}", label_now, started);
            started.insert(label_now);
        }
    }

    #[test]
    fn those_run_whose_needs_are_met_by_those_who_run(
        world in worlds(),
        ready in prop::collection::vec(any::<bool>(), 8),
        outside in prop::collection::vec(any::<bool>(), 8),
        run_there in prop::collection::vec(any::<bool>(), 8),
    ) {
        let here = graph(&world);
        let all: Vec<&SpecId> = here.nodes().map(|(spec, _)| spec).collect();
        let place = |spec: &SpecId| all.iter().position(|one| *one == spec).unwrap();
        let judged: BTreeSet<SpecId> = all
            .iter()
            .filter(|spec| !outside[place(spec)])
            .map(|spec| (*spec).clone())
            .collect();
        let runs = |spec: &SpecId| run_there[place(spec)];
        let standing = here.activate(&judged, |spec| ready[place(spec)], runs);
        // The least set, by repeating the definition until nothing changes.
        let mut active: BTreeSet<&SpecId> = BTreeSet::new();
        let met = |spec: &SpecId, active: &BTreeSet<&SpecId>| {
            let on = |one: &SpecId| match judged.contains(one) {
                true => active.contains(one),
                false => runs(one),
            };
            required(here.manifest(spec).unwrap())
                .all(|need| here.providers(need).any(|(one, _)| on(one)))
        };
        loop {
            let before = active.len();
            let next: Vec<&SpecId> = judged
                .iter()
                .filter(|spec| ready[place(spec)] && met(spec, &active))
                .collect();
            active.extend(next);
            if active.len() == before {
                break;
            }
        }
        prop_assert_eq!(standing.len(), judged.len());
        for one in standing {
            prop_assert_eq!(one.active, active.contains(one.spec));
            prop_assert_eq!(one.met, met(one.spec, &active));
        }
    }

    #[test]
    fn taking_out_leaves_what_was_before(world in worlds(), extra in worlds()) {
        let before = graph(&world);
        let mut here = before.clone();
        let new: Vec<_> = extra.into_iter().filter(|m| !before.contains(&SpecId::of(m))).collect();
        for manifest in &new {
            here.add(SpecId::of(manifest), Arc::clone(manifest));
        }
        for manifest in &new {
            here.remove(&SpecId::of(manifest));
        }
        prop_assert_eq!(here, before);
    }
}
