//! How long a change takes to reach every gateway: a new plugin attaches, and its tool is listed.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::attach::RawPlugin;
use crate::mesh::mcp_request;

/// How often a gateway is asked.
const PERIOD: Duration = Duration::from_millis(25);

/// Lets a plugin attach to each node and gives how long each took until every gateway listed its tool;
/// `None`: it did not within the limit.
pub async fn everywhere(
    nodes: Vec<String>,
    gateways: Vec<u16>,
    turn: usize,
    limit: Duration,
) -> Vec<Option<Duration>> {
    let one = |(number, node): (usize, String)| {
        let gateways = gateways.clone();
        async move {
            let begun = Instant::now();
            let name = format!("change-{turn}-{number}");
            let plugin = RawPlugin::attach(&node, &name, &["arrived"]).await;
            let wanted = format!("{name}_arrived");
            let seen = gateways.iter().map(|&port| listed(port, &wanted));
            let all = tokio::time::timeout(limit, join_all(seen)).await;
            let took = begun.elapsed();
            drop(plugin);
            all.is_ok().then_some(took)
        }
    };
    join_all(nodes.into_iter().enumerate().map(one)).await
}

async fn listed(port: u16, tool: &str) {
    let url = format!("http://127.0.0.1:{port}/mcp");
    loop {
        let answer = mcp_request(&url, "tools/list", json!({})).await;
        if answer.is_ok_and(|answer| answer.to_string().contains(tool)) {
            return;
        }
        sleep(PERIOD).await;
    }
}
