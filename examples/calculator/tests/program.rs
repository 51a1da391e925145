//! The calculator as a program: its address, its signals, its exit codes.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use plugmesh_sdk::testing::{self, TestHost};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_calculator");

fn start(agent: &str) -> Child {
    Command::new(PROGRAM)
        .env("PLUGMESH_AGENT", agent)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn it_calculates_and_ends_when_it_is_told_to() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start_program(PROGRAM).await?;
        let output = host.call_tool("add", json!({"a": 1, "b": 2})).await?;
        assert_eq!(output.structured_content(), Some(&json!({"result": 3})));
        host.stop().await?;
        Ok(())
    })
}

#[test]
fn an_address_that_is_none_ends_it_with_one_line_and_code_65() {
    for (agent, said) in [
        (
            "localhost:7410",
            "ERROR PLUGMESH_AGENT: \"localhost:7410\" is not an agent's address: it begins with neither unix:// nor http://; write for example unix:///run/plugmesh/attach.sock or http://127.0.0.1:7410\n",
        ),
        (
            "unix://attach.sock",
            "ERROR PLUGMESH_AGENT: \"unix://attach.sock\" is not an agent's address: after unix:// stands an absolute path; write for example unix:///run/plugmesh/attach.sock or http://127.0.0.1:7410\n",
        ),
    ] {
        let output = start(agent).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(65), "{agent}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
    }
}

#[test]
fn without_an_agent_it_says_so_once_and_ends_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let mut child = start("unix:///nowhere/attach.sock");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert_eq!(
            first,
            "WARNING cannot reach the agent at unix:///nowhere/attach.sock: No such file or directory (os error 2); trying again"
        );
        let id = child.id().to_string();
        let killed = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        assert_eq!(lines.count(), 0);
    }
}
