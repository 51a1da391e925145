//! What happened to the registry is written down once, with who, what, why and when.

use std::time::Duration;

use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::process::{self, Process, binary};
use harness::wait;
use serde_json::{Value, json};

/// The entries about somebody.
pub fn history(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let args = [&["history", "--output", "json"], args].concat();
    let (code, out, error) = mesh.cli(&args);
    anyhow::ensure!(code == 0, "exit {code}: {error}");
    let answer: Value = serde_json::from_str(&out)?;
    Ok(answer["entries"].as_array().cloned().unwrap_or_default())
}

/// `kind from>to` of each.
fn steps(entries: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let step = |it: &Value| {
        let (kind, from, to) = (text(&it["kind"]), text(&it["from"]), text(&it["to"]));
        format!("{kind} {from}>{to}")
    };
    entries.iter().map(step).collect()
}

/// Waits until the history of somebody ends with these steps.
async fn until_ends(mesh: &Mesh, name: &str, wanted: &[&str]) -> Vec<Value> {
    let what = format!("the history of {name} ends with {wanted:?}");
    wait::until(&what, PATIENCE, || async {
        let entries = history(mesh, &[name])?;
        let steps = steps(&entries);
        anyhow::ensure!(
            steps.len() >= wanted.len() && steps[steps.len() - wanted.len()..] == *wanted,
            "{steps:?}"
        );
        Ok(entries)
    })
    .await
}

/// The history of "probe" once it is active again, nothing of it twice, and the reasons of its wishes.
async fn wishes_at_the_end(mesh: &Mesh) -> (Vec<Value>, Vec<String>) {
    let ends = ["wish disabled>enabled", "instance initialized>active"];
    let entries = until_ends(mesh, "probe", &ends).await;
    assert_no_doubles(&entries);
    let wishes = entries.iter().filter(|it| it["kind"] == "wish");
    let reasons = wishes.map(|it| it["reason"].as_str().unwrap().to_owned());
    let reasons = reasons.collect();
    (entries, reasons)
}

/// No two entries say the same of the same change.
fn assert_no_doubles(entries: &[Value]) {
    let mut seen = std::collections::BTreeSet::new();
    for entry in entries {
        let key = json!([
            entry["revision"],
            entry["kind"],
            entry["plugin"],
            entry["node"],
            entry["instance"],
            entry["to"]
        ]);
        assert!(seen.insert(key.to_string()), "twice: {entry}");
    }
}

/// Waits until no coordinator has anything left to tell.
async fn settled(mesh: &Mesh) {
    wait::until("all is told", PATIENCE, || async {
        for coordinator in mesh.coordinators() {
            let page = coordinator.page("metrics").await?.body;
            let counter = |name: &str| -> u64 {
                let name = format!("plugmesh_audit_{name}_total ");
                let line = page.lines().find_map(|line| line.strip_prefix(&name));
                line.and_then(|value| value.parse().ok())
                    .unwrap_or_default()
            };
            let (told, stored, known) = (counter("told"), counter("stored"), counter("known"));
            anyhow::ensure!(
                told > 0 && told == stored + known,
                "{told} told, {stored} stored, {known} known"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_plugins_history_says_who_did_what_and_why_and_a_watch_sees_it_live() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("base", &["probe"], &[("PROBE_NAME", "base")])
        .plugin_as(
            "needy",
            &["probe"],
            &[("PROBE_NAME", "needy"), ("PROBE_DEPENDS", "base^1.0")],
        )
        .start()
        .await;
    mesh.wait_state("needy", "active").await;
    settled(&mesh).await;
    let env = vec![("PLUGMESH_COORDINATOR", mesh.coordinator_url())];
    let args = ["watch", "base", "--output", "json"];
    let watch = Process::start(
        "watch",
        mesh.folder.path(),
        &binary("plugmesh"),
        &args,
        &env,
    );
    wait::until("the watch has begun", PATIENCE, || async {
        anyhow::ensure!(watch.output().contains("watching"), "{}", watch.output());
        Ok(())
    })
    .await;

    let (code, _, error) = mesh.cli(&["disable", "base", "--reason", "maintenance"]);
    assert_eq!(code, 0, "{error}");
    let entries = until_ends(
        &mesh,
        "base",
        &["wish enabled>disabled", "instance active>initialized"],
    )
    .await;
    let wish = &entries[entries.len() - 2];
    assert_eq!(wish["reason"], "maintenance", "{wish}");
    assert_eq!(wish["by"]["kind"], "operator", "{wish}");
    let by = wish["by"]["name"].as_str().unwrap();
    assert!(by.contains("127.0.0.1"), "{wish}");
    let instance = &entries[entries.len() - 1];
    assert_eq!(instance["cause"], "wish.base", "{instance}");
    assert_eq!(instance["by"], wish["by"], "{instance}");
    assert!(instance["at_ms"].as_u64().unwrap() > 1_600_000_000_000);

    // Its dependent lost it by what the operator did.
    let needy = until_ends(&mesh, "needy", &["instance active>degraded"]).await;
    let degraded = needy.last().unwrap();
    assert_eq!(degraded["by"], wish["by"], "{degraded}");
    assert_eq!(degraded["cause"], "wish.base", "{degraded}");
    assert!(degraded["reason"].as_str().unwrap().contains("base"));

    let (code, _, error) = mesh.cli(&["enable", "base", "--reason", "done"]);
    assert_eq!(code, 0, "{error}");
    let entries = until_ends(
        &mesh,
        "base",
        &["wish disabled>enabled", "instance initialized>active"],
    )
    .await;
    assert_eq!(entries[entries.len() - 2]["reason"], "done");
    assert_no_doubles(&entries);

    wait::until("the watch saw all of it", PATIENCE, || async {
        let output = watch.output();
        let lines = output.lines().filter(|line| line.starts_with('{'));
        let seen: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        let steps = steps(&seen);
        let wanted = [
            "wish enabled>disabled",
            "instance active>initialized",
            "wish disabled>enabled",
            "instance initialized>active",
        ];
        anyhow::ensure!(steps == wanted, "{steps:?}");
        Ok(())
    })
    .await;

    // By instance, by node, limited, and in words for people.
    let id = entries.last().unwrap()["instance"].as_str().unwrap();
    let of_instance = history(&mesh, &[id]).unwrap();
    assert!(of_instance.iter().all(|it| it["instance"] == id));
    assert_eq!(of_instance.len(), entries.len() - 2, "{of_instance:?}");
    let of_node = history(&mesh, &["node-a"]).unwrap();
    assert!(steps(&of_node).contains(&"node >connected".to_owned()));
    assert_eq!(history(&mesh, &["base", "--limit", "1"]).unwrap().len(), 1);
    let since = history(&mesh, &["base", "--since", "1ms"]).unwrap();
    assert!(since.is_empty(), "{since:?}");
    let (_, table, _) = mesh.cli(&["history", "base"]);
    assert!(
        table.contains("wish for base enabled -> disabled: maintenance"),
        "{table}"
    );
    let (code, _, error) = mesh.cli(&["history", "nobody"]);
    assert_eq!(
        (code, error.contains("nothing is recorded of nobody")),
        (0, true),
        "{error}"
    );
    let (code, _, error) = mesh.cli(&["history", "No One"]);
    assert_eq!(code, 65, "{error}");
}

#[tokio::test]
async fn nodes_that_come_go_and_are_evicted_are_told_once() {
    let mut mesh = Plan::new()
        .coordinator_lines("lease = \"1s\"\nheartbeat = \"300ms\"")
        .agent("node-a")
        .agent("node-b")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_state("probe", "active").await;
    mesh.agents[1].kill();
    let entries = until_ends(
        &mesh,
        "node-b",
        &[
            "node disconnected>evicted",
            "node disconnected>gone",
            "instance active>gone",
        ],
    )
    .await;
    assert!(steps(&entries).contains(&"node connected>disconnected".to_owned()));
    assert_no_doubles(&entries);
    let evicted = &entries[entries.len() - 3];
    assert_eq!(evicted["by"]["kind"], "coordinator", "{evicted}");
    let office = history(&mesh, &[]).unwrap();
    assert_eq!(
        office.iter().filter(|it| it["kind"] == "office").count(),
        1,
        "{office:?}"
    );
    assert_eq!(office.iter().filter(|it| it["kind"] == "table").count(), 1);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_broker_or_coordinator_are_killed() {
    let mut mesh = Plan::new().agent("node-a").plugin("probe").start().await;
    mesh.wait_state("probe", "active").await;
    wait::until("its start is told", PATIENCE, || async {
        let entries = history(&mesh, &["probe"])?;
        anyhow::ensure!(
            entries.last().is_some_and(|it| it["to"] == "active"),
            "{entries:?}"
        );
        Ok(())
    })
    .await;
    for round in 0..3 {
        for what in ["disable", "enable"] {
            let reason = format!("{what} {round}");
            wait::until("the change is taken", PATIENCE, || async {
                let (code, _, error) = mesh.cli(&[what, "probe", "--reason", &reason]);
                anyhow::ensure!(code == 0, "{error}");
                Ok(())
            })
            .await;
            // At once: what was stored may not have come back, nor be in the audit.
            match round {
                0 => mesh.nats.restart().await,
                1 => {
                    mesh.coordinator.kill();
                    mesh.coordinator.start();
                    mesh.coordinator.wait_ready().await;
                }
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        // One fault at a time: what only a dead coordinator saw can't be told.
        settled(&mesh).await;
    }
    let (entries, reasons) = wishes_at_the_end(&mesh).await;
    let wanted = [
        "disable 0",
        "enable 0",
        "disable 1",
        "enable 1",
        "disable 2",
        "enable 2",
    ];
    assert_eq!(reasons, wanted, "{entries:#?}");
}

#[tokio::test]
async fn what_an_operator_does_is_told_with_who_and_why() {
    let probe = |name, depends| [("PROBE_NAME", name), ("PROBE_DEPENDS", depends)];
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("base", &["probe"], &probe("base", ""))
        .plugin_as("needy", &["probe"], &probe("needy", "base^1.0"))
        .start()
        .await;
    mesh.wait_state("needy", "active").await;
    let ada = [
        ("PLUGMESH_COORDINATOR", mesh.coordinator_url()),
        ("USER", "ada".to_owned()),
    ];
    for args in [
        &["split", "base", "1.0.0=100", "--reason", "try"][..],
        &["split", "base", "--clear", "--reason", "tried"],
        &["unload", "base", "--cascade", "--reason", "moved"],
    ] {
        let program = binary("plugmesh");
        let (code, _, error) = process::run(&program, args, &ada, mesh.folder.path());
        assert_eq!(code, 0, "{args:?}: {error}");
    }
    let base = until_ends(&mesh, "base", &["instance draining>gone"]).await;
    let needy = until_ends(&mesh, "needy", &["instance draining>gone"]).await;
    let mine: Vec<&Value> = base
        .iter()
        .chain(&needy)
        .filter(|it| it["by"]["kind"] == "operator")
        .collect();
    let said: Vec<String> = mine
        .iter()
        .map(|it| format!("{} {}: {}", it["plugin"], it["to"], it["reason"]).replace('"', ""))
        .collect();
    for wanted in [
        "base 1.0.0=100: try",
        "base none: tried",
        "base unloaded: moved",
        "needy unloaded: moved",
    ] {
        assert!(said.iter().any(|it| it == wanted), "{said:?}");
    }
    for entry in mine {
        let by = entry["by"]["name"].as_str().unwrap();
        assert!(
            by.starts_with("ada@") && by.contains(" at 127.0.0.1:"),
            "{entry}"
        );
    }
}

#[tokio::test]
async fn each_change_is_told_once_while_one_coordinator_after_the_other_is_killed() {
    let mut mesh = Plan::new()
        .more_coordinators(2)
        .agent("node-a")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_state("probe", "active").await;
    settled(&mesh).await;
    let mut wanted = Vec::new();
    for round in 0..3 {
        let others: Vec<String> = mesh
            .coordinators()
            .enumerate()
            .filter(|(number, _)| *number != round)
            .map(|(_, role)| role.url())
            .collect();
        mesh.coordinators_mut().nth(round).unwrap().kill();
        for (what, url) in ["disable", "enable"].into_iter().zip(&others) {
            let reason = format!("{what} {round}");
            wait::until("the change is taken", PATIENCE, || async {
                let args = [what, "probe", "--reason", &reason, "--coordinator", url];
                let (code, _, error) = mesh.cli(&args);
                anyhow::ensure!(code == 0, "{error}");
                Ok(())
            })
            .await;
            wanted.push(reason);
        }
        let killed = mesh.coordinators_mut().nth(round).unwrap();
        killed.start();
        killed.wait_ready().await;
        settled(&mesh).await;
    }
    let (entries, reasons) = wishes_at_the_end(&mesh).await;
    assert_eq!(reasons, wanted, "{entries:#?}");
    let steps = steps(&entries);
    for step in ["instance active>initialized", "instance initialized>active"] {
        let told = steps.iter().filter(|it| *it == step).count();
        assert_eq!(told, 3, "{step}: {entries:#?}");
    }
}
