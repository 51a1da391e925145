//! Tables in, catalogs out.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, TableUpdate};
use serde_json::{Value, json};

use super::*;
use crate::composite::cursor::List;

/// A table with one instance of each plugin.
pub fn table(plugins: &[(Value, InstanceState)]) -> Table {
    let mut update = TableUpdate {
        to: Revision {
            epoch: 1,
            sequence: 1,
        },
        ..TableUpdate::default()
    };
    for (index, (manifest, state)) in plugins.iter().enumerate() {
        let manifest: Manifest = serde_json::from_str(&manifest.to_string()).unwrap();
        let spec = SpecId::of(&manifest);
        update.instances.push(InstanceRoute {
            instance: InstanceId::new(index as u64, [0; 10]),
            spec: spec.clone(),
            node: NodeId::new("a").unwrap(),
            generation: Generation(1),
            state: *state,
            reason: String::new(),
            since: Timestamp(0),
            concurrency: 0,
        });
        update.specs.push((spec, Arc::new(manifest)));
    }
    Table::default().apply(&update).unwrap()
}

/// A manifest with capabilities, each with an entry whose title says the version.
pub fn plugin(name: &str, version: &str, capabilities: &[&str]) -> Value {
    let entry = |capability: &&str| {
        let (kind, name) = capability.split_once(':').unwrap();
        let title = json!({ "title": format!("{name} {version}") });
        let entry = (kind != "service").then_some(title);
        json!({ "capability": capability, "entry": entry })
    };
    let capabilities: Vec<Value> = capabilities.iter().map(entry).collect();
    json!({ "name": name, "version": version, "capabilities": capabilities })
}

fn management() -> Vec<Tool> {
    vec![Tool::new_with_raw("list_plugins", None, JsonObject::new())]
}

use rmcp::model::JsonObject;

fn catalog(policy: PrefixPolicy, plugins: &[(Value, InstanceState)]) -> Arc<Catalog> {
    Compositor::new(policy, management()).compose(&table(plugins))
}

fn keys<T>(section: &Section<T>) -> Vec<&str> {
    section.items().iter().map(|item| &*item.key).collect()
}

use InstanceState::{Active, Blocked, Degraded};

#[test]
fn all_capabilities_of_all_plugins_that_take_calls_are_one_catalog_in_stable_order() {
    let both = catalog(
        PrefixPolicy::Always,
        &[
            (
                plugin(
                    "time",
                    "1.0.0",
                    &[
                        "tool:now",
                        "resource:time://zones",
                        "resource:time://current",
                    ],
                ),
                Degraded,
            ),
            (
                plugin(
                    "calculator",
                    "1.0.0",
                    &["tool:sub", "tool:add", "prompt:explain", "service:x.y"],
                ),
                Active,
            ),
            (
                plugin("late", "1.0.0", &["tool:x", "resource_template:late://{x}"]),
                Blocked,
            ),
        ],
    );
    assert_eq!(
        keys(&both.tools),
        [
            "calculator_add",
            "calculator_sub",
            "list_plugins",
            "time_now"
        ]
    );
    assert_eq!(keys(&both.resources), ["time://current", "time://zones"]);
    assert_eq!(keys(&both.prompts), ["calculator_explain"]);
    assert!(both.templates.items().is_empty());
    assert_eq!(both.problems, []);
    let Serves::Plugin(route) = &both.tools.get("calculator_add").unwrap().serves else {
        panic!("served by a plugin")
    };
    assert_eq!(route.capability.to_string(), "tool:add");
    assert_eq!(route.plugin.as_str(), "calculator");
}

#[test]
fn the_newest_stable_version_gives_the_entry_and_older_ones_what_it_has_not() {
    let catalog = catalog(
        PrefixPolicy::Always,
        &[
            (plugin("p", "1.9.0", &["tool:x", "tool:old"]), Active),
            (plugin("p", "1.10.0", &["tool:x"]), Active),
            (plugin("p", "2.0.0-rc.1", &["tool:x"]), Active),
            (plugin("p", "3.0.0", &["tool:x"]), Blocked),
        ],
    );
    assert_eq!(keys(&catalog.tools), ["list_plugins", "p_old", "p_x"]);
    let title = |key| catalog.tools.get(key).unwrap().entry.title.clone().unwrap();
    assert_eq!(title("p_x"), "x 1.10.0");
    assert_eq!(title("p_old"), "old 1.9.0");
}

#[test]
fn a_prerelease_serves_where_there_is_no_stable_version() {
    let catalog = catalog(
        PrefixPolicy::Always,
        &[(plugin("p", "2.0.0-rc.1", &["tool:x"]), Active)],
    );
    assert_eq!(keys(&catalog.tools), ["list_plugins", "p_x"]);
}

#[test]
fn a_uri_that_two_plugins_give_is_served_by_the_first_and_reported() {
    let catalog = catalog(
        PrefixPolicy::Always,
        &[
            (plugin("b", "1.0.0", &["resource:x://y"]), Active),
            (plugin("a", "1.0.0", &["resource:x://y"]), Active),
        ],
    );
    assert_eq!(
        catalog.resource_route("x://y").unwrap().plugin.as_str(),
        "a"
    );
    assert_eq!(
        catalog.problems[0].to_string(),
        "resource:x://y of b is left out: plugin a serves it"
    );
}

#[test]
fn an_exact_uri_comes_before_templates_and_templates_in_their_order() {
    let catalog = catalog(
        PrefixPolicy::Always,
        &[(
            plugin(
                "p",
                "1.0.0",
                &[
                    "resource:item://one",
                    "resource_template:item://{id}",
                    "resource_template:item://a/{id}",
                ],
            ),
            Active,
        )],
    );
    let route = |uri| {
        catalog
            .resource_route(uri)
            .map(|route| route.capability.to_string())
    };
    assert_eq!(route("item://one").unwrap(), "resource:item://one");
    assert_eq!(
        route("item://two").unwrap(),
        "resource_template:item://{id}"
    );
    assert_eq!(
        route("item://a/b").unwrap(),
        "resource_template:item://a/{id}"
    );
    assert_eq!(route("other://x"), None);
}

#[test]
fn an_entry_that_breaks_a_rule_costs_only_itself_and_is_reported() {
    let mut bad = plugin("p", "1.0.0", &["tool:good"]);
    let broken = json!({ "capability": "tool:bad", "entry": { "inputSchema": "no" } });
    bad["capabilities"].as_array_mut().unwrap().push(broken);
    let catalog = catalog(PrefixPolicy::Always, &[(bad, Active)]);
    assert_eq!(keys(&catalog.tools), ["list_plugins", "p_good"]);
    let text = catalog.problems[0].to_string();
    assert!(
        text.starts_with("tool:bad of p is left out: its entry is not valid"),
        "{text}"
    );
}

#[test]
fn with_prefixes_off_a_collision_is_reported_and_a_management_tool_is_never_replaced() {
    let catalog = catalog(
        PrefixPolicy::Never,
        &[
            (
                plugin("a", "1.0.0", &["tool:x", "tool:list_plugins"]),
                Active,
            ),
            (plugin("b", "1.0.0", &["tool:x"]), Active),
        ],
    );
    assert_eq!(keys(&catalog.tools), ["list_plugins", "x"]);
    assert_eq!(
        catalog.tools.get("list_plugins").unwrap().serves,
        Serves::Management
    );
    assert_eq!(catalog.problems.len(), 2);
}

#[test]
fn the_same_versions_give_the_same_catalog_and_a_change_tells_which_lists_it_touches() {
    let mut compositor = Compositor::new(PrefixPolicy::Always, management());
    let one = plugin("a", "1.0.0", &["tool:x", "resource:r://x"]);
    let first = compositor.compose(&table(&[(one.clone(), Active)]));
    let more_instances = [(one.clone(), Active), (one.clone(), Active)];
    assert!(Arc::ptr_eq(
        &first,
        &compositor.compose(&table(&more_instances))
    ));

    let prompts = plugin("b", "1.0.0", &["prompt:p"]);
    let second = compositor.compose(&table(&[(one.clone(), Active), (prompts, Active)]));
    let only_prompts = Changes {
        prompts: true,
        ..Changes::default()
    };
    assert_eq!(second.changes_since(&first), only_prompts);

    // Another version with equal entries changes no list.
    let services = plugin("c", "1.0.0", &["service:s.t"]);
    let third = compositor.compose(&table(&[(one, Active), (services, Active)]));
    assert_eq!(third.changes_since(&first), Changes::default());
}

#[test]
fn pages_go_through_all_entries_once_even_when_the_catalog_changes_between_them() {
    let names: Vec<String> = (0..10).map(|i| format!("tool:t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let full = catalog(
        PrefixPolicy::Always,
        &[(plugin("p", "1.0.0", &names), Active)],
    );
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let (page, next) = full.tools.page(after.as_deref(), 4);
        seen.extend(page.iter().map(|item| item.key.to_string()));
        let Some(next) = next else { break };
        let cursor = cursor::encode(List::Tools, next);
        after = Some(cursor::decode(List::Tools, &cursor).unwrap());
    }
    assert_eq!(seen, keys(&full.tools));

    // The entry that the page before ended with is gone: the next page begins after its place.
    let fewer = catalog(
        PrefixPolicy::Always,
        &[(plugin("p", "1.0.0", &["tool:t1", "tool:t9"]), Active)],
    );
    let (page, next) = fewer.tools.page(Some("p_t3"), 4);
    assert_eq!(
        page.iter().map(|item| &*item.key).collect::<Vec<_>>(),
        ["p_t9"]
    );
    assert_eq!(next, None);
    assert_eq!(fewer.tools.page(Some("zzz"), 4).0.len(), 0);
}
