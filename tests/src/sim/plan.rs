//! What a seed stands for: who is there, who calls what, and what goes wrong when.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::messages::Messages;

/// A bug that is planted by what the product is told, so that its own code does what is wrong: to show
/// that it is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Planted {
    #[default]
    None,
    /// Routers take every call for one that may be repeated.
    RepeatsUnknown,
    /// Buses give no credit back for the chunks that they take.
    KeepsCredit,
    /// Routers choose by tables that are late.
    OldTables,
}

impl Planted {
    pub const ALL: [(&'static str, Self); 3] = [
        ("repeats-unknown", Self::RepeatsUnknown),
        ("keeps-credit", Self::KeepsCredit),
        ("old-tables", Self::OldTables),
    ];
}

/// The time of all faults.
pub(super) const TROUBLE: Duration = Duration::from_secs(6);

/// Calls begin within this time.
const CALLS: Duration = Duration::from_secs(5);

/// A call that has so long shall not end by its deadline, unless its plugin never answers.
pub(super) const GENEROUS: Duration = Duration::from_secs(60);

/// How the plugin ends a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Well,
    Fails,
    Never,
    /// With bytes that are no frame.
    Garbage,
    /// With more chunks than it has credit for.
    TooMany,
    /// With a chunk left out.
    Gap,
}

/// One call: what its caller does, and what the plugin that gets it does.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) key: u64,
    pub(super) at: Duration,
    pub(super) gateway: usize,
    /// It may be repeated.
    pub(super) again: bool,
    pub(super) plugin: Option<usize>,
    pub(super) affinity: bool,
    pub(super) upload: usize,
    pub(super) messages: Option<Messages>,
    pub(super) timeout: Duration,
    pub(super) work: Duration,
    pub(super) chunks: u64,
    pub(super) chunk_bytes: usize,
    pub(super) result: usize,
    pub(super) progress: u32,
    pub(super) nested: Option<Arc<Self>>,
    pub(super) ending: Ending,
    pub(super) read_pause: Duration,
    pub(super) give_up: Option<Duration>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    PluginCrash(usize),
    PluginHang(usize, Duration),
    PluginFlood(usize),
    PluginGarbage(usize),
    PluginLeaves(usize),
    PluginDrained(usize),
    AgentCrash(usize),
    AgentFreeze(usize, Duration),
    AgentDrain(usize),
    /// The node's line breaks, for so long at least.
    AgentCut(usize, Duration),
    /// The broker forgets the node, which hears of it after so long.
    AgentDeaf(usize, Duration),
    AgentHeld(usize, bool, bool, Duration),
    GatewayCut(usize, Duration),
    GatewayDeaf(usize, Duration),
    GatewayHeld(usize, bool, bool, Duration),
    BrokerRestart(Duration),
    /// A router's tables come late for so long.
    TablesLate(usize, Duration),
    /// The coordinator evicts a node that it has lost, though it is there.
    Evicted(usize, Duration),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) agents: usize,
    pub(super) gateways: usize,
    /// For each plugin process: its kind, and its agent.
    pub(super) plugins: Vec<(usize, usize)>,
    pub(super) concurrency: u32,
    pub(super) max_in_flight: usize,
    pub(super) chunk_bytes: usize,
    pub(super) delay: RangeInclusive<Duration>,
    pub(super) calls: Vec<Arc<Script>>,
    pub(super) faults: Vec<(Duration, Fault)>,
    /// How long a router keeps a call that nobody takes.
    pub(super) patience: Duration,
    /// How long a coordinator waits until it evicts a node that is gone.
    pub(super) lease: Duration,
}

pub(super) fn millis(rng: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// Mostly small: an exponent is drawn, not a size.
pub(super) fn size(rng: &mut Rng, most_bits: u32) -> usize {
    let bits = rng.u32(0..=most_bits);
    rng.usize(0..=(1 << bits))
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x5157_ed00);
        let agents = rng.usize(1..=3);
        let gateways = rng.usize(1..=2);
        let kinds = rng.usize(1..=2);
        let plugins: Vec<(usize, usize)> = (0..rng.usize(kinds..=4))
            .map(|number| (number % kinds, rng.usize(0..agents)))
            .collect();
        let overloaded = rng.u8(0..4) == 0;
        let concurrency = if overloaded { rng.u32(1..=4) } else { 256 };
        let slow = rng.u64(0..=8_000);
        let mut keys = 0;
        let count = rng.usize(4..=40);
        let calls = (0..count)
            .map(|_| {
                let at = millis(rng, 500..=500 + u64::try_from(CALLS.as_millis()).unwrap());
                Arc::new(Script::draw(rng, &mut keys, at, gateways, kinds, 0))
            })
            .collect();
        let mut faults: Vec<(Duration, Fault)> = (0..rng.usize(0..=6))
            .map(|_| {
                let at = millis(rng, 500..=u64::try_from(TROUBLE.as_millis()).unwrap());
                (at, Fault::draw(rng, agents, gateways, plugins.len()))
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            agents,
            gateways,
            plugins,
            concurrency,
            max_in_flight: if overloaded { rng.usize(2..=8) } else { 4096 },
            chunk_bytes: *rng.choice(&[512, 4_096, 128 << 10]).unwrap(),
            delay: Duration::ZERO..=Duration::from_micros(slow),
            calls,
            faults,
            patience: *rng
                .choice(&[
                    Duration::ZERO,
                    Duration::from_secs(1),
                    Duration::from_secs(3),
                ])
                .unwrap(),
            lease: millis(rng, 300..=3_000),
        }
    }
}

impl Script {
    fn draw(
        rng: &mut Rng,
        keys: &mut u64,
        at: Duration,
        gateways: usize,
        kinds: usize,
        depth: u32,
    ) -> Self {
        *keys += 1;
        let key = *keys;
        let ending = match rng.u8(0..40) {
            0..=2 => Ending::Fails,
            3 => Ending::Never,
            4 => Ending::Garbage,
            5 => Ending::TooMany,
            6 => Ending::Gap,
            _ => Ending::Well,
        };
        let streams = rng.u8(0..3) == 0;
        let slow_reader = streams && rng.u8(0..3) == 0;
        let nested = (depth < 2 && rng.u8(0..5) == 0)
            .then(|| Arc::new(Self::draw(rng, keys, at, gateways, kinds, depth + 1)));
        // One that never answers is not waited for by a call that shall not end by its deadline.
        let ending = match ending {
            Ending::Never if depth > 0 => Ending::Fails,
            other => other,
        };
        let generous = depth > 0 || nested.is_some() || rng.u8(0..3) > 0;
        Self {
            key,
            at,
            gateway: rng.usize(0..gateways),
            again: rng.bool(),
            plugin: rng.bool().then(|| rng.usize(0..kinds)),
            affinity: rng.u8(0..5) == 0,
            upload: if rng.u8(0..4) == 0 { size(rng, 17) } else { 0 },
            timeout: match (generous, depth) {
                (true, 0) => GENEROUS + GENEROUS,
                (true, 1) => GENEROUS + GENEROUS / 2,
                (true, _) => GENEROUS,
                (false, _) => millis(rng, 20..=3_000),
            },
            work: if rng.u8(0..6) == 0 {
                millis(rng, 0..=3_000)
            } else {
                millis(rng, 0..=50)
            },
            chunks: if streams { rng.u64(0..=220) } else { 0 },
            chunk_bytes: size(rng, 9),
            result: if rng.u8(0..8) == 0 {
                size(rng, 19)
            } else {
                size(rng, 7)
            },
            progress: if rng.u8(0..4) == 0 {
                rng.u32(1..=30)
            } else {
                0
            },
            nested,
            ending,
            read_pause: if slow_reader {
                millis(rng, 1..=20)
            } else {
                Duration::ZERO
            },
            messages: (rng.u8(0..4) == 0).then(|| Messages::draw(rng)),
            give_up: (rng.u8(0..10) == 0).then(|| millis(rng, 0..=400)),
        }
    }

    /// What it is, for a person who reads a trace.
    pub(super) fn words(&self) -> String {
        let mut words = vec![format!("has {:?}, works {:?}", self.timeout, self.work)];
        if self.again {
            words.push("may be repeated".to_owned());
        }
        let counts = [
            (self.upload as u64, "bytes of payload"),
            (self.chunks, "chunks"),
            (self.result as u64, "bytes of result"),
            (self.progress.into(), "words of progress"),
        ];
        for (count, what) in counts {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        }
        words.extend(self.messages.as_ref().map(Messages::words));
        if !self.read_pause.is_zero() {
            words.push(format!("read every {:?}", self.read_pause));
        }
        if let Some(time) = self.give_up {
            words.push(format!("given up after {time:?}"));
        }
        if self.nested.is_some() {
            words.push("makes a call itself".to_owned());
        }
        if self.ending != Ending::Well {
            words.push(format!("ends {:?}", self.ending));
        }
        words.join(", ")
    }

    /// Whether the call's deadline may be what ends it.
    pub(super) fn may_expire(&self) -> bool {
        self.timeout < GENEROUS || self.ending == Ending::Never
    }

    /// Whether it is for a capability that takes messages.
    pub(super) fn wants_open(&self) -> bool {
        self.messages.as_ref().is_some_and(|one| !one.unwanted)
    }

    /// Whether the plugin breaks the protocol in it, or in a call that it makes for it.
    pub(super) fn is_rude(&self) -> bool {
        matches!(self.ending, Ending::Garbage | Ending::TooMany | Ending::Gap)
    }
}

impl Fault {
    fn draw(rng: &mut Rng, agents: usize, gateways: usize, plugins: usize) -> Self {
        let (agent, gateway, plugin) = (
            rng.usize(0..agents),
            rng.usize(0..gateways),
            rng.usize(0..plugins),
        );
        let short = millis(rng, 1..=400);
        let long = millis(rng, 1..=3_500);
        let (out, back) = *rng
            .choice(&[(true, false), (false, true), (true, true)])
            .unwrap();
        match rng.u8(0..22) {
            0..=2 => Self::PluginCrash(plugin),
            3 => Self::PluginHang(plugin, long),
            4 => Self::PluginFlood(plugin),
            5 => Self::PluginGarbage(plugin),
            6 => Self::PluginLeaves(plugin),
            7 => Self::PluginDrained(plugin),
            8 | 9 => Self::AgentCrash(agent),
            10 => Self::AgentFreeze(agent, long),
            11 => Self::AgentDrain(agent),
            12 => Self::AgentCut(agent, short),
            13 => Self::AgentDeaf(agent, long),
            14 => Self::AgentHeld(agent, out, back, long),
            15 => Self::GatewayCut(gateway, short),
            16 => Self::GatewayDeaf(gateway, long),
            17 => Self::GatewayHeld(gateway, out, back, long),
            18 | 19 => Self::BrokerRestart(long),
            20 => Self::TablesLate(rng.usize(0..agents + gateways), long),
            _ => Self::Evicted(agent, long),
        }
    }
}
