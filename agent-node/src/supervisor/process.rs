//! One process of a plugin: started in a group of its own, heard, ended.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mesh_runtime::Tasks;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::lines;
use crate::config::PluginLaunch;
use crate::plugin_log;
use crate::rate_gate::{LOG_LINES, RateGate};

/// Time between SIGTERM and SIGKILL.
const TERM_TIME: Duration = Duration::from_secs(5);

/// Time that a plugin that was told to leave gets to end by itself.
const LEAVE_TIME: Duration = Duration::from_millis(300);

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// There is no such program.
    #[error(
        "{field}.command: the program {program:?} was not found {place}; install it, or correct the path"
    )]
    NotFound {
        /// The plugin's place in the configuration.
        field: String,
        /// The program.
        program: String,
        /// Where it was looked for.
        place: String,
    },
    /// It is there but can't be run.
    #[error("{field}.command: {} is no program that this user can run; make it executable", path.display())]
    NotExecutable {
        /// The plugin's place in the configuration.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{field}.command: {program:?} can't be started: {source}")]
    Other {
        /// The plugin's place in the configuration.
        field: String,
        /// The program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What a process is started with, beside its own configuration.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// What stands before the command.
    pub(super) launcher: &'a [String],
    /// Where it attaches.
    pub(super) agent: &'a str,
    /// Its launch token.
    pub(super) token: &'a str,
    /// Where spans go.
    pub(super) otlp: Option<&'a str>,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    /// When it was started.
    pub(super) started: Instant,
}

impl Process {
    /// Starts a plugin. Its output goes to the log.
    pub(super) fn start(
        launch: &PluginLaunch,
        field: &str,
        around: &Surroundings<'_>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let program = launch.command.first().cloned().unwrap_or_default();
        find(launch, field, &program)?;
        let inherited = std::env::vars_os().map(|(name, _)| name);
        let (first, mut command) = command(launch, around, inherited);

        let mut child = command.spawn().map_err(|source| StartError::Other {
            field: field.to_owned(),
            program: first,
            source,
        })?;
        let name = launch.name.to_string();
        if let Some(stdout) = child.stdout.take() {
            let heard = heard(stdout, name.clone(), "stdout");
            tasks.spawn("plugin stdout", until(tasks.token(), heard));
        }
        if let Some(stderr) = child.stderr.take() {
            let heard = heard(stderr, name, "stderr");
            tasks.spawn("plugin stderr", until(tasks.token(), heard));
        }
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self {
            child,
            group,
            started: Instant::now(),
        })
    }

    /// Its process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end; what it started and left behind is ended, too. Safe to cancel.
    pub(super) async fn wait(&mut self) -> String {
        let status = self.child.wait().await;
        self.signal(Signal::KILL);
        self.group = None;
        match status {
            Ok(status) => describe(status),
            Err(error) => format!("its end could not be learned: {error}"),
        }
    }

    /// Ends it: lets it leave, then SIGTERM, then SIGKILL, to its whole group.
    pub(super) async fn stop(mut self) -> String {
        if let Ok(end) = timeout(LEAVE_TIME, self.wait()).await {
            return end;
        }
        self.signal(Signal::TERM);
        if let Ok(end) = timeout(TERM_TIME, self.wait()).await {
            return end;
        }
        tracing::warn!(
            pid = self.id(),
            "a plugin did not end after SIGTERM: it is killed"
        );
        self.signal(Signal::KILL);
        self.wait().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails when nothing of the group is left, which is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What is to be started, and its first word. `inherited` are the names of the agent's own environment:
/// settings of the mesh among them are the agent's and may hold passwords, so that no plugin gets them.
fn command(
    launch: &PluginLaunch,
    around: &Surroundings<'_>,
    inherited: impl Iterator<Item = OsString>,
) -> (String, Command) {
    let mut words = around.launcher.iter().chain(&launch.command);
    let first = words.next().cloned().unwrap_or_default();
    let mut command = Command::new(&first);
    for name in inherited {
        if name.as_encoded_bytes().starts_with(b"PLUGMESH_") {
            command.env_remove(name);
        }
    }
    command
        .args(words)
        .envs(&launch.env)
        .env("PLUGMESH_AGENT", around.agent)
        .env("PLUGMESH_LAUNCH_TOKEN", around.token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(otlp) = around.otlp {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", otlp);
    }
    if let Some(dir) = &launch.dir {
        command.current_dir(dir);
    }
    (first, command)
}

/// A process of another group may keep the pipe open for ever.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn heard(stream: impl tokio::io::AsyncRead + Unpin, plugin: String, name: &'static str) {
    let mut gate = RateGate::new(LOG_LINES, Instant::now());
    lines::read(stream, |line| {
        plugin_log::write_output(&mut gate, &plugin, name, line);
    })
    .await;
}

/// How a process ended, for a person.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended by itself, with exit status 0".to_owned(),
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => {
            let name = Signal::from_named_raw(signal).map_or("", signal_name);
            format!("it was ended by signal {signal}{name}")
        }
        (None, None) => "it ended".to_owned(),
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::KILL => " (SIGKILL)",
        Signal::TERM => " (SIGTERM)",
        Signal::SEGV => " (SIGSEGV)",
        Signal::ABORT => " (SIGABRT)",
        Signal::INT => " (SIGINT)",
        Signal::BUS => " (SIGBUS)",
        Signal::ILL => " (SIGILL)",
        _ => "",
    }
}

/// Finds the program, because a launcher that can't would only say so in the log.
fn find(launch: &PluginLaunch, field: &str, program: &str) -> Result<(), StartError> {
    let not_found = |place: String| StartError::NotFound {
        field: field.to_owned(),
        program: program.to_owned(),
        place,
    };
    if program.contains('/') {
        let path = launch
            .dir
            .as_ref()
            .map_or_else(|| PathBuf::from(program), |dir| dir.join(program));
        return match executable(&path) {
            Some(true) => Ok(()),
            Some(false) => Err(StartError::NotExecutable {
                field: field.to_owned(),
                path,
            }),
            None => Err(not_found(format!("at {}", path.display()))),
        };
    }
    let own = launch.env.get("PATH").map(OsString::from);
    let path = own.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| executable(&dir.join(program)) == Some(true)) {
        return Ok(());
    }
    Err(not_found("in PATH".to_owned()))
}

/// Whether a file can be run; `None`: there is none.
fn executable(path: &Path) -> Option<bool> {
    let metadata = path.metadata().ok()?;
    Some(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn launch(command: &[&str]) -> PluginLaunch {
        PluginLaunch {
            name: "probe".parse().unwrap(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            dir: None,
            instances: 1,
            config: serde_json::Map::new(),
        }
    }

    fn start(launch: &PluginLaunch, launcher: &[String]) -> Result<Process, StartError> {
        let around = Surroundings {
            launcher,
            agent: "unix:///tmp/x",
            token: "t",
            otlp: None,
        };
        Process::start(launch, "agent.plugins[0]", &around, &Tasks::new())
    }

    #[tokio::test]
    async fn an_end_is_told_with_its_status_or_signal() {
        for (script, says) in [
            ("exit 0", "exit status 0"),
            ("exit 3", "exit status 3"),
            ("kill -9 $$", "signal 9 (SIGKILL)"),
        ] {
            let mut process = start(&launch(&["sh", "-c", script]), &[]).unwrap();
            let end = process.wait().await;
            assert!(end.contains(says), "{end}");
        }
    }

    #[tokio::test]
    async fn the_plugin_finds_its_agent_and_token_in_its_environment() {
        let script = "test \"$PLUGMESH_AGENT,$PLUGMESH_LAUNCH_TOKEN\" = unix:///tmp/x,t";
        let launcher = ["env".to_owned()];
        let mut process = start(&launch(&["sh", "-c", script]), &launcher).unwrap();
        assert!(process.wait().await.contains("exit status 0"));
    }

    #[test]
    fn settings_of_the_agent_are_not_the_plugins() {
        let mut launch = launch(&["probe"]);
        launch
            .env
            .insert("PLUGMESH_MODE".to_owned(), "fast".to_owned());
        let around = Surroundings {
            launcher: &[],
            agent: "unix:///tmp/x",
            token: "t",
            otlp: None,
        };
        let inherited = [
            "PATH",
            "PLUGMESH_NATS__URL",
            "PLUGMESH_MODE",
            "PLUGMESH_AGENT",
        ];
        let (_, command) = command(&launch, &around, inherited.into_iter().map(OsString::from));
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let env: BTreeMap<_, _> = command
            .as_std()
            .get_envs()
            .map(|(name, value)| (text(name), value.map(text)))
            .collect();
        assert_eq!(env.get("PLUGMESH_NATS__URL"), Some(&None));
        assert_eq!(env.get("PATH"), None, "it is inherited");
        for (name, value) in [
            ("PLUGMESH_MODE", "fast"),
            ("PLUGMESH_AGENT", "unix:///tmp/x"),
        ] {
            assert_eq!(env.get(name), Some(&Some(value.to_owned())));
        }
    }

    #[tokio::test]
    async fn a_missing_program_names_the_field_even_behind_a_launcher() {
        let launcher = ["env".to_owned()];
        for command in ["no-such-program-here", "/no/such/program"] {
            let error = start(&launch(&[command]), &launcher)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("agent.plugins[0].command: "), "{error}");
            assert!(error.contains("was not found"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plugin"), "").unwrap();
        let mut there = launch(&["./plugin"]);
        there.dir = Some(dir.path().to_owned());
        let error = start(&there, &launcher).unwrap_err().to_string();
        assert!(error.contains("make it executable"), "{error}");
    }

    #[tokio::test]
    async fn one_that_ignores_sigterm_is_told_to_end_all_the_same_with_its_children() {
        let script = "trap 'exit 7' TERM; sleep 60 & wait";
        let process = start(&launch(&["sh", "-c", script]), &[]).unwrap();
        let group = process.group.unwrap();
        let end = process.stop().await;
        assert!(
            end.contains("exit status 7") || end.contains("signal"),
            "{end}"
        );
        // The child of the script is in the same group.
        let gone = async {
            while rustix::process::test_kill_process_group(group).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(5), gone).await.is_ok());
    }
}
