//! Ports: those that were asked for, and free ones.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::exit::Failure;

/// Ports that were chosen. They are held until this is dropped, so that none is chosen twice. What
/// listens on them is started afterwards; should another program be quicker, it says so itself.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// The address to use for one that was asked for: port 0 becomes a free port.
    ///
    /// # Errors
    /// When another program has the port, naming the flag.
    pub fn take(
        &mut self,
        address: SocketAddr,
        what: &str,
        flag: &str,
    ) -> Result<SocketAddr, Failure> {
        let taken = TcpListener::bind(address).and_then(|listener| {
            let address = listener.local_addr()?;
            self.held.push(listener);
            Ok(address)
        });
        taken.map_err(|error| {
            let (host, port) = (address.ip(), address.port());
            let message = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "{what}: port {port} on {host} is taken by another program; stop it or choose \
                     another with {flag}"
                ),
                ErrorKind::AddrNotAvailable => format!(
                    "{what}: {host} is no address of this machine; choose one that is with {flag}"
                ),
                ErrorKind::PermissionDenied => format!(
                    "{what}: this user may not listen on port {port}; choose a port from 1024 on with \
                     {flag}"
                ),
                _ => {
                    format!("{what}: can't listen on {address}: {error}; choose another with {flag}")
                }
            };
            Failure::unavailable(message)
        })
    }

    /// A free port on loopback.
    ///
    /// # Errors
    /// When there is none.
    pub fn any(&mut self, what: &str) -> Result<SocketAddr, Failure> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.take(any, what, "fewer programs")
    }

    /// The port after one that was asked for, when it is free; else any.
    ///
    /// # Errors
    /// When there is none.
    pub fn after(
        &mut self,
        first: SocketAddr,
        asked: SocketAddr,
        what: &str,
    ) -> Result<SocketAddr, Failure> {
        let next = first.port().checked_add(1).filter(|_| asked.port() != 0);
        let next = next.map(|port| SocketAddr::from((first.ip(), port)));
        match next.map(|next| self.take(next, what, "--attach-listen")) {
            Some(Ok(address)) => Ok(address),
            _ => self.take(SocketAddr::from((first.ip(), 0)), what, "--attach-listen"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_taken_port_names_the_flag_and_port_0_is_a_free_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ports = Ports::default();
        let failure = ports.take(address, "gateway", "--listen").unwrap_err();
        assert_eq!(
            failure.message,
            format!(
                "gateway: port {} on 127.0.0.1 is taken by another program; stop it or choose \
                 another with --listen",
                address.port()
            )
        );
        assert_ne!(ports.any("nats-server").unwrap().port(), 0);
        // The next port may be taken, too; some port there always is.
        assert_ne!(ports.after(address, address, "agent-b").unwrap().port(), 0);
    }

    #[test]
    fn no_port_is_chosen_twice() {
        let mut ports = Ports::default();
        let chosen: BTreeSet<u16> = (0..400)
            .map(|_| ports.any("agent").unwrap().port())
            .collect();
        assert_eq!(chosen.len(), 400);
    }
}
