//! The log layer, in a program that sets its own subscriber.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::error::Error;

use plugmesh_sdk::testing::{self, TestHost};
use plugmesh_sdk::{CallEvent, Json, LogLevel, NoArgs, Plugin, Target};
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;

#[test]
fn events_go_to_the_mesh_as_lines_of_the_call_that_they_belong_to() -> Result<(), Box<dyn Error>> {
    testing::run(async {
        let plugin = Plugin::new("logger", "1.0.0").tool("work", async |_: NoArgs, _| {
            tracing::warn!(disk = "sda", free = 3, "nearly full");
            tokio::task::yield_now().await;
            tracing::debug!("after a pause");
            // Belongs to no call: it runs elsewhere.
            plugmesh_sdk::blocking(|| tracing::info!("from another thread")).await;
            Ok("done")
        });
        let subscriber = tracing_subscriber::registry().with(plugin.log_layer());
        tracing::subscriber::set_global_default(subscriber)?;
        let host = TestHost::start(plugin).await?;

        let mut call = host.call(Target::tool("work"), Json(json!({}))).await?;
        let mut lines = Vec::new();
        while let Some(event) = call.next().await {
            if let CallEvent::Log(line) = event {
                lines.push(line);
            }
        }
        let own: Vec<_> = lines
            .iter()
            .map(|line| (line.level, line.message.as_str(), line.logger.as_str()))
            .collect();
        assert_eq!(
            own,
            [
                (LogLevel::Warning, "nearly full", "logging"),
                (LogLevel::Debug, "after a pause", "logging")
            ]
        );
        let fields = lines.first().map(|line| &line.fields).unwrap();
        assert_eq!(json!(fields), json!({"disk": "sda", "free": 3}));
        let others = host.logs();
        assert!(
            others
                .iter()
                .any(|line| line.message == "from another thread"),
            "{others:?}"
        );
        Ok(())
    })
}
