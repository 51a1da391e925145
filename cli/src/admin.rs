//! The operator's side of a coordinator's `MeshAdmin`.

use std::error::Error;
use std::time::Duration;

use mesh_proto::OPERATOR_HEADER;
use mesh_proto::admin::mesh_admin_client::MeshAdminClient;
use mesh_proto::status::from_status;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::args::CoordinatorFlags;
use crate::exit::{self, Failure};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Time for an answer; streams have none.
const ANSWER: Duration = Duration::from_secs(30);

/// Largest answer, in bytes: a list of many plugins with their schemas.
const LARGEST: usize = 256 << 20;

/// A connection to a coordinator.
#[derive(Debug, Clone)]
pub struct Admin {
    url: String,
    client: MeshAdminClient<Channel>,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// [`exit::USAGE`] for a wrong address, [`exit::UNAVAILABLE`] when nobody answers.
    pub async fn connect(flags: &CoordinatorFlags) -> Result<Self, Failure> {
        let url = flags.coordinator.trim_end_matches('/').to_owned();
        let wrong = || {
            let message = format!(
                "--coordinator: {url:?} is not the address of a coordinator; write for example \
                 http://127.0.0.1:7400 (flag --coordinator or env PLUGMESH_COORDINATOR)"
            );
            Failure::new(exit::USAGE, message)
        };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|_| wrong())?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| unreachable(&url, &root(&error)))?;
        let client = MeshAdminClient::new(channel).max_decoding_message_size(LARGEST);
        Ok(Self { url, client })
    }

    /// The client of the service.
    pub fn client(&mut self) -> &mut MeshAdminClient<Channel> {
        &mut self.client
    }

    /// A request that is given up after a while.
    pub fn request<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(ANSWER);
        if let Some(name) = operator().and_then(|name| name.parse().ok()) {
            request.metadata_mut().insert(OPERATOR_HEADER, name);
        }
        request
    }

    /// What a status means.
    pub fn failure(&self, status: &Status) -> Failure {
        // A transport's failure has no details of ours.
        if status.code() == Code::Unavailable && status.details().is_empty() {
            return unreachable(&self.url, status.message());
        }
        from_status(status).into()
    }
}

/// Who runs this program, for the audit: `ada@laptop`.
fn operator() -> Option<String> {
    let user = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|user| !user.is_empty())?;
    let host = rustix::system::uname();
    Some(format!("{user}@{}", host.nodename().to_string_lossy()))
}

fn unreachable(url: &str, why: &str) -> Failure {
    Failure::unavailable(format!(
        "the coordinator at {url} can't be reached: {why}; start a mesh with `plugmesh dev`, or \
         name another coordinator with --coordinator or PLUGMESH_COORDINATOR"
    ))
}

/// The innermost cause, which is the one that says something.
pub fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
