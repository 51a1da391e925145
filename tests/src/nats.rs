//! A private `nats-server` with JetStream, alone or as a node of a private cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Process;
use crate::{http_client, ports, wait};

/// One server; it keeps its port and its data over a restart.
pub struct Nats {
    pub port: u16,
    pub process: Process,
    program: PathBuf,
    folder: PathBuf,
    name: String,
    /// Where a node of a cluster tells how it is.
    monitor: Option<u16>,
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
        let address = ("127.0.0.1", ports::free());
        let nats = Self::spawn_new(folder, program, "nats-server", address, None, "");
        nats.wait_ready().await;
        nats
    }

    /// Starts a cluster of so many nodes and waits until they form one.
    pub async fn start_cluster(folder: &Path, nodes: usize) -> Vec<Self> {
        Self::start_cluster_on(folder, nodes, "127.0.0.1").await
    }

    /// The same, listening for clients on this address.
    pub async fn start_cluster_on(folder: &Path, nodes: usize, host: &str) -> Vec<Self> {
        let routes: Vec<u16> = (0..nodes).map(|_| ports::free()).collect();
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let start = |(index, route): (usize, &u16)| {
            let (port, monitor) = (ports::free(), ports::free());
            let lines = format!(
                "http: \"127.0.0.1:{monitor}\"\n\
                 cluster {{ name: \"test\", listen: \"127.0.0.1:{route}\", routes: [{}] }}\n",
                all.join(", ")
            );
            let name = format!("nats-server-{index}");
            let address = (host, port);
            Self::spawn_new(folder, &newest(), &name, address, Some(monitor), &lines)
        };
        let cluster: Vec<Self> = routes.iter().enumerate().map(start).collect();
        for node in &cluster {
            node.wait_ready().await;
        }
        cluster
    }

    fn spawn_new(
        folder: &Path,
        program: &Path,
        name: &str,
        (host, port): (&str, u16),
        monitor: Option<u16>,
        lines: &str,
    ) -> Self {
        let text = format!(
            "listen: \"{host}:{port}\"\nserver_name: \"{name}\"\nwrite_deadline: \"2s\"\n\
             jetstream {{ store_dir: {:?} }}\n{lines}",
            folder.join(format!("{name}-data"))
        );
        std::fs::write(config(folder, name), text).expect("the server's configuration");
        Self {
            port,
            process: spawn(folder, program, name),
            program: program.to_owned(),
            folder: folder.to_owned(),
            name: name.to_owned(),
            monitor,
        }
    }

    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// The address as seen from elsewhere.
    pub fn url_at(&self, host: &str) -> String {
        format!("nats://{host}:{}", self.port)
    }

    /// How the node is called in its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it again on the same port with the same data.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder, &self.program, &self.name);
        self.wait_ready().await;
    }

    /// Where a node of a cluster tells how it is.
    pub fn monitor_url(&self) -> Option<String> {
        let port = self.monitor?;
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// Waits until it takes connections and, as a node of a cluster, is at one with the others.
    async fn wait_ready(&self) {
        let address = ("127.0.0.1", self.port);
        let patience = Duration::from_secs(20);
        wait::until("nats-server listens", patience, || async {
            tokio::net::TcpStream::connect(address).await.map(drop)
        })
        .await;
        let Some(url) = self.monitor_url() else {
            return;
        };
        let url = format!("{url}/healthz");
        wait::until("the cluster is well", patience, || async {
            let answer = http_client::get(&url).await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.body);
            anyhow::Ok(())
        })
        .await;
    }
}

fn config(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.conf"))
}

fn spawn(folder: &Path, program: &Path, name: &str) -> Process {
    let args = ["-c".to_owned(), config(folder, name).display().to_string()];
    let env = [("GOMAXPROCS", "1".to_owned())];
    Process::start(name, folder, program, &args, &env)
}
