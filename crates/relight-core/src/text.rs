//! Foreign text on its way to a terminal, a log line or a page.
//!
//! Labels, file names, reasons, answers of targets and messages of parsers come from outside. One function per shape
//! makes them harmless, so that no caller decides for itself which characters are dangerous.

use std::borrow::Cow;
use std::path::Path;

/// Whether a character moves a cursor, starts an escape sequence, ends a line or turns a line around.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escapes = |c: char| is_hidden(c) && !keeps(c);
    if !text.chars().any(escapes) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escapes(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Returns the text on one line: control characters, line ends and direction marks are escaped.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Returns the text with its line ends; every other control character and every direction mark is escaped.
pub fn several_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// Returns at most `most` characters of the text on one line; `...` stands for the rest.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => one_line(text).into_owned(),
        Some((end, _)) => one_line(&text[..end]).into_owned() + "...",
    }
}

/// Returns a path on one line. Bytes that are not UTF-8 are replaced.
pub fn path(path: &Path) -> String {
    one_line(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: no character that a terminal obeys is left, text without one is returned as it is, and what is escaped
    /// can be read.
    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for plain in ["", "shop {a=\"ü\"} 東京 🦀", "a\\b"] {
            assert!(matches!(one_line(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
        let hostile = "a\u{1b}[2J\r\n\t\0\u{7f}\u{9b}31m\u{202e}\u{200b}\u{2028}\u{2066}\u{feff}b";
        let shown = one_line(hostile);
        assert!(shown.chars().all(|c| !is_hidden(c)), "{shown:?}");
        assert!(shown.starts_with(r"a\u{1b}[2J\r\n\t\u{0}") && shown.ends_with('b'), "{shown:?}");
        assert_eq!(several_lines("a\r\n\u{1b}b\n"), "a\\r\n\\u{1b}b\n");
        assert_eq!(path(Path::new("a\nb")), "a\\nb");
    }

    /// Guarantee: the bound is in characters, and a text that fits is whole.
    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüx", 3), "äöü...");
        assert_eq!(shortened("\n\n\n", 2), "\\n\\n...");
    }

    /// Guarantee: every character of every plane is either shown as it is or escaped to visible ASCII.
    #[test]
    fn every_character_is_shown_or_escaped() {
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let text = c.to_string();
            let shown = one_line(&text);
            assert!(shown == text || shown.is_ascii(), "{c:?}");
            assert!(!shown.contains(|c: char| c.is_control()), "{c:?}");
        }
    }
}
