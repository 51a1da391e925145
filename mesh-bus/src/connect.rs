//! One connection to the broker: its options, and what it tells of itself.
//!
//! Answers to traps of NATS: the initial connect is retried like any other, every delay has jitter,
//! and full subscriptions are counted. The library's own events travel through a small queue that may
//! overflow, so they only wake whoever then looks at the state itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::Notify;

use crate::config::BusConfig;
use crate::error::BusError;

/// Why a process that needs the bus is not ready, while there is no connection.
pub const NOT_CONNECTED: &str = "the broker is not reachable (nats.url); trying again";

/// A server that gives no sign of life for three of these is left for another; it may stand still with a call
/// that has seconds.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// How long one server may take to greet: one that stands still takes connections, too, while calls wait.
const GREETING: Duration = Duration::from_millis(1_500);

/// The same for the store, whose next server is tried by whoever asked for the connection.
const STORE_GREETING: Duration = Duration::from_secs(1);

/// What the library has told of a connection.
#[derive(Debug, Default)]
pub(crate) struct LinkEvents {
    /// Connections made, the first included.
    pub connects: AtomicU64,
    /// Connections lost.
    pub disconnects: AtomicU64,
    /// Messages dropped because a subscription was full.
    pub dropped: AtomicU64,
    /// Something of the above changed.
    pub changed: Notify,
}

impl LinkEvents {
    /// Ends with the first disconnect of a connection that was made once.
    pub async fn broken(&self) {
        while self.disconnects.load(Ordering::Relaxed) == 0 {
            self.changed.notified().await;
        }
    }

    fn take(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.fetch_add(1, Ordering::Relaxed);
            }
            Event::Disconnected | Event::Closed => {
                self.disconnects.fetch_add(1, Ordering::Relaxed);
            }
            Event::SlowConsumer(_) => {
                let before = self.dropped.fetch_add(1, Ordering::Relaxed);
                // One line for each tenfold; the counter has the rest.
                if before.checked_ilog10() != (before + 1).checked_ilog10() {
                    tracing::warn!(
                        dropped = before + 1,
                        "a NATS subscription is full: messages were dropped"
                    );
                }
            }
            Event::LameDuckMode => tracing::info!("the NATS server asks its clients to leave"),
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
            Event::ClientError(error) => tracing::debug!(%error, "no connection to NATS yet"),
            Event::Draining => {}
        }
        self.tell();
    }

    /// Wakes whoever follows.
    pub fn tell(&self) {
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// How often the connection has changed; two equal readings mean that it stood in between.
    pub fn changes(&self) -> u64 {
        self.connects.load(Ordering::Relaxed) + self.disconnects.load(Ordering::Relaxed)
    }
}

/// Reads the addresses.
pub(crate) fn servers(config: &BusConfig) -> Result<Vec<ServerAddr>, BusError> {
    let bad_url = |why: String| BusError::Url {
        urls: config.urls.clone(),
        why,
    };
    let servers: Vec<ServerAddr> = config
        .urls
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(|url| url.parse().map_err(|error| bad_url(format!("{error}"))))
        .collect::<Result<_, _>>()?;
    if servers.is_empty() {
        return Err(bad_url("it names no server".to_owned()));
    }
    Ok(servers)
}

/// Reads the credentials, if there are any.
pub(crate) fn credentials(config: &BusConfig) -> Result<Option<String>, BusError> {
    let Some(path) = &config.credentials else {
        return Ok(None);
    };
    let bad = |error: std::io::Error| BusError::Credentials {
        path: path.clone(),
        why: error.to_string(),
    };
    let text = std::fs::read_to_string(path).map_err(bad)?;
    // Tried here so that a broken file is told at the start, by its name.
    ConnectOptions::with_credentials(&text).map_err(bad)?;
    Ok(Some(text))
}

/// A checked configuration of connections.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    servers: Vec<ServerAddr>,
    credentials: Option<String>,
    name: String,
}

impl Connector {
    /// Reads addresses and credentials.
    pub fn new(config: &BusConfig) -> Result<Self, BusError> {
        Ok(Self {
            servers: servers(config)?,
            credentials: credentials(config)?,
            name: config.client_name.clone(),
        })
    }

    fn options(&self, suffix: &str) -> Result<ConnectOptions, std::io::Error> {
        let options = match &self.credentials {
            None => ConnectOptions::new(),
            Some(text) => ConnectOptions::with_credentials(text)?,
        };
        Ok(options
            .name(format!("{}{suffix}", self.name))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            // Subjects come from mesh_core::subject only, whose tokens are checked types.
            .skip_subject_validation(true))
    }

    /// A connection that is made, and made again, in the background.
    pub async fn connect_lazily(
        &self,
        events: Arc<LinkEvents>,
        queue: usize,
    ) -> Result<Client, BusError> {
        let bad_url = |why: String| BusError::Url {
            urls: self.name.clone(),
            why,
        };
        self.options("")
            .map_err(|error| bad_url(error.to_string()))?
            .retry_on_initial_connect()
            .client_capacity(queue)
            .connection_timeout(GREETING)
            .event_callback(move |event| {
                events.take(&event);
                std::future::ready(())
            })
            .connect(self.servers.clone())
            .await
            .map_err(|error| bad_url(error.to_string()))
    }

    /// A connection that is made now or not at all, for JetStream; first to the server whose turn it
    /// is. The suffix is for people.
    pub async fn connect_now(
        &self,
        suffix: &str,
        events: Arc<LinkEvents>,
        turn: usize,
    ) -> Result<Client, String> {
        let mut servers = self.servers.clone();
        servers.rotate_left(turn % self.servers.len().max(1));
        self.options(suffix)
            .map_err(|error| error.to_string())?
            .retain_servers_order()
            .connection_timeout(STORE_GREETING)
            // Once around; whoever asked for the connection makes a new one after that.
            .max_reconnects(self.servers.len())
            .event_callback(move |event| {
                events.take(&event);
                std::future::ready(())
            })
            .connect(servers)
            .await
            .map_err(|error| error.to_string())
    }
}

/// The first try of a series comes soon; the others after 100 to 250 ms, never more: a mesh whose
/// broker is back shall not wait for a back-off that grew. All have jitter, so that a broker that
/// comes back is not met by all its clients at once.
fn reconnect_delay(attempt: usize) -> Duration {
    Duration::from_millis(match attempt {
        0 | 1 => fastrand::u64(0..=20),
        _ => fastrand::u64(100..=250),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn config(urls: &str) -> BusConfig {
        BusConfig {
            urls: urls.to_owned(),
            credentials: None,
            client_name: "test".to_owned(),
            mesh: mesh_core::id::MeshName::default(),
        }
    }

    #[test]
    fn addresses_may_be_many_and_a_bad_one_is_named() {
        assert_eq!(
            Connector::new(&config("nats://a:1, b:2,"))
                .unwrap()
                .servers
                .len(),
            2
        );
        for bad in ["", " , ", "http://a", "nats://["] {
            let error = Connector::new(&config(bad)).unwrap_err().to_string();
            assert!(error.starts_with("nats.url"), "{error}");
            assert!(error.contains("nats://127.0.0.1:4222"), "{error}");
        }
    }

    #[test]
    fn a_check_tells_of_all_mistakes_at_once() {
        assert!(config("a").check().is_empty());
        let mut bad = config("nats://[");
        bad.credentials = Some("/nonexistent/x.creds".into());
        let mistakes = bad.check();
        assert!(
            matches!(
                mistakes.as_slice(),
                [BusError::Url { .. }, BusError::Credentials { .. }]
            ),
            "{mistakes:?}"
        );
    }

    #[test]
    fn missing_or_broken_credentials_are_told_by_the_files_name() {
        let mut with = config("a");
        with.credentials = Some("/nonexistent/x.creds".into());
        let error = Connector::new(&with).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x.creds"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.creds");
        std::fs::write(&path, "garbage").unwrap();
        with.credentials = Some(path);
        assert!(matches!(
            Connector::new(&with),
            Err(BusError::Credentials { .. })
        ));
    }

    #[test]
    fn no_two_tries_come_faster_than_a_tenth_of_a_second_nor_slower_than_a_quarter() {
        for attempt in 2..200 {
            let delay = reconnect_delay(attempt).as_millis();
            assert!((100..=250).contains(&delay), "{delay}");
        }
    }
}
