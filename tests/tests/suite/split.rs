//! Traffic splits: calls shared out among the versions of a plugin, and test groups.

use std::collections::BTreeMap;

use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::process::Process;
use harness::wait;
use serde_json::json;

fn base(mesh: &Mesh, version: &str) -> Process {
    super::rollout::base(mesh, version, false)
}

/// A mesh with `base` in two versions, `needy` that takes only the first, and `free` that takes any.
async fn two_versions() -> (Mesh, Process, Process) {
    let probe = |name, depends| [("PROBE_NAME", name), ("PROBE_DEPENDS", depends)];
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("needy", &["probe"], &probe("needy", "base^1.0"))
        .plugin_as("free", &["probe"], &probe("free", ""))
        .start()
        .await;
    let old = base(&mesh, "1.4.0");
    mesh.wait_state("needy", "active").await;
    let new = base(&mesh, "2.0.0");
    for tool in ["needy_version_of", "free_version_of", "base_version"] {
        mesh.wait_tool(tool).await;
    }
    serves(&mesh, &["2.0.0"]).await;
    (mesh, old, new)
}

/// How often each version of `base` answers so many calls.
async fn answers(mesh: &Mesh, calls: u32, header: Option<(&str, &str)>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let version = mesh.tool_text("base_version", json!({}), header).await;
        *counts.entry(version.unwrap()).or_default() += 1;
    }
    counts
}

/// Waits until these versions of `base`, and no others, answer.
async fn serves(mesh: &Mesh, versions: &[&str]) {
    wait::until(&format!("{versions:?} answer"), PATIENCE, || async {
        let counts = answers(mesh, 40, None).await;
        anyhow::ensure!(counts.keys().eq(versions.iter()), "{counts:?}");
        Ok(())
    })
    .await;
}

async fn version_seen_by(mesh: &Mesh, caller: &str, header: Option<(&str, &str)>) -> String {
    let tool = format!("{caller}_version_of");
    let answer = mesh.tool_text(&tool, json!({"name": "base"}), header).await;
    answer.unwrap()
}

fn done(mesh: &Mesh, args: &[&str]) -> String {
    let (code, out, error) = mesh.cli(args);
    assert_eq!(code, 0, "{args:?}: {error}");
    out
}

#[tokio::test]
async fn calls_are_shared_out_by_version_and_dependents_keep_to_what_they_accept() {
    let (mut mesh, _old, mut new) = two_versions().await;
    done(
        &mesh,
        &[
            "split", "base", "1.4.0=90", "2.0.0=10", "--reason", "try it",
        ],
    );
    serves(&mesh, &["1.4.0", "2.0.0"]).await;
    let counts = answers(&mesh, 600, None).await;
    // A tenth of 600, give or take four standard deviations.
    assert!((30..=90).contains(&counts["2.0.0"]), "{counts:?}");
    for _ in 0..40 {
        assert_eq!(version_seen_by(&mesh, "needy", None).await, "1.4.0");
    }
    let shown = done(&mesh, &["split", "base"]);
    assert!(shown.contains("90%") && shown.contains("try it"), "{shown}");

    // Everything goes to the version of no weight for those who accept nothing else.
    done(&mesh, &["split", "base", "1.4.0=0", "2.0.0=1"]);
    serves(&mesh, &["2.0.0"]).await;
    assert_eq!(version_seen_by(&mesh, "needy", None).await, "1.4.0");

    // The share of a version that is gone moves to the rest, and comes back with it.
    done(&mesh, &["split", "base", "1.4.0=1", "2.0.0=1"]);
    serves(&mesh, &["1.4.0", "2.0.0"]).await;
    new.kill();
    serves(&mesh, &["1.4.0"]).await;
    let _new = base(&mesh, "2.0.0");
    serves(&mesh, &["1.4.0", "2.0.0"]).await;

    // A gateway that starts without any coordinator has the split from its disk.
    done(&mesh, &["split", "base", "1.4.0=1", "2.0.0=0"]);
    serves(&mesh, &["1.4.0"]).await;
    mesh.gateway.stop();
    mesh.coordinator.kill();
    mesh.gateway.start();
    mesh.gateway.wait_ready().await;
    serves(&mesh, &["1.4.0"]).await;
    mesh.coordinator.start();
    mesh.coordinator.wait_ready().await;
    done(&mesh, &["split", "base", "--clear"]);
    serves(&mesh, &["2.0.0"]).await;
}

#[tokio::test]
async fn a_test_group_is_served_by_its_own_version_through_all_plugins() {
    let (mesh, _old, _new) = two_versions().await;
    let header = "x-test-group=beta:2.0.0";
    done(
        &mesh,
        &["split", "base", "1.4.0=1", "2.0.0=0", "--header", header],
    );
    serves(&mesh, &["1.4.0"]).await;
    let beta = Some(("X-Test-Group", "beta"));
    let other = Some(("X-Test-Group", "gamma"));
    assert_eq!(
        answers(&mesh, 40, beta).await,
        [("2.0.0".to_owned(), 40)].into()
    );
    assert_eq!(
        answers(&mesh, 40, other).await,
        [("1.4.0".to_owned(), 40)].into()
    );
    // A plugin's call belongs to the group of the request that it serves.
    assert_eq!(version_seen_by(&mesh, "free", beta).await, "2.0.0");
    assert_eq!(version_seen_by(&mesh, "free", None).await, "1.4.0");
    assert_eq!(version_seen_by(&mesh, "needy", beta).await, "1.4.0");
}

#[tokio::test]
async fn a_split_that_makes_no_sense_is_one_clear_error() {
    let (mesh, _old, _new) = two_versions().await;
    for (args, code, part) in [
        (&["split", "bas", "1.4.0=1"][..], 65, "did you mean base?"),
        (&["split", "nobody"], 65, "there is no plugin \"nobody\""),
        (
            &["split", "base", "3.0.0=1"],
            65,
            "base has instances of 1.4.0, 2.0.0",
        ),
        (
            &["split", "base", "1.4.0=0", "2.0.0=0"],
            65,
            "all weights are 0",
        ),
        (
            &["split", "base", "1.4.0=-3"],
            65,
            "is not a whole number from 0 on",
        ),
        (
            &["split", "base", "1.4.0=lots"],
            65,
            "is not a whole number from 0 on",
        ),
        (&["split", "base", "1.4.0"], 65, "there is no ="),
        (&["split", "base", "one=1"], 65, "\"one=1\" is no share"),
        (
            &["split", "base", "1.4.0=1", "--header", "a b=c:2.0.0"],
            65,
            "header \"a b\"",
        ),
        (&["split", "base", "1.4.0=1", "--clear"], 2, "--clear"),
    ] {
        let (ended, _, error) = mesh.cli(args);
        assert_eq!(ended, code, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
        if code == 65 {
            assert_eq!(error.trim_end().lines().count(), 1, "{args:?}: {error}");
        }
    }
    // A version that is still to come is noted, and takes nothing away.
    let (code, _, error) = mesh.cli(&["split", "base", "1.4.0=1", "3.0.0=9"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("base 3.0.0 has no instance"), "{error}");
    serves(&mesh, &["1.4.0"]).await;
}
