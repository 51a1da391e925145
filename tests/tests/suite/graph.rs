//! The graph of dependencies governs what may run.

use harness::mesh::Plan;
use serde_json::json;

/// One binary plays many plugins.
fn probe_env<'a>(name: &'a str, depends: &'a str) -> [(&'a str, &'a str); 2] {
    [("PROBE_NAME", name), ("PROBE_DEPENDS", depends)]
}

#[tokio::test]
async fn a_plugin_is_blocked_until_its_dependency_arrives() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("needy", &["probe"], &probe_env("needy", "base^1.0"))
        .start()
        .await;
    let reason = mesh.wait_state("needy", "blocked").await;
    assert!(
        reason.contains("base") && reason.contains("^1.0"),
        "{reason}"
    );

    // The dependency attaches by itself, as somebody's own process.
    let program = harness::process::binary("probe");
    let env = |version: &str| {
        vec![
            ("PLUGMESH_AGENT", mesh.attach_url(0)),
            ("PROBE_NAME", "base".to_owned()),
            ("PROBE_VERSION", version.to_owned()),
        ]
    };
    let log = mesh.folder.path();
    let none: [&str; 0] = [];
    let wrong = harness::process::Process::start("base-2", log, &program, &none, &env("2.0.0"));
    mesh.wait_state("base", "active").await;
    let reason = mesh.wait_state("needy", "blocked").await;
    assert!(reason.contains("^1.0"), "{reason}");

    let mut right = harness::process::Process::start("base-1", log, &program, &none, &env("1.4.0"));
    mesh.wait_state("needy", "active").await;
    mesh.wait_tool("needy_echo").await;
    mesh.wait_tool("base_version").await;
    // Its calls go to the version that it accepts, those of others to the newest.
    for _ in 0..20 {
        for (tool, arguments, version) in [
            ("needy_version_of", json!({"name": "base"}), "1.4.0"),
            ("base_version", json!({}), "2.0.0"),
        ] {
            let answer = mesh.call_tool(tool, arguments).await.unwrap();
            let content = &answer["result"]["content"][0]["text"];
            assert_eq!(content, version, "{tool}: {answer}");
        }
    }

    // Lost again: degraded at once, blocked after the grace period, and back by itself.
    right.kill();
    mesh.wait_state("needy", "degraded").await;
    let _again = harness::process::Process::start("base-1b", log, &program, &none, &env("1.4.1"));
    mesh.wait_state("needy", "active").await;
    drop(wrong);
}

#[tokio::test]
async fn a_lost_dependency_blocks_after_the_grace_period() {
    let mesh = Plan::new()
        .coordinator_lines("grace = \"300ms\"")
        .agent("node-a")
        .plugin_as("needy", &["probe"], &probe_env("needy", "base>=1.0.0"))
        .start()
        .await;
    let program = harness::process::binary("probe");
    let env = [
        ("PLUGMESH_AGENT", mesh.attach_url(0)),
        ("PROBE_NAME", "base".to_owned()),
    ];
    let none: [&str; 0] = [];
    let log = mesh.folder.path();
    let mut base = harness::process::Process::start("base", log, &program, &none, &env);
    mesh.wait_state("needy", "active").await;
    base.kill();
    let reason = mesh.wait_state("needy", "blocked").await;
    assert!(reason.contains("base"), "{reason}");
}

#[tokio::test]
async fn a_cycle_is_refused_with_its_whole_path() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("first", &["probe"], &probe_env("first", "second^1.0"))
        .start()
        .await;
    mesh.wait_state("first", "blocked").await;
    let program = harness::process::binary("probe");
    let env = [
        ("PLUGMESH_AGENT", mesh.attach_url(0)),
        ("PROBE_NAME", "second".to_owned()),
        ("PROBE_DEPENDS", "first^1.0".to_owned()),
    ];
    let none: [&str; 0] = [];
    let log = mesh.folder.path();
    let mut second = harness::process::Process::start("second", log, &program, &none, &env);
    let status = second.wait(harness::mesh::PATIENCE);
    assert_eq!(status.code(), Some(65), "{}", second.output());
    let output = second.output();
    assert!(output.contains("dependency_cycle"), "{output}");
    assert!(
        output.contains("second@1.0.0 -> first@1.0.0 -> second@1.0.0")
            || output.contains("first@1.0.0 -> second@1.0.0 -> first@1.0.0"),
        "{output}"
    );
    mesh.wait_state("first", "blocked").await;
}

#[tokio::test]
async fn an_unload_is_refused_while_others_need_the_plugin() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin_as("base", &["probe"], &probe_env("base", ""))
        .plugin_as("needy", &["probe"], &probe_env("needy", "base^1.0"))
        .start()
        .await;
    mesh.wait_state("needy", "active").await;
    let (code, _, error) = mesh.cli(&["unload", "base"]);
    assert_ne!(code, 0);
    assert!(
        error.contains("needy") && error.contains("--cascade"),
        "{error}"
    );
    let (code, out, error) = mesh.cli(&["unload", "base", "--cascade", "--output", "json"]);
    assert_eq!(code, 0, "{error}");
    assert!(
        out.find("needy") < out.rfind("base"),
        "dependents stop first: {out}"
    );
    let (code, _, error) = mesh.cli(&["enable", "base"]);
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = mesh.cli(&["enable", "needy"]);
    assert_eq!(code, 0, "{error}");
    mesh.wait_state("needy", "active").await;
}
