//! `plugmesh new`: a working plugin with a test, and the plugin runs in a mesh.

use std::path::Path;
use std::process::Command;

use harness::mesh::{PATIENCE, Plan};
use harness::process::{Process, binaries, binary, resident_bytes, run};
use harness::wait;
use plugmesh_sdk::testing::TestHost;
use serde_json::json;

#[tokio::test]
async fn a_program_under_test_ends_with_its_test_host() {
    let host = TestHost::start_program(binary("probe")).await.unwrap();
    let output = host.call_tool("pid", json!({})).await.unwrap();
    let pid: u32 = output.text_content().parse().unwrap();
    assert_ne!(resident_bytes(pid), 0);
    drop(host);
    wait::until("the program has ended", PATIENCE, || async {
        match resident_bytes(pid) {
            0 => Ok(()),
            bytes => Err(format!("process {pid} holds {bytes} bytes")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_plugin_builds_passes_its_test_and_serves_its_tool() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, error) = run(
        &binary("plugmesh"),
        &["new", "my-first"],
        &[],
        folder.path(),
    );
    assert_eq!(code, 0, "{error}");
    println!("{out}");
    let (code, _, error) = run(
        &binary("plugmesh"),
        &["new", "my-first"],
        &[],
        folder.path(),
    );
    assert_ne!(code, 0, "what is there is not overwritten");
    assert!(error.contains("my-first"), "{error}");

    // The workspace's lock file and target folder, so that nothing is built twice.
    let project = folder.path().join("my-first");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let target = binaries().parent().expect("the target folder").to_owned();
    let build = Command::new(env!("CARGO"))
        .args(["test", "--offline"])
        .current_dir(&project)
        .env("CARGO_TARGET_DIR", target.join("new-plugin"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&build.stdout);
    let errors = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success(), "{text}\n{errors}");
    assert!(text.contains("test result: ok. 3 passed"), "{text}");

    let mesh = Plan::new().agent("node-a").start().await;
    let program = target.join("new-plugin/debug/my-first");
    let env = [("PLUGMESH_AGENT", mesh.attach_url(0))];
    let none: [&str; 0] = [];
    let _plugin = Process::start("my-first", folder.path(), &program, &none, &env);
    mesh.wait_tool("my-first_greet").await;
    let answer = mesh
        .call_tool("my-first_greet", json!({"name": "Ada"}))
        .await
        .unwrap();
    assert!(answer["result"].to_string().contains("Ada"), "{answer}");
}
