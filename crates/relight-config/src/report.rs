//! Collects problems, and knows where each key of the file stands.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::errors::{Errors, Problem};
use crate::tree::{Node, Place};

/// What is wrong with one file, so far.
pub(crate) struct Report {
    file: String,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
    /// Values that came from the environment, with their variables: no message may show them.
    hidden: Vec<(String, String)>,
}

/// Values shorter than this are no secrets, and would be found everywhere.
const MIN_HIDDEN: usize = 4;

impl Report {
    /// Of a file of which nothing is known yet.
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), places: BTreeMap::new(), problems: Vec::new(), hidden: Vec::new() }
    }

    /// Takes note of where everything stands, and puts `${VAR}` in place.
    pub(crate) fn survey(&mut self, root: &mut Node, env: &dyn Fn(&str) -> Option<String>) {
        let hidden = RefCell::new(Vec::new());
        let env = |name: &str| {
            let value = env(name)?;
            hidden.borrow_mut().push((value.clone(), format!("${{{name}}}")));
            Some(value)
        };
        let Self { places, problems, .. } = self;
        root.for_each("", &mut |path, node| {
            // Of a duplicate key the first one stays: so does its place.
            places.entry(path.to_owned()).or_insert(node.at);
            if let crate::tree::Kind::Text(text) = &mut node.kind {
                match substitute(text, &env) {
                    Ok(filled) => *text = filled,
                    Err(message) => problems.push(problem(node.at, path, message)),
                }
            }
        });
        self.hidden = hidden.into_inner();
        self.hidden.retain(|(value, _)| value.len() >= MIN_HIDDEN);
    }

    /// Something is wrong with a key. One that is not in the file is reported at what it is missing from.
    pub(crate) fn error(&mut self, path: &str, message: impl Into<String>) {
        let mut known = path;
        let at = loop {
            match (self.places.get(known), known.rfind(['.', '['])) {
                (Some(at), _) => break *at,
                (None, Some(end)) => known = &known[..end],
                (None, None) => break (1, 1),
            }
        };
        self.error_at(at, path, message);
    }

    /// Something is wrong at a place.
    pub(crate) fn error_at(&mut self, at: Place, path: &str, message: impl Into<String>) {
        self.problems.push(problem(at, path, message.into()));
    }

    /// Whether something is wrong with this key or one below it.
    pub(crate) fn spoils(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| {
            let rest = problem.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The value if nothing was wrong, else everything that was.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Errors> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => {
                for problem in &mut self.problems {
                    for (value, variable) in &self.hidden {
                        problem.message = problem.message.replace(value, variable);
                    }
                }
                self.problems.sort();
                self.problems.dedup();
                Err(Errors { file: self.file, problems: self.problems })
            }
        }
    }
}

fn problem((line, column): Place, path: &str, message: String) -> Problem {
    Problem { line, column, path: path.to_owned(), message }
}

/// `${VAR}` becomes the variable's value, and `$${` a literal `${`.
fn substitute(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        let end = after.find('}').ok_or("`${` without its `}`; write `$${` for a literal `${`")?;
        let name = &after[..end];
        let value = env(name).ok_or_else(|| format!("the environment has no variable `{name}`"))?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = &after[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let env = |name: &str| (name == "A").then(|| "${B}".to_owned());
        for (text, filled) in [
            ("a ${A} b", Ok("a ${B} b")),
            ("$${A} costs $5", Ok("${A} costs $5")),
            ("5..$", Ok("5..$")),
            ("${C}", Err("the environment has no variable `C`")),
            ("${A", Err("`${` without its `}`; write `$${` for a literal `${`")),
        ] {
            let found = substitute(text, &env);
            assert_eq!(found.as_deref().map_err(String::as_str), filled, "{text}");
        }
    }
}
