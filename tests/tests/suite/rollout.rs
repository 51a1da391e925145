//! Rollouts: a new version gets the calls step by step, and gives them back when it fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::mesh::{Mesh, PATIENCE, Plan, mcp_request};
use harness::process::{Process, binary};
use harness::wait;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The plugin `base` in some version, as somebody's own process.
pub fn base(mesh: &Mesh, version: &str, broken: bool) -> Process {
    let mut env = vec![
        ("PLUGMESH_AGENT", mesh.attach_url(0)),
        ("PROBE_NAME", "base".to_owned()),
        ("PROBE_VERSION", version.to_owned()),
    ];
    if broken {
        env.push(("PROBE_BROKEN", "yes".to_owned()));
    }
    let none: [&str; 0] = [];
    let log = mesh.folder.path();
    Process::start(
        &format!("base-{version}"),
        log,
        &binary("probe"),
        &none,
        &env,
    )
}

/// A mesh with `base` 1.4.0.
async fn mesh() -> (Mesh, Process) {
    let mesh = Plan::new()
        .coordinator_lines("lease = \"2s\"\nheartbeat = \"250ms\"")
        .agent("node-a")
        .start()
        .await;
    let old = base(&mesh, "1.4.0", false);
    mesh.wait_tool("base_version").await;
    (mesh, old)
}

fn start(mesh: &Mesh, more: &[&str]) {
    let mut args = vec![
        "rollout",
        "start",
        "base",
        "--to",
        "2.0.0",
        "--reason",
        "it is better",
    ];
    args.extend(more);
    let (code, _, error) = mesh.cli(&args);
    assert_eq!(code, 0, "{error}");
}

/// What one of the coordinators answers.
fn ask(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Value> {
    let mut failed = String::new();
    for role in mesh.coordinators() {
        let url = role.url();
        let (code, out, error) =
            mesh.cli(&[args, &["--output", "json", "--coordinator", &url]].concat());
        if code == 0 {
            return Ok(serde_json::from_str(&out)?);
        }
        failed = format!("exit {code}: {error}");
    }
    anyhow::bail!("{failed}")
}

fn status(mesh: &Mesh) -> anyhow::Result<Value> {
    let status = ask(mesh, &["rollout", "status", "base"])?;
    Ok(status["rollouts"][0].clone())
}

/// What the audit has of the rollout, once it ends so: how it went on, by whom, and the last reason.
async fn told(mesh: &Mesh, end: &str) -> (Vec<String>, String) {
    let entries = wait::until(&format!("the audit has {end}"), PATIENCE, || async {
        let answer = ask(mesh, &["history", "base"])?;
        let mut entries = answer["entries"].as_array().cloned().unwrap_or_default();
        entries.retain(|entry| entry["kind"] == "rollout");
        let last = entries.last().map(|entry| entry["to"].clone());
        anyhow::ensure!(last == Some(json!(end)), "{entries:?}");
        Ok(entries)
    })
    .await;
    let line = |entry: &Value| {
        let (to, by) = (
            entry["to"].as_str().unwrap(),
            entry["by"]["kind"].as_str().unwrap(),
        );
        format!("{to} by {by}")
    };
    let reason = entries.last().unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(entries[0]["reason"], "it is better");
    (entries.iter().map(line).collect(), reason)
}

async fn wait_status(mesh: &Mesh, wanted: &str, percent: u64) -> Value {
    wait::until(&format!("{wanted} at {percent} %"), PATIENCE, || async {
        let status = status(mesh)?;
        let is = status["state"] == wanted && status["percent"] == percent;
        anyhow::ensure!(is, "{status}");
        Ok(status)
    })
    .await
}

/// Calls all the while, and counts what came back.
struct Calls {
    stop: Arc<AtomicBool>,
    calling: JoinHandle<BTreeMap<String, u64>>,
}

impl Calls {
    fn begin(mesh: &Mesh) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, until) = (mesh.mcp_url(), stop.clone());
        let calling = tokio::spawn(async move {
            let mut answers = BTreeMap::new();
            while !until.load(Ordering::Relaxed) {
                let params = json!({"name": "base_version", "arguments": {}});
                let answer = mcp_request(&url, "tools/call", params).await;
                let answer = answer.map(|it| match it["result"]["content"][0]["text"].as_str() {
                    Some(text) => text.to_owned(),
                    None => it.to_string(),
                });
                let answer = answer.unwrap_or_else(|error| error.to_string());
                *answers.entry(answer).or_default() += 1;
            }
            answers
        });
        Self { stop, calling }
    }

    async fn end(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.calling.await.unwrap()
    }
}

/// Waits until so many calls in a row are answered by one version.
async fn serves(mesh: &Mesh, version: &str) {
    wait::until(&format!("{version} answers"), PATIENCE, || async {
        for _ in 0..30 {
            let text = mesh.tool_text("base_version", json!({}), None).await?;
            anyhow::ensure!(text == version, "{text}");
        }
        Ok(())
    })
    .await;
}

/// Nothing else came back, and the last of them did.
fn only(answers: &BTreeMap<String, u64>, versions: &[&str]) {
    let known = |answer: &String| versions.contains(&answer.as_str());
    assert!(answers.keys().all(known), "{answers:?}");
    assert!(
        answers.contains_key(*versions.last().unwrap()),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_rollout_waits_for_the_new_version_and_brings_all_calls_to_it() {
    let (mesh, _old) = mesh().await;
    start(&mesh, &["--interval", "1s", "--within", "2s"]);
    let waiting = wait_status(&mesh, "waiting", 0).await;
    let reason = waiting["reason"].as_str().unwrap();
    assert_eq!(reason, "it waits for an instance of 2.0.0 that is active");

    let calls = Calls::begin(&mesh);
    let _new = base(&mesh, "2.0.0", false);
    wait_status(&mesh, "shifting", 50).await;
    let done = wait_status(&mesh, "done", 100).await;
    assert_eq!(done["retired"], json!(["1.4.0"]));
    let reason = mesh.wait_state("base", "initialized").await;
    assert_eq!(reason, "a rollout has replaced it by 2.0.0");
    serves(&mesh, "2.0.0").await;
    let answers = calls.end().await;
    only(&answers, &["1.4.0", "2.0.0"]);
    let (told, _) = told(&mesh, "done 2.0.0").await;
    let wanted = [
        "waiting 2.0.0 by operator",
        "shifting 2.0.0 10 % by coordinator",
        "shifting 2.0.0 50 % by coordinator",
        "shifting 2.0.0 100 % by coordinator",
        "done 2.0.0 by coordinator",
    ];
    assert_eq!(told, wanted);

    // Back by hand: the old version is still there.
    let (code, _, error) = mesh.cli(&["split", "base", "1.4.0=1"]);
    assert_eq!(code, 0, "{error}");
    serves(&mesh, "1.4.0").await;
    let states = ask(&mesh, &["plugins"]).unwrap();
    assert!(!states.to_string().contains("initialized"), "{states}");
}

#[tokio::test]
async fn a_new_version_whose_calls_fail_gives_them_back_by_itself() {
    let (mesh, _old) = mesh().await;
    start(
        &mesh,
        &[
            "--steps",
            "50,100",
            "--interval",
            "5m",
            "--max-error-rate",
            "10%",
        ],
    );
    let calls = Calls::begin(&mesh);
    let _new = base(&mesh, "2.0.0", true);
    let returned = wait_status(&mesh, "returned", 0).await;
    let reason = returned["reason"].as_str().unwrap();
    assert!(
        reason.contains("calls of 2.0.0 failed, 100 %; the limit is 10 %"),
        "{reason}"
    );
    serves(&mesh, "1.4.0").await;
    let answers = calls.end().await;
    only(&answers, &["1.4.0", "it is broken"]);
    let (told, why) = told(&mesh, "returned 2.0.0").await;
    assert_eq!(told.last().unwrap(), "returned 2.0.0 by coordinator");
    assert_eq!(why, reason);
}

#[tokio::test]
async fn a_new_version_that_dies_gives_its_calls_back_and_no_call_fails() {
    let (mesh, _old) = mesh().await;
    start(&mesh, &["--steps", "50,100", "--interval", "5m"]);
    let mut new = base(&mesh, "2.0.0", false);
    wait_status(&mesh, "shifting", 50).await;
    let calls = Calls::begin(&mesh);
    wait::until("both versions answer", PATIENCE, || async {
        let text = mesh.tool_text("base_version", json!({}), None).await?;
        anyhow::ensure!(text == "2.0.0", "{text}");
        Ok(())
    })
    .await;
    new.kill();
    let returned = wait_status(&mesh, "returned", 0).await;
    let reason = returned["reason"].as_str().unwrap();
    assert!(reason.starts_with("no instance of 2.0.0 is"), "{reason}");
    // It is back, and gets nothing.
    let _again = base(&mesh, "2.0.0", false);
    mesh.wait_instances(2).await;
    serves(&mesh, "1.4.0").await;
    only(&calls.end().await, &["2.0.0", "1.4.0"]);
}

#[tokio::test]
async fn an_abort_in_the_middle_gives_all_calls_back() {
    let (mesh, _old) = mesh().await;
    let _new = base(&mesh, "2.0.0", false);
    mesh.wait_instances(2).await;
    start(&mesh, &["--steps", "60,100", "--interval", "5m"]);
    wait_status(&mesh, "shifting", 60).await;
    let (code, _, error) = mesh.cli(&["split", "base", "1.4.0=1"]);
    assert_eq!(code, 65, "{error}");
    assert!(error.contains("abort it first"), "{error}");
    let (code, _, error) = mesh.cli(&["rollout", "abort", "base", "--reason", "changed my mind"]);
    assert_eq!(code, 0, "{error}");
    let aborted = wait_status(&mesh, "aborted", 0).await;
    assert!(
        aborted["reason"]
            .as_str()
            .unwrap()
            .ends_with(": changed my mind"),
        "{aborted}"
    );
    serves(&mesh, "1.4.0").await;
    let (told, why) = told(&mesh, "aborted 2.0.0").await;
    assert_eq!(told.last().unwrap(), "aborted 2.0.0 by operator");
    assert!(why.ends_with(": changed my mind"), "{why}");
}

#[tokio::test]
async fn what_makes_no_sense_is_one_clear_line() {
    let (mesh, _old) = mesh().await;
    for (args, part) in [
        (&["abort", "base"][..], "there is no rollout of base"),
        (&["abort", "nobody"], "there is no plugin nobody"),
        (&["status", "nobody"], "there is no plugin \"nobody\""),
        (&["start", "nobody", "--to", "2.0.0"], "there is no plugin"),
        (&["start", "base", "--to", "two"], "plan.to"),
        (
            &["start", "base", "--to", "1.4.0"],
            "runs in no other version than 1.4.0",
        ),
        (
            &["start", "base", "--to", "2.0.0", "--steps", "50,10"],
            "50,10 is no way to 100",
        ),
        (
            &["start", "base", "--to", "2.0.0", "--interval", "40d"],
            "interval",
        ),
        (
            &["start", "base", "--to", "2.0.0", "--max-error-rate", "lots"],
            "--max-error-rate: \"lots\"",
        ),
    ] {
        let (code, _, error) = mesh.cli(&[&["rollout"], args].concat());
        assert!([65, 2].contains(&code), "{args:?}: {code}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert_eq!(status(&mesh).unwrap(), Value::Null);
}

/// The import of a file: what it says it would do, and what it says besides.
fn import(mesh: &Mesh, file: &std::path::Path) -> (String, String) {
    let file = file.to_str().unwrap();
    let (code, out, error) = mesh.cli(&["registry", "import", file, "--yes"]);
    assert_eq!(code, 0, "{error}");
    (out, error)
}

#[tokio::test]
async fn an_export_has_what_stands_for_a_rollout_and_an_import_leaves_it_alone() {
    let (mesh, _old) = mesh().await;
    let _new = base(&mesh, "2.0.0", false);
    mesh.wait_instances(2).await;
    start(&mesh, &["--steps", "60,100", "--interval", "5m"]);
    wait_status(&mesh, "shifting", 60).await;
    let file = |name: &str| mesh.folder.path().join(name);
    let (before, none, other) = (file("before.toml"), file("none.toml"), file("other.toml"));
    let (code, _, error) = mesh.cli(&["registry", "export", "--out", before.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    let text = std::fs::read_to_string(&before).unwrap();
    assert!(
        text.contains("# A rollout of base to 2.0.0 is under way"),
        "{text}"
    );
    assert!(text.contains("\"1.4.0\" = 100\n\"2.0.0\" = 0"), "{text}");
    std::fs::write(&none, "format = 1").unwrap();
    std::fs::write(&other, "format = 1\nsplit.base.shares = {'2.0.0' = 1}").unwrap();

    let (out, error) = import(&mesh, &before);
    assert!(
        out.contains("no changes") && error.is_empty(),
        "{out}{error}"
    );
    for file in [&none, &other] {
        let (out, error) = import(&mesh, file);
        assert!(out.contains("no changes"), "{out}");
        assert!(error.contains("a rollout to 2.0.0 is under way"), "{error}");
    }
    wait_status(&mesh, "shifting", 60).await;

    let (code, _, error) = mesh.cli(&["rollout", "abort", "base"]);
    assert_eq!(code, 0, "{error}");
    wait_status(&mesh, "aborted", 0).await;
    let (_, error) = import(&mesh, &none);
    assert!(
        error.contains("its rollout to 2.0.0 has left it"),
        "{error}"
    );
    serves(&mesh, "1.4.0").await;
    let (out, _) = import(&mesh, &other);
    assert!(out.contains("~ split base: 2.0.0=1"), "{out}");
    serves(&mesh, "2.0.0").await;
}

#[tokio::test]
async fn a_rollout_goes_on_when_the_holder_of_the_office_is_killed_in_the_middle() {
    let mut mesh = Plan::new()
        .more_coordinators(2)
        .coordinator_lines("lease = \"2s\"\nheartbeat = \"250ms\"")
        .agent("node-a")
        .start()
        .await;
    let _old = base(&mesh, "1.4.0", false);
    mesh.wait_tool("base_version").await;
    let _new = base(&mesh, "2.0.0", false);
    mesh.wait_instances(2).await;
    let calls = Calls::begin(&mesh);
    let steps = "10,20,40,60,80,100";
    start(
        &mesh,
        &["--steps", steps, "--interval", "1s", "--within", "6s"],
    );
    let holder = wait::until("somebody takes it forward", PATIENCE, || async {
        let percent = status(&mesh)?["percent"].as_u64();
        anyhow::ensure!(percent >= Some(20), "{percent:?}");
        let all = ask(&mesh, &["coordinators"])?;
        let all = all.as_array().cloned().unwrap_or_default();
        let holder = all.iter().find(|it| it["office"] == true);
        let holder = holder.and_then(|it| it["name"].as_str());
        anyhow::ensure!(holder.is_some(), "{all:?}");
        Ok(holder.unwrap_or_default().to_owned())
    })
    .await;
    let killed = mesh.coordinators_mut().find(|it| it.name == holder);
    killed.unwrap().kill();
    let done = wait_status(&mesh, "done", 100).await;
    assert_eq!(done["retired"], json!(["1.4.0"]));
    serves(&mesh, "2.0.0").await;
    only(&calls.end().await, &["1.4.0", "2.0.0"]);
    let (told, _) = told(&mesh, "done 2.0.0").await;
    let steps = steps
        .split(',')
        .map(|it| format!("shifting 2.0.0 {it} % by coordinator"));
    let begin = ["waiting 2.0.0 by operator".to_owned()].into_iter();
    let wanted = begin
        .chain(steps)
        .chain(["done 2.0.0 by coordinator".to_owned()]);
    assert_eq!(told, wanted.collect::<Vec<_>>(), "each step once");
}

#[tokio::test]
async fn a_rollout_goes_on_when_its_coordinator_is_killed_in_the_middle() {
    let (mut mesh, _old) = mesh().await;
    let _new = base(&mesh, "2.0.0", false);
    mesh.wait_instances(2).await;
    start(&mesh, &["--interval", "1s", "--within", "1s"]);
    wait_status(&mesh, "shifting", 10).await;
    let calls = Calls::begin(&mesh);
    mesh.coordinator.kill();
    mesh.coordinator.start();
    mesh.coordinator.wait_ready().await;
    let done = wait_status(&mesh, "done", 100).await;
    assert_eq!(done["retired"], json!(["1.4.0"]));
    serves(&mesh, "2.0.0").await;
    only(&calls.end().await, &["1.4.0", "2.0.0"]);
}
