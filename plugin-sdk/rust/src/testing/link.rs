//! One attached plugin, seen by the test host.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::mesh::Mesh;
use super::relay::{self, Relay};
use super::server::Arrival;
use crate::calls::{self, CallEvent, CallStream, Peer, Signal, Slot, Table, Terms, session_ended};
use crate::check::kind_name;
use crate::code::ErrorCode;
use crate::error::CallError;
use crate::payload::Payload;
use crate::wire::{
    HostBody, HostFrame, MAX_PART_BYTES, PROTOCOL, PluginBody, PluginFrame, common, plugin,
};

/// What the test host allows, as an agent would.
pub(super) const TERMS: Terms = Terms {
    credit: 64,
    max_payload: 64 << 20,
    part_bytes: MAX_PART_BYTES,
};

pub(super) struct Link {
    pub manifest: common::Manifest,
    pub instance: String,
    /// The launch token of the plugin's hello.
    pub token: String,
    calls: Table,
    outbound: mpsc::Sender<HostFrame>,
}

/// Serves one session from the plugin's hello to its end.
pub(super) async fn serve(mesh: Arc<Mesh>, arrival: Arrival) {
    let Arrival {
        mut inbound,
        outbound,
    } = arrival;
    let Ok(Some(first)) = inbound.message().await else {
        return;
    };
    let Some(PluginBody::Hello(hello)) = first.body else {
        return;
    };
    let number = mesh.next_instance();
    let link = Arc::new(Link {
        manifest: hello.manifest.unwrap_or_default(),
        instance: format!("00000000-0000-7000-8000-{number:012x}"),
        token: hello.launch_token,
        calls: Table::new(2),
        outbound,
    });
    if link
        .send(0, HostBody::Welcome(link.welcome(&mesh).into()))
        .await
        .is_err()
    {
        return;
    }
    let mut session = Session {
        mesh: mesh.clone(),
        link: link.clone(),
        relays: HashMap::new(),
        running: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            Some(id) = session.running.next(), if !session.running.is_empty() => {
                session.relays.remove(&id);
            }
            frame = inbound.message() => {
                let Ok(Some(frame)) = frame else {
                    break;
                };
                if session.on_frame(frame).await.is_err() {
                    break;
                }
            }
        }
    }
    mesh.remove(&link);
    link.close();
}

struct Session {
    mesh: Arc<Mesh>,
    link: Arc<Link>,
    /// Calls of the plugin to others, by id.
    relays: HashMap<u64, Relay>,
    running: FuturesUnordered<BoxFuture<'static, u64>>,
}

impl Session {
    /// An error ends the session.
    async fn on_frame(&mut self, frame: PluginFrame) -> Result<(), CallError> {
        let (id, link) = (frame.id, &self.link);
        let Some(body) = frame.body else {
            return Ok(());
        };
        match body {
            PluginBody::Ready(_) => self.mesh.add(link.clone()),
            PluginBody::Result(result) => {
                if let Some(slot) = link.calls.remove(id) {
                    slot.result(result);
                }
            }
            PluginBody::Error(error) if id == 0 => {
                self.mesh.refuse(error.into());
                return Err(session_ended());
            }
            PluginBody::Error(error) => {
                if let Some(slot) = link.calls.remove(id) {
                    slot.end(Err(error.into()));
                }
            }
            PluginBody::Progress(progress) => link.line(id, CallEvent::Progress(progress.into())),
            PluginBody::Log(log) if id == 0 => self.mesh.log((*log).into()),
            PluginBody::Log(log) => link.line(id, CallEvent::Log((*log).into())),
            PluginBody::Chunk(chunk) if id.is_multiple_of(2) => {
                if let Some(slot) = link.calls.get(id)
                    && slot.chunk(chunk).is_err()
                {
                    link.abandon(id, true);
                }
            }
            PluginBody::Chunk(chunk) => return self.on_part(id, chunk).await,
            PluginBody::Credit(credit) => match self.relays.get(&id) {
                Some(relay) => relay.credit(credit.chunks),
                None => {
                    if let Some(slot) = link.calls.get(id) {
                        slot.credit(credit.chunks);
                    }
                }
            },
            PluginBody::Call(call) => self.on_call(id, call),
            PluginBody::Cancel(_) => {
                // Dropping the relay cancels the call at its provider.
                self.relays.remove(&id);
            }
            PluginBody::ConfigApplied(_) => {
                if let Some(slot) = link.calls.remove(id) {
                    slot.end(Ok(Payload::default()));
                }
            }
            PluginBody::DrainRequest(_) => {
                let drain = plugin::Drain::default();
                return link.send(0, HostBody::Drain(drain)).await;
            }
            PluginBody::Drained(_) => return Err(session_ended()),
            PluginBody::Health(_) | PluginBody::Ack(_) | PluginBody::Nak(_) => {}
            PluginBody::Hello(_)
            | PluginBody::Publish(_)
            | PluginBody::Message(_)
            | PluginBody::Storage(_)
            | PluginBody::CapabilityChange(_) => {
                let error = CallError::new(
                    ErrorCode::Unsupported,
                    "the test host does not carry this out",
                );
                return link.send(id, HostBody::Error(error.into())).await;
            }
        }
        Ok(())
    }

    /// The plugin calls another.
    fn on_call(&mut self, id: u64, call: Box<common::Call>) {
        if call.more {
            self.relays.insert(id, Relay::assembling(call));
        } else {
            self.relay(id, *call);
        }
    }

    async fn on_part(&mut self, id: u64, chunk: common::Chunk) -> Result<(), CallError> {
        let Some(relay) = self.relays.get_mut(&id) else {
            return Ok(());
        };
        match relay.part(chunk) {
            Ok(relay::Part::More(0)) => Ok(()),
            Ok(relay::Part::More(chunks)) => {
                let credit = common::Credit::of(chunks);
                self.link.send(id, HostBody::Credit(credit)).await
            }
            Ok(relay::Part::Whole(call)) => {
                self.relay(id, *call);
                Ok(())
            }
            Err(error) => {
                self.relays.remove(&id);
                self.link.send(id, HostBody::Error(error.into())).await
            }
        }
    }

    fn relay(&mut self, id: u64, call: common::Call) {
        let (relay, work) = Relay::start(self.mesh.clone(), self.link.clone(), id, call);
        self.relays.insert(id, relay);
        self.running.push(work);
    }
}

impl Link {
    pub(super) async fn send(&self, id: u64, body: HostBody) -> Result<(), CallError> {
        let frame = HostFrame {
            id,
            body: Some(body),
        };
        let sent = self.outbound.send(frame).await;
        sent.map_err(|_| session_ended())
    }

    fn welcome(&self, mesh: &Mesh) -> plugin::Welcome {
        let asked = self
            .manifest
            .limits
            .as_ref()
            .map(|limits| limits.concurrency);
        plugin::Welcome {
            instance: self.instance.clone(),
            config: mesh.config(&self.token),
            protocol: PROTOCOL,
            features: vec!["credits".to_owned()],
            limits: Some(plugin::SessionLimits {
                max_frame_bytes: 256 << 10,
                max_payload_bytes: TERMS.max_payload,
                concurrency: asked.filter(|asked| *asked > 0).unwrap_or(1024),
                initial_credit: TERMS.credit,
            }),
            node: "test-node".to_owned(),
            mesh: "test".to_owned(),
        }
    }

    pub(super) fn entry(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.manifest.capabilities.iter().find(|entry| {
            let own = entry.capability.as_ref();
            own.is_some_and(|own| own.name == name && kind_name(own.kind) == kind)
        });
        serde_json::from_slice(&found?.entry).ok()
    }

    pub(super) async fn change_config(self: &Arc<Self>, config: &Value) -> Result<(), CallError> {
        let slot = Arc::new(Slot::new(TERMS.credit, TERMS.max_payload));
        let id = self.calls.open(slot.clone()).ok_or_else(session_ended)?;
        let answer = CallStream::new(id, slot, self.clone(), Instant::now() + super::PATIENCE);
        let change = plugin::ConfigChange {
            config: config.to_string().into(),
            revision: id,
        };
        self.send(id, HostBody::ConfigChange(change)).await?;
        answer.finish().await.map(|_| ())
    }

    /// Ends all calls of the plugin.
    pub(super) fn close(&self) {
        self.calls.close(&CallError::new(
            ErrorCode::OutcomeUnknown,
            "the plugin's session ended before the call did",
        ));
    }

    fn line(&self, id: u64, event: CallEvent) {
        if let Some(slot) = self.calls.get(id) {
            slot.line(event);
        }
    }
}

impl Peer for Link {
    fn table(&self) -> &Table {
        &self.calls
    }

    fn signal(&self, id: u64, signal: Signal) -> BoxFuture<'_, Result<(), CallError>> {
        let body = match signal {
            Signal::Begin(call) => HostBody::Invoke(call),
            Signal::Part {
                bytes,
                sequence,
                last,
            } => HostBody::Chunk(calls::chunk(bytes, sequence, last, true)),
            Signal::Message { bytes, sequence } => {
                HostBody::Chunk(calls::chunk(bytes, sequence, false, false))
            }
            Signal::Credit(chunks) => HostBody::Credit(common::Credit::of(chunks)),
        };
        self.send(id, body).boxed()
    }

    fn end_messages(&self, id: u64, sequence: u64) {
        if self.calls.get(id).is_some() {
            let body = Some(HostBody::Chunk(calls::chunk(
                Bytes::new(),
                sequence,
                true,
                false,
            )));
            // With no room left the call ends by its deadline.
            let _ = self.outbound.try_send(HostFrame { id, body });
        }
    }

    fn abandon(&self, id: u64, cancel: bool) {
        if self.calls.remove(id).is_some() && cancel {
            let body = Some(HostBody::Cancel(common::Cancel::default()));
            // With no room left the call ends by its deadline.
            let _ = self.outbound.try_send(HostFrame { id, body });
        }
    }
}
