//! The clients: as many as are asked for, each with a call running all the while, on a thread of their
//! own. They do what an honest client may do and nothing more:
//!
//! - an error whose code says "not processed, try again" (429 and 503) is tried again after the wait
//!   that it names;
//! - a gateway that can't be reached is left for another one;
//! - a connection that broke under a call: an idempotent call is tried again, any other has failed with
//!   an unknown outcome;
//! - every other error is the end of the call.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_core::error::Processed;
use serde::Serialize;

use super::wire::{Line, Try};

/// The deadline that the gateways give each try.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// When a try counts as hung: a busy machine may be late.
pub const CALL_LIMIT: Duration = Duration::from_secs(14);

/// How long a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a gateway that was not there is the second choice.
const AVOID: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Tool {
    /// May be repeated.
    Safe,
    /// Must not be done twice.
    Once,
}

/// How a call ended for its client.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Ok,
    Failed {
        code: Cow<'static, str>,
        processed: Processed,
    },
}

/// What a client saw of one call; times count from the clients' start.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: u64,
    pub tool: Tool,
    pub begun: Duration,
    pub ended: Duration,
    pub longest_try: Duration,
    pub tries: u32,
    pub end: End,
}

/// Whether clients wait for their answers or for a clock.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// The next call begins when the last has ended.
    Closed,
    /// So many calls begin per second, whatever becomes of them, as long as a client is free.
    Open(f64),
}

/// What clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub gateways: Vec<u16>,
    pub clients: usize,
    /// The longest work that is asked for; the shortest is none.
    pub hold: Duration,
    /// Bytes that each call carries beside what it needs.
    pub payload: usize,
    pub pace: Pace,
    /// The first call's id: each call to a mesh has its own.
    pub first: u64,
}

impl Plan {
    /// As many clients as a suite may have beside others.
    pub fn of_suite(gateways: Vec<u16>) -> Self {
        Self {
            gateways,
            clients: 16,
            hold: Duration::from_millis(30),
            payload: 0,
            pace: Pace::Closed,
            first: 1,
        }
    }
}

/// What is known of the calls so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: Vec<Record>,
    /// Tries after the first one, by their reason.
    pub retries: BTreeMap<String, u64>,
    /// Calls that should have begun when every client was waiting.
    pub skipped: u64,
}

/// Clients that run.
pub struct Clients {
    pub begun: Instant,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: std::thread::JoinHandle<()>,
}

impl Clients {
    pub fn start(plan: Plan) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let begun = Instant::now();
        let shared = (Arc::clone(&stop), Arc::clone(&seen));
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let all = run(plan, begun, shared.0, shared.1);
            tokio::task::LocalSet::new().block_on(&runtime, all);
        };
        Self {
            begun,
            stop,
            seen,
            thread: std::thread::spawn(work),
        }
    }

    /// Looks at what was seen so far.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// Lets every call end, and gives what was seen.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients end");
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

struct Group {
    plan: Plan,
    begun: Instant,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    next: Cell<u64>,
    /// Until when each gateway is the second choice.
    avoid: RefCell<Vec<Option<Instant>>>,
}

async fn run(plan: Plan, begun: Instant, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let avoid = RefCell::new(vec![None; plan.gateways.len()]);
    let clients = plan.clients;
    let group = Rc::new(Group {
        begun,
        stop,
        seen,
        next: Cell::new(plan.first),
        plan,
        avoid,
    });
    let lane = |_| tokio::task::spawn_local(Rc::clone(&group).lane());
    let lanes: Vec<_> = (0..clients).map(lane).collect();
    for lane in lanes {
        lane.await.expect("a client ends");
    }
}

impl Group {
    async fn lane(self: Rc<Self>) {
        let mut lines: Vec<Line> = self.plan.gateways.iter().copied().map(Line::new).collect();
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.next.get();
            self.next.set(id + 1);
            if let Pace::Open(rate) = self.plan.pace {
                let place = (id - self.plan.first) as f64;
                let due = self.begun + Duration::from_secs_f64(place / rate);
                if due.elapsed() > Duration::from_secs(1) {
                    self.seen.lock().unwrap().skipped += 1;
                    continue;
                }
                tokio::time::sleep_until(due.into()).await;
            }
            let record = self.call(id, &mut lines).await;
            self.seen.lock().unwrap().records.push(record);
        }
    }

    /// The gateway for a try: in turn, but rather not one that was not there just now.
    fn gateway(&self, turn: u64) -> usize {
        let count = self.plan.gateways.len();
        let avoid = self.avoid.borrow();
        let at = |step: u64| usize::try_from((turn + step) % count as u64).unwrap_or(0);
        let good = |&index: &usize| avoid[index].is_none_or(|until| until <= Instant::now());
        (0..count as u64).map(at).find(good).unwrap_or(at(0))
    }

    fn note_retry(&self, reason: String) {
        let mut seen = self.seen.lock().unwrap();
        *seen.retries.entry(reason).or_default() += 1;
    }

    async fn call(&self, id: u64, lines: &mut [Line]) -> Record {
        let begun = Instant::now();
        let (tool, name) = match id % 2 {
            0 => (Tool::Safe, "ledger_safe"),
            _ => (Tool::Once, "ledger_once"),
        };
        let longest = u64::try_from(self.plan.hold.as_millis()).unwrap_or(0);
        let hold = fastrand::u64(0..=longest);
        let payload = "x".repeat(self.plan.payload);
        let (mut tries, mut longest_try) = (0_u32, Duration::ZERO);
        let end = loop {
            let arguments = format!(
                "{{\"id\":{id},\"attempt\":{tries},\"hold_ms\":{hold},\"payload\":\"{payload}\"}}"
            );
            let index = self.gateway(id / 2 + u64::from(tries));
            tries += 1;
            let try_begun = Instant::now();
            let work = lines[index].call(name, &arguments);
            let ended = tokio::time::timeout(CALL_LIMIT, work).await;
            longest_try = longest_try.max(try_begun.elapsed());
            let (code, wait) = match ended {
                Ok(Try::Answer(text)) if text == id.to_string() => break End::Ok,
                Ok(Try::Answer(text)) => {
                    break failed(format!("wrong_answer: {text}"), Processed::Yes);
                }
                Ok(Try::Failed { code, processed }) => break failed(code, processed),
                Ok(Try::Refused { code, wait }) => (code, wait),
                Ok(Try::NotSent) => {
                    self.avoid.borrow_mut()[index] = Some(Instant::now() + AVOID);
                    ("gateway_not_there".into(), None)
                }
                Ok(Try::Lost) if tool == Tool::Safe => ("gateway_lost".into(), None),
                Ok(Try::Lost) => break failed("gateway_lost", Processed::Unknown),
                Err(_) => {
                    lines[index].close();
                    longest_try = longest_try.max(CALL_LIMIT + Duration::from_millis(1));
                    break failed("hung", Processed::Unknown);
                }
            };
            if begun.elapsed() > PATIENCE {
                break failed(code, Processed::No);
            }
            self.note_retry(code.into_owned());
            let own = Duration::from_millis(10 << tries.min(5));
            tokio::time::sleep(wait.unwrap_or(own).min(Duration::from_secs(2))).await;
        };
        Record {
            id,
            tool,
            begun: begun.duration_since(self.begun),
            ended: self.begun.elapsed(),
            longest_try,
            tries,
            end,
        }
    }
}

fn failed(code: impl Into<Cow<'static, str>>, processed: Processed) -> End {
    let code = code.into();
    End::Failed { code, processed }
}
