//! Every command of `docs/operations.md` is run as it stands there, with a mesh's own addresses and names
//! in place of the document's.

use std::collections::BTreeSet;

use harness::mesh::{Mesh, Plan};
use harness::process;

const GUIDE: &str = include_str!("../../../docs/operations.md");

/// What `registry import` is given.
const WISHES: &str = "format = 1\n[split.calculator.shares]\n\"1.0.0\" = 100\n";

/// Lines after a prompt, and what stands between backticks and has arguments.
fn commands() -> BTreeSet<&'static str> {
    let is_command = |text: &&str| text.starts_with("plugmesh ") || text.starts_with("curl ");
    let prompts = GUIDE.lines().filter_map(|line| line.strip_prefix("$ "));
    let quoted = GUIDE
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    prompts.chain(quoted).filter(is_command).collect()
}

/// Runs a command line in a shell, and gives its exit code and all that it said.
fn run(mesh: &Mesh, line: &str) -> (i32, String) {
    let program = process::binary("plugmesh");
    let folder = program.parent().expect("a folder").display();
    let before = std::env::var("PATH").unwrap_or_default();
    let env = [
        ("PATH", format!("{folder}:{before}")),
        ("PLUGMESH_COORDINATOR", mesh.coordinator_url()),
        ("PLUGMESH_GATEWAY", mesh.mcp_url()),
        ("PLUGMESH_NATS", mesh.nats.url()),
    ];
    let (code, out, error) = process::run("sh".as_ref(), &["-c", line], &env, mesh.folder.path());
    (code, out + &error)
}

#[tokio::test]
async fn every_command_of_the_guide_runs() {
    let mesh = Plan::new()
        .nats_cluster(3)
        .more_coordinators(1)
        .agent("node-a")
        .plugin("calculator")
        .agent("node-b")
        .plugin("time")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    mesh.wait_state("time", "active").await;
    std::fs::write(mesh.folder.path().join("wishes.toml"), WISHES).expect("a file");
    let second = mesh
        .coordinators()
        .last()
        .expect("a second coordinator")
        .url();
    let address = |url: String| {
        url.trim_start_matches("http://")
            .trim_end_matches("/ready")
            .to_owned()
    };
    let replaced = [
        ("http://HOST-2:7400", second),
        ("ADMIN", address(mesh.agents[0].page_url("ready"))),
        ("GATEWAY:8087", address(mesh.gateway.page_url("ready"))),
        (
            "COORDINATOR:7401",
            address(mesh.coordinator.page_url("ready")),
        ),
        (
            "NATS:8222",
            address(mesh.nats.monitor_url().expect("a broker of a cluster")),
        ),
        ("NAME", "calculator".to_owned()),
        ("NODE", "node-a".to_owned()),
    ];
    // There is one to be aborted.
    let (code, said) = run(&mesh, "plugmesh rollout start calculator --to 9.9.9");
    assert_eq!(code, 0, "{said}");
    let commands = commands();
    assert!(commands.len() >= 18, "{commands:#?}");
    for command in commands {
        let mut line = command.to_owned();
        for (from, to) in &replaced {
            line = line.replace(from, to);
        }
        let (line, expected) = match command {
            // It goes on for ever.
            "plugmesh watch" => (format!("timeout 2 {line}"), 124),
            // It asks, at a terminal.
            "plugmesh registry import wishes.toml" => {
                (format!("echo yes | script -qec '{line}' /dev/null"), 0)
            }
            _ => (line, 0),
        };
        let (code, said) = run(&mesh, &line);
        println!("$ {line}\n{said}");
        assert_eq!(code, expected, "{line}: {said}");
        // `watch` has nothing to say while nothing changes.
        assert!(expected != 0 || !said.trim().is_empty(), "{line}");
    }
    let (_, wishes) = run(&mesh, "plugmesh registry export");
    assert!(wishes.contains("1.0.0"), "what was imported: {wishes}");
}
