//! Cursors of lists: opaque to clients, and valid whatever the catalog becomes, since they carry the
//! name that the page before ended with and not a place in a list.

use std::fmt::Write as _;

/// A list with cursors of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `tools/list`
    Tools,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
    /// `prompts/list`
    Prompts,
}

impl List {
    /// The MCP method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// What a cursor of the list begins with; the digit is the format's version.
    fn head(self) -> &'static str {
        match self {
            Self::Tools => "t1-",
            Self::Resources => "r1-",
            Self::Templates => "u1-",
            Self::Prompts => "p1-",
        }
    }
}

/// A text is no cursor of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cursor {given:?} is none that {list} gave: send the nextCursor of the page before as it is, or \
     no cursor to begin anew"
)]
pub struct CursorError {
    given: String,
    list: &'static str,
}

/// The cursor that continues a list after the entry of this key.
#[must_use]
pub fn encode(list: List, after: &str) -> String {
    let mut text = String::with_capacity(3 + 2 * after.len());
    text.push_str(list.head());
    for byte in after.bytes() {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The key that the list continues after.
///
/// # Errors
/// [`CursorError`], which names the cursor.
pub fn decode(list: List, cursor: &str) -> Result<String, CursorError> {
    read(list, cursor).ok_or_else(|| CursorError {
        given: cursor.chars().take(80).collect(),
        list: list.method(),
    })
}

fn read(list: List, cursor: &str) -> Option<String> {
    let digits = cursor.strip_prefix(list.head())?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|&[high, low]| u8::try_from(value(high)? * 16 + value(low)?).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_brings_back_its_key() {
        for key in ["calculator_add", "time://zones", "größe"] {
            assert_eq!(decode(List::Tools, &encode(List::Tools, key)).unwrap(), key);
        }
    }

    #[test]
    fn a_text_that_is_no_cursor_of_the_list_is_named() {
        let other = encode(List::Prompts, "greet");
        for bad in ["", "2", "t1-6", "t1-zz", "t1-ff", "t2-61", other.as_str()] {
            let error = decode(List::Tools, bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cursor {bad:?} is none that tools/list gave")));
        }
    }
}
