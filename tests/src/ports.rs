//! Free ports, each handed out once in a process.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of loopback that nothing listens on and that this process was not given before.
pub fn free() -> u16 {
    let mut guard = HANDED_OUT.lock().unwrap();
    let taken = guard.get_or_insert_default();
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if taken.insert(port) {
            return port;
        }
    }
}
