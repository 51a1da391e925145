//! A call through the router, as its caller holds it.

use std::sync::Arc;
use std::time::Duration;

use mesh_bus::{CallEvent, CallOutput};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::InstanceId;
use mesh_core::select::Selected;
use tokio::time::Instant;

use crate::attempt::Attempt;
use crate::request::CallRequest;
use crate::router::Inner;

/// How long an instance that refused a call is the last choice, unless it says for how long.
const REFUSED: Duration = Duration::from_secs(1);

/// A call through the router. Dropping it before its end cancels the call.
#[derive(Debug)]
pub struct CallStream {
    inner: Arc<Inner>,
    request: CallRequest,
    begun: Instant,
    deadline: Instant,
    attempt: Option<Attempt>,
    /// The instance that serves the call, or the last one that was tried.
    selected: Option<Selected>,
    /// Instances that did not take the call.
    tried: Vec<InstanceId>,
    attempts: u32,
    /// A chunk was handed out: another attempt would begin the answer anew.
    handed_out: bool,
    /// How the call ended before there was an attempt to ask.
    failed: Option<MeshError>,
}

impl CallStream {
    pub(crate) fn begin(inner: Arc<Inner>, request: CallRequest) -> Self {
        let begun = Instant::now();
        let timeout = if request.timeout.is_zero() {
            inner.config.default_timeout
        } else {
            request.timeout
        };
        // A year is as good as never, and can be added to any time.
        let timeout = timeout.min(Duration::from_secs(365 * 86_400));
        let mut call = Self {
            inner,
            request,
            begun,
            deadline: begun + timeout,
            attempt: None,
            selected: None,
            tried: Vec::new(),
            attempts: 0,
            handed_out: false,
            failed: None,
        };
        call.failed = call.try_next(None);
        call
    }

    /// Hands the call to the next instance, and on to others while they refuse it. Returns why none
    /// took it: `last`, the reason of an attempt before, says more than that none is left.
    fn try_next(&mut self, mut last: Option<MeshError>) -> Option<MeshError> {
        loop {
            self.attempt = None;
            let selected = match self.inner.choose(&self.request, &self.tried) {
                Ok(selected) => selected,
                Err(error) => {
                    if error.code == ErrorCode::NoProvider
                        && let Some(template) = self.inner.template_of(&self.request)
                    {
                        self.request.capability = template;
                        continue;
                    }
                    return Some(last.unwrap_or(error));
                }
            };
            self.attempts += 1;
            let begun = self.inner.attempt(&selected, &self.request, self.deadline);
            let may_repeat = selected.may_repeat;
            self.tried.push(selected.instance);
            self.selected = Some(selected);
            match begun {
                Ok(attempt) => {
                    self.attempt = Some(attempt);
                    return None;
                }
                Err(error) => {
                    self.note_refusal(&error);
                    if !self.may_try_again(&error, may_repeat) {
                        return Some(error);
                    }
                    last = Some(error);
                }
            }
        }
    }

    /// Whether an error tells of a call that the instance made itself while it worked on this one:
    /// what was not processed then is that other call.
    fn is_of_another(&self, error: &MeshError) -> bool {
        let place = &error.place;
        self.selected.as_ref().is_some_and(|own| {
            (!place.instance.is_empty() && place.instance != own.instance.to_string())
                || (!place.plugin.is_empty() && place.plugin != own.plugin.as_str())
        })
    }

    fn may_try_again(&self, error: &MeshError, may_repeat: bool) -> bool {
        !self.handed_out
            && !self.is_of_another(error)
            && self.attempts < self.inner.config.max_attempts
            && error.code.may_retry(may_repeat)
            && Instant::now() < self.deadline
    }

    /// An instance that does not take calls is the last choice for others, too, for a while.
    fn note_refusal(&self, error: &MeshError) {
        let refused = matches!(
            error.code,
            ErrorCode::InstanceGone | ErrorCode::Draining | ErrorCode::Overloaded
        );
        if !refused || self.is_of_another(error) {
            return;
        }
        if let Some(selected) = &self.selected {
            let wait = error.retry_after.unwrap_or(REFUSED);
            self.inner
                .flights
                .refused(selected.instance, Instant::now() + wait);
        }
    }

    /// Waits for the next thing that happens to the call. Safe to cancel. `End` is the last.
    pub async fn next(&mut self) -> CallEvent {
        loop {
            if let Some(error) = self.failed.take() {
                return self.end(Err(error));
            }
            let Some(attempt) = &mut self.attempt else {
                let message = "the call was asked for events after its end";
                return CallEvent::End(Err(MeshError::new(ErrorCode::Internal, message)));
            };
            match attempt.next().await {
                CallEvent::End(Err(error)) => {
                    self.note_refusal(&error);
                    let may_repeat = self.selected.as_ref().is_some_and(|one| one.may_repeat);
                    if self.may_try_again(&error, may_repeat) {
                        tracing::debug!(%error, "the call is tried on another instance");
                        self.failed = self.try_next(Some(error));
                    } else {
                        return self.end(Err(error));
                    }
                }
                CallEvent::End(Ok(output)) => return self.end(Ok(output)),
                CallEvent::Chunk(chunk) => {
                    self.handed_out = true;
                    return CallEvent::Chunk(chunk);
                }
                notice => return notice,
            }
        }
    }

    fn end(&mut self, result: Result<CallOutput, MeshError>) -> CallEvent {
        self.attempt = None;
        if let Some(selected) = &self.selected {
            let took = self.begun.elapsed();
            self.inner
                .stats
                .ended(&selected.plugin, result.is_ok(), took);
        }
        CallEvent::End(result.map_err(|error| self.placed(error)))
    }

    /// Completes the place of an error: the bus knows of no plugin.
    fn placed(&self, mut error: MeshError) -> MeshError {
        let Some(selected) = &self.selected else {
            return error;
        };
        let known = selected.place();
        let place = &mut error.place;
        // What an error says of another instance, such as of a plugin's own call, stays as it is.
        if place.instance.is_empty() || place.instance == known.instance {
            for (own, known) in [
                (&mut place.plugin, known.plugin),
                (&mut place.version, known.version),
                (&mut place.instance, known.instance),
                (&mut place.node, known.node),
            ] {
                if own.is_empty() {
                    *own = known;
                }
            }
        }
        error
    }

    /// Waits for the end; chunks, progress and log lines on the way are let go.
    ///
    /// # Errors
    /// What the call ended with.
    pub async fn finish(mut self) -> Result<CallOutput, MeshError> {
        loop {
            if let CallEvent::End(result) = self.next().await {
                return result;
            }
        }
    }

    /// Which instance serves (or served) the call; unknown before one was found.
    #[must_use]
    pub fn served_by(&self) -> Place {
        self.selected
            .as_ref()
            .map(Selected::place)
            .unwrap_or_default()
    }
}
