//! The time plugin by the real protocol.

#![allow(clippy::indexing_slicing, reason = "a failed test may panic")]

use std::error::Error;

use jiff::Timestamp;
use plugmesh_sdk::ErrorCode;
use plugmesh_sdk::testing::{self, TestHost};
use serde::Deserialize;
use serde_json::{Value, json};

use super::plugin;

#[derive(Deserialize)]
struct Moment {
    time: String,
    zone: String,
    unix_seconds: i64,
}

#[test]
fn the_current_time_is_now_in_any_zone() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        for (arguments, zone, offset) in [
            (json!({}), "UTC", "+00:00"),
            (json!({"zone": "Asia/Tokyo"}), "Asia/Tokyo", "+09:00"),
            (json!({"zone": "asia/kolkata"}), "Asia/Kolkata", "+05:30"),
        ] {
            let before = Timestamp::now().as_second();
            let moment: Moment = host.call_tool("current_time", &arguments).await?.parse()?;
            let after = Timestamp::now().as_second();
            assert_eq!(moment.zone, zone);
            assert!(moment.time.ends_with(offset), "{}", moment.time);
            assert!((before..=after).contains(&moment.unix_seconds));
            let parsed: Timestamp = moment.time.parse()?;
            assert_eq!(parsed.as_second(), moment.unix_seconds);
        }
        Ok(())
    })
}

#[test]
fn times_are_written_in_zones_and_forms() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        let time = "2026-07-01T12:00:00Z";
        for (arguments, text) in [
            (json!({"time": time}), "2026-07-01T12:00:00+00:00"),
            (
                json!({"time": time, "zone": "Europe/Berlin"}),
                "2026-07-01T14:00:00+02:00",
            ),
            (
                json!({"time": "2026-01-01T12:00:00+09:00", "zone": "Europe/Berlin", "format": "%d.%m.%Y %H:%M"}),
                "01.01.2026 04:00",
            ),
        ] {
            let output = host.call_tool("format_time", &arguments).await?;
            assert_eq!(output.structured_content(), Some(&json!({ "text": text })));
        }
        Ok(())
    })
}

#[test]
fn what_is_no_time_zone_or_form_is_named() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        let time = "2026-07-01T12:00:00Z";
        for (arguments, field) in [
            (json!({"time": "noon"}), "time: \"noon\""),
            (
                json!({"time": time, "zone": "Mars/Olympus"}),
                "zone: there is no time zone \"Mars/Olympus\"",
            ),
            (json!({"time": time, "format": "%!"}), "format: \"%!\""),
        ] {
            let output = host.call_tool("format_time", &arguments).await?;
            assert!(output.is_error(), "{arguments}");
            let text = output.text_content();
            assert!(text.starts_with(field), "{text}");
        }
        Ok(())
    })
}

#[test]
fn resources_tell_the_time_and_the_zones() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        let current = host.read_resource("time://current").await?;
        assert_eq!(current.contents()[0]["mimeType"], "text/plain");
        let time: Timestamp = current.text_content().parse()?;
        assert!(Timestamp::now().as_second() - time.as_second() < 60);

        let zones = host.read_resource("time://zones").await?;
        let zones: Vec<String> = serde_json::from_str(&zones.text_content())?;
        assert!(zones.len() > 400, "{}", zones.len());
        assert!(zones.iter().any(|zone| zone == "Europe/Berlin"));

        let tokyo = host.read_resource("time://zone/Asia%2FTokyo").await?;
        assert_eq!(tokyo.contents()[0]["uri"], "time://zone/Asia%2FTokyo");
        let tokyo: Value = serde_json::from_str(&tokyo.text_content())?;
        assert_eq!(tokyo["zone"], "Asia/Tokyo");
        assert_eq!(tokyo["offset"], "+09:00");
        assert_eq!(tokyo["abbreviation"], "JST");

        let nowhere = host.read_resource("time://zone/Mars").await;
        assert_eq!(
            nowhere.map_err(|error| error.code),
            Err(ErrorCode::NotFound)
        );
        Ok(())
    })
}

#[test]
fn the_meeting_prompt_names_every_zone() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let host = TestHost::start(plugin()).await?;
        let arguments = json!({"zones": "Europe/Berlin, Asia/Tokyo", "minutes": "45"});
        let prompt = host.get_prompt("meeting", arguments).await?;
        let text = prompt.messages()[0]["content"]["text"].to_string();
        for part in ["45 minutes", "Europe/Berlin", "Asia/Tokyo"] {
            assert!(text.contains(part), "{text}");
        }
        let entry = host.entry("prompt", "meeting").unwrap_or_default();
        assert_eq!(entry["arguments"][0]["name"], "zones");
        assert_eq!(entry["arguments"][0]["required"], true);
        assert_eq!(entry["arguments"][1]["required"], false);
        Ok(())
    })
}
