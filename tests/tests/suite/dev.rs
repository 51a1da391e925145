//! `plugmesh dev`: a whole mesh from one command, and nothing left of it afterwards.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use harness::{nats, process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

struct Dev {
    child: Child,
    facts: Value,
}

fn command(folder: &Path) -> Command {
    command_with(folder, "127.0.0.1:0", folder)
}

fn command_with(folder: &Path, listen: &str, data: &Path) -> Command {
    let mut command = Command::new(process::binary("plugmesh"));
    command
        .args(["dev", "--output", "json", "--listen", listen])
        .args([
            "--coordinator-listen",
            "127.0.0.1:0",
            "--attach-listen",
            "127.0.0.1:0",
        ])
        .arg("--data")
        .arg(data)
        .env("PLUGMESH_NATS_SERVER", nats::newest())
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

impl Dev {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, command(folder))
    }

    fn start_with(folder: &Path, mut command: Command) -> Self {
        let log = std::fs::File::create(folder.join("dev.log")).unwrap();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("plugmesh starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).expect("a line");
        let facts = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(folder.join("dev.log"));
            panic!("{error}: {line:?}\n{}", log.unwrap_or_default())
        });
        Self { child, facts }
    }

    fn mcp(&self) -> &str {
        self.facts["mcp"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", self.facts))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < LIMIT, "dev does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes whose command line or environment names the folder.
fn left_behind(folder: &Path) -> Vec<String> {
    let needle = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let own = std::process::id().to_string();
            let name = entry.file_name().into_string().ok()?;
            (name != own && name.bytes().all(|c| c.is_ascii_digit())).then_some(())?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let environment = String::from_utf8_lossy(&environment).into_owned();
            (line.contains(&needle) || environment.contains(&needle)).then_some(line)
        })
        .collect()
}

async fn call(url: &str, tool: &str, arguments: Value) -> anyhow::Result<Value> {
    let params = json!({"name": tool, "arguments": arguments});
    harness::mesh::mcp_request(url, "tools/call", params).await
}

#[tokio::test]
async fn a_mesh_runs_from_one_command_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path());
    let answer = call(dev.mcp(), "calculator_add", json!({"a": 20, "b": 22}))
        .await
        .unwrap();
    assert_eq!(
        answer["result"]["structuredContent"]["result"], 42.0,
        "{answer}"
    );
    let answer = call(dev.mcp(), "time_current_time", json!({}))
        .await
        .unwrap();
    assert!(answer["result"]["content"].is_array(), "{answer}");
    let answer = call(dev.mcp(), "disable_plugin", json!({"name": "time"}))
        .await
        .unwrap();
    assert!(answer["result"].is_object(), "{answer}");

    let second = command(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(
        text.contains("already"),
        "a second dev on the same folder is refused: {text}"
    );

    dev.signal(Signal::INT);
    let status = dev.wait();
    assert!(status.success(), "{status}: {}", log(folder.path()));
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());

    // A second start finds its data: time is still disabled.
    let mut dev = Dev::start(folder.path());
    let answer = call(dev.mcp(), "time_current_time", json!({}))
        .await
        .unwrap();
    assert!(answer["error"]["code"].is_number(), "{answer}");
    let answer = call(dev.mcp(), "enable_plugin", json!({"name": "time"}))
        .await
        .unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    dev.signal(Signal::TERM);
    assert!(dev.wait().success());
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("dev.log")).unwrap_or_default()
}

#[test]
fn sockets_of_a_mesh_in_a_deep_folder_are_elsewhere_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("x".repeat(100));
    let deep = command_with(folder.path(), "127.0.0.1:0", &data);
    let mut dev = Dev::start_with(folder.path(), deep);
    let socket = dev.facts["agents"][0]["attach_unix"].as_str().unwrap();
    let elsewhere = Path::new(socket.strip_prefix("unix://").unwrap())
        .parent()
        .unwrap()
        .to_owned();
    assert!(
        !elsewhere.starts_with(folder.path()) && elsewhere.is_dir(),
        "{elsewhere:?}"
    );
    dev.signal(Signal::INT);
    assert!(dev.wait().success());
    assert!(!elsewhere.exists(), "{elsewhere:?}");
}

#[tokio::test]
async fn a_killed_dev_takes_all_its_processes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path());
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    wait::until("all processes are gone", LIMIT, || async {
        let left = left_behind(folder.path());
        if left.is_empty() {
            return Ok(());
        }
        anyhow::bail!("{left:?}")
    })
    .await;
}

/// Runs dev where it can't start, and gives its one line.
fn refused(folder: &Path, mut command: Command) -> String {
    let out = command.output().unwrap();
    assert!(!out.status.success());
    assert_eq!(left_behind(folder), Vec::<String>::new());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    println!("{}: {text}", out.status);
    text
}

#[test]
fn what_keeps_dev_from_starting_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = refused(folder, command_with(folder, &address.to_string(), folder));
    let port = address.port().to_string();
    assert!(text.contains(&port) && text.contains("taken"), "{text}");

    let mut missing = command(folder);
    missing.env("PLUGMESH_NATS_SERVER", "/nowhere/nats-server");
    let text = refused(folder, missing);
    assert!(text.contains("/nowhere/nats-server"), "{text}");

    let file = folder.join("a-file");
    std::fs::write(&file, "x").unwrap();
    let text = refused(
        folder,
        command_with(folder, "127.0.0.1:0", &file.join("data")),
    );
    assert!(text.contains("a-file"), "{text}");
}
