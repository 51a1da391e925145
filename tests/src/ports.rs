//! Free ports for servers of this process, which may bind them later, and again after a restart.
//!
//! Nobody else takes them meanwhile. They are below those that a system gives to connections and to who
//! asks for any port. And a process of ours has them in blocks, each locked by a file for as long as the
//! process lives, so that suites may run side by side.

use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

/// Linux gives to connections what is above 32767, macOS what is above 49151.
const FIRST: u16 = 10_000;
const BLOCKS: u16 = 220;
const BLOCK: u16 = 100;

struct Block {
    left: Range<u16>,
    _lock: File,
}

/// The blocks of this process; ports are left in the last one alone.
static OF_THIS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port of loopback that nothing listens on and that no process of ours was given.
pub fn free() -> u16 {
    let mut blocks = OF_THIS.lock().unwrap();
    loop {
        let left = blocks.last_mut().map(|block| &mut block.left);
        let mut left = left.into_iter().flatten();
        if let Some(port) = left.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
        blocks.push(next_block());
    }
}

fn next_block() -> Block {
    // In the clone, like all that is built: nothing is left elsewhere.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/ports");
    std::fs::create_dir_all(&folder).expect("a folder for the locks of ports");
    let first = fastrand::u16(0..BLOCKS);
    let lock = |number: u16| {
        let path = folder.join(number.to_string());
        let options = File::options().create(true).append(true).clone();
        let file = options.open(path).ok()?;
        file.try_lock().ok()?;
        let begin = FIRST + number * BLOCK;
        Some(Block {
            left: begin..begin + BLOCK,
            _lock: file,
        })
    };
    let mut numbers = (0..BLOCKS).map(|step| (first + step) % BLOCKS);
    numbers.find_map(lock).expect("a block of ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_all_are_below_those_of_connections() {
        let ports: Vec<u16> = (0..250).map(|_| free()).collect();
        let all: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(all.len(), ports.len());
        assert!(ports.iter().all(|port| *port >= FIRST && *port < 32_768));
    }
}
