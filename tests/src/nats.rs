//! A private `nats-server` with JetStream.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Process;
use crate::{ports, wait};

/// One server; it keeps its port and its data over a restart.
pub struct Nats {
    pub port: u16,
    pub process: Process,
    program: PathBuf,
    folder: PathBuf,
}

/// The newest server, from `PLUGMESH_NATS_SERVER`, or fetched before into `.tools/`.
pub fn newest() -> PathBuf {
    from_env("PLUGMESH_NATS_SERVER").unwrap_or_else(|| fetched().pop().unwrap_or_else(missing))
}

/// The oldest supported server.
pub fn oldest() -> PathBuf {
    from_env("PLUGMESH_TEST_NATS_OLDEST")
        .unwrap_or_else(|| fetched().into_iter().next().unwrap_or_else(missing))
}

fn missing() -> PathBuf {
    panic!("no nats-server: run `make test`, which fetches it")
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// Servers in `.tools/nats-server/<version>/`, oldest first.
fn fetched() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let mut found: Vec<(Vec<u32>, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let version = entry.file_name().to_string_lossy().into_owned();
            let parts = version.split('.').filter_map(|part| part.parse().ok());
            (parts.collect(), entry.path().join("nats-server"))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

impl Nats {
    /// Starts the newest server in a folder.
    pub async fn start(folder: &Path) -> Self {
        Self::start_program(folder, &newest()).await
    }

    pub async fn start_program(folder: &Path, program: &Path) -> Self {
        let port = ports::free();
        let process = spawn(folder, program, port);
        let nats = Self {
            port,
            process,
            program: program.to_owned(),
            folder: folder.to_owned(),
        };
        nats.wait_ready().await;
        nats
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port with the same data.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder, &self.program, self.port);
        self.wait_ready().await;
    }

    async fn wait_ready(&self) {
        let address = ("127.0.0.1", self.port);
        wait::until("nats-server listens", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(address).await.map(drop)
        })
        .await;
    }
}

fn spawn(folder: &Path, program: &Path, port: u16) -> Process {
    let config = folder.join("nats.conf");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nserver_name: \"test\"\nwrite_deadline: \"2s\"\n\
         jetstream {{ store_dir: {:?} }}\n",
        folder.join("jetstream")
    );
    std::fs::write(&config, text).expect("the server's configuration");
    let args = ["-c".to_owned(), config.display().to_string()];
    Process::start(
        "nats-server",
        folder,
        program,
        &args,
        &[("GOMAXPROCS", "1".to_owned())],
    )
}
