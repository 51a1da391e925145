//! The planner, with stand-ins for the plugins that it calls.

#![allow(clippy::indexing_slicing, reason = "a failed test may panic")]

use std::error::Error;

use plugmesh_sdk::testing::{self, TestHost};
use plugmesh_sdk::{CallEvent, ErrorCode, Json, Plugin, Target, ToolError, ToolOutput};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plugin;

#[derive(Deserialize, JsonSchema)]
struct Factors {
    a: f64,
    b: f64,
}

#[derive(Deserialize, JsonSchema)]
struct Asked {
    zone: String,
    time: Option<String>,
}

fn calculator(version: &str) -> Plugin {
    Plugin::new("calculator", version).tool("multiply", async |args: Factors, _| {
        Ok(json!({"result": args.a * args.b}))
    })
}

/// A clock that stands still at the beginning of 2026.
fn clock() -> Plugin {
    Plugin::new("time", "1.4.0")
        .tool("current_time", async |args: Asked, _| {
            if args.zone == "Mars/Olympus" {
                return Err(ToolError::new(
                    "zone: there is no time zone \"Mars/Olympus\"",
                ));
            }
            Ok(json!({"time": "", "zone": args.zone, "unix_seconds": 1_767_225_600}))
        })
        .tool("format_time", async |args: Asked, _| {
            Ok(json!({"text": args.time.unwrap_or_default()}))
        })
}

#[test]
fn it_asks_the_calculator_and_the_clock() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let config = json!({"zone": "Europe/Berlin", "break_minutes": 5});
        let host = TestHost::builder(plugin())
            .config(config)
            .with(calculator("1.0.0"))
            .with(clock())
            .start()
            .await?;
        let arguments = json!({"minutes_per_task": 25, "tasks": 4});
        let output = host.call_tool("finish_time", arguments).await?;
        let expected = json!({
            "finish": "2026-01-01T02:00:00Z",
            "minutes": 120.0,
            "zone": "Europe/Berlin",
        });
        assert_eq!(output.structured_content(), Some(&expected));
        Ok(())
    })
}

#[test]
fn it_tells_how_far_it_is() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::builder(plugin())
            .with(calculator("1.0.0"))
            .with(clock())
            .start()
            .await?;
        let target = Target::tool("finish_time").want_progress();
        let arguments = Json(json!({"minutes_per_task": 1, "tasks": 1}));
        let mut call = host.call(target, arguments).await?;
        let mut steps = Vec::new();
        while let Some(event) = call.next().await {
            match event {
                CallEvent::Progress(progress) => steps.push(progress.done),
                CallEvent::End(end) => drop(end?),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(steps, [0.0, 1.0, 2.0, 3.0]);
        Ok(())
    })
}

#[test]
fn what_the_others_cannot_do_is_its_own_failure() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::builder(plugin())
            .with(calculator("1.0.0"))
            .with(clock())
            .start()
            .await?;
        for (arguments, why) in [
            (
                json!({"minutes_per_task": 1, "tasks": 1, "zone": "Mars/Olympus"}),
                "there is no time zone",
            ),
            (
                json!({"minutes_per_task": -1, "tasks": 1}),
                "from 0 to 100000",
            ),
            (
                json!({"minutes_per_task": 1, "tasks": 100_001}),
                "from 0 to 100000",
            ),
        ] {
            let output: ToolOutput = host.call_tool("finish_time", &arguments).await?;
            assert!(output.is_error(), "{arguments}");
            assert!(output.text_content().contains(why), "{output:?}");
        }
        Ok(())
    })
}

#[test]
fn a_calculator_of_another_major_version_is_not_called() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::builder(plugin())
            .with(calculator("2.0.0"))
            .with(clock())
            .start()
            .await?;
        let arguments = json!({"minutes_per_task": 1, "tasks": 1});
        let output = host.call_tool("finish_time", arguments).await?;
        assert!(output.is_error());
        assert!(
            output.text_content().contains("^1.0 is required"),
            "{output:?}"
        );
        Ok(())
    })
}

#[test]
fn the_prompt_uses_the_configuration() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let config = json!({"zone": "Asia/Tokyo", "break_minutes": 10});
        let host = TestHost::builder(plugin()).config(config).start().await?;
        let arguments = json!({"tasks": "write, read", "hours": "6.5"});
        let prompt = host.get_prompt("plan_day", arguments).await?;
        let text = prompt.messages()[0]["content"]["text"].to_string();
        for part in ["6.5 hours", "10 minutes", "Asia/Tokyo", "- write", "- read"] {
            assert!(text.contains(part), "{text}");
        }
        Ok(())
    })
}

#[test]
fn a_wrong_configuration_is_refused_by_field() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for (config, said) in [
            (
                json!({"break_minutes": "ten"}),
                "config.break_minutes: invalid type",
            ),
            (json!({"breaks": 10}), "config.breaks: unknown field"),
        ] {
            match host.change_config(config).await {
                Ok(()) => panic!("it was taken"),
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::InvalidConfig);
                    assert!(error.message.starts_with(said), "{error}");
                }
            }
        }
        let changed: Value = json!({"break_minutes": 10});
        host.change_config(changed).await?;
        Ok(())
    })
}
