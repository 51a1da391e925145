//! One role of a mesh as a process: a coordinator, an agent, a gateway.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::PATIENCE;
use crate::http_client::{self, Answer};
use crate::process::{self, Process};
use crate::{ports, wait};

/// One role's process with its folder and ports.
pub struct Role {
    pub name: String,
    pub port: u16,
    pub admin_port: u16,
    pub data: PathBuf,
    /// Where it is reached.
    pub(super) host: String,
    /// What stands before its command.
    pub(super) prefix: Vec<String>,
    command: &'static str,
    folder: PathBuf,
    process: Option<Process>,
}

impl Role {
    pub(super) fn new(folder: &Path, command: &'static str, name: &str) -> Self {
        let data = folder.join(name);
        std::fs::create_dir_all(&data).expect("a folder");
        Self {
            name: name.to_owned(),
            port: ports::free(),
            admin_port: ports::free(),
            data,
            host: "127.0.0.1".to_owned(),
            prefix: Vec::new(),
            command,
            folder: folder.to_owned(),
            process: None,
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    pub(super) fn write_config(&self, text: &str) {
        std::fs::write(self.config(), text).expect("a configuration");
    }

    /// Starts the role; it must not run.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let config = self.config().display().to_string();
        let program = process::binary("plugmesh").display().to_string();
        let own = [program.as_str(), self.command, "--config", &config];
        let words: Vec<&str> = self.prefix.iter().map(String::as_str).chain(own).collect();
        self.process = Some(Process::start(
            &self.name,
            &self.folder,
            Path::new(words[0]),
            &words[1..],
            &[],
        ));
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the role runs")
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the role runs").pid()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the role runs").kill();
    }

    /// SIGTERM; the role must end well.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the role runs");
        let status = process.stop(PATIENCE);
        assert!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            process.output()
        );
    }

    pub async fn ready(&self) -> anyhow::Result<Answer> {
        self.page("ready").await
    }

    /// One of its admin pages.
    pub async fn page(&self, name: &str) -> anyhow::Result<Answer> {
        http_client::get(&self.page_url(name)).await
    }

    pub fn page_url(&self, name: &str) -> String {
        format!("http://{}:{}/{name}", self.host, self.admin_port)
    }

    /// Where it is reached by gRPC.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    pub async fn wait_ready(&self) {
        wait::until(&format!("{} is ready", self.name), PATIENCE, || async {
            let answer = self.ready().await?;
            if answer.status == 200 {
                return Ok(());
            }
            bail!("{} {}", answer.status, answer.body)
        })
        .await;
    }
}
