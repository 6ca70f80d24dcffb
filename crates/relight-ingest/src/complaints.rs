//! What people are told about a file: the first bad lines of each kind, and how many more there were.
//!
//! Two lines are of a kind if they are refused in the same words, but for numbers and for what is quoted
//! from them. Nothing is counted here that anything depends on: that is the record's.

use std::fmt::Display;

/// Lines of one kind that are told one by one.
const SHOWN_OF_A_KIND: u64 = 3;
/// Kinds that are told apart; of all others it is told how many lines there were.
const MAX_KINDS: usize = 8;
/// No file brings more texts than these, its decoder's one or two remarks aside.
#[cfg(test)]
pub(crate) const MAX_TEXTS: usize = MAX_KINDS * (SHOWN_OF_A_KIND as usize + 1) + 1;

#[derive(Debug)]
struct Kind {
    words: String,
    first_line: u64,
    lines: u64,
}

/// Texts for people, bounded.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    texts: Vec<String>,
    kinds: Vec<Kind>,
    others: u64,
}

impl Complaints {
    /// What there is to tell, in the order of the file.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Tells something as it is. There is always room: a decoder has one or two of these a file.
    pub(crate) fn remark(&mut self, text: String) {
        self.texts.push(text);
    }

    /// Tells why a line was refused, if not enough was told of its kind.
    pub(crate) fn refused(&mut self, file: &str, line: u64, why: impl Display) {
        let why = why.to_string();
        let words = words(&why);
        let ix = self.kinds.iter().position(|kind| kind.words == words).unwrap_or(self.kinds.len());
        if ix == MAX_KINDS {
            self.others += 1;
            return;
        }
        if ix == self.kinds.len() {
            self.kinds.push(Kind { words, first_line: line, lines: 0 });
        }
        self.kinds[ix].lines += 1;
        if self.kinds[ix].lines <= SHOWN_OF_A_KIND {
            self.texts.push(format!("{file}:{line}: {why}"));
        }
    }

    /// The file is at its end: how many more there were than were told.
    pub(crate) fn end(&mut self, file: &str) {
        for Kind { first_line, lines, .. } in std::mem::take(&mut self.kinds) {
            if let Some(more) = lines.checked_sub(SHOWN_OF_A_KIND).filter(|more| *more > 0) {
                self.texts.push(format!("{file}: and {more} more like line {first_line}"));
            }
        }
        if self.others > 0 {
            self.texts.push(format!("{file}: and {} more bad lines of other kinds", self.others));
        }
    }
}

/// A reason without what is of this line alone: numbers, and what stands between back quotes.
fn words(why: &str) -> String {
    let prose = why.split('`').step_by(2);
    prose.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a hundred lines refused in the same words, with the odd one of another kind, and of too many kinds.
    /// Guarantee: three of a kind are told, then how many more; and what is told is bounded.
    #[test]
    fn the_first_of_each_kind_are_told_and_the_rest_counted() {
        let mut complaints = Complaints::default();
        for line in 1..=100 {
            complaints.refused("f", line, format_args!("the value `x{line}` is no number"));
        }
        complaints.refused("f", 101, "not UTF-8");
        complaints.end("f");
        let value = |line: u64| format!("f:{line}: the value `x{line}` is no number");
        let expected = [
            value(1),
            value(2),
            value(3),
            "f:101: not UTF-8".to_owned(),
            "f: and 97 more like line 1".to_owned(),
        ];
        assert_eq!(complaints.texts(), expected);

        let mut complaints = Complaints::default();
        for (line, kind) in ('a'..='z').cycle().take(260).enumerate() {
            complaints.refused("f", line as u64, kind);
        }
        complaints.end("f");
        assert_eq!(complaints.texts().len(), MAX_TEXTS);
        assert_eq!(
            complaints.texts().last().map(String::as_str),
            Some("f: and 180 more bad lines of other kinds")
        );
    }
}
