//! Listening, with an error that says what to do.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a port can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "{field}: port {port} on {host} is taken by another program; stop it or choose another \
         with {remedy}"
    )]
    Taken {
        /// The setting, such as "gateway.listen".
        field: String,
        /// The port.
        port: u16,
        /// The address without the port.
        host: String,
        /// The flag and the environment variable.
        remedy: String,
    },
    /// The system does not allow it.
    #[error(
        "{field}: this user may not listen on {address}; choose a port from 1024 on with {remedy}"
    )]
    Forbidden {
        /// The setting.
        field: String,
        /// The address.
        address: SocketAddr,
        /// The flag and the environment variable.
        remedy: String,
    },
    /// This machine does not have the address.
    #[error("{field}: {host} is no address of this machine; choose one that is with {remedy}")]
    NotHere {
        /// The setting.
        field: String,
        /// The address without the port.
        host: String,
        /// The flag and the environment variable.
        remedy: String,
    },
    /// Anything else.
    #[error("{field}: can't listen on {address}: {source}")]
    Other {
        /// The setting.
        field: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on a TCP port; port 0 takes any free one. `field` is the setting that named the address,
/// such as `gateway.listen`. Call it within a Tokio runtime.
///
/// # Errors
/// [`BindError`], one line that names the setting and the remedy.
pub fn bind_tcp(address: SocketAddr, field: &str) -> Result<TcpListener, BindError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| refused(address, field, source))
}

fn refused(address: SocketAddr, field: &str, source: io::Error) -> BindError {
    let flag = field.rsplit('.').next().unwrap_or(field).replace('_', "-");
    let env = crate::config::env_name(field);
    let remedy = format!("--{flag} or {env}");
    let (field, host) = (field.to_owned(), address.ip().to_string());
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken {
            field,
            port: address.port(),
            host,
            remedy,
        },
        io::ErrorKind::PermissionDenied => BindError::Forbidden {
            field,
            address,
            remedy,
        },
        io::ErrorKind::AddrNotAvailable => BindError::NotHere {
            field,
            host,
            remedy,
        },
        _ => BindError::Other {
            field,
            address,
            source,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_said_in_one_line_with_the_remedy() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = bind_tcp(any, "gateway.listen").unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_tcp(address, "gateway.listen").unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "gateway.listen: port {} on 127.0.0.1 is taken by another program; stop it or \
                 choose another with --listen or PLUGMESH_GATEWAY__LISTEN",
                address.port()
            )
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_said_so() {
        let elsewhere = "192.0.2.1:1".parse().unwrap();
        let error = bind_tcp(elsewhere, "agent.attach_tcp")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("agent.attach_tcp: 192.0.2.1 is no address of this machine"),
            "{error}"
        );
        assert!(error.contains("--attach-tcp"), "{error}");
    }
}
