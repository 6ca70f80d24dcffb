//! Why a row of a table is refused, in words that quote it.

use std::borrow::Cow;

use relight_core::record::Reason;

/// Characters of a table that are quoted to people.
const SHOWN_CHARS: usize = 40;

/// Why a row gives no sample, with the field as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bad<'a> {
    Few,
    Time(&'a str),
    NoValue,
    Value(&'a str),
    NotFinite(&'a str),
}

impl Bad<'_> {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Few | Self::Time(_) | Self::Value(_) => Reason::Malformed,
            Self::NoValue => Reason::NoRecordedValue,
            Self::NotFinite(_) => Reason::NonFinite,
        }
    }

    /// For people. `column` is where the time was looked for, from 0.
    pub(super) fn why(self, line: &str, column: usize) -> Cow<'static, str> {
        if let (Self::Few | Self::Time(_), Some(hint)) = (self, separator(line)) {
            return hint.into();
        }
        match self {
            Self::Few => {
                format!("{} has fewer columns than needed: a row is `timestamp,value`, with a comma", quoted(line))
                    .into()
            }
            Self::Time(text) => format!(
                "{} is no time (epoch time or ISO 8601): it is looked for in column {}, or where a header says \
                 `timestamp`, `time`, `date` or `ts`",
                quoted(text),
                column + 1
            )
            .into(),
            Self::NoValue => "there is no value".into(),
            Self::Value(text) => format!("the value {} is no number", quoted(text)).into(),
            Self::NotFinite(text) => format!("the value {} is not finite", quoted(text)).into(),
        }
    }
}

/// Another separator than the comma, and how to get rid of it.
fn separator(line: &str) -> Option<&'static str> {
    if line.contains(';') {
        return Some(
            "looks like `;` separates the columns: convert with `sed 's/,/./g; s/;/,/g'` (a decimal comma becomes \
             a point)",
        );
    }
    line.contains('\t').then_some("looks like tabs separate the columns: convert with `tr '\\t' ','`")
}

/// A text of a file between back quotes: short, on one line, and without what a terminal would obey.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown += "..";
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: fields that are no time or number, long ones, ones with control characters, other separators.
    /// Guarantee: the message quotes the field, bounded and escaped, and says what to do.
    #[test]
    fn a_bad_row_is_quoted() {
        for (bad, line, said) in [
            (Bad::Value("12\u{1B}[31m"), "", "the value `12\\u{1b}[31m` is no number"),
            (Bad::NotFinite("nan"), "", "the value `nan` is not finite"),
            (
                Bad::Time("web-1"),
                "web-1,17",
                "`web-1` is no time (epoch time or ISO 8601): it is looked for in column 2",
            ),
            (Bad::Time("17;1"), "17;1,5", "looks like `;` separates the columns: convert with `sed"),
            (Bad::Few, "17\t1", "looks like tabs separate the columns: convert with `tr"),
            (Bad::Few, "17", "`17` has fewer columns than needed"),
        ] {
            let why = bad.why(line, 1);
            assert!(why.starts_with(said), "{why}");
        }
        assert_eq!(quoted(&"x".repeat(99)), format!("`{}..`", "x".repeat(40)));
    }
}
