//! A node for tests: what it does with a call is the name of the called capability.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mesh_bus::{Bus, NodeInbox, ReplyTo};
use mesh_core::id::Generation;
use mesh_proto::common;
use mesh_proto::control::{NodeReply, node_reply, node_request};

const PART: usize = 128 << 10;

/// What the node has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub begun: AtomicU64,
    pub cancelled: AtomicU64,
    pub chunks_sent: AtomicU64,
    pub asked: AtomicU64,
    /// Calls that nobody has ended.
    pub open: Mutex<HashMap<(ReplyTo, u64), Running>>,
}

#[derive(Debug)]
pub struct Running {
    what: String,
    payload: Vec<u8>,
    next_part: u64,
    credit: u32,
    granted: u64,
    rest: Bytes,
    sent: u64,
    /// The bus did not take the last chunk.
    blocked: bool,
}

pub struct TestNode {
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestNode {
    pub async fn start(bus: &Bus, name: &str) -> Self {
        let inbox = bus
            .serve_node(&super::node(name), Generation(1))
            .await
            .unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(run(bus.clone(), inbox, seen.clone()));
        Self { seen, task }
    }
}

fn reply(bus: &Bus, to: &ReplyTo, call_id: u64, body: node_reply::Body) {
    let reply = NodeReply {
        call_id,
        body: Some(body),
        chunks_before: 0,
    };
    bus.reply(to, reply).unwrap();
}

pub fn result(payload: Bytes) -> node_reply::Body {
    node_reply::Body::Result(common::Result {
        payload,
        ..common::Result::default()
    })
}

async fn run(bus: Bus, mut inbox: NodeInbox, seen: Arc<Seen>) {
    loop {
        let blocked = seen
            .open
            .lock()
            .unwrap()
            .values()
            .any(|running| running.blocked);
        let received = tokio::select! {
            received = inbox.recv() => received,
            () = bus.reply_room(), if blocked => {
                let mut open = seen.open.lock().unwrap();
                open.retain(|(to, id), running| {
                    !(running.blocked && advance(&bus, to, *id, running))
                });
                continue;
            }
        };
        let Some((request, to)) = received else {
            return;
        };
        let id = request.call_id;
        let key = (to.clone(), id);
        let mut open = seen.open.lock().unwrap();
        match request.body.unwrap() {
            node_request::Body::Call(call) => {
                seen.begun.fetch_add(1, Ordering::Relaxed);
                let call = call.whole().unwrap();
                assert!(call.time_left_us > 0);
                let mut running = Running {
                    what: call.capability.unwrap().name,
                    payload: call.payload.to_vec(),
                    next_part: 0,
                    credit: 64,
                    granted: 0,
                    rest: Bytes::new(),
                    sent: 0,
                    blocked: false,
                };
                if call.more || !begin(&bus, &to, id, &mut running) {
                    open.insert(key, running);
                }
            }
            node_request::Body::Chunk(chunk) => {
                let Some(running) = open.get_mut(&key) else {
                    continue;
                };
                assert_eq!(chunk.sequence, running.next_part);
                running.next_part += 1;
                running.payload.extend_from_slice(&chunk.payload);
                if chunk.last {
                    if begin(&bus, &to, id, running) {
                        open.remove(&key);
                    }
                } else if running.next_part.is_multiple_of(32) {
                    let credit = common::Credit::of(32);
                    reply(&bus, &to, id, node_reply::Body::Credit(credit));
                }
            }
            node_request::Body::Cancel(_) => {
                seen.cancelled.fetch_add(1, Ordering::Relaxed);
                if let Some(running) = open.remove(&key)
                    && running.what == "late"
                {
                    reply(&bus, &to, id, result(Bytes::from_static(b"too late")));
                }
            }
            node_request::Body::Credit(credit) => {
                let asks = credit.chunks == 0;
                seen.asked.fetch_add(u64::from(asks), Ordering::Relaxed);
                let Some(running) = open.get_mut(&key) else {
                    continue;
                };
                if asks {
                    let known = common::Credit {
                        sent: running.sent,
                        ..common::Credit::default()
                    };
                    reply(&bus, &to, id, node_reply::Body::Credit(known));
                }
                // What was granted in all makes good what was lost.
                let more = match credit.total {
                    0 => credit.chunks,
                    total => u32::try_from(total.saturating_sub(running.granted)).unwrap(),
                };
                running.granted += u64::from(more);
                running.credit += more;
                if more > 0 && advance(&bus, &to, id, running) {
                    open.remove(&key);
                }
            }
        }
        drop(open);
        seen.chunks_sent.store(
            seen.open
                .lock()
                .unwrap()
                .values()
                .map(|running| running.sent)
                .sum(),
            Ordering::Relaxed,
        );
    }
}

/// Begins the work on a whole payload; true when it is done.
fn begin(bus: &Bus, to: &ReplyTo, id: u64, running: &mut Running) -> bool {
    let payload = Bytes::from(std::mem::take(&mut running.payload));
    match running.what.as_str() {
        // "count:N": N small messages of a streaming answer.
        what if what.starts_with("count:") => {
            let many: usize = what["count:".len()..].parse().unwrap();
            running.rest = Bytes::from(vec![b'x'; many]);
            advance(bus, to, id, running)
        }
        what if what.starts_with("give:") => {
            let bytes = what["give:".len()..].parse().unwrap();
            running.rest = Bytes::from(vec![b'x'; bytes]);
            advance(bus, to, id, running)
        }
        "echo" => {
            running.rest = payload;
            advance(bus, to, id, running)
        }
        // Says that two chunks went before, and they did not.
        "lossy" => {
            let reply = NodeReply {
                call_id: id,
                body: Some(result(payload)),
                chunks_before: 2,
            };
            bus.reply(to, reply).unwrap();
            true
        }
        _ => false,
    }
}

/// Sends what there is credit for; true when the answer is whole.
fn advance(bus: &Bus, to: &ReplyTo, id: u64, running: &mut Running) -> bool {
    let count = running.what.starts_with("count:");
    let part = if count { 1 } else { PART };
    let keep = if count { 0 } else { PART };
    while running.rest.len() > keep && running.credit > 0 {
        let chunk = common::Chunk {
            payload: running.rest.slice(..part),
            last: false,
            sequence: running.sent,
            fragment: !count,
        };
        let reply = NodeReply {
            call_id: id,
            body: Some(node_reply::Body::Chunk(chunk)),
            chunks_before: 0,
        };
        running.blocked = bus.reply(to, reply).is_err();
        if running.blocked {
            return false;
        }
        running.rest = running.rest.split_off(part);
        running.sent += 1;
        running.credit -= 1;
    }
    let done = running.rest.len() <= keep && (!count || running.rest.is_empty());
    if done {
        let reply = NodeReply {
            call_id: id,
            body: Some(result(running.rest.clone())),
            chunks_before: running.sent,
        };
        bus.reply(to, reply).unwrap();
    }
    done
}
