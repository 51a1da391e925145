//! Streams between agents or gateways and coordinators: in order, with delays, and broken by what
//! breaks.

use crate::record::Parting;
use std::collections::VecDeque;

use super::feed::Have;
use super::world::{Happening, Peer, Way, World};
use crate::engine::{Action, Event, Report, SessionId};
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::table::{NodeRoute, TableUpdate};

/// One end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Coordinator,
    Peer,
}

/// What goes to a coordinator.
#[derive(Debug)]
pub enum Up {
    Hello(NodeRoute, Option<Have>),
    Follow(Option<Have>),
    Announce(Vec<Report>),
    Report(Report),
    Gone(InstanceId),
    Beat,
}

/// What comes from it.
#[derive(Debug)]
pub enum Down {
    Welcome,
    AskAnnounce,
    Reject(InstanceId),
    Directive(Action, PluginName),
    Table(Box<TableUpdate>),
    Close,
}

pub struct Stream {
    pub peer: Peer,
    pub coordinator: usize,
    /// Which sides think that it is open.
    pub coordinator_open: bool,
    pub peer_open: bool,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    /// The coordinator has taken the session or follower.
    pub joined: bool,
    /// The table may be sent.
    welcome: bool,
    have: Option<Have>,
}

impl World {
    /// A new stream, from a peer's side.
    pub fn open_stream(&mut self, peer: Peer, coordinator: usize) -> u64 {
        let number = self.number();
        let stream = Stream {
            peer,
            coordinator,
            coordinator_open: true,
            peer_open: true,
            up: VecDeque::new(),
            down: VecDeque::new(),
            joined: false,
            welcome: false,
            have: None,
        };
        self.streams.insert(number, stream);
        number
    }

    pub fn streams_of(&self, coordinator: usize) -> Vec<u64> {
        let open = self.streams.iter();
        let open = open.filter(|(_, it)| it.coordinator == coordinator && it.coordinator_open);
        open.map(|(number, _)| *number).collect()
    }

    pub fn send(&mut self, number: u64, message: Up) {
        let delay = self.chance.within(1..50);
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.up.push_back(message);
            self.after(delay, Happening::Arrives(number, Side::Coordinator));
        }
    }

    pub fn say(&mut self, session: SessionId, message: Down) {
        let number = session.0;
        let delay = self.chance.within(1..50);
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let welcome = matches!(message, Down::Welcome);
        stream.down.push_back(message);
        self.after(delay, Happening::Arrives(number, Side::Peer));
        if welcome {
            self.welcome(number);
        }
    }

    fn welcome(&mut self, number: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.welcome = true;
        }
        self.hand_on(number);
    }

    /// A coordinator ends a stream with a word.
    pub fn refuse(&mut self, session: SessionId) {
        self.say(session, Down::Close);
        if let Some(stream) = self.streams.get_mut(&session.0) {
            stream.coordinator_open = false;
        }
    }

    /// Hands on what is newer than what the follower has.
    pub fn hand_on(&mut self, number: u64) {
        while let Some(stream) = self.streams.get(&number) {
            let feed = &self.coordinators[stream.coordinator].feed;
            let Some(update) = feed.after(stream.have).filter(|_| stream.welcome) else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.have = Some(Have {
                    revision: update.to,
                    digest: None,
                });
            }
            self.say(SessionId(number), Down::Table(Box::new(update)));
        }
    }

    fn way(stream: &Stream) -> Way {
        Way::Peer(stream.peer, stream.coordinator)
    }

    fn is_stopped(&self, stream: &Stream, side: Side) -> bool {
        match (side, stream.peer) {
            (Side::Coordinator, _) => self.coordinators[stream.coordinator].stopped,
            (Side::Peer, Peer::Agent(number)) => self.agents[number].stopped,
            (Side::Peer, Peer::Gateway(_)) => false,
        }
    }

    /// The next message of a stream is there, unless the way is cut or the receiver stopped; then it
    /// comes later.
    pub fn arrives(&mut self, number: u64, side: Side) {
        let Some(stream) = self.streams.get(&number) else {
            return;
        };
        if !self.is_open(Self::way(stream)) || self.is_stopped(stream, side) {
            self.after(250, Happening::Arrives(number, side));
            return;
        }
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        match side {
            Side::Coordinator => {
                let message = stream.up.pop_front().filter(|_| stream.coordinator_open);
                let coordinator = stream.coordinator;
                if let Some(message) = message {
                    self.taken(number, coordinator, message);
                }
            }
            Side::Peer => {
                let message = stream.down.pop_front().filter(|_| stream.peer_open);
                let peer = stream.peer;
                if let Some(message) = message {
                    self.heard(number, peer, message);
                }
            }
        }
    }

    /// A coordinator takes what a peer says.
    fn taken(&mut self, number: u64, coordinator: usize, message: Up) {
        let session = SessionId(number);
        let event = match message {
            Up::Hello(..) | Up::Follow(_) if !self.may_join(coordinator) => {
                self.refuse(session);
                return;
            }
            Up::Hello(node, have) => {
                if let Some(stream) = self.streams.get_mut(&number) {
                    stream.joined = true;
                    stream.have = have;
                }
                let table = have.map(|have| have.revision);
                Event::AgentOpened {
                    session,
                    node,
                    table,
                }
            }
            Up::Follow(have) => {
                if let Some(stream) = self.streams.get_mut(&number) {
                    stream.have = have;
                }
                if let Some(table) = have.map(|have| have.revision) {
                    self.step(coordinator, Event::TableSeen { table });
                }
                self.welcome(number);
                return;
            }
            Up::Announce(reports) => Event::AgentAnnounced { session, reports },
            Up::Report(report) => Event::AgentReported { session, report },
            Up::Gone(instance) => Event::AgentGone { session, instance },
            Up::Beat => Event::AgentHeartbeat { session },
        };
        self.step(coordinator, event);
    }

    /// One side closes a stream, or its process ends; the other one finds out.
    pub fn leaves(&mut self, number: u64, side: Side) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let other = match side {
            Side::Coordinator => {
                stream.coordinator_open = false;
                Side::Peer
            }
            Side::Peer => {
                stream.peer_open = false;
                Side::Coordinator
            }
        };
        let way = Self::way(stream);
        let delay = if self.is_open(way) {
            self.chance.within(1..60)
        } else {
            self.chance.within(5_000..10_000)
        };
        self.after(delay, Happening::Gone(number, other));
    }

    /// The other side says nothing any more: in a while that is noticed.
    pub fn falls_silent(&mut self, number: u64, side: Side) {
        let delay = self.chance.within(5_000..10_000);
        self.after(delay, Happening::Silent(number, side));
    }

    pub fn is_silent(&self, number: u64, side: Side) -> bool {
        let other = match side {
            Side::Coordinator => Side::Peer,
            Side::Peer => Side::Coordinator,
        };
        self.streams.get(&number).is_some_and(|stream| {
            !self.is_open(Self::way(stream)) || self.is_stopped(stream, other)
        })
    }

    /// A side finds that a stream is down.
    pub fn finds_gone(&mut self, number: u64, side: Side) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let (coordinator, peer) = (stream.coordinator, stream.peer);
        match side {
            Side::Coordinator => {
                if self.coordinators[coordinator].stopped {
                    self.after(250, Happening::Gone(number, side));
                    return;
                }
                let joined = std::mem::take(&mut stream.joined) && stream.coordinator_open;
                stream.coordinator_open = false;
                if joined {
                    let session = SessionId(number);
                    self.step(
                        coordinator,
                        Event::AgentClosed {
                            session,
                            parting: Parting::Broken,
                        },
                    );
                }
                if self.streams.get(&number).is_some_and(|it| it.peer_open) {
                    self.leaves(number, Side::Coordinator);
                }
            }
            Side::Peer => {
                if std::mem::take(&mut stream.peer_open) {
                    let open = stream.coordinator_open;
                    self.peer_lost(peer, number);
                    if open {
                        self.leaves(number, Side::Peer);
                    }
                }
            }
        }
        let both = |stream: &Stream| !stream.coordinator_open && !stream.peer_open;
        if self.streams.get(&number).is_some_and(both) {
            self.streams.remove(&number);
        }
    }
}
