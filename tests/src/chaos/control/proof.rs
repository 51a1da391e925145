//! What the coordinators say of their registry while the store is harmed: when the first of them found
//! that it can't prove any more to be current, and when all could again.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::http_client;

const PERIOD: Duration = Duration::from_millis(25);

/// A coordinator that stands still does not answer; it is asked again.
const ANSWER: Duration = Duration::from_millis(500);

/// When, from the beginning of the watch, each coordinator was seen not to be current, and from when on
/// it was again.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub lost: Option<Duration>,
    pub back: Option<Duration>,
}

impl Seen {
    fn note(&mut self, current: Option<bool>, at: Duration) {
        match current {
            Some(true) if self.lost.is_some() && self.back.is_none() => self.back = Some(at),
            Some(false) => {
                self.lost.get_or_insert(at);
                self.back = None;
            }
            _ => {}
        }
    }
}

/// Watches the coordinators' metrics at these addresses until dropped.
pub async fn watch(pages: &[String], seen: &std::cell::RefCell<Vec<Seen>>) {
    seen.replace(vec![Seen::default(); pages.len()]);
    let begun = Instant::now();
    let one = |(number, page): (usize, &String)| {
        let page = page.clone();
        async move {
            loop {
                let current = current(&page).await;
                let at = begun.elapsed();
                seen.borrow_mut()[number].note(current, at);
                sleep(PERIOD).await;
            }
        }
    };
    join_all(pages.iter().enumerate().map(one)).await;
}

async fn current(page: &str) -> Option<bool> {
    let answer = timeout(ANSWER, http_client::get(page)).await.ok()?.ok()?;
    let name = "plugmesh_coordinator_registry_current ";
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(name))?;
    Some(line.trim() == "1")
}
