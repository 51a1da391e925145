//! How an instance stands at the moment, and which of two is the better choice.

use std::time::Duration;

use crate::table::Provider;

/// Calls in flight that are assumed to be allowed where the table does not say.
const DEFAULT_CONCURRENCY: u32 = 256;

/// Differences of latency below a millisecond and a quarter are noise.
const NOISE: Duration = Duration::from_millis(1);

/// A shorter latency is worth so many times the calls in flight, at the most: an old measure must not
/// bring all calls to one instance.
const MOST_WORTH: u32 = 4;

/// Whether an instance should be chosen; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Health {
    /// Nothing speaks against it.
    #[default]
    Good,
    /// It has said that it takes no calls for a while.
    Refusing,
    /// It fails calls, and is left out for a while.
    Ejected,
    /// It, or its node, gives no sign of life.
    Silent,
}

/// What is known of an instance at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signal {
    /// Calls that it works on.
    pub in_flight: u32,
    /// How long its calls take; zero: not known.
    pub latency: Duration,
    /// Whether it should be chosen.
    pub health: Health,
}

/// Whether there is room for a call; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Room,
    Full,
    Out(Health),
}

/// A candidate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub class: Class,
    pub in_flight: u32,
    latency: Duration,
}

impl Standing {
    pub fn of(row: &Provider, signal: Signal) -> Self {
        let most = match row.route.concurrency {
            0 => DEFAULT_CONCURRENCY,
            own => own,
        };
        let class = match signal.health {
            Health::Good if signal.in_flight < most => Class::Room,
            Health::Good => Class::Full,
            health => Class::Out(health),
        };
        Self {
            class,
            in_flight: signal.in_flight,
            latency: signal.latency,
        }
    }

    pub fn has_room(&self) -> bool {
        self.class == Class::Room
    }
}

/// Whether one is the better choice than another; `tie` when they are equal.
pub(super) fn cheaper(one: &Standing, other: &Standing, tie: bool) -> bool {
    if one.class != other.class {
        return one.class < other.class;
    }
    let (cost, others) = (cost(one, other), cost(other, one));
    if cost == others { tie } else { cost < others }
}

/// What a call more costs at `one`, beside another: calls in flight by latency. Of whom the latency is
/// not known, it is that of the other.
fn cost(one: &Standing, other: &Standing) -> u128 {
    let known = |standing: &Standing, else_of: &Standing| {
        let own = standing.latency;
        NOISE + if own.is_zero() { else_of.latency } else { own }
    };
    let (own, others) = (known(one, other), known(other, one));
    let latency = match own.max(others) - own.min(others) {
        difference if difference * 4 <= own.max(others) => NOISE,
        _ => own.max(others / MOST_WORTH),
    };
    latency.as_micros() * (u128::from(one.in_flight) + 1)
}
