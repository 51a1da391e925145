//! A plugin that sends garbage harms nobody but itself, and gets a clear error for each frame.

use bytes::Bytes;
use harness::attach::{RawPlugin, garbage, hello};
use harness::mesh::Plan;
use harness::transcript::Transcript;
use mesh_proto::common::{Chunk, ErrorCode, Result as CallResult};
use mesh_proto::plugin::{Ready, host_frame, plugin_frame};
use serde_json::json;

#[tokio::test]
async fn bad_frames_get_an_error_for_their_own_id_and_harm_nobody() {
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    let url = mesh.attach_url(0);
    let mut plugin = RawPlugin::attach(&url, "rogue", &["poke"]).await;
    mesh.wait_tool("rogue_poke").await;

    // (what, the bytes, the id that the error must carry, its code)
    let oversize = {
        let mut frame = vec![0x08, 17];
        frame.extend_from_slice(&[0x5a, 0x80, 0x80, 0x20]);
        frame.resize(600 * 1024, b'x');
        Bytes::from(frame)
    };
    let encode = |id: u64, body: plugin_frame::Body| {
        let frame = mesh_proto::plugin::PluginFrame {
            id,
            body: Some(body),
        };
        Bytes::from(prost::Message::encode_to_vec(&frame))
    };
    let unknown_body = Bytes::from_static(&[0x08, 0x13, 0xfa, 0x3f, 0x01, 0x00]);
    let rows: Vec<(&str, Bytes, u64, ErrorCode)> = vec![
        (
            "garbage after an id",
            garbage(15),
            15,
            ErrorCode::MalformedFrame,
        ),
        ("a frame of 600 KiB", oversize, 17, ErrorCode::TooLarge),
        (
            "a body of the future",
            unknown_body,
            19,
            ErrorCode::Unsupported,
        ),
        (
            "a second hello",
            encode(0, plugin_frame::Body::Hello(hello("rogue", &[]).into())),
            0,
            ErrorCode::ProtocolViolation,
        ),
        (
            "a result for a call that never was",
            encode(22, plugin_frame::Body::Result(CallResult::default())),
            22,
            ErrorCode::ProtocolViolation,
        ),
        (
            "a chunk for a call that never was",
            encode(23, plugin_frame::Body::Chunk(Chunk::default())),
            23,
            ErrorCode::ProtocolViolation,
        ),
        (
            "an own call with an even id",
            encode(24, plugin_frame::Body::Call(Box::default())),
            24,
            ErrorCode::ProtocolViolation,
        ),
        (
            "an own call of nothing",
            encode(25, plugin_frame::Body::Call(Box::default())),
            25,
            ErrorCode::InvalidArgument,
        ),
        (
            "a publish, which this version does not carry out",
            encode(27, plugin_frame::Body::Publish(Box::default())),
            27,
            ErrorCode::Unsupported,
        ),
    ];
    let mut transcript = Transcript::new("attach_frames");
    for (what, bytes, id, code) in rows {
        plugin.send_raw(bytes).await;
        let (got_id, error) = plugin
            .receive_error()
            .await
            .unwrap_or_else(|status| panic!("{what}: {status}"));
        assert_eq!((got_id, error.code()), (id, code), "{what}: {error:?}");
        assert!(error.message.len() > 15, "{what}: {error:?}");
        let line = format!("{:?} for id {got_id}: {}", error.code(), error.message);
        transcript.row(what, &line);
    }
    transcript.finish();

    // Others go on, and so does the rogue itself.
    let answer = mesh
        .call_tool("calculator_add", json!({"a": 1, "b": 2}))
        .await
        .unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    let call = {
        let url = mesh.mcp_url();
        let params = json!({"name": "rogue_poke", "arguments": {}});
        tokio::spawn(async move { harness::mesh::mcp_request(&url, "tools/call", params).await })
    };
    let invoke = loop {
        let frame = plugin.receive().await.unwrap();
        if let Some(host_frame::Body::Invoke(_)) = frame.body {
            break frame;
        }
    };
    let result = CallResult {
        payload: Bytes::from_static(br#"{"content":[{"type":"text","text":"still here"}]}"#),
        ..CallResult::default()
    };
    plugin
        .send(invoke.id, plugin_frame::Body::Result(result))
        .await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!(
        answer["result"]["content"][0]["text"], "still here",
        "{answer}"
    );
}

#[tokio::test]
async fn a_bad_handshake_ends_the_stream_with_the_whole_error() {
    let mesh = Plan::new().agent("node-a").start().await;
    let url = mesh.attach_url(0);
    let mut transcript = Transcript::new("handshakes_and_manifests");

    let mut plugin = RawPlugin::connect(&url).await;
    plugin.send(0, plugin_frame::Body::Ready(Ready {})).await;
    let (_, error) = plugin.receive_error().await.unwrap();
    transcript.row("a Ready before the Hello", &error.message);
    assert_eq!(error.code(), ErrorCode::ProtocolViolation, "{error:?}");

    let mut plugin = RawPlugin::connect(&url).await;
    let mut bad = hello("Not A Name", &["a", "a"]);
    bad.manifest.as_mut().unwrap().version = "one".to_owned();
    plugin.send(0, plugin_frame::Body::Hello(bad.into())).await;
    let status = loop {
        match plugin.receive().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    let text = status.message();
    transcript.row("a manifest with three mistakes", text);
    for part in ["name", "version", "a"] {
        assert!(
            text.contains(part),
            "all mistakes at once, {part} too: {status:?}"
        );
    }

    let mut plugin = RawPlugin::connect(&url).await;
    let mut future = hello("future", &[]);
    (future.min_protocol, future.max_protocol) = (7, 9);
    plugin
        .send(0, plugin_frame::Body::Hello(future.into()))
        .await;
    let status = loop {
        match plugin.receive().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    transcript.row("a protocol of the future", status.message());
    transcript.finish();
}

#[tokio::test]
async fn bytes_that_are_not_http_harm_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mesh = Plan::new()
        .agent("node-a")
        .plugin("calculator")
        .start()
        .await;
    mesh.wait_tool("calculator_add").await;
    for port in [
        mesh.agents[0].port,
        mesh.coordinator.port,
        mesh.gateway.port,
    ] {
        for bytes in [
            &b"\x00\xff\x00\xffnonsense\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        ] {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let limit = std::time::Duration::from_millis(500);
            let _ = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await;
        }
    }
    let answer = mesh
        .call_tool("calculator_add", json!({"a": 1, "b": 2}))
        .await
        .unwrap();
    assert!(answer["result"].is_object(), "{answer}");
}
