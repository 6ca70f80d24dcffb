//! What is wrong with a config file: everything at once, each with its place.

use std::fmt;

use relight_core::text;

/// Errors that are listed; a file with more is beyond reading anyway.
const MAX_LISTED: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1, in characters.
    pub column: u64,
    /// The key: `rules[2].respond[0].with`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with a config file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Errors {
    /// The file's name as it was given.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { line, column, path, message } in self.problems.iter().take(MAX_LISTED) {
            let colon = if path.is_empty() { "" } else { ": " };
            // Keys and values of the file are quoted: a line break in one must not make a line that looks like another error.
            let (path, message) = (text::one_line(path), text::one_line(message));
            writeln!(f, "{}:{line}:{column}: {path}{colon}{message}", text::one_line(&self.file))?;
        }
        let count = self.problems.len();
        if count > MAX_LISTED {
            writeln!(f, "... and {} more", count - MAX_LISTED)?;
        }
        write!(f, "{count} error{}; nothing was started", if count == 1 { "" } else { "s" })
    }
}

/// ``no responder named `slak` (have: edge, pager, slack)``.
pub(crate) fn no_such<'a>(what: &str, name: &str, have: impl IntoIterator<Item = &'a str>) -> String {
    let have: Vec<&str> = have.into_iter().collect();
    let list = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
    format!("no {what} named `{name}` (have: {list})")
}

/// ``unknown key; did you mean `half_life`?``, or what there is if nothing is near.
pub(crate) fn unknown<'a>(what: &str, name: &str, have: impl IntoIterator<Item = &'a str>) -> String {
    let have: Vec<&str> = have.into_iter().collect();
    match nearest(name, have.iter().copied()) {
        Some(near) => format!("unknown {what}; did you mean `{near}`?"),
        None => format!("unknown {what} (have: {})", have.join(", ")),
    }
}

/// The nearest of some names, if it is near enough to be a slip of the keyboard, or begins the name: `auto` of
/// `automatic`.
pub fn nearest<'a>(name: &str, have: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count().div_ceil(3);
    let have: Vec<&str> = have.into_iter().collect();
    let near = have.iter().map(|other| (distance(name, other), *other)).min()?;
    let begins = |other: &&&str| other.len() > 2 && name.starts_with(**other);
    if near.0 <= allowed { Some(near.1) } else { have.iter().find(begins).copied() }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let have = ["half_life", "threshold", "type"];
        for (name, near) in [
            ("half_lfe", Some("half_life")),
            ("treshold", Some("threshold")),
            ("typed_twice", Some("type")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, have), near, "{name}");
        }
    }
}
