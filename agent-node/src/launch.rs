//! Launch tokens: how an attaching plugin is recognised as a process that this agent started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::error::MeshError;
use mesh_core::id::{InstanceId, PluginName};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// A process that this agent started.
#[derive(Debug, Clone)]
pub(crate) struct Launched {
    /// The plugin that it was started as.
    pub(crate) plugin: PluginName,
    /// Where its configuration stands.
    pub(crate) config_field: String,
    /// Its configuration.
    pub(crate) config: Map<String, Value>,
    /// The instance that the process is, or becomes with its next attachment.
    pub(crate) instance: InstanceId,
    /// Its process id.
    pub(crate) pid: Option<u32>,
    /// It may not attach before then, and why: a coordinator refused it.
    pub(crate) refused: Option<(Instant, MeshError)>,
}

/// All processes that this agent started, by token. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaunchBook {
    launched: Arc<Mutex<HashMap<String, Launched>>>,
}

impl LaunchBook {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Launched>> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process is about to be started. Gives its token.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn add(&self, launched: Launched) -> std::io::Result<String> {
        let token = new_token()?;
        self.lock().insert(token.clone(), launched);
        Ok(token)
    }

    /// The process of a token is gone.
    pub(crate) fn remove(&self, token: &str) -> Option<Launched> {
        self.lock().remove(token)
    }

    /// What a token stands for.
    pub(crate) fn get(&self, token: &str) -> Option<Launched> {
        self.lock().get(token).cloned()
    }

    /// Changes what a token stands for.
    pub(crate) fn update(&self, token: &str, change: impl FnOnce(&mut Launched)) {
        if let Some(launched) = self.lock().get_mut(token) {
            change(launched);
        }
    }

    /// The process of an instance may not attach before then. False: this agent did not start it.
    pub(crate) fn refuse(&self, instance: InstanceId, until: Instant, error: &MeshError) -> bool {
        let mut book = self.lock();
        let found = book.values_mut().find(|entry| entry.instance == instance);
        found.is_some_and(|entry| {
            entry.refused = Some((until, error.clone()));
            true
        })
    }

    /// The processes with their instances.
    pub(crate) fn processes(&self) -> Vec<(InstanceId, u32)> {
        let book = self.lock();
        book.values()
            .filter_map(|entry| Some((entry.instance, entry.pid?)))
            .collect()
    }
}

/// 128 bits of the system's random source.
fn new_token() -> std::io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_core::error::ErrorCode;

    fn launched() -> Launched {
        Launched {
            plugin: "time".parse().unwrap(),
            config_field: "agent.plugins[0].config".to_owned(),
            config: Map::new(),
            instance: crate::roster::new_instance(),
            pid: None,
            refused: None,
        }
    }

    #[test]
    fn a_token_stands_for_its_process_until_that_is_gone() {
        let book = LaunchBook::default();
        let (first, second) = (book.add(launched()).unwrap(), book.add(launched()).unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
        assert!(book.processes().is_empty());
        book.update(&first, |entry| entry.pid = Some(7));
        let entry = book.get(&first).unwrap();
        assert_eq!(book.processes(), [(entry.instance, 7)]);
        book.remove(&first);
        assert!(book.get(&first).is_none());
    }

    #[test]
    fn a_refusal_is_kept_with_the_process_of_the_instance() {
        let book = LaunchBook::default();
        let token = book.add(launched()).unwrap();
        let error = MeshError::new(ErrorCode::DependencyCycle, "a → b → a");
        let until = Instant::now();
        let instance = book.get(&token).unwrap().instance;
        assert!(book.refuse(instance, until, &error));
        assert_eq!(
            book.get(&token).unwrap().refused,
            Some((until, error.clone()))
        );
        assert!(!book.refuse(crate::roster::new_instance(), until, &error));
    }
}
