//! The ledger: what plugins began to work on, and what their callers heard of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::error::{ErrorCode, MeshError};
use tokio::time::Instant;

use super::plan::Script;

/// How a call ended for its caller.
#[derive(Debug, Clone)]
pub(super) enum End {
    Well,
    Failed(ErrorCode, String),
    /// The caller gave it up, or is gone.
    GivenUp,
}

impl From<&MeshError> for End {
    fn from(error: &MeshError) -> Self {
        Self::Failed(error.code, error.to_string())
    }
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) script: Arc<Script>,
    /// Which instances began to work on it.
    pub(super) starts: Vec<String>,
    /// How often the caller was told an end.
    pub(super) ends: Vec<(Instant, End)>,
    /// How many messages left its caller.
    pub(super) messages_sent: u64,
    /// How many a plugin took.
    pub(super) messages_taken: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) calls: BTreeMap<u64, Record>,
}

impl Ledger {
    pub(super) fn new(scripts: &[Arc<Script>]) -> Self {
        let mut ledger = Self::default();
        for script in scripts {
            ledger.add(script);
        }
        ledger
    }

    fn add(&mut self, script: &Arc<Script>) {
        let record = Record {
            script: script.clone(),
            starts: Vec::new(),
            ends: Vec::new(),
            messages_sent: 0,
            messages_taken: 0,
        };
        self.calls.insert(script.key, record);
    }

    /// The call that a plugin makes for a call that it works on: another one each time that it is begun.
    pub(super) fn nested(&mut self, of: &Script, begun: usize) -> Option<Arc<Script>> {
        let mut script = Script::clone(of.nested.as_ref()?);
        // The thousands tell which time it is, and of which call: none is begun ten times.
        script.key += AGAIN * (of.key / AGAIN * 10 + begun as u64);
        let script = Arc::new(script);
        self.add(&script);
        Some(script)
    }

    /// A call's script.
    pub(super) fn script(&self, key: u64) -> Option<Arc<Script>> {
        let record = self.calls.get(&key)?;
        Some(record.script.clone())
    }
}

/// What the key of a call of a plugin grows by each time that it is made.
const AGAIN: u64 = 1_000;

/// What a payload of a call looks like: its key, and bytes that follow from it.
pub(super) fn payload(key: u64, salt: u64, bytes: usize) -> Vec<u8> {
    let mut payload = key.to_le_bytes().to_vec();
    let start = key.wrapping_mul(31).wrapping_add(salt);
    payload.extend((0..bytes as u64).map(|at| (start.wrapping_add(at)) as u8));
    payload
}

/// The key that a payload begins with.
pub(super) fn key_of(payload: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?))
}

/// The salt of a result, beside those of chunks, which are counted from 0.
pub(super) const RESULT: u64 = 1 << 32;

/// The salt of what is sent to the plugin.
pub(super) const UPLOAD: u64 = 1 << 33;
