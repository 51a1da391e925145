//! The operator's commands: tables for people, JSON for programs, exit codes that mean something.

use harness::mesh::{Mesh, Plan};
use harness::process;
use serde_json::Value;

async fn mesh() -> Mesh {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .plugin("planner")
        .agent("node-b")
        .plugin("time")
        .start()
        .await;
    mesh.wait_tool("planner_finish_time").await;
    mesh
}

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[tokio::test]
async fn operators_see_and_call_what_runs() {
    let mesh = mesh().await;
    let ok = |args: &[&str]| {
        let (code, out, error) = mesh.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{error}");
        out
    };
    let table = ok(&["plugins"]);
    for part in ["calculator", "1.0.0", "active", "node-a", "time", "node-b"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let plugin = json(&ok(&["plugin", "planner", "--output", "json"])).to_string();
    assert!(
        plugin.contains("finish_time") && plugin.contains("calculator"),
        "{plugin}"
    );
    assert!(ok(&["nodes"]).contains("node-b"));
    let graph = ok(&["graph"]);
    assert!(
        graph.contains("planner") && graph.contains("calculator"),
        "{graph}"
    );
    let graph = json(&ok(&["graph", "--output", "json"]));
    let order: Vec<&str> = graph["start_order"]
        .as_array()
        .expect("start_order")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(order.last().copied(), Some("planner@1.0.0"), "{graph}");
    assert!(ok(&["tools"]).contains("calculator_add"));
    let sum = ok(&["call", "calculator_add", "a=20", "b=22"]);
    assert!(sum.contains("42"), "{sum}");
    let sum = json(&ok(&[
        "call",
        "calculator_add",
        "--args",
        r#"{"a":1.5,"b":2}"#,
        "--output",
        "json",
    ]));
    assert!(sum.to_string().contains("3.5"), "{sum}");
    let doctor = ok(&["doctor"]);
    assert!(
        doctor.contains("coordinator") && doctor.contains("gateway"),
        "{doctor}"
    );
}

#[tokio::test]
async fn exit_codes_and_lines_say_what_went_wrong() {
    let mesh = mesh().await;
    let rows: &[(&[&str], i32, &[&str])] = &[
        (&["call", "calculator_divide", "a=1", "b=0"], 1, &["zero"]),
        (
            &["call", "calculator_ad", "a=1", "b=0"],
            65,
            &["calculator_ad", "calculator_add"],
        ),
        (
            &["call", "calculator_add", "--args", "{"],
            65,
            &["--args", "JSON"],
        ),
        (&["call", "calculator_add", "a=one", "b=2"], 65, &["a"]),
        (&["plugin", "nobody"], 65, &["nobody"]),
        (&["disable", "nobody"], 65, &["nobody"]),
        (&["plugins", "--status", "happy"], 65, &["happy", "active"]),
        (&["no-such-command"], 2, &["no-such-command"]),
        (
            &["plugins", "--coordinator", "http://127.0.0.1:1"],
            69,
            &["127.0.0.1:1"],
        ),
        (
            &["tools", "--gateway", "http://127.0.0.1:1/mcp"],
            69,
            &["127.0.0.1:1"],
        ),
        (
            &["plugins", "--coordinator", "not an address"],
            2,
            &["not an address"],
        ),
    ];
    for (args, wanted, parts) in rows {
        let (code, out, error) = mesh.cli(args);
        println!("{args:?} -> {code}: {}", error.trim());
        assert_eq!(code, *wanted, "{args:?}: {out}{error}");
        for part in *parts {
            assert!(error.contains(part), "{args:?}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn completions_exist_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let program = process::binary("plugmesh");
        let (code, out, error) =
            process::run(&program, &["completions", shell], &[], folder.path());
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("doctor"), "{shell}");
    }
}
