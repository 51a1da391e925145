//! Whether a call is taken: pure.

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};

/// How it stands when a call arrives.
#[derive(Debug, Clone)]
pub(crate) struct Situation<'a> {
    /// The agent is stopping.
    pub(crate) agent_draining: bool,
    /// The instance takes no new calls, and why.
    pub(crate) draining: Option<&'a str>,
    /// The plugin has said that it is ready.
    pub(crate) ready: bool,
    /// The plugin gives no sign of life.
    pub(crate) hangs: bool,
    /// Calls in flight on the agent, and the most that it takes.
    pub(crate) agent: Usage,
    /// Calls in flight at the instance, and the most that it takes.
    pub(crate) instance: Usage,
    /// Bytes that the agent holds of calls, and from how many on it takes no more.
    pub(crate) bytes: Usage,
    /// The connection to whoever called is congested.
    pub(crate) bus_is_congested: bool,
    /// The queue to the plugin takes more.
    pub(crate) queue_has_room: bool,
    /// How long calls of the instance take.
    pub(crate) mean_latency: Duration,
}

/// How many there are, and the most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// How many.
    pub(crate) used: usize,
    /// The most.
    pub(crate) limit: usize,
}

impl Usage {
    fn is_full(self) -> bool {
        self.used >= self.limit
    }
}

/// The shortest and the longest time after which a shed call is asked to come again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Decides.
///
/// # Errors
/// Why the call is not taken; it was not processed.
pub(crate) fn admit(now: &Situation<'_>) -> Result<(), MeshError> {
    if now.agent_draining {
        let text = "the agent is stopping and takes no new calls; try another instance";
        return Err(MeshError::new(ErrorCode::Draining, text));
    }
    if let Some(reason) = now.draining {
        let text = format!("the instance takes no new calls: {reason}; try another instance");
        return Err(MeshError::new(ErrorCode::Draining, text));
    }
    if !now.ready {
        let text = "the plugin is attached but has not yet said that it is ready";
        return Err(MeshError::new(ErrorCode::Unavailable, text));
    }
    if now.hangs {
        let text = "the plugin hangs: it does not answer when it is asked whether it is alive; try \
                    another instance";
        return Err(MeshError::new(ErrorCode::Unavailable, text));
    }
    let full = if now.instance.is_full() {
        format!(
            "the instance has {} calls in flight, which is its limit",
            now.instance.used
        )
    } else if now.agent.is_full() {
        format!(
            "the agent has {} calls in flight, which is its limit (agent.max_in_flight)",
            now.agent.used
        )
    } else if now.bytes.is_full() {
        format!(
            "the agent holds {} bytes of calls, which is its limit (agent.max_bytes_in_flight)",
            now.bytes.used
        )
    } else if now.bus_is_congested {
        "the node's connection to NATS does not take answers as fast as they come".to_owned()
    } else if !now.queue_has_room {
        "the plugin does not read its stream fast enough (agent.max_bytes_in_flight_per_instance)"
            .to_owned()
    } else {
        return Ok(());
    };
    let wait = now.mean_latency.clamp(RETRY_AFTER.0, RETRY_AFTER.1);
    let text = format!(
        "{full}; try again in {} ms, or another instance",
        wait.as_millis()
    );
    Err(MeshError::new(ErrorCode::Overloaded, text).retry_after(wait))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn calm() -> Situation<'static> {
        Situation {
            agent_draining: false,
            draining: None,
            ready: true,
            hangs: false,
            agent: Usage {
                used: 3,
                limit: 100,
            },
            instance: Usage { used: 3, limit: 4 },
            bytes: Usage { used: 0, limit: 10 },
            bus_is_congested: false,
            queue_has_room: true,
            mean_latency: Duration::from_millis(20),
        }
    }

    #[test]
    fn a_call_is_taken_below_all_limits() {
        assert_eq!(admit(&calm()), Ok(()));
    }

    #[test]
    fn a_full_instance_agent_or_queue_sheds_and_says_when_to_come_again() {
        let full = Usage { used: 4, limit: 4 };
        for (situation, says) in [
            (
                Situation {
                    instance: full,
                    ..calm()
                },
                "the instance has 4 calls",
            ),
            (
                Situation {
                    agent: full,
                    ..calm()
                },
                "agent.max_in_flight",
            ),
            (
                Situation {
                    bytes: full,
                    ..calm()
                },
                "agent.max_bytes_in_flight)",
            ),
            (
                Situation {
                    bus_is_congested: true,
                    ..calm()
                },
                "connection to NATS",
            ),
            (
                Situation {
                    queue_has_room: false,
                    ..calm()
                },
                "does not read",
            ),
        ] {
            let error = admit(&situation).unwrap_err();
            assert_eq!(error.code, ErrorCode::Overloaded);
            assert_eq!(error.retry_after, Some(Duration::from_millis(20)));
            assert!(error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn one_who_drains_or_is_not_ready_refuses_before_counting() {
        let draining = Situation {
            draining: Some("it asked to leave"),
            instance: Usage { used: 9, limit: 4 },
            ..calm()
        };
        let error = admit(&draining).unwrap_err();
        assert_eq!(error.code, ErrorCode::Draining);
        assert!(error.message.contains("it asked to leave"), "{error}");
        let stopping = Situation {
            agent_draining: true,
            ..calm()
        };
        assert_eq!(admit(&stopping).unwrap_err().code, ErrorCode::Draining);
        let starting = Situation {
            ready: false,
            ..calm()
        };
        assert_eq!(admit(&starting).unwrap_err().code, ErrorCode::Unavailable);
        let hangs = Situation {
            hangs: true,
            ..calm()
        };
        assert_eq!(admit(&hangs).unwrap_err().code, ErrorCode::Unavailable);
    }
}
