//! The names that somebody who mistyped one may have meant.

/// At most three names near to `wanted`, nearest first: those within a few edits of it, and those
/// that end with it (the name without the plugin's prefix).
#[must_use]
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    // Longer texts are no names, and would cost time.
    let wanted: String = wanted
        .chars()
        .take(80)
        .flat_map(char::to_lowercase)
        .collect();
    let most = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let suffix = !wanted.is_empty() && lower.ends_with(&format!("_{wanted}"));
            let distance = if suffix {
                0
            } else {
                edits(&wanted, &lower, most)?
            };
            Some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Characters to insert, delete or replace (Levenshtein); `None` when more than `most`.
fn edits(a: &str, b: &str, most: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().collect();
    if a.chars().count().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        let mut next = vec![previous];
        for (right, above) in b.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(left != *right);
            previous = replaced.min(above + 1).min(previous + 1);
            diagonal = *above;
            next.push(previous);
        }
        row = next;
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "calculator_add",
        "calculator_divide",
        "list_plugins",
        "time_now",
    ];

    #[test]
    fn a_mistyped_name_and_a_name_without_its_prefix_are_found() {
        let near = |wanted| nearest(wanted, NAMES.into_iter());
        assert_eq!(near("calculator_ad"), ["calculator_add"]);
        assert_eq!(near("add"), ["calculator_add"]);
        assert_eq!(near("List_Plugin"), ["list_plugins"]);
        assert_eq!(near("quux"), Vec::<&str>::new());
        assert_eq!(near(""), Vec::<&str>::new());
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting", 3), Some(3));
        assert_eq!(edits("kitten", "sitting", 2), None);
        assert_eq!(edits("", "ab", 2), Some(2));
        assert_eq!(edits("same", "same", 2), Some(0));
    }
}
