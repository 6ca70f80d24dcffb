//! The front of a sample line: `name{label="value",..}`, by the text format's grammar.
//!
//! Also the form with a quoted name inside the braces, which names beyond `[a-zA-Z_:]` need.

/// A series as a line names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
}

/// Cuts the text of the series off a line.
pub(super) fn series_text(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = split_series(line)?;
    Some(line.split_at(line.len() - rest.len()))
}

/// Reads the series at the start of a line; the rest is what follows it.
pub(super) fn split_series(line: &str) -> Option<(Series, &str)> {
    let end = line.find(|c: char| c.is_ascii_whitespace() || c == '{').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.contains(|c: char| c.is_ascii_control() || matches!(c, '"' | ',' | '=' | '}' | '#')) {
        return None;
    }
    let mut series = Series { name: name.to_owned(), labels: Vec::new() };
    let rest = match rest.trim_start().strip_prefix('{') {
        Some(inside) => labels(inside, &mut series)?,
        None => rest,
    };
    (!series.name.is_empty()).then_some((series, rest))
}

/// Reads what is inside the braces; the rest is what follows the closing one.
fn labels<'a>(inside: &'a str, series: &mut Series) -> Option<&'a str> {
    let mut rest = inside.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (key, was_quoted, after) = label_name(rest)?;
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = quoted(after.trim_start())?;
            series.labels.push((key, value));
            rest = after.trim_start();
        } else if was_quoted && series.name.is_empty() {
            series.name = key;
        } else {
            return None;
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

fn label_name(text: &str) -> Option<(String, bool, &str)> {
    if text.starts_with('"') {
        let (name, rest) = quoted(text)?;
        return Some((name, true, rest));
    }
    let end = text.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | ',' | '}' | '{' | '"'))?;
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.to_owned(), false, rest))
}

/// A quoted text with `\\`, `\"` and `\n`; other escapes stand for themselves.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &inside[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c @ ('"' | '\\') => out.push(c),
                other => out.extend(['\\', other]),
            },
            c => out.push(c),
        }
    }
    None
}
