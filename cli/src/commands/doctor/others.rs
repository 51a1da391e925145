//! What others answer: the broker, the coordinator, the gateway, the agents.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use mesh_proto::admin::NodeStanding;
use mesh_runtime::NatsSection;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::here::is_taken;
use super::{Check, Status, Subject};
use crate::admin::Admin;
use crate::args::CoordinatorFlags;
use crate::commands::nodes;
use crate::dev::nats::greet;
use crate::dev::ready::missing;
use crate::http::{HttpClient, Page};

/// How long anybody may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// What starts everything.
const START: &str = "start a mesh with `plugmesh dev`";

/// A clock that is further off than this makes times in tables and traces wrong, in seconds.
const CLOCK: i64 = 5;

/// All of them.
pub async fn checks(subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    // Who has set no broker may be an operator, who needs none.
    let meant = subject.dev || subject.config.nats != NatsSection::default();
    for url in &subject.nats {
        let mut check = broker(url).await;
        if !meant && check.status == Status::Fail {
            check.status = Status::Warn;
        }
        checks.push(check);
    }
    checks.push(coordinator(&subject.coordinator).await);
    checks.extend(gateway(&subject.gateway).await);
    for url in &subject.sockets {
        checks.push(socket(url).await);
    }
    checks
}

async fn broker(url: &str) -> Check {
    let Some(address) = url.strip_prefix("nats://") else {
        let remedy = "look at it with the tools of NATS";
        return Check::warn("NATS", format!("{url} is not looked at: TLS"), remedy);
    };
    let address = address.rsplit('@').next().unwrap_or(address);
    let address = match address.rsplit_once(':') {
        Some(_) => address.to_owned(),
        None => format!("{address}:4222"),
    };
    match greet(&address).await {
        Ok(greeting) if greeting.jetstream => Check::ok(
            "NATS",
            format!("{} with JetStream at {url}", greeting.version),
        ),
        Ok(greeting) => Check::fail(
            "NATS",
            format!("{} at {url} has no JetStream", greeting.version),
            "start nats-server with --jetstream, or with `jetstream {}` in its configuration",
        ),
        Err(why) => Check::fail(
            "NATS",
            format!("{url} does not answer: {why}"),
            format!("{START}, start nats-server, or set nats.url"),
        ),
    }
}

async fn coordinator(url: &str) -> Check {
    let ask = CoordinatorFlags {
        coordinator: url.to_owned(),
    };
    let listed = async {
        let mut admin = Admin::connect(&ask).await?;
        nodes::list(&mut admin).await
    };
    let why = match timeout(LIMIT, listed).await {
        Ok(Ok(nodes)) => {
            let connected = nodes
                .iter()
                .filter(|node| node.standing() == NodeStanding::Connected)
                .count();
            let found = format!("{url} sees {} nodes, {connected} connected", nodes.len());
            if connected == nodes.len() {
                return Check::ok("coordinator", found);
            }
            let remedy = "`plugmesh nodes` shows which are not; start their agents";
            return Check::warn("coordinator", found, remedy);
        }
        Ok(Err(failure)) => failure.message,
        Err(_) => format!("{url} does not answer within {} s", LIMIT.as_secs()),
    };
    absent("coordinator", &why, url, "coordinator.listen")
}

/// A service that does not answer: perhaps another program has its port.
fn absent(name: &'static str, why: &str, url: &str, field: &str) -> Check {
    let why = why.split("; ").next().unwrap_or(why);
    if is_taken(url) {
        let found = format!("{why}; the port is taken by a program that is not it");
        return Check::fail(
            name,
            found,
            format!("stop that program, or choose another {field}"),
        );
    }
    Check::fail(name, why, START)
}

async fn gateway(url: &str) -> Vec<Check> {
    let Ok(uri) = format!("{url}/ready").parse::<http::Uri>() else {
        let found = format!("{url} is no address");
        return vec![Check::fail("gateway", found, "set gateway.listen")];
    };
    match HttpClient::new().get(uri, LIMIT).await {
        Ok(page) => {
            let readiness = if page.status.is_success() {
                Check::ok("gateway", format!("{url}/mcp is ready"))
            } else {
                let found = format!("{url} is not ready: {}", missing(&page.text));
                Check::fail(
                    "gateway",
                    found,
                    "mend what is named; it comes back by itself",
                )
            };
            vec![readiness, clock(&page)]
        }
        Err(why) => {
            let why = format!("{url} does not answer: {why}");
            vec![absent("gateway", &why, url, "gateway.listen")]
        }
    }
}

/// This machine's clock beside the gateway's.
fn clock(page: &Page) -> Check {
    static DATES: DateTimeParser = DateTimeParser::new();
    let date = page.headers.get(http::header::DATE);
    let date = date.and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| DATES.parse_timestamp(date).ok()) else {
        let remedy = "compare the clocks by hand";
        return Check::warn("clock", "the gateway does not tell its time", remedy);
    };
    let off = Timestamp::now().as_second() - theirs.as_second();
    let found = format!("{} s beside the gateway's", off.abs());
    if off.abs() <= CLOCK {
        return Check::ok("clock", found);
    }
    Check::warn("clock", found, "let NTP set the clocks of both machines")
}

async fn socket(url: &str) -> Check {
    let tried = async {
        match url.strip_prefix("unix://") {
            Some(path) => UnixStream::connect(path).await.map(drop),
            None => {
                let address = url.strip_prefix("http://").unwrap_or(url);
                TcpStream::connect(address).await.map(drop)
            }
        }
    };
    let why = match timeout(LIMIT, tried).await {
        Ok(Ok(())) => return Check::ok("agent", format!("takes plugins at {url}")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    let remedy = "start one with `plugmesh agent` if plugins shall run on this machine";
    Check::warn(
        "agent",
        format!("nobody takes plugins at {url}: {why}"),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(date: &str) -> Page {
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = date.parse() {
            headers.insert(http::header::DATE, value);
        }
        Page {
            status: http::StatusCode::OK,
            headers,
            text: String::new(),
        }
    }

    #[test]
    fn a_clock_that_is_off_is_seen() {
        let old = clock(&page("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(old.status, Status::Warn);
        assert!(old.remedy.contains("NTP"));
        assert_eq!(clock(&page("nonsense")).status, Status::Warn);
    }
}
