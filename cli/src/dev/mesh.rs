//! The processes of a mesh: started in order, watched, started again when they die, stopped in the
//! reverse order.

use std::convert::Infallible;
use std::future::Future;
use std::process::ExitStatus;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join_all, select_all};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until, timeout};

use super::child::{Child, Spec};
use super::console::Console;
use super::follow::Follow;
use super::plan::{Plan, reached};
use super::signals::Signals;
use super::{ready, report, state};
use crate::exit::{self, Failure};
use crate::tied::{self, own_path};
use crate::view::PluginView;

/// How long each process gets to end. An agent gives its plugins ten seconds; so does a gateway its
/// calls.
const GRACE: Duration = Duration::from_secs(15);

/// A mesh.
#[derive(Debug)]
pub struct Mesh<'a> {
    plan: &'a Plan,
    console: Console,
    children: Vec<Child>,
    signals: Signals,
    follow: Option<Follow>,
    plugins: Vec<PluginView>,
}

/// What ends waiting.
enum Event {
    Signal,
    Exit(usize, ExitStatus),
    Due(usize),
}

impl<'a> Mesh<'a> {
    /// Nothing is started yet.
    ///
    /// # Errors
    /// When signals can't be handled.
    pub fn new(plan: &'a Plan, console: Console, verbose: bool) -> Result<Self, Failure> {
        // Looked up once: this program's file may be replaced while it runs.
        let (own, prefix) = (own_path()?, tied::prefix()?);
        let tied = |command: [String; 4]| [prefix.as_slice(), &command].concat();
        let role = |role: &str, name: &str| Spec {
            name: name.to_owned(),
            command: tied([
                own.clone(),
                role.to_owned(),
                "--config".to_owned(),
                plan.file(name).display().to_string(),
            ]),
            env: Vec::new(),
            hidden: plan.hidden_variables(name),
            log: plan.log(name),
            grace: GRACE,
        };
        let mut specs = vec![nats(plan, &prefix), role("coordinator", "coordinator")];
        specs.extend(plan.agents.iter().map(|agent| role("agent", &agent.name)));
        specs.push(role("gateway", "gateway"));
        let logs = specs
            .iter()
            .map(|spec| (spec.name.clone(), spec.log.clone()));
        let follow = verbose.then(|| Follow::new(console, logs));
        Ok(Self {
            plan,
            console,
            follow,
            children: specs.into_iter().map(Child::new).collect(),
            signals: Signals::new()?,
            plugins: Vec::new(),
        })
    }

    /// The id of a process, while it runs.
    pub fn pid(&self, name: &str) -> Option<u32> {
        let child = self.children.iter().find(|child| child.spec.name == name);
        child.and_then(Child::pid)
    }

    /// Starts everything, says so, and watches until a signal comes.
    ///
    /// # Errors
    /// When something can't be started or is not ready in time; [`exit::INTERRUPTED`] when a signal
    /// comes before all is up.
    pub async fn start_and_watch(&mut self) -> Result<(), Failure> {
        let (begun, plan) = (Instant::now(), self.plan);
        self.start("nats-server")?;
        self.until(ready::nats(plan.nats)).await?;
        let server = format!("nats-server {} on {}", plan.server.version, plan.nats);
        self.say_up(&server, begun);

        let begun_roles = Instant::now();
        self.start("coordinator")?;
        self.until(ready::role("coordinator", plan.coordinator_admin))
            .await?;
        self.say_up(&format!("coordinator on {}", plan.coordinator), begun_roles);

        // They find each other by themselves, in any order.
        let begun_roles = Instant::now();
        for agent in &plan.agents {
            self.start(&agent.name)?;
        }
        self.start("gateway")?;
        for agent in &plan.agents {
            self.until(ready::role(&agent.name, agent.admin)).await?;
            self.say_up(
                &format!("{} on {}", agent.name, agent.attach_tcp),
                begun_roles,
            );
        }
        self.until(ready::role("gateway", reached(plan.gateway)))
            .await?;
        self.say_up(&format!("gateway on {}", plan.gateway), begun_roles);

        let begun_plugins = Instant::now();
        self.plugins = self.until(ready::plugins(plan)).await?;
        let plugins = self.plugins.clone();
        self.until(ready::tools(plan, &plugins)).await?;
        self.say_plugins(begun_plugins);
        state::write(&plan.data, &report::state(plan, self, &self.plugins));
        report::show(self.console, plan, self, &self.plugins)?;
        tracing::debug!(took = ?begun.elapsed(), "the mesh is up");
        self.watch().await
    }

    fn say_up(&self, what: &str, begun: Instant) {
        let took = begun.elapsed().as_secs_f32();
        self.console.say(format!("✓ {what} ({took:.1} s)"));
    }

    fn say_plugins(&self, begun: Instant) {
        for launch in &self.plan.plugins {
            let found = self
                .plugins
                .iter()
                .find(|plugin| plugin.name == launch.name);
            let (name, agent) = (&launch.name, &launch.agent);
            match found {
                Some(plugin) if plugin.is_active() => {
                    let version = &plugin.version;
                    self.say_up(&format!("plugin {name} {version} on {agent}"), begun);
                }
                Some(plugin) => {
                    let (state, reason) = (&plugin.state, &plugin.reason);
                    self.console
                        .say(format!("! plugin {name} on {agent} is {state}: {reason}"));
                }
                None => {
                    let log = self.plan.log(agent);
                    let log = log.display();
                    self.console.say(format!(
                        "! plugin {name} on {agent} has not attached; see {log}"
                    ));
                }
            }
        }
    }

    fn start(&mut self, name: &str) -> Result<(), Failure> {
        let child = self
            .children
            .iter_mut()
            .find(|child| child.spec.name == name);
        child.map_or(Ok(()), Child::start)
    }

    /// Waits for something that needs all that was started: a process that ends, or a signal, ends
    /// the waiting.
    async fn until<T>(
        &mut self,
        wanted: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut wanted = std::pin::pin!(wanted);
        let event = tokio::select! {
            result = &mut wanted => return result,
            event = self.event() => event,
        };
        match event {
            Event::Exit(index, status) => {
                let Some(child) = self.children.get_mut(index) else {
                    return wanted.await;
                };
                child.process = None;
                // A role that refuses its configuration or lacks something has said so by its code.
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                let code = code
                    .filter(|code| *code > exit::USAGE)
                    .unwrap_or(exit::FAILED);
                Err(Failure::new(code, child.epitaph(status)))
            }
            Event::Signal | Event::Due(_) => Err(Failure::new(
                exit::INTERRUPTED,
                "interrupted while starting",
            )),
        }
    }

    /// Starts again what dies, until a signal comes.
    async fn watch(&mut self) -> Result<(), Failure> {
        loop {
            match self.event().await {
                Event::Signal => return Ok(()),
                Event::Exit(index, status) => {
                    let Some(child) = self.children.get_mut(index) else {
                        continue;
                    };
                    let epitaph = child.epitaph(status);
                    let wait = child.ended().as_secs_f32();
                    self.console
                        .say(format!("✗ {epitaph}\n  it is started again in {wait:.1} s"));
                }
                Event::Due(index) => self.start_again(index),
            }
        }
    }

    fn start_again(&mut self, index: usize) {
        let Some(child) = self.children.get_mut(index) else {
            return;
        };
        let said = match child.start() {
            Ok(()) => format!(
                "↻ {} is started again (process {})",
                child.spec.name,
                child.pid().unwrap_or_default()
            ),
            Err(failure) => {
                let wait = child.ended().as_secs_f32();
                format!("✗ {}\n  it is tried again in {wait:.1} s", failure.message)
            }
        };
        self.console.say(said);
        state::write(
            &self.plan.data,
            &report::state(self.plan, self, &self.plugins),
        );
    }

    /// The next thing that happens.
    async fn event(&mut self) -> Event {
        let Self {
            children,
            signals,
            follow,
            ..
        } = self;
        let due = children
            .iter()
            .enumerate()
            .filter_map(|(index, child)| Some((child.due?, index)))
            .min();
        let due_now = async {
            match due {
                Some((at, index)) => {
                    sleep_until(at).await;
                    index
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signals.next() => Event::Signal,
            (index, status) = first_exit(children) => Event::Exit(index, status),
            index = due_now => Event::Due(index),
            never = show_logs(follow) => match never {},
        }
    }

    /// Stops everything that runs: gateway, agents, coordinator, broker. A process that does not end
    /// in time is killed; so are all when another signal comes.
    ///
    /// # Errors
    /// [`exit::INTERRUPTED`] when another signal came.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        let agents: Vec<&str> = self
            .plan
            .agents
            .iter()
            .map(|agent| agent.name.as_str())
            .collect();
        let order = [
            vec!["gateway"],
            agents,
            vec!["coordinator"],
            vec!["nats-server"],
        ];
        let mut ended = Ok(());
        for names in order {
            if ended.is_ok() {
                ended = self.stop_together(&names).await;
            }
        }
        if let Some(follow) = &mut self.follow {
            follow.show();
        }
        if ended.is_err() {
            self.kill_all().await;
        }
        ended
    }

    async fn stop_together(&mut self, names: &[&str]) -> Result<(), Failure> {
        let Self {
            children,
            signals,
            console,
            ..
        } = self;
        let running = children
            .iter_mut()
            .filter(|child| names.contains(&child.spec.name.as_str()) && child.process.is_some());
        let stops = join_all(running.map(|child| stop_one(child, *console)));
        tokio::select! {
            _ = stops => Ok(()),
            () = signals.next() => Err(forced()),
        }
    }

    async fn kill_all(&mut self) {
        for child in &mut self.children {
            child.signal(Signal::KILL);
            if let Some(process) = &mut child.process {
                // Nothing can be done about one that is stuck in the kernel.
                let _ = timeout(Duration::from_secs(2), process.wait()).await;
            }
        }
    }
}

async fn show_logs(follow: &mut Option<Follow>) -> Infallible {
    loop {
        match follow {
            Some(follow) => follow.step().await,
            None => std::future::pending().await,
        }
    }
}

fn forced() -> Failure {
    Failure::new(exit::INTERRUPTED, "a second signal: everything was killed")
}

async fn stop_one(child: &mut Child, console: Console) {
    let begun = Instant::now();
    let name = child.spec.name.clone();
    let grace = child.spec.grace;
    child.signal(Signal::TERM);
    let Some(process) = &mut child.process else {
        return;
    };
    if timeout(grace, process.wait()).await.is_ok() {
        let took = begun.elapsed().as_secs_f32();
        console.say(format!("✓ {name} stopped ({took:.1} s)"));
    } else {
        let _ = process.kill().await;
        console.say(format!(
            "✗ {name} did not stop within {} s: killed",
            grace.as_secs()
        ));
    }
    child.process = None;
}

/// The first of the running processes that ends.
async fn first_exit(children: &mut [Child]) -> (usize, ExitStatus) {
    loop {
        let waits: Vec<_> = children
            .iter_mut()
            .enumerate()
            .filter_map(|(index, child)| {
                let process = child.process.as_mut()?;
                Some(async move { (index, process.wait().await) }.boxed_local())
            })
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let ((index, status), _, _) = select_all(waits).await;
        match status {
            Ok(status) => return (index, status),
            // The system has lost sight of it; it can't be waited for any more.
            Err(error) => {
                tracing::debug!(%error, "a process can't be waited for");
                if let Some(child) = children.get_mut(index) {
                    child.process = None;
                }
            }
        }
    }
}

fn nats(plan: &Plan, prefix: &[String]) -> Spec {
    // On few cores the broker's own threads only get in each other's way.
    let few = std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= 2);
    let env = if few {
        vec![("GOMAXPROCS".to_owned(), "1".to_owned())]
    } else {
        Vec::new()
    };
    let command = [
        plan.server.path.display().to_string(),
        "--config".to_owned(),
        plan.file("nats-server").display().to_string(),
    ];
    Spec {
        name: "nats-server".to_owned(),
        command: [prefix, &command].concat(),
        env,
        hidden: Vec::new(),
        log: plan.log("nats-server"),
        grace: GRACE,
    }
}
