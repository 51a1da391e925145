//! Reads tables of a TOML file key by key: wrong types and unknown keys are noted, never fatal.

use std::cell::RefCell;
use std::fmt;

use toml::{Table, Value};

use super::draft::Mistakes;

/// One table. Keys are taken out as they are read, so what is left at the end is unknown.
pub(super) struct Reader<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    mistakes: &'a RefCell<Mistakes>,
}

impl<'a> Reader<'a> {
    pub fn new(path: impl Into<String>, table: Table, mistakes: &'a RefCell<Mistakes>) -> Self {
        Self {
            path: path.into(),
            table,
            known: Vec::new(),
            mistakes,
        }
    }

    pub fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    pub fn mistake(&self, key: &str, problem: impl fmt::Display) {
        self.mistakes.borrow_mut().add(self.path_of(key), problem);
    }

    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong_type(&self, key: &str, value: &Value, wanted: &str) {
        let problem = format!("is of type {}, but must be {wanted}", value.type_str());
        self.mistake(key, problem);
    }

    /// Takes a value that must be of one type.
    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        get: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let found = get(&value);
        if found.is_none() {
            self.wrong_type(key, &value, wanted);
        }
        found
    }

    pub fn text(&mut self, key: &'static str) -> String {
        self.typed(key, "a text in quotes", |value| {
            value.as_str().map(str::to_owned)
        })
        .unwrap_or_default()
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub fn whole<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let number = self.typed(key, "a whole number", Value::as_integer)?;
        let fitting = T::try_from(number).ok();
        if fitting.is_none() {
            self.mistake(key, format_args!("{number} is out of range"));
        }
        fitting
    }

    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        let list = |value: &Value| value.as_array().cloned();
        let items = self.typed(key, "a list of texts", list).unwrap_or_default();
        let mut texts = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.wrong_type(&format!("{key}[{place}]"), &other, "a text in quotes"),
            }
        }
        texts
    }

    /// One of some words; the first is what holds when none is given.
    pub fn word(&mut self, key: &'static str, words: [&str; 2]) -> usize {
        let text = self.text(key);
        let [first, second] = words;
        match text.as_str() {
            "" => 0,
            word if word == first => 0,
            word if word == second => 1,
            other => {
                let problem = format!("{other:?} is not known: write {first:?} or {second:?}");
                self.mistake(key, problem);
                0
            }
        }
    }

    /// A table within this one; an empty one when there is none.
    pub fn section(&mut self, key: &'static str) -> Reader<'a> {
        let table = |value: &Value| value.as_table().cloned();
        let table = self.typed(key, "a table", table).unwrap_or_default();
        Reader::new(self.path_of(key), table, self.mistakes)
    }

    /// The tables of a list, each to be read by itself.
    pub fn sections(&mut self, key: &'static str) -> Vec<Reader<'a>> {
        let wanted = format!("a list of tables, written [[{key}]]");
        let list = |value: &Value| value.as_array().cloned();
        let items = self.typed(key, &wanted, list).unwrap_or_default();
        let mut readers = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            let path = format!("{key}[{place}]");
            match item {
                Value::Table(table) => {
                    readers.push(Reader::new(self.path_of(&path), table, self.mistakes));
                }
                other => self.wrong_type(&path, &other, "a table"),
            }
        }
        readers
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A table that was taken out of this one.
    pub fn nested(&self, path: impl Into<String>, table: Table) -> Reader<'a> {
        Reader::new(path, table, self.mistakes)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// All that was not read yet, as pairs; nothing in it is unknown any more.
    pub fn rest(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    /// Notes what nobody has read.
    pub fn finish(self) {
        for key in self.table.keys() {
            let problem = match nearest(key, &self.known) {
                Some(near) => format!("is not known: did you mean {near}?"),
                None => format!("is not known: the keys here are {}", self.known.join(", ")),
            };
            let shown: String = key.chars().take(80).collect();
            self.mistake(&shown, problem);
        }
    }
}

/// The word that somebody may have meant.
pub(super) fn nearest<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    if given.len() > 80 {
        return None;
    }
    let given = given.to_lowercase();
    let distances = words
        .iter()
        .map(|word| (distance(&given, &word.to_lowercase()), *word));
    let (least, word) = distances.min()?;
    let most = (word.len().max(3) / 3).min(3);
    (least <= most).then_some(word)
}

/// How many characters must be put in, left out or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, own) in one.chars().enumerate() {
        let mut left = line + 1;
        let mut next = vec![left];
        for (theirs, above) in other.iter().zip(row.windows(2)) {
            let [corner, above] = above else { continue };
            let change = corner + usize::from(own != *theirs);
            left = change.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        let words = ["name", "version", "inputSchema", "on_error"];
        assert_eq!(nearest("versoin", &words), Some("version"));
        assert_eq!(nearest("input_schema", &words), Some("inputSchema"));
        assert_eq!(nearest("Name", &words), Some("name"));
        assert_eq!(nearest("banana", &words), None);
        assert_eq!(nearest("", &words), None);
    }
}
