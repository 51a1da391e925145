//! Who may call: the `Host` and `Origin` headers.
//!
//! A web page can make its visitor's browser call servers on the visitor's own machine, under a name
//! that the page's owner points there (DNS rebinding). The name then stands in `Host`, and the page in
//! `Origin`: neither is one that a local gateway is known by.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// A name that the gateway may be called by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// Any name.
    Any,
    /// This one; without a port: at any port.
    Named {
        /// Lowercase, without brackets.
        host: String,
        /// The port.
        port: Option<u16>,
    },
}

/// A web page's origin that may use the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Any origin.
    Any,
    /// This one; without a port: at any port.
    Named {
        /// Lowercase.
        scheme: String,
        /// Lowercase, without brackets.
        host: String,
        /// The port.
        port: Option<u16>,
    },
}

fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = bare.unwrap_or(host).to_ascii_lowercase();
    // "host:" and "user@host" are authorities, but none that a client may send.
    let plain = !text.contains('@') && !text.ends_with(':') && !host.is_empty();
    plain.then(|| (host, authority.port_u16()))
}

fn origin(text: &str) -> Option<(String, String, Option<u16>)> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, port) = authority(rest)?;
    let scheme_is_valid = !scheme.is_empty() && scheme.bytes().all(|c| c.is_ascii_alphanumeric());
    scheme_is_valid.then(|| (scheme.to_ascii_lowercase(), host, port))
}

fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

impl AllowedHost {
    /// Reads an entry of `gateway.allowed_hosts`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        // An IPv6 address without brackets is taken, too: it can mean only one thing.
        let bracketed = format!("[{text}]");
        let read = authority(text).filter(|_| !text.contains('/'));
        let read = read.or_else(|| {
            text.parse::<std::net::Ipv6Addr>().ok()?;
            authority(&bracketed)
        });
        let (host, port) = read.ok_or_else(|| format!("{:?} is no host name", brief(text)))?;
        Ok(Self::Named { host, port })
    }

    fn allows(&self, given: &(String, Option<u16>)) -> bool {
        match self {
            Self::Any => true,
            Self::Named { host, port } => *host == given.0 && (port.is_none() || *port == given.1),
        }
    }
}

impl AllowedOrigin {
    /// Reads an entry of `gateway.allowed_origins`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, host, port) =
            origin(text).ok_or_else(|| format!("{:?} is no origin", brief(text)))?;
        Ok(Self::Named { scheme, host, port })
    }

    fn allows(&self, given: &(String, String, Option<u16>)) -> bool {
        match self {
            Self::Any => true,
            Self::Named { scheme, host, port } => {
                // Browsers leave out the scheme's own port.
                let own = match given.0.as_str() {
                    "http" => Some(80),
                    "https" => Some(443),
                    _ => None,
                };
                *scheme == given.0
                    && *host == given.1
                    && (port.is_none() || *port == given.2.or(own))
            }
        }
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The gateway is not known by this name.
    #[error(
        "Host header {0:?} is not allowed: call the gateway by a name in gateway.allowed_hosts, or \
         add this one to it"
    )]
    Host(String),
    /// No name was given.
    #[error("the Host header is missing")]
    NoHost,
    /// This web page may not use the gateway.
    #[error(
        "Origin header {0:?} is not allowed: add it to gateway.allowed_origins if you trust it"
    )]
    Origin(String),
}

/// Checks `Host` and `Origin` of every request.
#[derive(Debug, Clone)]
pub struct OriginCheck {
    hosts: Vec<AllowedHost>,
    origins: Vec<AllowedOrigin>,
}

impl OriginCheck {
    /// Of the entries of the configuration; those that can't be read allow nothing.
    #[must_use]
    pub fn new(hosts: &[String], origins: &[String]) -> Self {
        Self {
            hosts: hosts
                .iter()
                .filter_map(|text| AllowedHost::parse(text).ok())
                .collect(),
            origins: origins
                .iter()
                .filter_map(|text| AllowedOrigin::parse(text).ok())
                .collect(),
        }
    }

    /// Whether a request may go on.
    ///
    /// # Errors
    /// [`NotAllowed`], which names the header and the setting.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), NotAllowed> {
        // HTTP/2 says the host in the URI.
        let in_uri = uri.authority().map(Authority::as_str);
        let host = match headers.get(HOST) {
            Some(value) => value
                .to_str()
                .map_err(|_| NotAllowed::Host("?".to_owned()))?,
            None => in_uri.ok_or(NotAllowed::NoHost)?,
        };
        let read = authority(host);
        let known = |given: &(_, _)| self.hosts.iter().any(|allowed| allowed.allows(given));
        if !read.as_ref().is_some_and(known) {
            return Err(NotAllowed::Host(brief(host)));
        }
        // Programs other than browsers send none.
        let Some(value) = headers.get(ORIGIN) else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let any = self.origins.contains(&AllowedOrigin::Any);
        let trusted = |given: &(_, _, _)| self.origins.iter().any(|allowed| allowed.allows(given));
        if any || origin(&text).as_ref().is_some_and(trusted) {
            return Ok(());
        }
        Err(NotAllowed::Origin(brief(&text)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn check(host: Option<&str>, origin: Option<&str>) -> Result<(), NotAllowed> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        let config = crate::Config::default();
        let check = OriginCheck::new(&config.allowed_hosts, &config.allowed_origins);
        check.check(&Uri::from_static("/mcp"), &headers)
    }

    #[test]
    fn loopback_names_are_allowed_at_any_port_by_default() {
        for host in ["localhost:8087", "127.0.0.1", "LOCALHOST", "[::1]:9000"] {
            assert_eq!(check(Some(host), None), Ok(()), "{host}");
        }
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:1",
        ] {
            assert_eq!(check(Some("localhost"), Some(origin)), Ok(()), "{origin}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused_with_the_header_and_the_setting() {
        let error = check(Some("evil.example:8087"), None)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "Host header \"evil.example:8087\" is not allowed: call the gateway by a name in \
             gateway.allowed_hosts, or add this one to it"
        );
        for host in [
            "localhost.evil.example",
            "a@localhost",
            "localhost:",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert!(
                matches!(check(Some(host), None), Err(NotAllowed::Host(_))),
                "{host}"
            );
        }
        assert_eq!(check(None, None), Err(NotAllowed::NoHost));
    }

    #[test]
    fn a_foreign_page_is_refused() {
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://localhost.evil.example",
            "file://",
        ] {
            let error = check(Some("localhost"), Some(origin)).unwrap_err();
            assert!(
                error.to_string().contains("gateway.allowed_origins"),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_port_in_the_setting_is_required_and_a_scheme_has_its_own() {
        let lists = (
            ["mesh.example:443".to_owned()],
            ["https://app.example:443".to_owned()],
        );
        let check = OriginCheck::new(&lists.0, &lists.1);
        let headers = |host: &str, origin: &str| {
            HeaderMap::from_iter([
                (HOST, host.parse().unwrap()),
                (ORIGIN, origin.parse().unwrap()),
            ])
        };
        let uri = Uri::from_static("/mcp");
        let good = headers("mesh.example:443", "https://app.example");
        assert_eq!(check.check(&uri, &good), Ok(()));
        assert!(
            check
                .check(&uri, &headers("mesh.example", "https://app.example"))
                .is_err()
        );
        let other = headers("mesh.example:443", "https://app.example:8443");
        assert!(check.check(&uri, &other).is_err());
    }

    #[test]
    fn the_host_of_http_2_stands_in_the_uri() {
        let check = OriginCheck::new(&["localhost".to_owned()], &[]);
        let uri = Uri::from_static("http://localhost:8087/mcp");
        assert_eq!(check.check(&uri, &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn a_star_allows_everything() {
        let star = ["*".to_owned()];
        let check = OriginCheck::new(&star, &star);
        let headers = HeaderMap::from_iter([
            (HOST, "x".parse().unwrap()),
            (ORIGIN, "null".parse().unwrap()),
        ]);
        assert_eq!(check.check(&Uri::from_static("/"), &headers), Ok(()));
    }
}
