//! What goes to stdout: tables for people, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For Graphviz; only `graph` draws.
    Dot,
}

/// Writes a line to stdout.
///
/// # Errors
/// When stdout can't be written. A reader that has gone (`| head`) is no error: the program ends
/// in silence.
pub fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    match line_or_nothing(text) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("can't write to stdout: {error}"))),
    }
}

/// Writes a line to stdout, for a program that goes on when nobody reads it any more.
///
/// # Errors
/// When stdout can't be written.
pub fn line_or_nothing(text: impl AsRef<str>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.as_ref())?;
    stdout.flush()
}

/// Writes a line to stderr; that it can't be written is of no interest to anybody.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Writes a value as JSON, indented.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::failed(format!("the result can't be written as JSON: {error}"))
    })?;
    line(text)
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// As [`line`].
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| {
        Failure::failed(format!("the result can't be written as JSON: {error}"))
    })?;
    line(text)
}

/// A table that is read as well by eyes as by `awk`.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end()).collect();
    let lines: Vec<&str> = lines
        .into_iter()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    lines.join("\n")
}

/// Plugins name and describe themselves: no text of theirs breaks a row, moves the cursor or turns the
/// direction of writing.
pub fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(|c: char| c.is_control() || turns(c), " ")
}

/// `1 tool`, `2 tools`.
pub fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// How long ago a point in time was (milliseconds since 1970), roughly: `12s`, `5m`, `3h`, `2d`.
pub fn ago(then_ms: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let seconds = now.saturating_sub(u128::from(then_ms)) / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_nothing_else() {
        let rows = [
            ["calculator".to_owned(), "1.0.0".to_owned()],
            ["a\nb".to_owned(), "2".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "VERSION"], rows),
            "NAME        VERSION\ncalculator  1.0.0\na b         2"
        );
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1, "tool"), "1 tool");
        assert_eq!(count(0, "tool"), "0 tools");
    }
}
