//! Whether the nodes that calls are sent to are alive.
//!
//! Every reply and every beacon of a generation of a node is a sign of life for all calls to it. One
//! that has calls in flight and gives no sign is asked after one of them, and this process sends a
//! message to itself along with the question: if that comes back and no sign of the node does, the node
//! is silent. The calls themselves are asked after, too, but much more slowly ([`crate::slot`]): a node
//! that lives may have lost one. Times are the slots' microseconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Subject;
use foldhash::fast::RandomState;
use mesh_core::id::{Generation, MeshName, NodeId};
use mesh_core::subject;
use slab::Slab;

/// A node with calls in flight that gave no sign of life for so long is asked for one. Beacons come
/// more often.
const QUIET_US: u64 = 300_000;

/// How long a sign of life may take after the question, and after the message to oneself came back.
const ANSWER_US: u64 = 400_000;

/// How long a node on whose subject nobody listens has to come back: its agent may be reconnecting,
/// with pauses of 250 ms at most.
const MISSING_US: u64 = 500_000;

/// How often it is asked meanwhile.
const ASK_AGAIN_US: u64 = 100_000;

/// When this process looks so much too late, signs may have come that it has not read yet.
const LATE_US: u64 = 250_000;

/// After a lost connection all calls are verified one by one; nodes are not judged before that is over.
const VERIFY_US: u64 = crate::slot::GRACE_US;

/// Nodes that are known without having calls; beyond that they are forgotten.
const MAX_KNOWN: usize = 4_096;

/// One generation of a node.
#[derive(Debug)]
struct Peer {
    node: NodeId,
    generation: Generation,
    /// Where its calls go.
    subject: Subject,
    /// Calls that hold a slot.
    calls: usize,
    /// The last sign of life, or since when there are calls.
    heard: u64,
    /// When it is looked at; `u64::MAX`: never.
    look_at: u64,
    question: Question,
    /// Its calls were ended for want of a sign of life.
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// None is open.
    None,
    /// Asked; whether the broker passes messages on is not known.
    Asked,
    /// Asked, and the message to oneself has come back.
    Echoed,
    /// Nobody listens there, since then.
    Missing { since: u64 },
}

/// What is to be done about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask after one of its calls, and send a message to oneself.
    Ask,
    /// End its calls: it is silent.
    Silent,
    /// End its calls: nobody listens there any more.
    Gone,
}

impl Peer {
    /// A sign of life, or a reason to do without one. True: it is avoided no more.
    fn heard(&mut self, now: u64) -> bool {
        let avoided = self.is_avoided();
        self.heard = now;
        self.question = Question::None;
        self.lost = false;
        avoided
    }

    /// Whether calls are better sent elsewhere: it was silent, or seems to be.
    fn is_avoided(&self) -> bool {
        self.lost || self.question == Question::Echoed
    }

    fn look(&mut self, now: u64) -> Option<Verdict> {
        let late = now >= self.look_at.saturating_add(LATE_US);
        match self.question {
            Question::None if now < self.heard + QUIET_US => {
                self.look_at = self.heard + QUIET_US;
                None
            }
            Question::Missing { since } if !late => {
                if now >= since + MISSING_US {
                    return Some(Verdict::Gone);
                }
                self.look_at = (now + ASK_AGAIN_US).min(since + MISSING_US);
                Some(Verdict::Ask)
            }
            Question::Echoed if !late => Some(Verdict::Silent),
            _ => {
                self.question = Question::Asked;
                self.look_at = now + ANSWER_US;
                Some(Verdict::Ask)
            }
        }
    }
}

/// All peers. A call's peer has an index as long as the call has a slot.
#[derive(Debug)]
pub(crate) struct Peers {
    mesh: MeshName,
    peers: Slab<Peer>,
    /// The newest generation that was called.
    by_node: HashMap<NodeId, usize, RandomState>,
    /// No later than the earliest time to look.
    next_look: u64,
    /// Counts up whenever a node is lost or found again.
    changes: Arc<AtomicU64>,
}

impl Peers {
    pub fn new(mesh: MeshName) -> Self {
        Self {
            mesh,
            peers: Slab::new(),
            by_node: HashMap::default(),
            next_look: u64::MAX,
            changes: Arc::default(),
        }
    }

    /// Counts up whenever [`Peers::lost`] changes.
    pub fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.changes)
    }

    /// The nodes whose calls were ended for want of a sign of life, and that gave none since; and those that
    /// seem to be silent as well.
    pub fn lost(&self) -> Vec<(NodeId, Generation)> {
        let lost = self.peers.iter().filter(|(_, peer)| peer.is_avoided());
        lost.map(|(_, peer)| (peer.node.clone(), peer.generation))
            .collect()
    }

    pub fn next_look(&self) -> u64 {
        self.next_look
    }

    /// A call begins: the index of its peer, and where it goes.
    pub fn begin(&mut self, node: &NodeId, generation: Generation, now: u64) -> (usize, Subject) {
        let known = self.by_node.get(node).copied();
        let index = match known {
            Some(index) if self.is(index, generation) => index,
            _ => self.meet(node, generation),
        };
        let Some(peer) = self.peers.get_mut(index) else {
            // Not reached: the index is that of a peer.
            return (index, self.subject_of(node, generation));
        };
        peer.calls += 1;
        if peer.calls == 1 {
            let avoided = peer.is_avoided();
            peer.heard = peer.heard.max(now);
            peer.question = Question::None;
            peer.look_at = peer.heard + QUIET_US;
            let changed = avoided != peer.is_avoided();
            self.next_look = self.next_look.min(peer.look_at);
            let subject = peer.subject.clone();
            self.changed_if(changed);
            return (index, subject);
        }
        (index, peer.subject.clone())
    }

    fn is(&self, index: usize, generation: Generation) -> bool {
        let peer = self.peers.get(index);
        peer.is_some_and(|peer| peer.generation == generation)
    }

    fn subject_of(&self, node: &NodeId, generation: Generation) -> Subject {
        subject::node_calls(&self.mesh, node, generation)
            .as_str()
            .into()
    }

    fn meet(&mut self, node: &NodeId, generation: Generation) -> usize {
        if self.peers.len() >= MAX_KNOWN {
            self.by_node.clear();
        }
        let subject = self.subject_of(node, generation);
        let index = self.peers.insert(Peer {
            node: node.clone(),
            generation,
            subject,
            calls: 0,
            heard: 0,
            look_at: u64::MAX,
            question: Question::None,
            lost: false,
        });
        self.by_node.insert(node.clone(), index);
        self.forget_idle();
        index
    }

    /// Forgets those that no call goes to and that are not the newest of their node.
    fn forget_idle(&mut self) {
        let (by_node, mut changed) = (&self.by_node, false);
        self.peers.retain(|index, peer| {
            let keep = peer.calls > 0 || by_node.get(&peer.node) == Some(&index);
            changed |= !keep && peer.is_avoided();
            keep
        });
        self.changed_if(changed);
    }

    fn changed_if(&self, changed: bool) {
        if changed {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// A call's slot is free again.
    pub fn end(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.calls = peer.calls.saturating_sub(1);
            if peer.calls == 0 {
                peer.look_at = u64::MAX;
            }
        }
    }

    /// A reply has come.
    pub fn heard(&mut self, index: usize, now: u64) {
        if let Some(peer) = self.peers.get_mut(index) {
            let found = peer.heard(now);
            self.changed_if(found);
        }
    }

    /// A beacon has come.
    pub fn heard_of(&mut self, node: &NodeId, generation: Generation, now: u64) {
        if let Some(index) = self.by_node.get(node).copied()
            && self.is(index, generation)
        {
            self.heard(index, now);
        }
    }

    /// A message to oneself came back.
    pub fn echoed(&mut self, index: usize, now: u64) {
        if let Some(peer) = self.peers.get_mut(index)
            && peer.question == Question::Asked
        {
            let changed = !peer.is_avoided();
            peer.question = Question::Echoed;
            peer.look_at = now + ANSWER_US;
            self.changed_if(changed);
        }
    }

    /// Nobody listened on its subject.
    pub fn missed(&mut self, index: usize, now: u64) {
        if let Some(peer) = self.peers.get_mut(index)
            && peer.calls > 0
            && !matches!(peer.question, Question::Missing { .. })
        {
            peer.question = Question::Missing { since: now };
            peer.look_at = now + ASK_AGAIN_US;
            self.next_look = self.next_look.min(peer.look_at);
        }
    }

    /// The connection is new: what was said may have been lost on both sides.
    pub fn reconnected(&mut self, now: u64) {
        let mut changed = false;
        for (_, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.calls > 0) {
            let avoided = peer.is_avoided();
            peer.question = Question::None;
            peer.heard = peer.heard.max(now + VERIFY_US - QUIET_US);
            peer.look_at = now + VERIFY_US;
            changed |= avoided != peer.is_avoided();
        }
        self.changed_if(changed);
    }

    /// Looks at those whose time it is. `up`: there is a connection.
    pub fn look(&mut self, now: u64, up: bool, mut found: impl FnMut(usize, &NodeId, Verdict)) {
        if self.next_look > now {
            return;
        }
        let (mut next, mut changed) = (u64::MAX, false);
        for (index, peer) in &mut self.peers {
            if peer.look_at <= now {
                let avoided = peer.is_avoided();
                if !up {
                    peer.question = Question::None;
                    peer.look_at = now + QUIET_US;
                } else if let Some(verdict) = peer.look(now) {
                    if verdict != Verdict::Ask {
                        // Should calls be left, or come, it is asked anew.
                        peer.question = Question::None;
                        peer.heard = now;
                        peer.look_at = now + QUIET_US;
                        peer.lost = true;
                    }
                    found(index, &peer.node, verdict);
                }
                changed |= avoided != peer.is_avoided();
            }
            next = next.min(peer.look_at);
        }
        self.next_look = next;
        self.changed_if(changed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    struct World {
        peers: Peers,
        node: NodeId,
        peer: usize,
    }

    impl World {
        /// A node with one call that begins at `now`.
        fn new(now: u64) -> Self {
            let mut peers = Peers::new(MeshName::default());
            let node = NodeId::new("a").unwrap();
            let (peer, _) = peers.begin(&node, Generation(1), now);
            Self { peers, node, peer }
        }

        /// Looks every 5 ms from after `from` to `to`; what was found, and when.
        fn looks(&mut self, from: u64, to: u64, echoes: bool) -> Vec<(u64, Verdict)> {
            let mut all = Vec::new();
            for now in (from + 5..=to).step_by(5) {
                let mut verdict = None;
                self.peers
                    .look(now * MS, true, |_, _, one| verdict = Some(one));
                if echoes && verdict == Some(Verdict::Ask) {
                    self.peers.echoed(self.peer, now * MS + 500);
                }
                all.extend(verdict.map(|verdict| (now, verdict)));
            }
            all
        }

        fn beacon(&mut self, at: u64) {
            self.peers.heard_of(&self.node, Generation(1), at * MS);
        }

        fn changes(&self) -> u64 {
            self.peers.changes().load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_node_that_falls_silent_is_asked_once_and_lost_within_three_quarters_of_a_second() {
        let mut world = World::new(0);
        let found = world.looks(0, 1_000, true);
        assert_eq!(found, [(300, Verdict::Ask), (705, Verdict::Silent)]);
        assert_eq!(world.peers.lost(), [(world.node.clone(), Generation(1))]);
        assert_eq!(world.changes(), 1);
        world.beacon(2_000);
        assert!(world.peers.lost().is_empty());
        assert_eq!(world.changes(), 2);
    }

    #[test]
    fn a_node_that_seems_silent_is_avoided_before_its_calls_are_ended() {
        let mut world = World::new(0);
        assert_eq!(world.looks(0, 300, false), [(300, Verdict::Ask)]);
        assert!(world.peers.lost().is_empty(), "the broker may be slow");
        world.peers.echoed(world.peer, 301 * MS);
        assert_eq!(world.peers.lost(), [(world.node.clone(), Generation(1))]);
        assert_eq!(world.changes(), 1);
        world.beacon(400);
        assert!(world.peers.lost().is_empty());
        assert_eq!(world.changes(), 2);
        // A connection that is lost says nothing of the node.
        world.looks(400, 710, true);
        assert_eq!((world.peers.lost().len(), world.changes()), (1, 3));
        world.peers.reconnected(720 * MS);
        assert_eq!((world.peers.lost().len(), world.changes()), (0, 4));
    }

    #[test]
    fn one_beacon_or_reply_in_time_is_enough_and_a_busy_node_is_never_asked() {
        let mut world = World::new(0);
        for beacon in 1..20 {
            assert_eq!(world.looks((beacon - 1) * 250, beacon * 250, true), []);
            world.beacon(beacon * 250);
        }
        let last = 19 * 250;
        assert_eq!(world.looks(last, last + 650, true).len(), 1, "asked");
        world.peers.heard(world.peer, (last + 650) * MS);
        assert_eq!(world.looks(last + 650, last + 945, true), []);
        // A beacon of another generation is no sign of this one.
        world
            .peers
            .heard_of(&world.node, Generation(2), (last + 940) * MS);
        let found = world.looks(last + 945, last + 1_500, true);
        assert_eq!(found.last().unwrap().1, Verdict::Silent);
    }

    #[test]
    fn a_broker_that_passes_nothing_on_makes_no_node_silent() {
        let mut world = World::new(0);
        let found = world.looks(0, 20_000, false);
        assert!(found.len() > 20 && found.iter().all(|(_, one)| *one == Verdict::Ask));
        // It goes on: the node has its time from then.
        world.peers.echoed(world.peer, 20_000 * MS);
        assert_eq!(world.looks(20_000, 20_395, true), []);
        assert_eq!(world.looks(20_395, 20_400, true).len(), 1);
    }

    #[test]
    fn a_process_that_slept_asks_anew_before_it_judges() {
        let mut world = World::new(0);
        world.looks(0, 500, true);
        assert_eq!(world.looks(9_000, 9_005, true), [(9_005, Verdict::Ask)]);
        world.beacon(9_010);
        assert_eq!(world.looks(9_010, 9_300, true), []);
        world.peers.missed(world.peer, 9_300 * MS);
        world.looks(9_300, 9_500, true);
        assert_eq!(world.looks(15_000, 15_005, true), [(15_005, Verdict::Ask)]);
    }

    #[test]
    fn a_node_on_whose_subject_nobody_listens_has_time_to_reconnect_and_no_more() {
        let mut world = World::new(0);
        world.peers.missed(world.peer, 10 * MS);
        let found = world.looks(10, 400, true);
        assert!((2..5).contains(&found.len()), "{found:?}");
        world.peers.missed(world.peer, 390 * MS);
        world.peers.heard(world.peer, 400 * MS);
        assert_eq!(world.looks(400, 695, true), []);
        world.peers.missed(world.peer, 695 * MS);
        let found = world.looks(695, 1_400, true);
        assert_eq!(found.last(), Some(&(1_195, Verdict::Gone)));
    }

    #[test]
    fn nobody_is_judged_without_a_connection_or_right_after_a_new_one() {
        let mut world = World::new(0);
        for now in 0..5_000 {
            world
                .peers
                .look(now * MS, false, |_, _, verdict| panic!("{verdict:?}"));
        }
        world.peers.reconnected(5_000 * MS);
        assert_eq!(world.looks(5_000, 5_995, true), []);
        assert_eq!(world.looks(5_995, 6_000, true), [(6_000, Verdict::Ask)]);
    }

    #[test]
    fn a_node_without_calls_is_let_alone_and_older_generations_are_forgotten() {
        let mut world = World::new(0);
        world.peers.end(world.peer);
        assert_eq!(world.looks(0, 5_000, true), []);
        assert_eq!(world.peers.next_look(), u64::MAX);
        // The time without calls does not count.
        let (peer, _) = world.peers.begin(&world.node, Generation(1), 5_000 * MS);
        assert_eq!(peer, world.peer);
        assert_eq!(world.looks(5_000, 5_295, true), []);
        world.looks(5_295, 6_000, true);
        assert_eq!(world.peers.lost().len(), 1);
        // The new generation takes its place while the old one's calls go on.
        let (new, _) = world.peers.begin(&world.node, Generation(2), 6_000 * MS);
        assert_ne!(new, peer);
        world.peers.end(peer);
        assert_eq!(world.peers.lost().len(), 1);
        world
            .peers
            .begin(&NodeId::new("b").unwrap(), Generation(1), 0);
        assert!(world.peers.lost().is_empty());
        assert_eq!(world.changes(), 2);
    }
}
