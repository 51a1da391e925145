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

/// Lets no more connections to a listener begin; those that are being made and those that wait to be taken
/// stay. Who begins one hears nothing, tries again after a second (RFC 6298), and by then is refused, as the
/// listener is closed: so it knows that nothing was processed. Closing alone breaks those that the system
/// made after the last one was taken, with requests on them perhaps.
///
/// # Errors
/// The system has no such filter: only Linux does.
#[cfg(target_os = "linux")]
pub fn hold_off(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    /// A classic BPF program over the TCP header (linux/filter.h).
    const NO_NEW: [SockFilter; 5] = [
        // The byte of flags, of which SYN and ACK count.
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        // SYN alone is dropped, all else is taken whole.
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&NO_NEW)
}

/// The same where there is no such filter.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn hold_off(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_that_wait_are_kept_and_none_begins_once_clients_are_held_off() {
        use std::time::Duration;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::net::TcpStream;

        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), "gateway.listen").unwrap();
        let address = listener.local_addr().unwrap();
        let mut early = TcpStream::connect(address).await.unwrap();
        hold_off(&listener).unwrap();
        let late = TcpStream::connect(address);
        let late = tokio::time::timeout(Duration::from_millis(300), late).await;
        assert!(late.is_err(), "{late:?}");
        early.write_all(b"hello").await.unwrap();
        let (mut taken, _) = listener.accept().await.unwrap();
        let mut heard = [0; 5];
        taken.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop(listener);
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
