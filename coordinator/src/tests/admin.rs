//! Operators' questions and changes.

use super::*;
use mesh_proto::admin::get_impact_request::Supposition;
use mesh_proto::admin::{
    DisablePluginRequest, EnablePluginRequest, GetGraphRequest, GetImpactRequest, GetPluginRequest,
    ListWishesRequest, SetWishRequest, UnloadPluginRequest, Upgrade, WatchRequest,
};
use mesh_proto::control::{Revision, TrafficSplit, VersionShare};
use tonic::{Code, Status};

async fn chain() -> (Bench, Agent) {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent
        .announce(vec![ready(1, "base", &[]), ready(2, "user", &["base"])])
        .await;
    bench.until("user", InstanceState::Active).await;
    (bench, agent)
}

fn error(status: &Status) -> String {
    status::from_status(status).to_string()
}

#[tokio::test]
async fn plugins_are_disabled_and_enabled_again_with_what_that_affects() {
    let (bench, _agent) = chain().await;
    let disable = DisablePluginRequest {
        name: "base".into(),
        reason: "maintenance".into(),
    };
    let done = bench
        .admin()
        .disable_plugin(disable)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (done.changed, done.affected),
        (vec!["base".into()], vec!["user".into()])
    );
    assert!(done.revision.unwrap().sequence > 0);
    let reason = bench.until("base", InstanceState::Initialized).await;
    assert!(
        reason.starts_with("disabled by an operator at 127.0.0.1:"),
        "{reason}"
    );
    assert!(reason.ends_with(": maintenance"), "{reason}");
    bench.until("user", InstanceState::Degraded).await;
    let enable = EnablePluginRequest {
        name: "base".into(),
        reason: String::new(),
    };
    bench.admin().enable_plugin(enable).await.unwrap();
    bench.until("user", InstanceState::Active).await;
    bench.stop().await;
}

#[tokio::test]
async fn what_would_follow_from_a_loss_is_shown_and_nothing_is_done() {
    let (bench, _agent) = chain().await;
    let ask = |supposition| GetImpactRequest {
        supposition: Some(supposition),
    };
    let upgrade = Supposition::Upgrade(Upgrade {
        name: "base".into(),
        version: "2.0.0".into(),
    });
    let answer = bench.admin().get_impact(ask(upgrade)).await.unwrap();
    let impact = answer.into_inner();
    assert_eq!(impact.gone, ["base@1.0.0"]);
    assert_eq!(impact.blocked[0].id, "user@1.0.0");
    assert_eq!(impact.modelled_on, "base@1.0.0");
    bench.until("base", InstanceState::Active).await;
    let wrong = Supposition::Upgrade(Upgrade {
        name: "base".into(),
        version: "two".into(),
    });
    let refused = bench.admin().get_impact(ask(wrong)).await.unwrap_err();
    let text = error(&refused);
    assert!(text.contains("upgrade.version"), "{text}");
    let nowhere = Supposition::LoseNode("nowhere".into());
    let refused = bench.admin().get_impact(ask(nowhere)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    bench.stop().await;
}

#[tokio::test]
async fn unloading_what_others_need_is_refused_with_the_list_in_the_details() {
    let (bench, _agent) = chain().await;
    let unload = UnloadPluginRequest {
        name: "base".into(),
        ..UnloadPluginRequest::default()
    };
    let status = bench.admin().unload_plugin(unload).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let error = status::from_status(&status);
    assert_eq!(error.code, mesh_core::error::ErrorCode::StillRequired);
    assert_eq!(
        error.details.as_deref(),
        Some(r#"{"blocked":["user@1.0.0"]}"#)
    );
    assert!(
        error.message.contains("user@1.0.0 (needs base ^1)"),
        "{error}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn bad_questions_get_one_clear_error_each() {
    let (bench, _agent) = chain().await;
    let mut admin = bench.admin();
    let name = |name: &str| GetPluginRequest { name: name.into() };
    let list = |capability: &str, status: &str| ListPluginsRequest {
        capability: capability.into(),
        status: status.into(),
    };
    for (status, text) in [
        (
            admin.get_plugin(name("nobody")).await.unwrap_err(),
            "not_found: there is no plugin nobody; list those that are there",
        ),
        (
            admin.get_plugin(name("")).await.unwrap_err(),
            "invalid_argument: name: is empty: name a plugin",
        ),
        (
            admin.get_plugin(name("No Body")).await.unwrap_err(),
            "invalid_argument: name: plugin name \"No Body\" is not valid: use 1 to 63 lowercase",
        ),
        (
            admin.list_plugins(list("gadget", "")).await.unwrap_err(),
            "invalid_argument: capability: capability \"gadget\" is not valid: the kinds are tool",
        ),
        (
            admin.list_plugins(list("", "running")).await.unwrap_err(),
            "invalid_argument: status: status \"running\" is not known: use discovered",
        ),
        (
            admin
                .get_graph(GetGraphRequest {
                    plugin: "nobody".into(),
                })
                .await
                .unwrap_err(),
            "not_found: there is no plugin nobody",
        ),
        (
            admin
                .enable_plugin(EnablePluginRequest {
                    name: "nobody".into(),
                    reason: String::new(),
                })
                .await
                .unwrap_err(),
            "not_found: there is no plugin nobody",
        ),
        (
            admin
                .disable_plugin(DisablePluginRequest {
                    name: "base".into(),
                    reason: "x".repeat(2_000),
                })
                .await
                .unwrap_err(),
            "invalid_argument: reason: has 2000 bytes, 1024 is the most",
        ),
    ] {
        let error = error(&status);
        assert!(error.starts_with(text), "{error}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_wish_is_changed_only_as_it_was_listed() {
    let (bench, _agent) = chain().await;
    let mut admin = bench.admin();
    let empty = admin.list_wishes(ListWishesRequest {}).await;
    let empty = empty.unwrap().into_inner();
    assert!(empty.wishes.is_empty(), "{empty:?}");
    let set = |state: &str, expected: Option<Revision>| SetWishRequest {
        plugin: "base".into(),
        state: state.into(),
        reason: "imported".into(),
        expected,
        split: None,
    };
    let none = empty.revision.map(|revision| Revision {
        sequence: 0,
        ..revision
    });
    admin.set_wish(set("disabled", none)).await.unwrap();
    bench.until("base", InstanceState::Initialized).await;
    let listed = admin.list_wishes(ListWishesRequest {}).await;
    let listed = listed.unwrap().into_inner().wishes.remove(0);
    assert_eq!(
        (listed.plugin.as_str(), listed.state.as_str()),
        ("base", "disabled")
    );
    assert_eq!(listed.reason, "imported");
    let split = || {
        Some(TrafficSplit {
            shares: vec![VersionShare {
                version: "1.0.0".into(),
                weight: 1,
            }],
            ..TrafficSplit::default()
        })
    };
    let both = SetWishRequest {
        split: split(),
        ..set("disabled", none)
    };
    for (request, text) in [
        (
            set("enabled", none),
            "invalid_argument: expected: what operators want of base has changed",
        ),
        (
            set("enabled", None),
            "invalid_argument: expected: is missing: list the wishes",
        ),
        (
            set("off", none),
            "invalid_argument: state: \"off\" is none: use enabled",
        ),
        (both, "invalid_argument: split: is given beside a state"),
    ] {
        let error = error(&admin.set_wish(request).await.unwrap_err());
        assert!(error.starts_with(text), "{error}");
    }
    admin
        .set_wish(set("enabled", listed.revision))
        .await
        .unwrap();
    bench.until("base", InstanceState::Active).await;

    let share = |split, expected| SetWishRequest {
        split,
        ..set("", expected)
    };
    admin.set_wish(share(split(), none)).await.unwrap();
    let listed = admin.list_wishes(ListWishesRequest {}).await;
    let mut wishes = listed.unwrap().into_inner().wishes.into_iter();
    let listed = wishes.find(|wish| wish.split.is_some()).unwrap();
    assert!(admin.set_wish(share(None, none)).await.is_err());
    admin.set_wish(share(None, listed.revision)).await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn lists_are_filtered_and_the_graph_shows_needs_and_order() {
    let (bench, agent) = chain().await;
    agent.report(ready(3, "waiting", &["gone"])).await;
    bench.until("waiting", InstanceState::Blocked).await;
    let list = ListPluginsRequest {
        status: "blocked".into(),
        ..ListPluginsRequest::default()
    };
    let found = bench.admin().list_plugins(list).await.unwrap().into_inner();
    assert_eq!(found.plugins.len(), 1);
    let graph = GetGraphRequest::default();
    let graph = bench.admin().get_graph(graph).await.unwrap().into_inner();
    assert_eq!(
        graph.start_order,
        ["base@1.0.0", "user@1.0.0", "waiting@1.0.0"]
    );
    let edge = graph.edges.first().unwrap();
    assert_eq!(
        (edge.from.as_str(), edge.to.as_str()),
        ("user@1.0.0", "base@1.0.0")
    );
    assert_eq!(edge.requirement, "base ^1");
    let waiting = graph
        .nodes
        .iter()
        .find(|node| node.id == "waiting@1.0.0")
        .unwrap();
    assert_eq!(
        waiting.unmet,
        ["waiting@1.0.0 needs gone ^1, which is not here"]
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_watch_gets_the_table_and_every_change() {
    let (bench, agent) = chain().await;
    let mut watch = bench
        .admin()
        .watch(WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(PATIENCE, watch.message())
            .await
            .expect("in time");
        message.unwrap().unwrap().update.unwrap()
    };
    let whole = next().await;
    assert!(whole.from.is_none());
    assert_eq!(whole.instances.len(), 2);
    agent.report(ready(3, "other", &[])).await;
    let change = loop {
        let update = next().await;
        if !update.instances.is_empty() {
            break update;
        }
    };
    assert!(change.from.is_some());
    assert_eq!(change.instances.first().unwrap().instance, instance(3));
    bench.stop().await;
}
