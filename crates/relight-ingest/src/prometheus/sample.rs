//! The front of a sample line: `name{label="value",..}`, by the text format's grammar.
//!
//! Also the form with a quoted name inside the braces, which names beyond `[a-zA-Z_:]` need, and promtool's, where the name
//! is the label `__name__` and texts are quoted as Go quotes them.

/// How texts are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// As the text format has it: `\\\\`, `\\"` and `\\n`; other escapes stand for themselves.
    Text,
    /// As Go has it: control characters and bytes that are no UTF-8 are escaped, too.
    Go,
}

/// A series as a line names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
}

/// Cuts the text of the series off a line.
pub(super) fn series_text(line: &str, quotes: Quotes) -> Option<(&str, &str)> {
    let (_, rest) = split_series(line, quotes)?;
    Some(line.split_at(line.len() - rest.len()))
}

/// Reads the series at the start of a line; the rest is what follows it.
pub(super) fn split_series(line: &str, quotes: Quotes) -> Option<(Series, &str)> {
    let quotes = if line.starts_with("{__name__=") { Quotes::Go } else { quotes };
    let end = line.find(|c: char| c.is_ascii_whitespace() || c == '{').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.contains(|c: char| c.is_ascii_control() || matches!(c, '"' | ',' | '=' | '}' | '#')) {
        return None;
    }
    let mut series = Series { name: name.to_owned(), labels: Vec::new() };
    let rest = match rest.trim_start().strip_prefix('{') {
        Some(inside) => labels(inside, quotes, &mut series)?,
        None => rest,
    };
    (!series.name.is_empty()).then_some((series, rest))
}

/// Reads what is inside the braces; the rest is what follows the closing one.
fn labels<'a>(inside: &'a str, quotes: Quotes, series: &mut Series) -> Option<&'a str> {
    let mut rest = inside.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (key, was_quoted, after) = label_name(rest, quotes)?;
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = quoted(after.trim_start(), quotes)?;
            if key == "__name__" && series.name.is_empty() {
                series.name = value;
            } else {
                series.labels.push((key, value));
            }
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

fn label_name(text: &str, quotes: Quotes) -> Option<(String, bool, &str)> {
    if text.starts_with('"') {
        let (name, rest) = quoted(text, quotes)?;
        return Some((name, true, rest));
    }
    let end = text.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | ',' | '}' | '{' | '"'))?;
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.to_owned(), false, rest))
}

/// A quoted text.
fn quoted(text: &str, quotes: Quotes) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    // Bytes, since Go escapes those of a text that is no UTF-8 one by one.
    let mut out = Vec::new();
    let mut rest = inside;
    loop {
        let at = rest.find(['"', '\\'])?;
        out.extend_from_slice(&rest.as_bytes()[..at]);
        if rest[at..].starts_with('"') {
            return Some((text_of(out), &rest[at + 1..]));
        }
        rest = unescape(&rest[at + 1..], quotes, &mut out)?;
    }
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads what follows a backslash; the rest is what follows that.
fn unescape<'a>(text: &'a str, quotes: Quotes, out: &mut Vec<u8>) -> Option<&'a str> {
    let escaped = text.chars().next()?;
    let rest = &text[escaped.len_utf8()..];
    let (byte, digits) = match (escaped, quotes) {
        ('n', _) => (b'\n', 0),
        ('"' | '\\', _) => (escaped as u8, 0),
        ('a', Quotes::Go) => (7, 0),
        ('b', Quotes::Go) => (8, 0),
        ('f', Quotes::Go) => (12, 0),
        ('r', Quotes::Go) => (b'\r', 0),
        ('t', Quotes::Go) => (b'\t', 0),
        ('v', Quotes::Go) => (11, 0),
        ('x', Quotes::Go) => (0, 2),
        ('u', Quotes::Go) => (0, 4),
        ('U', Quotes::Go) => (0, 8),
        _ => {
            out.push(b'\\');
            out.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
    };
    if digits == 0 {
        out.push(byte);
        return Some(rest);
    }
    let (hex, rest) = rest.split_at_checked(digits)?;
    let code = u32::from_str_radix(hex, 16).ok()?;
    match u8::try_from(code) {
        Ok(byte) if digits == 2 => out.push(byte),
        _ => out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    Some(rest)
}
