//! Listening: one socket for each shard, all on the same port.

use std::net::{SocketAddr, TcpListener};

use mesh_runtime::net::{BindError, bind_tcp};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for a shard to take them.
const BACKLOG: i32 = 1_024;

/// The setting that names the address.
const FIELD: &str = "gateway.listen";

/// Listens with as many sockets as there are shards; the system spreads connections over them. Call
/// it within a Tokio runtime.
///
/// # Errors
/// [`BindError`], one line that names the setting and the remedy.
pub fn bind(address: SocketAddr, shards: u16) -> Result<Vec<TcpListener>, BindError> {
    let other = |source| BindError::Other {
        field: FIELD.to_owned(),
        address,
        source,
    };
    // Sockets that share a port would share it with another gateway's, too: this one does not, and so
    // finds out whether the port is taken.
    let alone = bind_tcp(address, FIELD)?;
    if shards <= 1 {
        return alone
            .into_std()
            .map(|listener| vec![listener])
            .map_err(other);
    }
    let address = alone.local_addr().map_err(other)?;
    drop(alone);
    (0..shards)
        .map(|_| shared(address).map_err(other))
        .collect()
}

fn shared(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shards_share_one_port_and_nobody_else_gets_it() {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = bind(any, 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(
            listeners
                .iter()
                .all(|one| one.local_addr().unwrap() == address)
        );
        let error = bind(address, 2).unwrap_err().to_string();
        assert!(error.starts_with("gateway.listen: port"), "{error}");
        assert!(error.contains("is taken by another program"), "{error}");
    }

    #[tokio::test]
    async fn one_shard_takes_a_plain_socket() {
        let any = "127.0.0.1:0".parse().unwrap();
        assert_eq!(bind(any, 1).unwrap().len(), 1);
    }
}
