//! How busy each instance is: this router's own calls, and what others have there by its beacons.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::id::InstanceId;
use mesh_core::table::Table;
use tokio::time::Instant;

#[derive(Debug, Default, Clone, Copy)]
struct Busy {
    own: u32,
    others: u32,
    /// It refused a call: until then it is the last choice.
    refused_until: Option<Instant>,
    /// When its node's last beacon came.
    heard: Option<Instant>,
    /// Its node was heard before and is not any more: it is the last choice.
    silent: bool,
}

/// What a refusal or silence counts for: more than any limit.
const LAST: u32 = 1 << 30;

/// A node that was not heard for so long is silent: three beacons and a half.
const SILENCE: Duration = Duration::from_millis(3_500);

/// How busy each instance is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<InstanceId, Busy>>>);

/// One call of this router to an instance, counted while it lives.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Flights,
    instance: InstanceId,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(busy) = self.flights.lock().get_mut(&self.instance) {
            busy.own = busy.own.saturating_sub(1);
        }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `choose` look at all counts at once.
    pub fn look<T>(&self, choose: impl FnOnce(&dyn Fn(InstanceId) -> u32) -> T) -> T {
        let all = self.lock();
        choose(&|instance| {
            let Some(busy) = all.get(&instance) else {
                return 0;
            };
            let refused = busy
                .refused_until
                .is_some_and(|until| until > Instant::now());
            let penalty = if refused || busy.silent { LAST } else { 0 };
            busy.own.saturating_add(busy.others).saturating_add(penalty)
        })
    }

    /// An instance refused a call: the breaker is open for it. Should no other be left, it is tried.
    pub fn refused(&self, instance: InstanceId, until: Instant) {
        if let Some(busy) = self.lock().get_mut(&instance) {
            busy.refused_until = Some(until);
        }
    }

    /// Counts a call.
    pub fn begin(&self, instance: InstanceId) -> Flight {
        self.lock().entry(instance).or_default().own += 1;
        Flight {
            flights: self.clone(),
            instance,
        }
    }

    /// An instance has said how many calls it has. Of those that are not this router's own one is
    /// left out: beacons are a second old, and a call that has ended meanwhile shall not make the
    /// instance look busy for as long.
    pub fn heard(&self, instance: InstanceId, in_flight: u32) {
        let mut all = self.lock();
        let busy = all.entry(instance).or_default();
        busy.others = in_flight.saturating_sub(busy.own).saturating_sub(1);
        busy.heard = Some(Instant::now());
        busy.silent = false;
    }

    /// Notes whose node has fallen silent. If no node at all is heard, it is this process that hears
    /// nothing.
    pub fn note_silence(&self, now: Instant) {
        let is_silent = |heard: Instant| now.saturating_duration_since(heard) >= SILENCE;
        let mut all = self.lock();
        let deaf = all.values().filter_map(|busy| busy.heard).all(is_silent);
        for busy in all.values_mut() {
            busy.silent = !deaf && busy.heard.is_some_and(is_silent);
        }
    }

    /// Forgets instances that are gone.
    pub fn keep(&self, table: &Table) {
        self.lock()
            .retain(|instance, busy| busy.own > 0 || table.instance(*instance).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> InstanceId {
        InstanceId::new(u64::from(n), [n; 10])
    }

    #[test]
    fn own_calls_count_while_they_live_and_others_by_beacon() {
        let flights = Flights::default();
        let calls = |n| flights.look(|busy| busy(id(n)));
        let (one, two) = (flights.begin(id(1)), flights.begin(id(1)));
        assert_eq!((calls(1), calls(2)), (2, 0));
        flights.heard(id(1), 10);
        assert_eq!(calls(1), 2 + 7);
        flights.heard(id(1), 3);
        assert_eq!(calls(1), 2);
        flights.refused(id(1), Instant::now() + Duration::from_secs(60));
        assert!(calls(1) > 1_000_000);
        flights.refused(id(1), Instant::now());
        drop((one, two));
        assert_eq!(calls(1), 0);
        flights.keep(&Table::default());
        assert!(flights.lock().is_empty());
    }
    #[tokio::test(start_paused = true)]
    async fn instances_of_a_node_that_fell_silent_are_the_last_choice_until_it_is_heard() {
        let flights = Flights::default();
        let silent = |n| {
            flights.note_silence(Instant::now());
            flights.look(|busy| busy(id(n))) >= LAST
        };
        let _never_heard = flights.begin(id(3));
        flights.heard(id(1), 0);
        for _ in 0..4 {
            assert!(!silent(1) && !silent(2) && !silent(3));
            tokio::time::advance(Duration::from_secs(1)).await;
            flights.heard(id(2), 0);
        }
        assert!(silent(1) && !silent(2) && !silent(3));
        // Nobody is heard: that says nothing of a node.
        tokio::time::advance(SILENCE).await;
        assert!(!silent(1) && !silent(2));
        flights.heard(id(2), 0);
        assert!(silent(1));
        flights.heard(id(1), 0);
        assert!(!silent(1));
    }
}
