//! The calculator by the real protocol.

#![allow(clippy::indexing_slicing, reason = "a failed test may panic")]

use std::error::Error;

use plugmesh_sdk::ErrorCode;
use plugmesh_sdk::testing::{self, TestHost};
use serde_json::{Value, json};

use super::plugin;

#[test]
fn each_tool_calculates() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for (tool, a, b, expected) in [
            ("add", json!(1), json!(2), json!({"result": 3})),
            ("add", json!(0.5), json!(0.25), json!({"result": 0.75})),
            ("subtract", json!(1), json!(2), json!({"result": -1})),
            ("multiply", json!(6), json!(7), json!({"result": 42})),
            ("divide", json!(1), json!(4), json!({"result": 0.25})),
            (
                "multiply",
                json!(1e300),
                json!(10),
                json!({"result": 1e301}),
            ),
        ] {
            let output = host.call_tool(tool, json!({"a": a, "b": b})).await?;
            assert!(!output.is_error(), "{tool} {a} {b}");
            assert_eq!(output.structured_content(), Some(&expected));
            assert_eq!(output.text_content(), expected.to_string());
        }
        Ok(())
    })
}

#[test]
fn what_has_no_result_is_an_error_of_the_tool() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for (tool, a, b, why) in [
            ("divide", 1.0, 0.0, "division by zero"),
            ("multiply", 1e308, 10.0, "too large"),
        ] {
            let output = host.call_tool(tool, json!({"a": a, "b": b})).await?;
            assert!(output.is_error());
            assert!(output.text_content().contains(why), "{output:?}");
        }
        Ok(())
    })
}

#[test]
fn arguments_that_are_no_numbers_are_refused_by_name() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for (arguments, said) in [
            (
                json!({"a": 1}),
                "arguments.b: missing, expected number (The second number)",
            ),
            (
                json!({"a": "one", "b": 2}),
                "arguments.a: invalid type: string \"one\", expected f64",
            ),
        ] {
            match host.call_tool("add", &arguments).await {
                Ok(output) => panic!("{arguments} was taken: {output:?}"),
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::InvalidArgument);
                    assert_eq!(error.message, said);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_entries_say_that_calls_may_be_repeated() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for tool in ["add", "subtract", "multiply", "divide"] {
            let entry = host.entry("tool", tool).unwrap_or(Value::Null);
            let annotations = json!({"readOnlyHint": true, "idempotentHint": true});
            assert_eq!(entry["annotations"], annotations);
            assert_eq!(entry["inputSchema"]["required"], json!(["a", "b"]));
            assert_eq!(
                entry["outputSchema"]["properties"]["result"]["type"],
                "number"
            );
        }
        Ok(())
    })
}
