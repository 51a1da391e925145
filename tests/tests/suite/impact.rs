//! What `plugmesh impact` says would follow is what follows, on a mesh of real processes.

use std::collections::{BTreeMap, BTreeSet};

use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::process::{Process, binary};
use harness::wait;
use serde_json::{Value, json};

use super::audit::history;

/// `top` needs `needy` needs `base`, which is somebody's own process on node-a; `maybe` would like
/// `base`, `twin` runs on both nodes, `free` needs nobody.
async fn mesh() -> (Mesh, Process) {
    let probe = |name, depends| [("PROBE_NAME", name), ("PROBE_DEPENDS", depends)];
    let mesh = Plan::new()
        .coordinator_lines("lease = \"2s\"\nheartbeat = \"500ms\"\ngrace = \"300ms\"")
        .agent("node-a")
        .plugin_as("twin", &["probe"], &probe("twin", ""))
        .agent("node-b")
        .plugin_as("twin", &["probe"], &probe("twin", ""))
        .plugin_as("needy", &["probe"], &probe("needy", "base^1.0"))
        .plugin_as("top", &["probe"], &probe("top", "needy^1.0"))
        .plugin_as("maybe", &["probe"], &probe("maybe", "base^1.0?"))
        .plugin_as("free", &["probe"], &probe("free", ""))
        .start()
        .await;
    let base = base(&mesh, 0, "1.2.0");
    mesh.wait_instances(7).await;
    mesh.wait_tool("maybe_version_of").await;
    wait::until("all that is told", PATIENCE, || async {
        let moves = moves(&mesh, 0)?;
        let active = moves.iter().filter(|(_, to)| to == "active").count();
        anyhow::ensure!(active == 7, "{moves:?}");
        Ok(())
    })
    .await;
    (mesh, base)
}

fn base(mesh: &Mesh, node: usize, version: &str) -> Process {
    let env = [
        ("PLUGMESH_AGENT", mesh.attach_url(node)),
        ("PROBE_NAME", "base".to_owned()),
        ("PROBE_VERSION", version.to_owned()),
    ];
    let none: [&str; 0] = [];
    let (name, log) = (format!("base-{version}"), mesh.folder.path());
    Process::start(&name, log, &binary("probe"), &none, &env)
}

/// Who is in which list, by `name@version`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    gone: BTreeSet<String>,
    blocked: BTreeSet<String>,
    degraded: BTreeSet<String>,
    unaffected: BTreeSet<String>,
}

/// What would follow: the lists, and what stops and starts in which order.
struct Foretold {
    lists: Lists,
    stops: Vec<String>,
    starts: Vec<String>,
    /// The registry's history until then.
    before: u64,
    active: BTreeMap<String, usize>,
}

fn foretell(mesh: &Mesh, of: &[&str]) -> Foretold {
    let (code, out, error) = mesh.cli(&[&["impact", "--output", "json"], of].concat());
    assert_eq!(code, 0, "{of:?}: {error}");
    let impact: Value = serde_json::from_str(&out).unwrap();
    let list = |name: &str| -> Vec<String> {
        let names = impact[name].as_array().unwrap().iter();
        let name = |it: &Value| it["id"].as_str().or(it.as_str()).unwrap().to_owned();
        names.map(name).collect()
    };
    let last = history(mesh, &["--limit", "1"]).unwrap();
    Foretold {
        lists: Lists {
            gone: list("gone").into_iter().collect(),
            blocked: list("blocked").into_iter().collect(),
            degraded: list("degraded").into_iter().collect(),
            unaffected: list("unaffected").into_iter().collect(),
        },
        stops: list("stops"),
        starts: list("starts"),
        before: last[0]["sequence"].as_u64().unwrap(),
        active: states(mesh).unwrap().0,
    }
}

/// How many instances of each version are active, and which versions have a blocked one.
fn states(mesh: &Mesh) -> anyhow::Result<(BTreeMap<String, usize>, BTreeSet<String>)> {
    let plugins = mesh.plugins()?;
    let (mut active, mut blocked) = (BTreeMap::new(), BTreeSet::new());
    for plugin in plugins["plugins"].as_array().into_iter().flatten() {
        let label = format!("{}@{}", plugin["name"], plugin["version"]).replace('"', "");
        for instance in plugin["instances"].as_array().into_iter().flatten() {
            if instance["state"] == "active" {
                *active.entry(label.clone()).or_default() += 1;
            } else if instance["state"] == "blocked" {
                blocked.insert(label.clone());
            }
        }
    }
    Ok((active, blocked))
}

/// What instances did since, as `name@version` and the new state, in the order of the registry.
fn moves(mesh: &Mesh, since: u64) -> anyhow::Result<Vec<(String, String)>> {
    let entries = history(mesh, &["--limit", "1000"])?;
    let entries = entries.into_iter().filter(|it| {
        let place = it["sequence"].as_u64().unwrap_or_default();
        it["kind"] == "instance" && place > since
    });
    let moved = entries.map(|it| {
        let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        (
            format!("{}@{}", text("plugin"), text("version")),
            text("to"),
        )
    });
    Ok(moved.collect())
}

impl Foretold {
    fn assert_lists(&self, lists: [&[&str]; 4]) {
        let [gone, blocked, degraded, unaffected] =
            lists.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let wanted = Lists {
            gone,
            blocked,
            degraded,
            unaffected,
        };
        assert_eq!(self.lists, wanted);
    }

    /// Who took calls before, by how they are now.
    async fn seen(&self, mesh: &Mesh) -> anyhow::Result<Lists> {
        let (active, blocked) = states(mesh)?;
        // Who would like `base` goes on, without it.
        let to_base = json!({"name": "base"});
        let answer = mesh.call_tool("maybe_version_of", to_base).await?;
        let alone = answer["result"]["isError"] == true || !answer["error"].is_null();
        let mut lists = Lists::default();
        for (label, before) in &self.active {
            let now = active.get(label).copied().unwrap_or_default();
            let list = match now {
                0 if blocked.contains(label) => &mut lists.blocked,
                0 => &mut lists.gone,
                now if now < *before => &mut lists.degraded,
                _ if alone && label.starts_with("maybe@") => &mut lists.degraded,
                _ => &mut lists.unaffected,
            };
            list.insert(label.clone());
        }
        Ok(lists)
    }

    /// Waits until what was foretold has happened, and looks that nothing else did.
    async fn comes_true(&self, mesh: &Mesh) {
        wait::until("it is as foretold", PATIENCE, || async {
            let seen = self.seen(mesh).await?;
            anyhow::ensure!(seen == self.lists, "{seen:#?}, not {:#?}", self.lists);
            let moves = moves(mesh, self.before)?;
            let to_be_blocked = self.lists.blocked.iter();
            for label in to_be_blocked {
                let told = moves.iter().any(|(it, to)| it == label && to == "blocked");
                anyhow::ensure!(told, "the history lacks {label}: {moves:?}");
            }
            Ok(())
        })
        .await;
        let moves = moves(mesh, self.before).unwrap();
        let moved: BTreeSet<&String> = moves.iter().map(|(label, _)| label).collect();
        for label in &self.lists.unaffected {
            assert!(!moved.contains(label), "{label} did not stay: {moves:?}");
        }
    }
}

fn done(mesh: &Mesh, args: &[&str]) -> String {
    let (code, out, error) = mesh.cli(args);
    assert_eq!(code, 0, "{args:?}: {error}");
    out
}

#[tokio::test]
async fn a_disable_and_an_unload_do_what_was_foretold() {
    let (mesh, mut base) = mesh().await;
    let lists: [&[&str]; 4] = [
        &["base@1.2.0"],
        &["needy@1.0.0", "top@1.0.0"],
        &["maybe@1.0.0"],
        &["free@1.0.0", "twin@1.0.0"],
    ];
    let disable = foretell(&mesh, &["disable", "base"]);
    disable.assert_lists(lists);
    assert_eq!((disable.stops.len(), disable.starts.len()), (0, 0));
    let unload = foretell(&mesh, &["unload", "base"]);
    unload.assert_lists(lists);
    assert_eq!(unload.stops, ["top@1.0.0", "needy@1.0.0", "base@1.2.0"]);
    let (code, _, error) = mesh.cli(&["impact", "unload", "nobody"]);
    assert_eq!(code, 65, "{error}");
    // Nothing was done by asking.
    assert_eq!(moves(&mesh, disable.before).unwrap(), []);

    done(&mesh, &["disable", "base"]);
    disable.comes_true(&mesh).await;
    done(&mesh, &["enable", "base"]);
    mesh.wait_instances(7).await;

    // Refused with the very list, unless those go, too: then in the order that was foretold.
    let (code, _, error) = mesh.cli(&["unload", "base"]);
    assert_ne!(code, 0);
    for part in ["needy@1.0.0", "top@1.0.0", "--cascade"] {
        assert!(error.contains(part), "{error}");
    }
    for part in ["maybe", "free", "twin"] {
        assert!(!error.contains(part), "{error}");
    }
    mesh.wait_state("base", "active").await;
    let before = foretell(&mesh, &["unload", "base"]);
    done(&mesh, &["unload", "base", "--cascade"]);
    let status = base.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", base.output());
    for state in ["draining", "gone"] {
        wait::until("they stop in the order foretold", PATIENCE, || async {
            let moves = moves(&mesh, before.before)?;
            let stopped = moves.iter().filter(|(_, to)| to == state);
            let stopped: Vec<&String> = stopped.map(|(label, _)| label).collect();
            anyhow::ensure!(stopped.iter().copied().eq(&before.stops), "{moves:?}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_upgrade_does_what_was_foretold_for_the_version() {
    let (mesh, mut old) = mesh().await;
    let within = foretell(&mesh, &["upgrade", "base", "1.3.0"]);
    let stay = &[
        "free@1.0.0",
        "maybe@1.0.0",
        "needy@1.0.0",
        "top@1.0.0",
        "twin@1.0.0",
    ];
    within.assert_lists([&["base@1.2.0"], &[], &[], stay]);
    assert_eq!(within.stops, ["base@1.2.0"]);
    assert_eq!(within.starts, ["base@1.3.0"]);
    let mut new = base(&mesh, 0, "1.3.0");
    mesh.wait_instances(8).await;
    old.stop(PATIENCE);
    within.comes_true(&mesh).await;

    let beyond = foretell(&mesh, &["upgrade", "base", "2.0.0"]);
    beyond.assert_lists([
        &["base@1.3.0"],
        &["needy@1.0.0", "top@1.0.0"],
        &["maybe@1.0.0"],
        &["free@1.0.0", "twin@1.0.0"],
    ]);
    assert_eq!(beyond.stops, ["base@1.3.0"]);
    assert_eq!(beyond.starts, ["base@2.0.0"]);
    let _newer = base(&mesh, 0, "2.0.0");
    mesh.wait_instances(8).await;
    new.stop(PATIENCE);
    beyond.comes_true(&mesh).await;
}

#[tokio::test]
async fn the_loss_of_a_node_does_what_was_foretold() {
    let (mut mesh, _base) = mesh().await;
    let (code, _, error) = mesh.cli(&["impact", "node", "nowhere"]);
    assert_eq!(code, 65, "{error}");
    let other = foretell(&mesh, &["node", "node-b"]);
    other.assert_lists([
        &["free@1.0.0", "maybe@1.0.0", "needy@1.0.0", "top@1.0.0"],
        &[],
        &["twin@1.0.0"],
        &["base@1.2.0"],
    ]);
    let lost = foretell(&mesh, &["node", "node-a"]);
    lost.assert_lists([
        &["base@1.2.0"],
        &["needy@1.0.0", "top@1.0.0"],
        &["maybe@1.0.0", "twin@1.0.0"],
        &["free@1.0.0"],
    ]);
    assert!(lost.starts.contains(&"base@1.2.0".to_owned()));
    mesh.agents[0].kill();
    lost.comes_true(&mesh).await;
    // What has to be started brings back all but its own like on the node.
    let _base = base(&mesh, 1, "1.2.0");
    mesh.wait_instances(6).await;
    let back = moves(&mesh, lost.before).unwrap();
    let back = back.iter().filter(|(_, to)| to == "active");
    let back: BTreeSet<&str> = back.map(|(label, _)| label.as_str()).collect();
    assert_eq!(back, ["base@1.2.0", "needy@1.0.0", "top@1.0.0"].into());
}
