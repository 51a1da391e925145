//! What clients hear when there is more to do than can be done: at once, that it was not done, and when
//! to try again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use harness::http_client::{self, Answer};
use harness::mesh::{Mesh, PATIENCE, Plan};
use harness::session::Session;
use harness::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How many calls the agent says that the probe has.
const RUNNING: &str = "plugmesh_agent_in_flight{plugin=\"probe\"}";

async fn mesh(agent: &str, gateway: &str) -> Arc<Mesh> {
    let mesh = Plan::new()
        .agent_lines(agent)
        .gateway_lines(gateway)
        .agent("node-a")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_tool("probe_sleep").await;
    Arc::new(mesh)
}

/// Calls that keep the probe busy until they are dropped.
async fn keep_busy(mesh: &Arc<Mesh>, calls: usize) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    for _ in 0..calls {
        let mesh = mesh.clone();
        busy.spawn(async move {
            // Refused at first, where those before it have only just gone away.
            loop {
                let _ = mesh.call_tool("probe_sleep", json!({"ms": 25_000})).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let url = format!("http://127.0.0.1:{}/metrics", mesh.agents[0].admin_port);
    wait::until("the calls run", PATIENCE, || async {
        let answer = http_client::get(&url).await?;
        let line = answer.body.lines().find(|line| line.starts_with(RUNNING));
        let shown = line.and_then(|line| line.split(' ').next_back()?.parse::<f64>().ok());
        if shown == Some(calls as f64) {
            return Ok(());
        }
        anyhow::bail!("{line:?}")
    })
    .await;
    busy
}

async fn post(mesh: &Mesh, body: Value) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    http_client::request("POST", &mesh.mcp_url(), &headers, body.to_string())
        .await
        .unwrap()
}

fn echo() -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "probe_echo", "arguments": {"text": "x"}}})
}

fn assert_says_later(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let seconds: u64 = answer.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds >= 1, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["id"], 7, "{body}");
    assert_eq!(body["error"]["code"], -32011, "{body}");
    assert_eq!(body["error"]["data"]["code"], "overloaded", "{body}");
    assert!(
        body["error"]["data"]["retry_after_ms"].as_u64() > Some(0),
        "{body}"
    );
}

#[tokio::test]
async fn a_full_plugin_is_told_by_status_header_and_body_in_both_eras() {
    let mesh = mesh("max_in_flight_per_instance = 2\n", "").await;
    // A session begins before: it has to do with the gateway alone.
    let session = Session::begin(&mesh.mcp_url()).await;
    let good = session.post(echo()).await.unwrap();
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(good.json()["result"]["content"][0]["text"], "x");

    let mut busy = keep_busy(&mesh, 2).await;
    assert_says_later(&post(&mesh, echo()).await, 429);
    assert_says_later(&session.post(echo()).await.unwrap(), 429);
    let python = std::env::var("PLUGMESH_TEST_PYTHON").expect("set by make test");
    for era in ["2026-07-28", "2025-11-25"] {
        // Anew, because a busy machine may take long to start Python.
        busy.shutdown().await;
        busy = keep_busy(&mesh, 2).await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/mcp_check.py");
        let url = mesh.mcp_url();
        let mut command = Command::new(&python);
        command
            .arg(script)
            .args(["--only", "shed", "--url", &url, "--era", era]);
        let out = tokio::task::spawn_blocking(move || command.output());
        let out = out.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success() && text.contains("ok    shed"),
            "{era}: {text}"
        );
    }
    drop(busy);
}

#[tokio::test]
async fn a_full_gateway_refuses_what_is_too_much_and_goes_on_with_the_rest() {
    let mesh = mesh("", "max_in_flight = 3\n").await;
    let busy = keep_busy(&mesh, 3).await;
    assert_says_later(&post(&mesh, echo()).await, 503);
    assert_eq!(mesh.gateway.ready().await.unwrap().status, 200);
    drop(busy);
    // Those who went away make room.
    wait::until("a call is taken again", PATIENCE, || async {
        let answer = post(&mesh, echo()).await;
        if answer.status == 200 {
            return Ok(());
        }
        anyhow::bail!("{answer:?}")
    })
    .await;
}

#[tokio::test]
async fn slow_uploads_take_no_more_memory_than_is_allowed_and_keep_nobody_else_out() {
    let mesh = mesh("", "max_body = \"1MiB\"\nmax_bytes_in_flight = \"4MiB\"\n").await;
    let address = format!("127.0.0.1:{}", mesh.gateway.port);
    let most = 1 << 20;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: */*\r\ncontent-length: {most}\r\n\r\n"
    );
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let mut upload = TcpStream::connect(&address).await.unwrap();
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.write_all(&vec![b' '; most - 1]).await.unwrap();
        uploads.push(upload);
    }
    // At most three of one MiB fit into the part that is for large ones: the others are answered.
    let mut refused = 0;
    for upload in &mut uploads {
        let mut status = [0; 12];
        let read = upload.read_exact(&mut status);
        if tokio::time::timeout(Duration::from_secs(4), read)
            .await
            .is_ok()
        {
            assert_eq!(&status, b"HTTP/1.1 503");
            refused += 1;
        }
    }
    assert!(refused >= 5, "{refused} of 8 were refused");
    assert_eq!(post(&mesh, echo()).await.status, 200);
}
