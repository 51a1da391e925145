//! Whom to try next: the addresses in their order, a name as all addresses that it has, and last the
//! one that was lost last.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::pace::Pace;

/// Time to connect, and to look up a name.
const CONNECT: Duration = Duration::from_secs(2);

/// A coordinator that stands still keeps its connections: one that lets a ping wait for so long is left.
const PING: Duration = Duration::from_secs(2);

/// One coordinator to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As it stands in the configuration.
    configured: String,
    /// One of the addresses of its name, or why there is none; `None`: it needs no look-up.
    found: Option<Result<SocketAddr, String>>,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.found {
            Some(Ok(address)) => write!(f, "{} ({address})", self.configured),
            Some(Err(_)) | None => f.write_str(&self.configured),
        }
    }
}

impl Candidate {
    /// Connects to it. The connection breaks soon after the peer has gone silent.
    ///
    /// # Errors
    /// The innermost reason: the outer ones say only "transport error".
    pub async fn connect(&self) -> Result<Channel, String> {
        let text = |error: &dyn std::error::Error| root(error);
        let endpoint = match &self.found {
            Some(Err(why)) => return Err(why.clone()),
            None => Endpoint::from_shared(self.configured.clone()).map_err(|e| text(&e))?,
            Some(Ok(address)) => {
                let origin: Uri = self.configured.parse().map_err(|e| text(&e))?;
                let endpoint = Endpoint::from_shared(format!("http://{address}"));
                endpoint.map_err(|e| text(&e))?.origin(origin)
            }
        };
        endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|e| text(&e))
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The search for a coordinator.
#[derive(Debug)]
pub struct Search {
    addresses: Vec<String>,
    round: VecDeque<Candidate>,
    trying: Option<Candidate>,
    lost: Option<Candidate>,
    pace: Pace,
}

impl Search {
    /// Of the addresses in the configuration, in the order in which they are tried.
    #[must_use]
    pub fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            round: VecDeque::new(),
            trying: None,
            lost: None,
            pace: Pace::default(),
        }
    }

    /// The next one to try, after a wait where all have failed. `None` when there are no addresses.
    /// Safe to cancel: then it was not tried.
    pub async fn next(&mut self) -> Option<Candidate> {
        if self.addresses.is_empty() {
            return None;
        }
        let anew = self.round.is_empty();
        tokio::time::sleep(self.pace.wait(anew, fastrand::f64())).await;
        if anew {
            // Looked up again for each round: names get other addresses.
            self.round = round(&self.addresses, self.lost.as_ref()).await;
        }
        self.trying = self.round.pop_front();
        self.trying.clone()
    }

    /// The session with the last one stood; it has ended, or will.
    pub fn stood(&mut self) {
        self.lost.clone_from(&self.trying);
        self.pace.stood();
    }
}

/// All that can be tried now, in order.
pub async fn candidates(addresses: &[String]) -> impl Iterator<Item = Candidate> {
    round(addresses, None).await.into_iter()
}

async fn round(addresses: &[String], lost: Option<&Candidate>) -> VecDeque<Candidate> {
    let mut found = Vec::with_capacity(addresses.len());
    for address in addresses {
        found.push((address.clone(), look_up(address).await));
    }
    order(found, lost)
}

/// The addresses of a name, or why there are none; `None`: it needs no look-up.
type Found = Option<Result<Vec<SocketAddr>, String>>;

async fn look_up(address: &str) -> Found {
    let uri: Uri = address.parse().ok()?;
    // Certificates are made out to names.
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"))?;
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return None;
    }
    let name = (host, uri.port_u16().unwrap_or(80));
    let found = match tokio::time::timeout(CONNECT, tokio::net::lookup_host(name)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Some(Err(format!("the name can't be looked up: {error}"))),
        Err(_) => return Some(Err(format!("no name server answers within {CONNECT:?}"))),
    };
    let mut found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Some(Err("the name has no address".to_owned()));
    }
    // One name for several coordinators spreads those who ask over them.
    fastrand::shuffle(&mut found);
    Some(Ok(found))
}

/// Who is tried in a round: each once, the one that was lost last.
fn order(found: Vec<(String, Found)>, lost: Option<&Candidate>) -> VecDeque<Candidate> {
    let mut round: VecDeque<Candidate> = VecDeque::new();
    for (configured, found) in found {
        let found: Vec<Option<Result<SocketAddr, String>>> = match found {
            None => vec![None],
            Some(Err(why)) => vec![Some(Err(why))],
            Some(Ok(found)) => found.into_iter().map(|one| Some(Ok(one))).collect(),
        };
        for found in found {
            let candidate = Candidate {
                configured: configured.clone(),
                found,
            };
            if !round.contains(&candidate) {
                round.push_back(candidate);
            }
        }
    }
    if let Some(place) = round.iter().position(|one| Some(one) == lost)
        && let Some(lost) = round.remove(place)
    {
        round.push_back(lost);
    }
    round
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(round: &VecDeque<Candidate>) -> Vec<String> {
        round.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_is_all_its_addresses_and_who_was_lost_comes_last() {
        let two: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1"]
            .map(|address| address.parse().unwrap())
            .into();
        let found = || {
            vec![
                ("http://a:1".to_owned(), Some(Ok(two.clone()))),
                ("http://10.0.0.9:1".to_owned(), None),
                ("http://b:1".to_owned(), Some(Err("unknown".to_owned()))),
            ]
        };
        let round = order(found(), None);
        let all = [
            "http://a:1 (10.0.0.1:1)",
            "http://a:1 (10.0.0.2:1)",
            "http://10.0.0.9:1",
            "http://b:1",
        ];
        assert_eq!(shown(&round), all);
        let round = order(found(), round.front());
        assert_eq!(shown(&round), [all[1], all[2], all[3], all[0]]);
    }

    #[tokio::test]
    async fn names_are_looked_up_and_addresses_are_not() {
        for plain in ["http://127.0.0.1:7400", "http://[::1]:7400/", "https://a:1"] {
            assert_eq!(look_up(plain).await, None, "{plain}");
        }
        let found = look_up("http://localhost:7400").await.unwrap().unwrap();
        let expected: SocketAddr = "127.0.0.1:7400".parse().unwrap();
        assert!(found.contains(&expected), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_search_goes_through_all_and_leaves_the_lost_one_for_last() {
        let [a, b] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        let mut search = Search::new(vec![a.to_owned(), b.to_owned()]);
        let mut tried = Vec::new();
        for _ in 0..3 {
            tried.push(search.next().await.unwrap().to_string());
        }
        assert_eq!(tried, [a, b, a]);
        search.stood();
        assert_eq!(search.next().await.unwrap().to_string(), b);
        assert_eq!(search.next().await.unwrap().to_string(), b, "a was lost");
        assert_eq!(search.next().await.unwrap().to_string(), a);
        assert!(Search::new(Vec::new()).next().await.is_none());
    }

    #[tokio::test]
    async fn a_connection_that_fails_says_why() {
        let nobody = Candidate {
            configured: "http://127.0.0.1:9".to_owned(),
            found: None,
        };
        let why = nobody.connect().await.unwrap_err();
        assert!(why.contains("refused"), "{why}");
    }
}
