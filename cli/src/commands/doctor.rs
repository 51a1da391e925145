//! `plugmesh doctor`: what is wrong, and how to mend it.

mod here;
mod others;

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::DoctorArgs;
use crate::config::{Config, Section};
use crate::dev::state;
use crate::exit::Failure;
use crate::output::{self, Output};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Ok,
    /// It may be meant so, or is no hindrance yet.
    Warn,
    /// Something does not work.
    Fail,
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// How to mend it; empty when there is nothing to mend.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Fail,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// What is looked at: where everything should be.
#[derive(Debug)]
pub struct Subject {
    /// The configuration, or the defaults when it has mistakes.
    pub config: Config,
    /// Addresses of NATS servers, without the scheme.
    pub nats: Vec<String>,
    /// The coordinator's address.
    pub coordinator: String,
    /// The gateway's address, without a path.
    pub gateway: String,
    /// Sockets that plugins attach to: unix:// and http:// addresses.
    pub sockets: Vec<String>,
    /// A `plugmesh dev` runs from the data folder.
    pub dev: bool,
}

impl Subject {
    /// What the configuration says, or, when a `dev` runs from the data folder, what that says.
    fn new(config: Config, running: Option<&Value>) -> Self {
        let text = |value: &Value, pointer: &str| {
            let found = value.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        if let Some(running) = running {
            let agents = running.get("agents").and_then(Value::as_array);
            let sockets = agents
                .into_iter()
                .flatten()
                .flat_map(|agent| [text(agent, "/attach_unix"), text(agent, "/attach_tcp")])
                .collect();
            return Self {
                nats: vec![text(running, "/nats/url")],
                coordinator: text(running, "/coordinator/url"),
                gateway: text(running, "/gateway/url"),
                sockets,
                dev: true,
                config,
            };
        }
        let mut sockets = vec![format!("unix://{}", config.agent.socket_path().display())];
        sockets.extend(config.agent.attach_tcp.map(|tcp| format!("http://{tcp}")));
        let urls = config.nats.url.split(',').map(|url| url.trim().to_owned());
        Self {
            nats: urls.collect(),
            coordinator: config
                .agent
                .coordinators
                .first()
                .cloned()
                .unwrap_or_default(),
            gateway: format!("http://{}", config.gateway.listen),
            sockets,
            dev: false,
            config,
        }
    }
}

/// Looks at everything.
///
/// # Errors
/// [`crate::exit::FAILED`] when something does not work.
pub async fn run(args: DoctorArgs, output: Output) -> Result<(), Failure> {
    let (config, first) = configuration(&args);
    let running = state::read(&args.data);
    let mut subject = Subject::new(config, running.as_ref());
    if let Some(coordinator) = args.coordinator {
        subject.coordinator = coordinator;
    }
    if let Some(gateway) = args.gateway {
        gateway
            .trim_end_matches("/mcp")
            .clone_into(&mut subject.gateway);
    }
    let mut checks = vec![first];
    checks.extend(here::checks(&subject, &args.data).await);
    checks.extend(others::checks(&subject).await);
    let failed = checks
        .iter()
        .filter(|check| check.status == Status::Fail)
        .count();
    if output == Output::Json {
        output::json(&json!({ "ok": failed == 0, "checks": checks }))?;
    } else {
        for check in &checks {
            output::line(line(check))?;
        }
    }
    if failed > 0 {
        let what = output::count(failed, "check");
        return Err(Failure::failed(format!("{what} failed")));
    }
    Ok(())
}

fn configuration(args: &DoctorArgs) -> (Config, Check) {
    let file = args.common.file().map(|file| file.display().to_string());
    let file = file.unwrap_or_else(|| "defaults, no file".to_owned());
    match args.common.load(Section::All, Value::Null) {
        Ok(config) => (config, Check::ok("configuration", file)),
        Err(failure) => {
            let mistakes = failure.message.replace('\n', "; ");
            let remedy = "`plugmesh config check` gives each mistake its line";
            (
                Config::default(),
                Check::fail("configuration", mistakes, remedy),
            )
        }
    }
}

fn line(check: &Check) -> String {
    let status = match check.status {
        Status::Ok => "ok  ",
        Status::Warn => "warn",
        Status::Fail => "FAIL",
    };
    let remedy = match check.remedy.as_str() {
        "" => String::new(),
        remedy => format!("\n     → {remedy}"),
    };
    format!("{status} {:<14} {}{remedy}", check.name, check.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_status_name_finding_and_remedy() {
        let check = Check::warn("open files", "256", "run `ulimit -n 65536`");
        assert_eq!(
            line(&check),
            "warn open files     256\n     → run `ulimit -n 65536`"
        );
        assert_eq!(
            line(&Check::ok("clock", "fine")),
            "ok   clock          fine"
        );
    }

    #[test]
    fn a_running_dev_is_looked_at_instead_of_the_configuration() {
        let running = json!({
            "nats": { "url": "nats://127.0.0.1:5" },
            "coordinator": { "url": "http://127.0.0.1:1" },
            "gateway": { "url": "http://127.0.0.1:2" },
            "agents": [{ "attach_unix": "unix:///a", "attach_tcp": "http://127.0.0.1:3" }],
        });
        let subject = Subject::new(Config::default(), Some(&running));
        assert_eq!(subject.nats, ["nats://127.0.0.1:5"]);
        assert_eq!(subject.sockets, ["unix:///a", "http://127.0.0.1:3"]);
        let subject = Subject::new(Config::default(), None);
        assert_eq!(subject.gateway, "http://127.0.0.1:8087");
    }
}
