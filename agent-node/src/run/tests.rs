//! A whole agent in this process, with a coordinator that the test plays and no broker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

mod coordinator;

use std::path::Path;
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_proto::control::{self, DirectiveAction, agent_frame};
use mesh_proto::convert::SentUpdate;
use mesh_proto::plugin::{Drained, Ready, host_frame, plugin_frame};
use mesh_proto::status::from_status;
use mesh_runtime::{Context, HumanDuration};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::coordinator::{Coordinator, Session};
use crate::config::{Config, PluginLaunch, RunConfig};
use crate::data::tests::harness::{Plugin, SOON, Stranger, hello, manifest};
use crate::error::AgentError;
use crate::run;

struct Agent {
    context: Context,
    running: JoinHandle<Result<(), AgentError>>,
    address: String,
    dir: tempfile::TempDir,
}

impl Agent {
    fn start(coordinators: &[&Coordinator], plugins: Vec<PluginLaunch>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), coordinators, plugins)
    }

    /// In the folder of one that was there before.
    fn start_in(
        dir: tempfile::TempDir,
        coordinators: &[&Coordinator],
        plugins: Vec<PluginLaunch>,
    ) -> Self {
        let config = config(dir.path(), coordinators, plugins);
        let address = format!("unix://{}", config.socket_path().display());
        let context = Context::default();
        let agent = RunConfig {
            agent: config,
            nats: mesh_runtime::NatsSection {
                url: "nats://127.0.0.1:9".to_owned(),
                credentials: None,
            },
            ..RunConfig::default()
        };
        let running = tokio::spawn(run(agent, context.clone()));
        Self {
            context,
            running,
            address,
            dir,
        }
    }

    /// A plugin that is ready.
    async fn plugin(&self, name: &str) -> Plugin {
        let stranger = Stranger::connect(&self.address).await;
        let mut plugin = stranger
            .hello(hello(manifest(name, &["work"])))
            .await
            .unwrap();
        plugin.send(0, plugin_frame::Body::Ready(Ready {})).await;
        plugin
    }

    async fn stop(self) -> Result<(), AgentError> {
        self.leave().await.1
    }

    /// Stops, and leaves its folder.
    async fn leave(self) -> (tempfile::TempDir, Result<(), AgentError>) {
        self.context.shutdown.trigger();
        (
            self.dir,
            timeout(SOON, self.running).await.unwrap().unwrap(),
        )
    }

    /// Waits until what `/ready` says of the table fits.
    async fn until_table(&self, fits: impl Fn(bool, &str) -> bool) {
        let waiting = async {
            loop {
                let checks = self.context.readiness.report().checks;
                let table = checks.iter().find(|check| check.name == "table");
                if table.is_some_and(|check| fits(check.ready, &check.detail)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, waiting).await.unwrap();
    }

    fn shows(&self, line: &str) -> bool {
        self.context.metrics.render().lines().any(|it| it == line)
    }
}

fn config(dir: &Path, coordinators: &[&Coordinator], plugins: Vec<PluginLaunch>) -> Config {
    Config {
        node: "node-1".parse().unwrap(),
        data_dir: dir.to_owned(),
        attach_tcp: Some("127.0.0.1:0".parse().unwrap()),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        drain_grace: HumanDuration::from_secs(3),
        coordinators: coordinators.iter().map(|it| it.address.clone()).collect(),
        plugins,
        ..Config::default()
    }
}

/// Waits until the coordinator is told that a plugin is in this phase; gives the reason.
async fn reported(session: &mut Session, plugin: &Plugin, phase: control::InstancePhase) -> String {
    let instance = plugin.instance.to_string();
    let fits =
        |report: &control::InstanceReport| report.instance == instance && report.phase() == phase;
    let found = session.find(|body| match body {
        agent_frame::Body::Report(report) => Some(report).filter(|report| fits(report)),
        // It may have been there already when the session began.
        agent_frame::Body::Announce(all) => all.instances.into_iter().find(|it| fits(it)),
        _ => None,
    });
    found.await.reason
}

/// Waits until the coordinator is told that a plugin is gone; gives the reason.
async fn reported_gone(session: &mut Session, instance: &str) -> String {
    let found = session.find(|body| match body {
        agent_frame::Body::Gone(gone) => Some(gone).filter(|gone| gone.instance == instance),
        _ => None,
    });
    found.await.reason
}

#[tokio::test]
async fn an_agent_joins_announces_follows_the_table_and_leaves_in_order() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.mesh, "default");
    let node = session.hello.node.clone().unwrap();
    assert_eq!(node.node, "node-1");
    assert!(node.generation > 1_000_000_000_000 && session.hello.table.is_none());
    assert!(matches!(
        session.receive().await,
        agent_frame::Body::Announce(announce) if announce.instances.is_empty()
    ));
    let mut plugin = agent.plugin("time").await;
    reported(&mut session, &plugin, control::InstancePhase::Ready).await;
    let update = session.table_with(&plugin, 5, control::InstanceState::Active);
    session.send_table(update).await;
    match plugin.frame().await {
        host_frame::Body::StateChange(change) => assert_eq!(change.state, "active"),
        other => panic!("{other:?}"),
    }
    assert_eq!(session.acked().await, 5);
    assert!(
        agent
            .context
            .readiness
            .report()
            .checks
            .iter()
            .any(|check| { check.name == "table" && check.ready })
    );
    let instance = plugin.instance.to_string();
    let socket = agent.dir.path().join("attach.sock");
    assert!(socket.exists());
    let stopping = tokio::spawn(async move {
        let outcome = agent.stop().await;
        (outcome, socket)
    });
    reported(&mut session, &plugin, control::InstancePhase::Draining).await;
    match plugin.frame().await {
        host_frame::Body::Drain(drain) => assert!(drain.reattach),
        other => panic!("{other:?}"),
    }
    plugin
        .send(0, plugin_frame::Body::Drained(Drained {}))
        .await;
    plugin.end().await.unwrap();
    let reason = reported_gone(&mut session, &instance).await;
    assert_eq!(reason, "the agent stops");
    session.closed().await;
    let (outcome, socket) = stopping.await.unwrap();
    outcome.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_plugin_whose_stream_breaks_is_reported_gone_at_once() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    let plugin = agent.plugin("time").await;
    reported(&mut session, &plugin, control::InstancePhase::Ready).await;
    let instance = plugin.instance.to_string();
    drop(plugin);
    let reason = reported_gone(&mut session, &instance).await;
    assert_eq!(reason, "its connection is gone");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_instance_is_told_why_and_is_gone() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    let mut plugin = agent.plugin("loop").await;
    reported(&mut session, &plugin, control::InstancePhase::Ready).await;
    let cycle = MeshError::new(ErrorCode::DependencyCycle, "loop → other → loop");
    let body = control::coordinator_frame::Body::Rejected(control::InstanceRejected {
        instance: plugin.instance.to_string(),
        error: Some(cycle.into()),
    });
    session.send(body).await;
    let error = from_status(&plugin.end().await.unwrap_err());
    assert_eq!(error.code, ErrorCode::DependencyCycle);
    assert_eq!(error.message, "loop → other → loop");
    assert_eq!(error.place.plugin, "loop");
    let reason = reported_gone(&mut session, &plugin.instance.to_string()).await;
    assert!(reason.contains("loop → other → loop"), "{reason}");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_unloaded_plugin_is_drained_and_closed() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    let mut plugin = agent.plugin("time").await;
    let mut other = agent.plugin("other").await;
    reported(&mut session, &plugin, control::InstancePhase::Ready).await;
    let body = control::coordinator_frame::Body::Directive(control::Directive {
        action: DirectiveAction::Unload.into(),
        plugin: "time".to_owned(),
        reason: "not wanted any more".to_owned(),
    });
    session.send(body).await;
    match plugin.frame().await {
        host_frame::Body::Drain(drain) => {
            assert_eq!(drain.reason, "not wanted any more");
            assert!(!drain.reattach);
        }
        other => panic!("{other:?}"),
    }
    let reason = reported(&mut session, &plugin, control::InstancePhase::Draining).await;
    assert_eq!(reason, "not wanted any more");
    plugin
        .send(0, plugin_frame::Body::Drained(Drained {}))
        .await;
    plugin.end().await.unwrap();
    // The other one is untouched.
    other
        .send(0, plugin_frame::Body::Publish(Box::default()))
        .await;
    assert_eq!(other.error().await.1.code, ErrorCode::Unsupported);
    drop(other);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn when_a_coordinator_is_lost_the_next_one_is_told_everything() {
    let (mut first, mut second) = (Coordinator::start().await, Coordinator::start().await);
    // A name, of which all addresses are tried.
    second.address = second.address.replace("127.0.0.1", "localhost");
    let agent = Agent::start(&[&first, &second], Vec::new());
    let mut session = first.session().await;
    let plugin = agent.plugin("time").await;
    reported(&mut session, &plugin, control::InstancePhase::Ready).await;
    let update = session.table_with(&plugin, 7, control::InstanceState::Active);
    session.send_table(update).await;
    assert_eq!(session.acked().await, 7);
    drop(session);
    first.stop().await;
    let mut session = second.session().await;
    assert_eq!(session.hello.table.map(|table| table.sequence), Some(7));
    match session.receive().await {
        agent_frame::Body::Announce(announce) => {
            let [report] = announce.instances.as_slice() else {
                panic!("{announce:?}");
            };
            assert_eq!(report.instance, plugin.instance.to_string());
            assert_eq!(report.phase(), control::InstancePhase::Ready);
        }
        other => panic!("{other:?}"),
    }
    // An update that does not fit leads to a whole table.
    let mut gap = session.table_with(&plugin, 9, control::InstanceState::Active);
    gap.from = Some(control::Revision {
        epoch: 1,
        sequence: 8,
    });
    session.send_table(gap).await;
    let session = second.session().await;
    assert_eq!(session.hello.table, None);
    drop(plugin);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_takes_packed_updates_and_asks_for_the_whole_table_when_one_is_broken() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    assert!(session.hello.takes_packed);
    let plugin = agent.plugin("time").await;
    let mut update = session.table_with(&plugin, 5, control::InstanceState::Active);
    update.nodes = (0..300)
        .map(|number| control::NodeRoute {
            node: format!("node-{number}"),
            generation: 1,
            ..control::NodeRoute::default()
        })
        .collect();
    let packed = SentUpdate::packed(update.try_into().unwrap());
    assert!(matches!(packed, SentUpdate::Packed(_)));
    session.send(packed.clone().into()).await;
    assert_eq!(session.acked().await, 5);
    let SentUpdate::Packed(bytes) = packed else {
        panic!("it is packed");
    };
    let cut = SentUpdate::Packed(bytes.slice(..bytes.len() - 1));
    session.send(cut.into()).await;
    session.closed().await;
    let session = coordinator.session().await;
    assert_eq!(session.hello.table, None);
    assert!(!session.hello.takes_packed);
    drop(plugin);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_starts_from_the_table_on_disk_without_any_coordinator_and_says_so() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    let plugin = agent.plugin("time").await;
    let update = session.table_with(&plugin, 5, control::InstanceState::Active);
    session.send_table(update).await;
    assert_eq!(session.acked().await, 5);
    assert!(agent.shows("plugmesh_table_followed 1"));
    drop(plugin);
    let (dir, stopped) = agent.leave().await;
    stopped.unwrap();
    // Not before: the agent would come back with another session, and leave that behind.
    drop(session);
    // Nobody answers there any more.
    let gone = Coordinator::start().await;
    let address = gone.address.clone();
    gone.stop().await;
    let agent = Agent::start_in(dir, &[&Coordinator::absent(address)], Vec::new());
    agent
        .until_table(|ready, detail| {
            let said = ["revision 1.5, as it was on disk", "may be old", "refused"];
            ready && said.iter().all(|part| detail.contains(part))
        })
        .await;
    assert!(agent.shows("plugmesh_table_from_disk 1"));
    assert!(agent.shows("plugmesh_table_followed 0"));
    // It hosts plugins all the same.
    let plugin = agent.plugin("time").await;
    drop(plugin);
    let (dir, stopped) = agent.leave().await;
    stopped.unwrap();
    // One that is back is told what there is, and sends only what is newer.
    let agent = Agent::start_in(dir, &[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.table.map(|table| table.sequence), Some(5));
    let at = Some(control::Revision {
        epoch: 1,
        sequence: 5,
    });
    let newest = control::TableUpdate {
        from: at,
        to: at,
        ..control::TableUpdate::default()
    };
    session.send_table(newest).await;
    agent
        .until_table(|ready, detail| ready && detail.is_empty())
        .await;
    assert!(agent.shows("plugmesh_table_from_disk 0"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_is_deaf_still_gets_heartbeats() {
    let mut coordinator = Coordinator::start().await;
    let agent = Agent::start(&[&coordinator], Vec::new());
    let mut session = coordinator.session().await;
    for _ in 0..3 {
        while !matches!(session.receive().await, agent_frame::Body::Heartbeat(_)) {}
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn processes_are_started_again_and_end_with_the_agent() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let script = format!(
        "echo $$ >> {}; test $(wc -l < {0}) -ge 3 && sleep 60",
        starts.display()
    );
    let agent = Agent::start(
        &[&coordinator],
        vec![launch("flaky", &["sh", "-c", &script])],
    );
    let count = || {
        let text = std::fs::read_to_string(&starts).unwrap_or_default();
        text.lines().count()
    };
    let thrice = async {
        while count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, thrice).await.unwrap();
    let metrics = agent.context.metrics.clone();
    agent.stop().await.unwrap();
    let text = std::fs::read_to_string(&starts).unwrap();
    let last: i32 = text.lines().last().unwrap().parse().unwrap();
    let group = rustix::process::Pid::from_raw(last).unwrap();
    // The system may take a moment to clear away what was killed.
    let gone = async {
        while rustix::process::test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
    let text = metrics.render();
    assert!(
        text.contains(r#"plugmesh_agent_restarts_total{plugin="flaky"} 2"#),
        "{text}"
    );
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_one_line_that_names_the_setting() {
    let coordinator = Coordinator::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path(), &[&coordinator], Vec::new());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (agent, says) in [
        (
            Config {
                attach_tcp: Some(taken.1),
                ..good.clone()
            },
            "agent.attach_tcp: port",
        ),
        (
            Config {
                admin_listen: taken.1,
                ..good.clone()
            },
            "agent.admin_listen: port",
        ),
        (
            Config {
                data_dir: file,
                ..good.clone()
            },
            "agent.data_dir: ",
        ),
    ] {
        let config = RunConfig {
            agent,
            ..RunConfig::default()
        };
        let error = timeout(SOON, run(config, Context::default()))
            .await
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(says), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

fn launch(name: &str, command: &[&str]) -> PluginLaunch {
    PluginLaunch {
        name: name.parse().unwrap(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: std::collections::BTreeMap::new(),
        dir: None,
        instances: 1,
        config: serde_json::Map::new(),
    }
}
