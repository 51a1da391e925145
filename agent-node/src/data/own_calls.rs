//! A plugin's own calls, from its frames to the router and back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use mesh_core::call::Caller;
use mesh_core::capability::Capability;
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{NodeId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::version::Requirement;
use mesh_proto::common;
use mesh_proto::plugin::{HostFrame, host_frame};
use router::{CallEvent, CallOutput, CallRequest, CallStream, MessageSender, Router, messages};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::begin::credit_frame;
use super::held::{Charge, Held};
use super::out::OutQueue;
use crate::permissions;
use crate::session::limits::{INITIAL_CREDIT, PART_BYTES};
use crate::session::refusal::error_frame;

/// The most credit that a plugin can gather, so that counting can't overflow.
const MOST_CREDIT: usize = 1 << 20;

/// The time that a call has when the plugin names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time that a call may have.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// The own calls of one plugin.
pub(super) struct OwnCalls {
    router: Router,
    out: OutQueue,
    held: Held,
    node: Arc<str>,
    running: FuturesUnordered<Abortable<BoxFuture<'static, u64>>>,
    handles: HashMap<u64, Handle>,
}

struct Handle {
    abort: AbortHandle,
    credit: Arc<Semaphore>,
    /// Messages that follow the payload, until the last has come.
    messages: Option<Arc<MessageSender>>,
    /// For the payload, which the router keeps until the end.
    _charge: Charge,
}

impl OwnCalls {
    pub(super) fn new(router: Router, out: OutQueue, held: Held, node: &NodeId) -> Self {
        Self {
            router,
            out,
            held,
            node: node.as_str().into(),
            running: FuturesUnordered::new(),
            handles: HashMap::new(),
        }
    }

    /// Begins a call that was checked. `streams`: messages follow.
    pub(super) fn begin(&mut self, id: u64, mut request: CallRequest, streams: bool) {
        let messages = streams.then(|| {
            let (sender, source) = messages(INITIAL_CREDIT as usize);
            request.messages = Some(source);
            Arc::new(sender)
        });
        let deadline = Instant::now() + request.timeout;
        let credit = Arc::new(Semaphore::new(INITIAL_CREDIT as usize));
        let answer = Answer {
            id,
            out: self.out.clone(),
            node: Arc::clone(&self.node),
            caller: request.caller.instance.clone(),
            credit: Arc::clone(&credit),
            deadline,
            sequence: 0,
            messages: messages.clone(),
        };
        let payload = request.payload.len();
        let call = self.router.call(request);
        // Not before: a call to a plugin beside it would find no room for the sake of its own payload.
        let mut charge = Charge::new(&self.held);
        charge.add(payload);
        let (abort, registration) = AbortHandle::new_pair();
        let run: BoxFuture<'static, u64> = Box::pin(answer.run(call));
        self.running.push(Abortable::new(run, registration));
        let handle = Handle {
            abort,
            credit,
            messages,
            _charge: charge,
        };
        self.handles.insert(id, handle);
    }

    /// The plugin no longer wants an answer; the call is dropped, which cancels it.
    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort.abort();
        }
    }

    /// The plugin sends a message, or (`None`) no more. False: more than it has credit for.
    pub(super) fn message(&mut self, id: u64, message: Option<Bytes>) -> bool {
        let Some(handle) = self.handles.get_mut(&id) else {
            return true;
        };
        match (message, &handle.messages) {
            (Some(message), Some(sender)) => sender.try_send(message).is_ok(),
            (None, Some(sender)) => {
                sender.finish();
                handle.messages = None;
                true
            }
            (_, None) => true,
        }
    }

    /// The plugin takes more chunks of an answer.
    pub(super) fn grant(&self, id: u64, chunks: u32) {
        if let Some(handle) = self.handles.get(&id) {
            let room = MOST_CREDIT.saturating_sub(handle.credit.available_permits());
            handle.credit.add_permits((chunks as usize).min(room));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next call that ended and was answered; `None` for one that was cancelled.
    pub(super) async fn next(&mut self) -> Option<u64> {
        match self.running.next().await {
            Some(Ok(id)) => {
                self.handles.remove(&id);
                Some(id)
            }
            Some(Err(Aborted)) | None => None,
        }
    }
}

/// The answer to one call on its way to the plugin.
struct Answer {
    id: u64,
    out: OutQueue,
    node: Arc<str>,
    /// The plugin's instance.
    caller: String,
    credit: Arc<Semaphore>,
    deadline: Instant,
    sequence: u64,
    messages: Option<Arc<MessageSender>>,
}

impl Answer {
    async fn run(mut self, mut call: CallStream) -> u64 {
        let end = match self.messages.take() {
            None => self.relay(&mut call).await,
            Some(messages) => {
                let (id, out) = (self.id, self.out.clone());
                let credits = std::pin::pin!(give_credit(id, out, messages));
                let relay = std::pin::pin!(self.relay(&mut call));
                match select(relay, credits).await {
                    Either::Left((end, _)) => end,
                    Either::Right((never, _)) => match never {},
                }
            }
        };
        match end {
            Ok(output) => self.send(host_frame::Body::Result(common::Result {
                payload: output.payload,
                content_type: output.content_type,
                ..common::Result::default()
            })),
            Err(mut error) => {
                // Never with its own instance or without a place: a plugin that passes it on would seem to
                // speak of the call that it works on.
                if error.place.instance == self.caller {
                    error.place = Box::default();
                }
                if error.place.node.is_empty() {
                    self.node.as_ref().clone_into(&mut error.place.node);
                }
                self.out.push(error_frame(self.id, error.into()));
            }
        }
        self.id
    }

    /// Passes everything on until the end, which is left to the caller with its last part.
    async fn relay(&mut self, call: &mut CallStream) -> Result<CallOutput, MeshError> {
        loop {
            let event = call.next().await;
            // A plugin that does not read is pushed back on its own calls only.
            self.out.room().await;
            match event {
                CallEvent::Chunk(payload) => self.chunk(payload, false).await?,
                CallEvent::Progress(progress) => {
                    self.send(host_frame::Body::Progress(progress));
                }
                CallEvent::Log(log) => self.send(host_frame::Body::Log(log.into())),
                CallEvent::End(end) => {
                    let mut output = end?;
                    while output.payload.len() > PART_BYTES {
                        let part = output.payload.split_to(PART_BYTES);
                        self.chunk(part, true).await?;
                        self.out.room().await;
                    }
                    return Ok(output);
                }
            }
        }
    }

    async fn chunk(&mut self, payload: Bytes, fragment: bool) -> Result<(), MeshError> {
        let credit = tokio::time::timeout_at(self.deadline, self.credit.acquire());
        match credit.await {
            // The semaphore is never closed.
            Ok(permit) => permit
                .map(tokio::sync::SemaphorePermit::forget)
                .unwrap_or(()),
            Err(_) => {
                let text =
                    "the call's time was over while the answer waited for the plugin's credit";
                return Err(MeshError::new(ErrorCode::DeadlineExceeded, text));
            }
        }
        let chunk = common::Chunk {
            payload,
            last: false,
            sequence: self.sequence,
            fragment,
        };
        self.sequence += 1;
        self.send(host_frame::Body::Chunk(chunk));
        Ok(())
    }

    fn send(&self, body: host_frame::Body) {
        let (id, body) = (self.id, Some(body));
        self.out.push(HostFrame { id, body });
    }
}

/// Lets the plugin send more messages as those before are taken.
async fn give_credit(id: u64, out: OutQueue, messages: Arc<MessageSender>) -> Infallible {
    loop {
        let taken = messages.taken(INITIAL_CREDIT / 2).await;
        out.push(credit_frame(id, taken));
    }
}

/// Makes the router's request of a plugin's call, or says what is wrong with it.
///
/// # Errors
/// INVALID_ARGUMENT that names the field, PERMISSION_DENIED.
pub(super) fn request(
    call: common::Call,
    payload: Bytes,
    manifest: &Manifest,
    place: &Place,
) -> Result<CallRequest, MeshError> {
    let invalid = |field: &str, problem: String| {
        MeshError::new(ErrorCode::InvalidArgument, format!("{field}: {problem}"))
    };
    let capability = call
        .capability
        .as_ref()
        .ok_or_else(|| invalid("capability", "it is missing".to_owned()))?;
    let capability = Capability::try_from(capability)
        .map_err(|error| invalid("capability", error.to_string()))?;
    permissions::check_call(manifest, &capability)?;
    let plugin = match call.plugin.as_str() {
        "" => None,
        name => {
            let name = PluginName::new(name);
            Some(name.map_err(|error| invalid("plugin", error.to_string()))?)
        }
    };
    let requirement = match call.requirement.as_str() {
        "" => declared(manifest, plugin.as_ref(), &capability),
        text => {
            let requirement = text.parse::<Requirement>();
            Some(requirement.map_err(|error| invalid("requirement", error.to_string()))?)
        }
    };
    let timeout = match call.time_left_us {
        0 => DEFAULT_TIMEOUT,
        micros => Duration::from_micros(micros).min(LONGEST),
    };
    let mut request = CallRequest::new(capability, payload).with_timeout(timeout);
    request.plugin = plugin;
    request.requirement = requirement;
    request.content_type = call.content_type;
    request.trace = call.trace.unwrap_or_default().into();
    request.affinity_key = call.affinity_key;
    request.metadata = call.metadata;
    request.groups = call.groups;
    request.want_progress = call.want_progress;
    request.caller = Caller {
        plugin: place.plugin.clone(),
        instance: place.instance.clone(),
        node: place.node.clone(),
    };
    Ok(request)
}

/// What the manifest requires of the one who is called.
fn declared(
    manifest: &Manifest,
    plugin: Option<&PluginName>,
    capability: &Capability,
) -> Option<Requirement> {
    let need = match plugin {
        Some(plugin) => manifest.dependencies.get(plugin),
        None => manifest.requires.get(capability),
    };
    need.map(|need| need.requirement.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_core::manifest::{ManifestDraft, NeedDraft};

    fn manifest() -> Manifest {
        let need = |what: &str, requirement: &str| NeedDraft {
            what: what.to_owned(),
            requirement: requirement.to_owned(),
            optional: false,
        };
        let mut draft = ManifestDraft {
            name: "planner".to_owned(),
            version: "1.0.0".to_owned(),
            dependencies: vec![need("time", "^1.2")],
            requires: vec![need("tool:add", ">=2")],
            ..ManifestDraft::default()
        };
        draft.permissions.call = vec!["tool:*".to_owned()];
        draft.check().unwrap()
    }

    fn call(plugin: &str, kind: common::CapabilityKind, name: &str) -> common::Call {
        common::Call {
            plugin: plugin.to_owned(),
            capability: Some(common::Capability {
                kind: kind.into(),
                name: name.to_owned(),
            }),
            ..common::Call::default()
        }
    }

    fn made(call: common::Call) -> Result<CallRequest, MeshError> {
        let place = Place {
            plugin: "planner".to_owned(),
            ..Place::default()
        };
        request(call, Bytes::new(), &manifest(), &place)
    }

    #[test]
    fn the_requirement_comes_from_the_manifest_unless_the_call_names_one() {
        let tool = common::CapabilityKind::Tool;
        let by_plugin = made(call("time", tool, "now")).unwrap();
        assert_eq!(by_plugin.requirement.unwrap().to_string(), "^1.2");
        let by_capability = made(call("", tool, "add")).unwrap();
        assert_eq!(by_capability.requirement.unwrap().to_string(), ">=2");
        assert_eq!(made(call("other", tool, "x")).unwrap().requirement, None);
        let mut own = call("time", tool, "now");
        own.requirement = "=1.3.0".to_owned();
        assert_eq!(
            made(own).unwrap().requirement.unwrap().to_string(),
            "=1.3.0"
        );
    }

    #[test]
    fn a_call_carries_who_makes_it_and_a_default_time() {
        let request = made(call("", common::CapabilityKind::Tool, "add")).unwrap();
        assert_eq!(request.caller.plugin, "planner");
        assert_eq!(request.timeout, DEFAULT_TIMEOUT);
    }

    #[test]
    fn mistakes_name_their_field_and_what_is_not_allowed_is_denied() {
        let tool = common::CapabilityKind::Tool;
        let mut bad_requirement = call("time", tool, "now");
        bad_requirement.requirement = "banana".to_owned();
        for (call, field) in [
            (common::Call::default(), "capability: "),
            (call("", tool, ""), "capability: "),
            (call("Bad_Name", tool, "add"), "plugin: "),
            (bad_requirement, "requirement: "),
        ] {
            let error = made(call).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.starts_with(field), "{error}");
        }
        let denied = made(call("", common::CapabilityKind::Service, "a.b")).unwrap_err();
        assert_eq!(denied.code, ErrorCode::PermissionDenied);
    }
}
