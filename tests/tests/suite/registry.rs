//! The registry comes back from what agents announce when its store is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures::TryStreamExt;
use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::wait;
use serde_json::json;

use super::audit::history;

/// Name, version, state and node of every instance.
fn standing(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let plugins = mesh.plugins()?;
    let mut lines = Vec::new();
    for plugin in plugins["plugins"].as_array().into_iter().flatten() {
        for instance in plugin["instances"].as_array().into_iter().flatten() {
            let (name, version) = (&plugin["name"], &plugin["version"]);
            lines.push(format!(
                "{name} {version} {} {} {}",
                instance["instance"], instance["node"], instance["state"]
            ));
        }
    }
    lines.sort();
    Ok(lines)
}

/// How a bucket is lost.
enum Loss {
    Deleted,
    Purged,
    /// Each key is deleted, as `nats kv del` does.
    KeyByKey,
}

const BUCKET: &str = "pm-default-registry";

async fn lose(jetstream: &async_nats::jetstream::Context, how: &Loss) {
    let stream = format!("KV_{BUCKET}");
    match how {
        Loss::Deleted => {
            jetstream.delete_stream(stream).await.unwrap();
        }
        Loss::Purged => {
            let stream = jetstream.get_stream(stream).await.unwrap();
            stream.purge().await.unwrap();
        }
        Loss::KeyByKey => {
            let bucket = jetstream.get_key_value(BUCKET).await.unwrap();
            let keys = bucket.keys().await.unwrap();
            let keys: Vec<String> = keys.try_collect().await.unwrap();
            assert!(keys.len() >= 5, "{keys:?}");
            for key in keys {
                bucket.delete(key).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_deleted_bucket_costs_no_call_and_the_registry_is_the_same_again() {
    comes_back(Loss::Deleted).await;
}

#[tokio::test]
async fn a_purged_bucket_costs_no_call_and_the_registry_is_the_same_again() {
    comes_back(Loss::Purged).await;
}

#[tokio::test]
async fn a_bucket_emptied_key_by_key_is_the_same_again_and_calls_go_on() {
    comes_back(Loss::KeyByKey).await;
}

async fn comes_back(how: Loss) {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .plugin("planner")
        .agent("node-b")
        .plugin("time")
        .start()
        .await;
    mesh.wait_tool("planner_finish_time").await;
    mesh.wait_tool("calculator_add").await;
    let before = standing(&mesh).unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let good = Arc::new(AtomicU32::new(0));
    let (halt, count, url) = (stop.clone(), good.clone(), mesh.mcp_url());
    let calls = tokio::spawn(async move {
        let params = json!({"name": "calculator_add", "arguments": {"a": 20, "b": 22}});
        let mut bad = Vec::new();
        while !halt.load(Ordering::Relaxed) {
            match harness::mesh::mcp_request(&url, "tools/call", params.clone()).await {
                Ok(answer)
                    if answer["result"]["structuredContent"]["result"].as_f64() == Some(42.0) =>
                {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                other => bad.push(format!("{other:?}")),
            }
        }
        bad
    });
    let more = async |number: u32| {
        let goal = good.load(Ordering::Relaxed) + number;
        wait::until("calls go on", PATIENCE, || async {
            let now = good.load(Ordering::Relaxed);
            anyhow::ensure!(now >= goal, "{now} of {goal}");
            Ok(())
        })
        .await;
    };
    more(20).await;

    let client = async_nats::connect(mesh.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    lose(&jetstream, &how).await;
    more(20).await;
    wait::until("the registry is written anew", PATIENCE, || async {
        let bucket = jetstream.get_key_value(BUCKET).await?;
        let records: Vec<String> = bucket.keys().await?.try_collect().await?;
        // Three instances and two nodes at the least.
        anyhow::ensure!(records.len() >= 5, "{records:?}");
        let now = standing(&mesh)?;
        anyhow::ensure!(now == before, "{now:?}");
        Ok(())
    })
    .await;
    // What changes now is stored and reaches everybody.
    wait::until("changes are taken again", PATIENCE, || async {
        let (code, _, error) = mesh.cli(&["disable", "time"]);
        anyhow::ensure!(code == 0, "{error}");
        Ok(())
    })
    .await;
    mesh.wait_state("time", "initialized").await;
    more(20).await;
    stop.store(true, Ordering::Relaxed);
    let bad = calls.await.unwrap();
    // Who deletes a key says that there is no such plugin: until it is written anew, calls are told so,
    // and are not carried out.
    let told = |line: &&String| {
        let clear = ["not_found", "no_provider", "unavailable"];
        matches!(how, Loss::KeyByKey) && clear.iter().any(|code| line.contains(code))
    };
    let bad: Vec<&String> = bad.iter().filter(|line| !told(line)).collect();
    assert!(
        bad.is_empty(),
        "of {} calls: {bad:?}",
        good.load(Ordering::Relaxed)
    );

    // A new bucket is a new incarnation of the table.
    let tables = if matches!(how, Loss::Deleted) { 2 } else { 1 };
    wait::until("the incarnations are told", PATIENCE, || async {
        let entries = history(&mesh, &["--limit", "1000"])?;
        let told = entries.iter().filter(|it| it["kind"] == "table").count();
        anyhow::ensure!(told == tables, "{entries:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_operators_want_is_exported_lost_with_the_bucket_and_imported_again() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .plugin("time")
        .start()
        .await;
    mesh.wait_state("time", "active").await;
    mesh.wait_state("calculator", "active").await;
    let ok = |args: &[&str]| {
        let (code, out, error) = mesh.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{error}");
        out
    };
    let path = mesh.folder.path().join("wishes.toml");
    let file = path.to_str().unwrap();
    ok(&["disable", "time", "--reason", "maintenance"]);
    ok(&["split", "calculator", "1.0.0=100"]);
    ok(&["registry", "export", "--out", file]);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("maintenance") && text.contains("[plugin.time]"),
        "{text}"
    );
    // All is as the file says.
    let out = ok(&["registry", "import", file]);
    assert!(out.contains("no changes"), "{out}");

    let client = async_nats::connect(mesh.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let bucket = "KV_pm-default-registry";
    jetstream.delete_stream(bucket).await.unwrap();
    mesh.wait_state("time", "active").await;
    let (code, out, error) = mesh.cli(&["registry", "import", file]);
    assert_eq!(code, 2, "nobody can be asked: {out}{error}");
    assert!(out.contains("+ plugin time: disabled"), "{out}");
    assert!(out.contains("+ split calculator: 1.0.0=100"), "{out}");
    ok(&["registry", "import", file, "--yes"]);
    mesh.wait_state("time", "initialized").await;
    let again = ok(&["registry", "export"]);
    let body = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(body(&again), body(text.trim_end()));
    let out = ok(&["registry", "import", file, "--yes"]);
    assert!(out.contains("no changes"), "{out}");

    // What the file does not want is taken back.
    std::fs::write(&path, "format = 1").unwrap();
    let out = ok(&["registry", "import", file, "--yes"]);
    assert!(out.contains("- plugin time: enabled"), "{out}");
    mesh.wait_state("time", "active").await;
    std::fs::write(&path, "format = 1\n[plugin.time]\nstate = \"off\"").unwrap();
    let (code, _, error) = mesh.cli(&["registry", "import", file]);
    assert_eq!((code, error.contains("line 3")), (65, true), "{error}");
}
