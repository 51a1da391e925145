//! Where the agent is, and how a connection to it is made.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::Error;

/// The variable that names the agent.
const VARIABLE: &str = "PLUGMESH_AGENT";
/// Where an agent listens if not told otherwise.
const DEFAULT: &str = "http://127.0.0.1:7410";

/// How a plugin reaches its host.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Unix(PathBuf),
    Http(String),
}

/// Makes connections to one host.
pub(crate) enum Connector {
    /// An agent.
    Agent(Address),
    /// A host within this process.
    Memory(tokio::sync::mpsc::Sender<tokio::io::DuplexStream>),
}

impl Address {
    /// The address in the environment, or the default.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => Self::parse(&text),
            Ok(_) | Err(std::env::VarError::NotPresent) => Self::parse(DEFAULT),
            Err(std::env::VarError::NotUnicode(bytes)) => Err(Error::Address {
                given: bytes.to_string_lossy().into_owned(),
                why: "it is not UTF-8".to_owned(),
            }),
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let fault = |why: &str| Error::Address {
            given: text.chars().take(200).collect(),
            why: why.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(fault("after unix:// stands an absolute path"));
            }
            if path.len() > 100 {
                return Err(fault("the path of a socket has at most 100 bytes"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.starts_with("https://") {
            return Err(fault("an agent is on this host: use http or unix"));
        }
        if !text.starts_with("http://") {
            return Err(fault("it begins with neither unix:// nor http://"));
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error: http::uri::InvalidUri| fault(&error.to_string()))?;
        if uri.port_u16().is_none() {
            return Err(fault("it has no port"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(fault("it has a path; leave out what follows the port"));
        }
        Ok(Self::Http(text.to_owned()))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(uri) => f.write_str(uri),
        }
    }
}

impl Connector {
    /// Connects once. The error is for a person.
    pub(crate) async fn connect(&self) -> Result<Channel, String> {
        let connected = match self {
            Self::Agent(Address::Http(uri)) => {
                let endpoint = Endpoint::from_shared(uri.clone());
                configure(endpoint.map_err(|error| chain(&error))?)
                    .connect()
                    .await
            }
            #[cfg(unix)]
            Self::Agent(Address::Unix(path)) => {
                let path = path.clone();
                let connect = service_fn(move |_: http::Uri| {
                    let path = path.clone();
                    async move {
                        let socket = quiet_socket::QuietSocket::connect(&path).await?;
                        Ok::<_, std::io::Error>(TokioIo::new(socket))
                    }
                });
                configure(Endpoint::from_static("http://localhost"))
                    .connect_with_connector(connect)
                    .await
            }
            #[cfg(not(unix))]
            Self::Agent(Address::Unix(_)) => {
                return Err("this system has no Unix sockets; use http://host:port".to_owned());
            }
            Self::Memory(listener) => {
                let listener = listener.clone();
                let connect = service_fn(move |_: http::Uri| {
                    let listener = listener.clone();
                    async move {
                        let (ours, theirs) = tokio::io::duplex(1 << 20);
                        let sent = listener.send(theirs).await;
                        sent.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
                        Ok::<_, std::io::Error>(TokioIo::new(ours))
                    }
                });
                configure(Endpoint::from_static("http://localhost"))
                    .connect_with_connector(connect)
                    .await
            }
        };
        connected.map_err(|error| chain(&error))
    }
}

/// Large windows and frames, as payloads are large; pings, so that a host that is gone is noticed.
fn configure(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(256 << 10)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
}

/// An error and its causes in one line, from the outside in; what a cause repeats is left out.
fn chain(error: &tonic::transport::Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() {
        return error.to_string();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    //! Addresses, good and bad.

    use super::*;

    #[test]
    fn addresses_are_sockets_or_ports() {
        for good in [
            "unix:///run/agent.sock",
            "http://127.0.0.1:7410",
            "http://[::1]:7410/",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "it begins with neither"),
            ("7410", "it begins with neither"),
            ("localhost:7410", "it begins with neither"),
            ("tcp://localhost:7410", "it begins with neither"),
            ("unix://agent.sock", "absolute path"),
            (&format!("unix:///{}", "x".repeat(120)), "at most 100 bytes"),
            ("http://localhost", "no port"),
            ("http://localhost:99999", "port"),
            ("https://localhost:7410", "use http or unix"),
            ("http://localhost:7410/attach", "it has a path"),
        ] {
            match Address::parse(bad) {
                Ok(address) => panic!("{bad} was taken as {address}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("PLUGMESH_AGENT: "), "{text}");
                    assert!(text.contains(why), "{bad}: {text}");
                }
            }
        }
    }
}
