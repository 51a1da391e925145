//! The known name that a mistyped one most likely means.

/// The nearest of `known` to `given`, unless none is near.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '.', ' '], "_");
    let given = plain(given);
    known
        .into_iter()
        .map(|name| (distance(&given, &plain(name)), name))
        .filter(|(distance, name)| *distance <= 1.max(name.len().min(given.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits that lead from one text to the other: insert, delete, change, or swap of neighbours.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (get(&last, j) + usize::from(a != b))
                .min(get(&last, j + 1) + 1)
                .min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && from.get(i - 1) == Some(b) && to.get(j - 1) == Some(a);
            if swapped {
                best = best.min(get(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_another_word_does_not() {
        let known = ["listen", "admin_listen", "heartbeat", "lease"];
        for (given, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("admin-listen", Some("admin_listen")),
            ("Heartbeats", Some("heartbeat")),
            ("leese", Some("lease")),
            ("color", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
    }
}
