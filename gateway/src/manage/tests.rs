//! What the tools show of a table, and how they refuse.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

use mesh_core::id::{InstanceId, PluginName};
use mesh_core::state::InstanceState::{Active, Blocked, Failed};
use mesh_core::table::Table;
use mesh_proto::control::InstanceLoad;
use serde_json::json;

use super::*;
use crate::composite::tests::{plugin, table};
use crate::composite::{Compositor, PrefixPolicy};

fn mesh() -> Table {
    table(&[
        (
            plugin("calculator", "1.0.0", &["tool:add", "tool:sub"]),
            Active,
        ),
        (
            plugin("time", "1.2.0", &["tool:now", "resource:time://zones"]),
            Active,
        ),
        (plugin("late", "0.1.0", &["service:a.b"]), Blocked),
        (plugin("broken", "0.1.0", &["prompt:p"]), Failed),
    ])
}

fn listed(arguments: Value) -> Result<Vec<String>, String> {
    let fields = arguments.as_object().cloned().unwrap();
    let mut arguments = Arguments::new("list_plugins", fields);
    let read = list::Filter::read(&mut arguments).and_then(|filter| {
        arguments.finish()?;
        Ok(filter)
    });
    let filter = read.map_err(|error| error.message.to_string())?;
    let value = list::plugins(&mesh(), &filter);
    let names = value["plugins"].as_array().unwrap().iter();
    Ok(names
        .map(|plugin| plugin["name"].as_str().unwrap().to_owned())
        .collect())
}

#[test]
fn plugins_are_listed_by_name_and_filtered_with_the_words_of_the_reference_too() {
    assert_eq!(
        listed(json!({})).unwrap(),
        ["broken", "calculator", "late", "time"]
    );
    assert_eq!(
        listed(json!({ "capability": "tools" })).unwrap(),
        ["calculator", "time"]
    );
    assert_eq!(
        listed(json!({ "capability": "tool:now" })).unwrap(),
        ["time"]
    );
    assert_eq!(
        listed(json!({ "status": "started" })).unwrap(),
        ["calculator", "time"]
    );
    assert_eq!(listed(json!({ "status": "error" })).unwrap(), ["broken"]);
    assert_eq!(
        listed(json!({ "capability": "resources", "status": "active" })).unwrap(),
        ["time"]
    );
    assert_eq!(listed(json!({ "status": null })).unwrap().len(), 4);
}

#[test]
fn wrong_arguments_are_refused_with_the_field_and_the_remedy() {
    for (arguments, says) in [
        (
            json!({ "status": "happy" }),
            "list_plugins: argument status: status \"happy\" is not known: use discovered",
        ),
        (
            json!({ "capability": "gadgets" }),
            "list_plugins: argument capability: capability \"gadgets\" is not valid: the kinds are",
        ),
        (
            json!({ "capability": 5 }),
            "list_plugins: argument capability: must be a string, not 5",
        ),
        (
            json!({ "stauts": "active" }),
            "list_plugins: argument \"stauts\": is not known; there are capability, status",
        ),
    ] {
        let error = listed(arguments).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
    let mut arguments = Arguments::new("get_plugin_info", JsonObject::new());
    let error = arguments.plugin().unwrap_err();
    assert!(
        error
            .message
            .starts_with("get_plugin_info: argument name: is missing")
    );
    let mut fields = JsonObject::new();
    fields.insert("detailed".to_owned(), json!("yes"));
    let error = Arguments::new("get_plugin_metrics", fields)
        .flag("detailed")
        .unwrap_err();
    assert_eq!(
        error.message,
        "get_plugin_metrics: argument detailed: must be true or false, not \"yes\""
    );
}

#[test]
fn the_information_on_a_plugin_names_its_entries_as_clients_call_them() {
    let table = mesh();
    let catalog = Compositor::new(PrefixPolicy::Always, definitions()).compose(&table);
    let name = PluginName::new("time").unwrap();
    let value = info::plugin(&table, &catalog, &name).unwrap();
    assert_eq!(value["status"], "active");
    assert_eq!(value["mcp"]["tools"], json!(["time_now"]));
    assert_eq!(value["mcp"]["resources"], json!(["time://zones"]));
    assert_eq!(value["versions"][0]["version"], "1.2.0");
    assert_eq!(value["versions"][0]["instances"][0]["node"], "a");
    assert_eq!(
        value["versions"][0]["provides"],
        json!(["tool:now", "resource:time://zones"])
    );
    let name = PluginName::new("tim").unwrap();
    let error = info::plugin(&table, &catalog, &name).unwrap_err();
    assert_eq!(
        error.message,
        "get_plugin_info: argument name: there is no plugin tim: did you mean time?"
    );
}

#[test]
fn metrics_count_plugins_kinds_calls_and_loads() {
    let table = mesh();
    let calculator = PluginName::new("calculator").unwrap();
    let id = table.instances_of(&calculator).next().unwrap().instance;
    let mut known = stats::Known::default();
    known.calls.insert(
        calculator,
        router::PluginStats {
            calls: 4,
            errors: 1,
            mean_latency: std::time::Duration::from_millis(2),
        },
    );
    known.loads.insert(
        id,
        InstanceLoad {
            memory_bytes: 1_000,
            cpu_millis: 250,
            calls: 9,
            ..InstanceLoad::default()
        },
    );
    let value = stats::of(&table, &known, false);
    assert_eq!(value["total_plugins"], 4);
    assert_eq!(value["running_plugins"], 2);
    assert_eq!(value["failed_plugins"], 1);
    assert_eq!(
        value["capability_counts"],
        json!({ "prompts": 1, "resources": 1, "services": 1, "tools": 2 })
    );
    assert_eq!(
        value["plugin_stats"]["calculator"],
        json!({ "request_count": 4, "error_count": 1, "average_latency_ms": 2.0,
            "memory_usage": 1_000, "cpu_usage": 0.25 })
    );
    let value = stats::of(&table, &known, true);
    let instance = &value["plugin_stats"]["calculator"]["instances"][0];
    assert_eq!(instance["request_count"], 9);
    assert_eq!(instance["instance"], id.to_string());
    let _: InstanceId = id;
}

#[test]
fn every_tool_has_a_schema_annotations_and_is_known_by_call() {
    for tool in definitions() {
        assert_eq!(
            tool.input_schema["additionalProperties"], false,
            "{}",
            tool.name
        );
        assert!(tool.annotations.unwrap().title.is_some());
    }
}

#[test]
fn answers_are_data_and_text_alike() {
    let result = answer(json!({ "a": 1 }));
    assert_eq!(result.structured_content, Some(json!({ "a": 1 })));
    assert_eq!(
        result.content[0].as_text().unwrap().text,
        "{\n  \"a\": 1\n}"
    );
}
