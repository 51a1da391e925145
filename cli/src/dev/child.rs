//! One process of the mesh: its start, its log, its end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::time::Instant;

use crate::exit::Failure;

/// A log that is larger than this is put aside before the next start, in bytes.
const LARGEST_LOG: u64 = 16 << 20;

/// The first wait before a process that died is started again; doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A process that lived so long is started again as if for the first time.
const PROVEN: Duration = Duration::from_secs(30);

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What it is called.
    pub name: String,
    /// The program and its arguments, with what ties it to this process before them.
    pub command: Vec<String>,
    /// Variables that are set.
    pub env: Vec<(String, String)>,
    /// Variables that are taken away.
    pub hidden: Vec<String>,
    /// Where stdout and stderr go.
    pub log: PathBuf,
    /// Time that it gets to end when asked to.
    pub grace: Duration,
}

/// A process, or its place while it does not run.
#[derive(Debug)]
pub struct Child {
    /// How it is started.
    pub spec: Spec,
    /// It runs.
    pub process: Option<Process>,
    /// When it is to be started again.
    pub due: Option<Instant>,
    started: Instant,
    wait: Duration,
    log_start: u64,
}

impl Child {
    /// Not yet started.
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            process: None,
            due: None,
            started: Instant::now(),
            wait: FIRST_WAIT,
            log_start: 0,
        }
    }

    /// Starts it: in a process group of its own, so that Ctrl-C does not reach it, and tied to this
    /// process, so that it does not outlive it.
    ///
    /// # Errors
    /// When its log can't be written or it can't be started.
    pub fn start(&mut self) -> Result<(), Failure> {
        let name = &self.spec.name;
        let log = self.open_log().map_err(|error| {
            Failure::cant_create(format!(
                "{} can't be written: {error}; choose another folder with --data",
                self.spec.log.display()
            ))
        })?;
        self.log_start = log.metadata().map_or(0, |log| log.len());
        let copy = log.try_clone();
        let copy = copy.map_err(|error| Failure::failed(format!("{name}: {error}")))?;
        let Some((program, arguments)) = self.spec.command.split_first() else {
            return Err(Failure::failed(format!("{name} has no program")));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.spec.env.iter().cloned())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy);
        for variable in &self.spec.hidden {
            command.env_remove(variable);
        }
        let process = command.spawn();
        let process = process
            .map_err(|error| Failure::failed(format!("{name} can't be started: {error}")))?;
        self.process = Some(process);
        self.started = Instant::now();
        self.due = None;
        Ok(())
    }

    fn open_log(&self) -> std::io::Result<File> {
        let path = &self.spec.log;
        if fs::metadata(path).is_ok_and(|log| log.len() > LARGEST_LOG) {
            fs::rename(path, path.with_extension("log.old"))?;
        }
        OpenOptions::new().create(true).append(true).open(path)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::id)
    }

    /// Sends a signal; a process that has just ended does not mind.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Notes that it ended, and when it is to be started again.
    pub fn ended(&mut self) -> Duration {
        self.process = None;
        if self.started.elapsed() > PROVEN {
            self.wait = FIRST_WAIT;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        self.due = Some(Instant::now() + wait);
        wait
    }

    /// The last lines that it wrote since its last start.
    pub fn last_lines(&self, number: usize) -> Vec<String> {
        let read = || {
            let mut log = File::open(&self.spec.log)?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(
                self.log_start.max(length.saturating_sub(16_384)),
            ))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok::<String, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let skip = lines.len().saturating_sub(number);
        lines.into_iter().skip(skip).map(str::to_owned).collect()
    }

    /// How it ended, with its last lines, for a person.
    pub fn epitaph(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown cause".to_owned(),
        };
        let lines = self.last_lines(5);
        let log = self.spec.log.display();
        if lines.is_empty() {
            return format!("{} ended ({how}); its log is {log}", self.spec.name);
        }
        let lines = lines.join("\n    ");
        format!(
            "{} ended ({how}); the last lines of {log}:\n    {lines}",
            self.spec.name
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn child(folder: &std::path::Path) -> Child {
        Child::new(Spec {
            name: "test".to_owned(),
            command: Vec::new(),
            env: Vec::new(),
            hidden: Vec::new(),
            log: folder.join("test.log"),
            grace: Duration::ZERO,
        })
    }

    #[test]
    fn a_process_that_dies_again_and_again_is_started_ever_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child(folder.path());
        let waits: Vec<u128> = (0..8).map(|_| child.ended().as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn only_lines_of_the_last_start_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child(folder.path());
        fs::write(&child.spec.log, "old\n").unwrap();
        child.log_start = 4;
        assert!(child.last_lines(5).is_empty());
        fs::write(&child.spec.log, "old\none\n\ntwo\nthree\n").unwrap();
        assert_eq!(child.last_lines(2), ["two", "three"]);
        let epitaph = child.epitaph(ExitStatus::from_raw(9));
        assert!(
            epitaph.starts_with("test ended (signal 9); the last lines of"),
            "{epitaph}"
        );
    }
}
