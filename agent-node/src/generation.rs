//! The number of this start of the agent: higher than that of every start before.

use std::io;
use std::path::Path;

use mesh_core::id::Generation;

/// Where the last one is kept, in the folder for data.
const FILE: &str = "generation";

/// Draws the number of this start and keeps it. It is the time in milliseconds, unless the clock was set
/// back since the start before: with a lower number the mesh would take this node for a stale one.
///
/// # Errors
/// When it can't be kept.
pub(crate) fn draw(data_dir: &Path, now_ms: u64) -> io::Result<Generation> {
    let path = data_dir.join(FILE);
    // One that can't be read was never written by an agent, or only in half.
    let last = std::fs::read_to_string(&path).ok();
    let last = last.and_then(|text| text.trim().parse::<u64>().ok());
    let next = last.map_or(now_ms, |last| now_ms.max(last.saturating_add(1)));
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{next}\n"))?;
    std::fs::rename(&new, &path)?;
    Ok(Generation(next))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_start_after_the_clock_was_set_back_is_newer_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(draw(dir.path(), 1_000).unwrap(), Generation(1_000));
        assert_eq!(draw(dir.path(), 400).unwrap(), Generation(1_001));
        assert_eq!(draw(dir.path(), 400).unwrap(), Generation(1_002));
        assert_eq!(draw(dir.path(), 2_000).unwrap(), Generation(2_000));
    }

    #[test]
    fn a_broken_file_does_not_keep_an_agent_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "half a numb").unwrap();
        assert_eq!(draw(dir.path(), 7).unwrap(), Generation(7));
        let missing = dir.path().join("missing");
        assert!(draw(&missing, 7).is_err());
    }
}
