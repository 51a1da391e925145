//! A call through the router, as its caller holds it.

use std::sync::Arc;
use std::time::Duration;

use mesh_bus::{CallEvent, CallOutput, MessageSource};
use mesh_core::error::{ErrorCode, MeshError, Place, Processed};
use mesh_core::id::InstanceId;
use mesh_core::outlier::Outcome;
use mesh_core::select::{Health, Selected};
use tokio::time::{Instant, sleep_until};

use crate::attempt::Attempt;
use crate::request::CallRequest;
use crate::router::Inner;

/// How long an instance that refused a call is the last choice, unless it says for how long.
const REFUSED: Duration = Duration::from_secs(1);

/// How long a call that no instance could be given waits before it is tried again; then twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(25);
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// What is added to an error that would have been no end, had there been fewer of its kind.
const NOT_AGAIN: &str =
    "; the call was not sent again, for too many calls of this process are being sent again";

/// A call through the router. Dropping it before its end cancels the call.
///
/// It lies in memory of its own, as it is handed on several times and is not small.
#[derive(Debug)]
pub struct CallStream(Box<RoutedCall>);

#[derive(Debug)]
struct RoutedCall {
    inner: Arc<Inner>,
    request: CallRequest,
    begun: Instant,
    deadline: Instant,
    attempt: Option<Attempt>,
    /// The instance that serves the call, or the last one that was tried.
    selected: Option<Selected>,
    /// Instances that the call failed at, since it last had to wait.
    tried: Vec<InstanceId>,
    /// A chunk was handed out: another attempt would begin the answer anew.
    handed_out: bool,
    /// How the call ended while there was no attempt to ask.
    failed: Option<MeshError>,
    /// Attempts that failed and may have been processed, and how the first of them did.
    lost: usize,
    unknown: Option<MeshError>,
    /// When it is tried again although it has failed.
    again_at: Option<Instant>,
    /// How long it waited for that the last time, and in all.
    wait: Duration,
    waited: Duration,
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
        let mut call = Box::new(RoutedCall {
            inner,
            request,
            begun,
            deadline: begun + timeout,
            attempt: None,
            selected: None,
            tried: Vec::new(),
            handed_out: false,
            failed: None,
            lost: 0,
            unknown: None,
            again_at: None,
            wait: Duration::ZERO,
            waited: Duration::ZERO,
        });
        call.failed = call.try_next(None, begun);
        Self(call)
    }

    /// Waits for the next thing that happens to the call. Safe to cancel. `End` is the last.
    pub async fn next(&mut self) -> CallEvent {
        self.0.next().await
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
        let selected = self.0.selected.as_ref();
        selected.map(Selected::place).unwrap_or_default()
    }
}

impl RoutedCall {
    /// Hands the call to the next instance, and on to others while they refuse it. Returns why none
    /// took it: `last`, the reason of an attempt before, says more than that none is left.
    fn try_next(&mut self, mut last: Option<MeshError>, now: Instant) -> Option<MeshError> {
        loop {
            self.attempt = None;
            let selected = match self.inner.choose(&self.request, &self.tried, now) {
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
            if self.request.messages.is_some() && !selected.client_streaming {
                return Some(self.takes_no_messages(&selected));
            }
            if self.is_better_kept(last.as_ref(), selected.instance, now)
                || !self.takes_a_retry(&mut last, now)
            {
                return last;
            }
            let first = self.selected.is_none();
            let (request, deadline) = (&self.request, self.deadline);
            let begun = self.inner.attempt(&selected, request, deadline, first, now);
            let (instance, may_repeat) = (selected.instance, selected.may_repeat);
            self.selected = Some(selected);
            match begun {
                Ok(attempt) => {
                    self.attempt = Some(attempt);
                    return None;
                }
                Err(error) => {
                    self.tried.push(instance);
                    self.note_refusal(&error, now);
                    if !self.may_try_again(&error, may_repeat, now) {
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

    fn takes_no_messages(&self, selected: &Selected) -> MeshError {
        let text = format!(
            "{} takes no messages after the payload: send one payload, or let its plugin declare \
             client_streaming",
            self.request.capability
        );
        MeshError::new(ErrorCode::InvalidArgument, text).at(selected.place())
    }

    /// Whether nothing of the call was used up that another attempt would need.
    fn is_whole(&self) -> bool {
        let messages = self.request.messages.as_ref();
        !self.handed_out && messages.is_none_or(MessageSource::is_untouched)
    }

    /// Whether the call may be sent again, as far as it matters itself.
    fn may_try_again(&self, error: &MeshError, may_repeat: bool, now: Instant) -> bool {
        self.is_whole()
            && !self.is_of_another(error)
            && self.tried.len().max(self.lost) < self.inner.config.max_attempts
            && error.code.may_retry(may_repeat)
            && now < self.deadline
    }

    /// Whether a call that was sent before is better kept, for all that is left gives no sign of life: there
    /// it would be lost. One that may be repeated is kept for a while and has nothing to lose then.
    fn is_better_kept(&self, last: Option<&MeshError>, instance: InstanceId, now: Instant) -> bool {
        let Some(last) = last else {
            return false;
        };
        self.inner.flights.look(now).signal(instance).health == Health::Silent
            && (last.code.processed() == Processed::No
                || self.waited < self.inner.config.patience / 2)
    }

    /// Takes what it costs to send a call again out of the budget; an error that says why not stays.
    fn takes_a_retry(&self, last: &mut Option<MeshError>, now: Instant) -> bool {
        let Some(error) = last else {
            return true;
        };
        // What was never sent is not sent again.
        let may = error.code == ErrorCode::Disconnected || self.inner.flights.may_retry(now);
        if !may {
            error.message.push_str(NOT_AGAIN);
        }
        may
    }

    /// When a call that nobody could be given is to be tried again: the broker is gone, or all
    /// instances that were tried are; the mesh knows within moments who takes their place. One that may
    /// be repeated is not lost again and again: it may be what its instances die of.
    fn try_again_at(&mut self, error: &MeshError, now: Instant) -> Option<Instant> {
        let may_repeat = self.selected.as_ref().is_some_and(|one| one.may_repeat);
        let passes = match error.code {
            ErrorCode::Disconnected | ErrorCode::InstanceGone | ErrorCode::Draining => true,
            ErrorCode::OutcomeUnknown => may_repeat && self.lost < self.inner.config.max_attempts,
            _ => false,
        };
        let patience = self.inner.config.patience.saturating_sub(self.waited);
        let left = patience.min(self.deadline.saturating_duration_since(now));
        let kept = !self.is_whole() || error.message.ends_with(NOT_AGAIN);
        if kept || !passes || self.is_of_another(error) || left.is_zero() {
            return None;
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT).min(left);
        self.waited += self.wait;
        Some(now + self.wait)
    }

    /// Waits until a call that nobody could be given may be tried again. False: it has ended. Safe to
    /// cancel.
    async fn comes_again(&mut self) -> bool {
        let Some(error) = self.failed.take() else {
            return false;
        };
        if self.again_at.is_none() {
            self.again_at = self.try_again_at(&error, Instant::now());
        }
        self.failed = Some(error);
        let Some(at) = self.again_at else {
            return false;
        };
        sleep_until(at).await;
        self.again_at = None;
        true
    }

    /// An instance that does not take calls is the last choice for others, too, for a while.
    fn note_refusal(&self, error: &MeshError, now: Instant) {
        let refused = matches!(
            error.code,
            ErrorCode::InstanceGone | ErrorCode::Draining | ErrorCode::Overloaded
        );
        if !refused || self.is_of_another(error) {
            return;
        }
        if let Some(selected) = &self.selected {
            let wait = error.retry_after.unwrap_or(REFUSED);
            self.inner.flights.refused(selected.instance, now + wait);
        }
    }

    /// An attempt that may have been processed has failed: should the call be sent again, its end must
    /// not hide that.
    fn note_loss(&mut self, error: &MeshError) {
        if error.code.processed() == Processed::Unknown {
            self.lost += 1;
            if self.unknown.is_none() {
                self.unknown = Some(self.placed(error.clone()));
            }
        }
    }

    async fn next(&mut self) -> CallEvent {
        loop {
            if self.failed.is_some() {
                if !self.comes_again().await
                    && let Some(error) = self.failed.take()
                {
                    return self.end(Err(error), Instant::now());
                }
                self.tried.clear();
                let last = self.failed.take();
                self.failed = self.try_next(last, Instant::now());
                continue;
            }
            let Some(attempt) = &mut self.attempt else {
                let message = "the call was asked for events after its end";
                return CallEvent::End(Err(MeshError::new(ErrorCode::Internal, message)));
            };
            match attempt.next().await {
                CallEvent::End(Err(error)) => {
                    let now = Instant::now();
                    self.settle(Some(&error), now);
                    self.tried
                        .extend(self.selected.as_ref().map(|one| one.instance));
                    self.note_refusal(&error, now);
                    self.note_loss(&error);
                    let may_repeat = self.selected.as_ref().is_some_and(|one| one.may_repeat);
                    self.failed = if self.may_try_again(&error, may_repeat, now) {
                        tracing::debug!(%error, "the call is tried on another instance");
                        self.try_next(Some(error), now)
                    } else {
                        self.attempt = None;
                        Some(error)
                    };
                }
                CallEvent::End(Ok(output)) => {
                    let now = Instant::now();
                    self.settle(None, now);
                    return self.end(Ok(output), now);
                }
                CallEvent::Chunk(chunk) => {
                    self.handed_out = true;
                    return CallEvent::Chunk(chunk);
                }
                notice => return notice,
            }
        }
    }

    /// What the end of an attempt tells of its instance.
    fn settle(&mut self, error: Option<&MeshError>, now: Instant) {
        let outcome = match error {
            Some(error) if !self.is_of_another(error) => {
                Outcome::of(error, self.deadline - self.begun)
            }
            Some(_) => Outcome::Erred,
            None => Outcome::Well,
        };
        let outlier = match &mut self.attempt {
            Some(attempt) => attempt.settle(outcome, now),
            None => false,
        };
        if let Some(selected) = self.selected.as_ref().filter(|_| outlier) {
            let capability = &self.request.capability;
            self.inner.eject(selected.instance, capability, now);
        }
    }

    fn end(&mut self, result: Result<CallOutput, MeshError>, now: Instant) -> CallEvent {
        self.attempt = None;
        if let Some(selected) = &self.selected {
            let took = now.saturating_duration_since(self.begun);
            self.inner
                .stats
                .ended(&selected.plugin, result.is_ok(), took);
        }
        CallEvent::End(result.map_err(|error| self.of_all_attempts(error)))
    }

    /// What the last attempt's error says of the whole call: that attempt may not have been processed
    /// while one before it was.
    fn of_all_attempts(&mut self, last: MeshError) -> MeshError {
        match self.unknown.take() {
            Some(mut unknown) if last.code.processed() == Processed::No => {
                unknown.message = format!(
                    "{}; it was sent again, and that failed, too: {}",
                    unknown.message, last.message
                );
                unknown
            }
            _ => self.placed(last),
        }
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
}
