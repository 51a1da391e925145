//! Bad input of every kind gets one clear line that names the field and the remedy.

use harness::mesh::{Mesh, Plan};
use harness::transcript::Transcript;
use harness::{http_client, process};
use serde_json::{Value, json};

/// Notes what was tried and what came back, and checks that the line says something.
fn check(transcript: &mut Transcript, what: &str, line: &str, parts: &[&str]) {
    transcript.row(what, line);
    let lower = line.to_lowercase();
    for part in parts {
        assert!(
            lower.contains(&part.to_lowercase()),
            "{what}: {part:?} is not in: {line}"
        );
    }
    assert!(!lower.contains("panicked"), "{what}: {line}");
    let words = line.split_whitespace().count();
    assert!(words >= 4, "{what}: only {line:?}");
}

#[test]
fn bad_flags_and_configuration_name_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new("flags_and_configuration");
    let run = |args: &[&str], env: &[(&str, String)]| {
        process::run(&process::binary("plugmesh"), args, env, folder.path())
    };
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["coordinator", "--listen", "nowhere"],
            &["listen", "nowhere"],
        ),
        (
            &["gateway", "--listen", "127.0.0.1:99999"],
            &["listen", "99999"],
        ),
        (
            &["agent", "--node", "Not A Name"],
            &["node", "Not A Name", "lowercase"],
        ),
        (&["dev", "--bogus"], &["--bogus"]),
        (&["new", "Not_A_Name"], &["Not_A_Name", "lowercase"]),
        (&["call"], &["NAME"]),
        (&["gateway", "--config", "missing.toml"], &["missing.toml"]),
    ];
    for (args, parts) in rows {
        let (code, _, error) = run(args, &[]);
        assert_ne!(code, 0, "{args:?}");
        let tried = format!("plugmesh {}", args.join(" "));
        check(&mut transcript, &tried, &error, parts);
    }

    let config = folder.path().join("bad.toml");
    let rows: &[(&str, &[&str])] = &[
        ("[gateway]\nlisten = 7\n", &["gateway.listen"]),
        (
            "[gateway]\nlissen = \"127.0.0.1:1\"\n",
            &["gateway.lissen", "listen"],
        ),
        ("[gateway]\npage_size = 0\n", &["gateway.page_size"]),
        (
            "[gateway]\ncall_timeout = \"soon\"\n",
            &["gateway.call_timeout", "soon"],
        ),
        ("[coordinator]\nlease = \"-1s\"\n", &["coordinator.lease"]),
        ("[agent]\nnode = \"UPPER\"\n", &["agent.node"]),
        (
            "[[agent.plugins]]\nname = \"x\"\ncommand = []\n",
            &["agent.plugins", "command"],
        ),
        ("[nats]\nurl = \"http://x\"\n", &["nats.url"]),
        (
            "[telemetry]\nlog_format = \"xml\"\n",
            &["telemetry.log_format", "json"],
        ),
        ("[mesh]\nname = \"a.b\"\n", &["mesh.name"]),
        ("[unknown]\nx = 1\n", &["unknown"]),
        ("this is not TOML", &["bad.toml", "line 1"]),
    ];
    for (text, parts) in rows {
        std::fs::write(&config, text).unwrap();
        let (code, _, error) = run(&["config", "check", "--config", "bad.toml"], &[]);
        assert_eq!(code, 78, "{text}: {error}");
        check(&mut transcript, text.trim(), &error, parts);
    }
    // All mistakes at once, from all sources.
    std::fs::write(
        &config,
        "[gateway]\nlisten = 7\npage_size = 0\n[mesh]\nname = \"A\"\n",
    )
    .unwrap();
    let env = [("PLUGMESH_COORDINATOR__LEASE", "never".to_owned())];
    let (_, _, error) = run(&["config", "check", "--config", "bad.toml"], &env);
    check(
        &mut transcript,
        "four mistakes",
        &error,
        &[
            "gateway.listen",
            "gateway.page_size",
            "mesh.name",
            "coordinator.lease",
            "PLUGMESH_COORDINATOR__LEASE",
        ],
    );
    transcript.finish();
}

#[test]
fn bad_files_of_wishes_name_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new("wishes");
    let run = |file: &str| {
        let args = ["registry", "import", file];
        process::run(&process::binary("plugmesh"), &args, &[], folder.path())
    };
    let long = format!(
        "format = 1\n[plugin.a]\nstate = \"disabled\"\nreason = \"{}\"",
        "x".repeat(1_025)
    );
    let rows: &[(&str, &str, &[&str])] = &[
        ("an empty file", "", &["line 1", "format"]),
        ("no TOML", "format = ", &["line 1", "TOML"]),
        ("a newer format", "format = 2", &["format", "release"]),
        (
            "an unknown table",
            "format = 1\n[plugins.a]",
            &["line 2", "plugins", "split"],
        ),
        (
            "a plugin's name",
            "format = 1\n[plugin.A]\nstate = \"disabled\"",
            &["plugin.A", "lowercase"],
        ),
        ("no state", "format = 1\n[plugin.a]", &["plugin.a", "state"]),
        (
            "an unknown state",
            "format = 1\n[plugin.a]\nstate = \"off\"",
            &["plugin.a.state", "line 3", "disabled"],
        ),
        (
            "an unknown field",
            "format = 1\n[plugin.a]\nstat = \"disabled\"",
            &["plugin.a", "stat", "reason"],
        ),
        (
            "a long reason",
            &long,
            &["plugin.a.reason", "1024", "shorten"],
        ),
        (
            "no weight",
            "format = 1\n[split.a.shares]\n\"1.0.0\" = 0",
            &["split.a.shares", "give one"],
        ),
        (
            "no number",
            "format = 1\n[split.a.shares]\n\"1.0.0\" = \"x\"",
            &["split.a.shares", "line 3"],
        ),
        (
            "no version",
            "format = 1\n[split.a.shares]\nx = 1",
            &["split.a.shares", "line 3"],
        ),
        (
            "a test group",
            "format = 1\n[split.a]\nshares = {\"1.0.0\" = 1}\n\
             groups = [{header = \"X y\", value = \"b\", version = \"1.0.0\"}]",
            &["split.a.groups", "X y", "small letters"],
        ),
    ];
    for (what, text, parts) in rows {
        std::fs::write(folder.path().join("bad.toml"), text).unwrap();
        let (code, out, error) = run("bad.toml");
        assert_eq!((code, out.as_str()), (65, ""), "{what}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{what}: {error}");
        check(
            &mut transcript,
            what,
            &error,
            &[&["bad.toml"], *parts].concat(),
        );
    }
    let (code, _, error) = run("missing.toml");
    assert_eq!(code, 65, "{error}");
    check(
        &mut transcript,
        "no file",
        &error,
        &["missing.toml", "name"],
    );
    transcript.finish();
}

async fn mesh() -> Mesh {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .plugin("probe")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    mesh.wait_tool("probe_echo").await;
    mesh
}

#[tokio::test]
async fn bad_http_gets_one_clear_line() {
    let mesh = mesh().await;
    let mut transcript = Transcript::new("http");
    let url = mesh.mcp_url();
    let json_headers: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut headers = json_headers.to_vec();
        headers.extend_from_slice(extra);
        headers
    };
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let huge = "x".repeat(5 * 1024 * 1024);
    let rows: Vec<(&str, &str, Vec<(&str, &str)>, &str, u16, &[&str])> = vec![
        (
            "a foreign Origin",
            "POST",
            with(&[("origin", "https://evil.example")]),
            ping,
            403,
            &["origin"],
        ),
        (
            "a foreign Host",
            "POST",
            with(&[("host", "evil.example")]),
            ping,
            403,
            &["host"],
        ),
        ("not JSON", "POST", with(&[]), "{nonsense", 400, &[]),
        ("a huge body", "POST", with(&[]), &huge, 413, &["4"]),
        (
            "the wrong media type",
            "POST",
            vec![("content-type", "text/plain")],
            ping,
            415,
            &[],
        ),
        ("the wrong method", "PUT", with(&[]), ping, 405, &[]),
        (
            "a version of the future",
            "POST",
            with(&[("mcp-protocol-version", "2099-01-01")]),
            ping,
            400,
            &["2099-01-01"],
        ),
        (
            "a session that never was",
            "POST",
            with(&[
                ("mcp-session-id", "nonsense"),
                ("mcp-protocol-version", "2025-11-25"),
            ]),
            ping,
            404,
            &["session"],
        ),
    ];
    for (what, method, headers, body, status, parts) in rows {
        let answer = http_client::request(method, &url, &headers, body.to_owned())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let line = format!("{} {}", answer.status, answer.body);
        check(&mut transcript, what, &line, parts);
    }
    let answer = http_client::get(&format!("{}/nothing", url)).await.unwrap();
    assert_eq!(answer.status, 404, "{answer:?}");
    transcript.finish();
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let lines = "max_connections = 4\nrequest_timeout = \"500ms\"";
    let mesh = Plan::new()
        .agent("node-a")
        .gateway_lines(lines)
        .start()
        .await;
    let mut silent = Vec::new();
    for begin in [&b""[..], b"PRI * HT", b"", b"P"] {
        let address = ("127.0.0.1", mesh.gateway.port);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(begin).await.unwrap();
        silent.push(stream);
    }
    mesh.gateway.wait_ready().await;
    for mut stream in silent {
        let limit = std::time::Duration::from_secs(10);
        let end = tokio::time::timeout(limit, stream.read(&mut [0; 8])).await;
        assert!(end.is_ok(), "the gateway closes it");
    }
}

#[tokio::test]
async fn bad_mcp_messages_get_one_clear_error() {
    let mesh = mesh().await;
    let mut transcript = Transcript::new("mcp_messages");
    let rows: Vec<(&str, &str, Value, &[&str])> = vec![
        (
            "an unknown tool",
            "tools/call",
            json!({"name": "calculator_ad", "arguments": {}}),
            &["calculator_add"],
        ),
        (
            "no tool's name",
            "tools/call",
            json!({"arguments": {}}),
            &["name"],
        ),
        (
            "a missing argument",
            "tools/call",
            json!({"name": "calculator_add", "arguments": {"a": 1}}),
            &["b"],
        ),
        (
            "an argument of the wrong type",
            "tools/call",
            json!({"name": "calculator_add", "arguments": {"a": "one", "b": 2}}),
            &["a"],
        ),
        (
            "arguments that are no object",
            "tools/call",
            json!({"name": "calculator_add", "arguments": [1]}),
            &[],
        ),
        (
            "an unknown resource",
            "resources/read",
            json!({"uri": "nothing://here"}),
            &["nothing://here"],
        ),
        (
            "an unknown prompt",
            "prompts/get",
            json!({"name": "nobody"}),
            &["nobody"],
        ),
        (
            "a bad cursor",
            "tools/list",
            json!({"cursor": "%%%"}),
            &["cursor"],
        ),
        (
            "an unknown method",
            "tools/dance",
            json!({}),
            &["tools/dance"],
        ),
        (
            "a bad filter",
            "tools/call",
            json!({"name": "list_plugins", "arguments": {"status": "happy"}}),
            &["status", "happy"],
        ),
        (
            "a plugin that is not",
            "tools/call",
            json!({"name": "get_plugin_info", "arguments": {"name": "nobody"}}),
            &["nobody"],
        ),
        (
            "a bad plugin name",
            "tools/call",
            json!({"name": "disable_plugin", "arguments": {"name": "No Body"}}),
            &["No Body"],
        ),
    ];
    for (what, method, params, parts) in rows {
        let answer = mesh
            .mcp(method, params)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let error = &answer["error"];
        assert!(error["code"].is_number(), "{what}: {answer}");
        let message = error["message"].as_str().unwrap_or_default();
        let line = format!("{} {message}", error["code"]);
        check(&mut transcript, what, &line, parts);
    }
    let answer = mesh
        .call_tool("calculator_add", json!({"a": 1, "b": 2}))
        .await
        .unwrap();
    assert!(answer["result"].is_object(), "all goes on: {answer}");
    transcript.finish();
}
