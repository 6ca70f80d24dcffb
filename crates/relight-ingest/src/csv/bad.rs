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
        if let (Self::Few | Self::Time(_), Some(hint)) = (self, dialect(line)) {
            return hint.into();
        }
        match self {
            Self::Time(text) if is_day_first(text) => format!(
                "{} has day or month first, which cannot be told apart: dates are written as in ISO 8601, 2026-01-31",
                quoted(text)
            )
            .into(),
            Self::Value(text) if is_decimal_comma(text) => format!(
                "the value {} has a decimal comma: it is written with a point (`sed -E 's/\"(-?[0-9]+),([0-9]+)\"/\\1.\\2/g'`)",
                quoted(text)
            )
            .into(),
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

/// Another writing than columns and commas, and how to get rid of it.
fn dialect(line: &str) -> Option<&'static str> {
    if ["#datatype", "#group", "#default"].iter().any(|start| line.starts_with(start)) {
        return Some(
            "looks like InfluxDB's annotated CSV: leave out its annotations and what repeats the header (`grep -v \
             '^#'`), one table in a file",
        );
    }
    if line.starts_with("sep=") {
        return Some(
            "`sep=` is for Excel and no header: leave it out (`sed 1d`), and convert another separator than the \
             comma with `sed '1d; s/,/./g; s/;/,/g'`",
        );
    }
    if line.contains(';') {
        return Some(
            "looks like `;` separates the columns: convert with `sed 's/,/./g; s/;/,/g'` (a decimal comma becomes \
             a point)",
        );
    }
    line.contains('\t').then_some("looks like tabs separate the columns: convert with `tr '\\t' ','`")
}

/// As in 31.01.2026, 1/31/2026 or 31-01-2026, with a time behind it or none.
fn is_day_first(text: &str) -> bool {
    let date = text.split([' ', 'T']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split(['.', '/', '-']).collect();
    let is_part = |part: &&str, digits: &[usize]| {
        digits.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(&parts[..], [a, b, c] if is_part(a, &[1, 2]) && is_part(b, &[1, 2]) && is_part(c, &[2, 4]))
}

/// As in 20,5 or -1.234,5.
fn is_decimal_comma(text: &str) -> bool {
    let number = text.trim_start_matches(['-', '+']);
    let Some((whole, fraction)) = number.split_once(',') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(fraction) && digits(&whole.replace('.', ""))
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
            (Bad::Value("20,5"), "", "the value `20,5` has a decimal comma"),
            (Bad::Value("-1.234,5"), "", "the value `-1.234,5` has a decimal comma"),
            (Bad::Value("1,2,3"), "", "the value `1,2,3` is no number"),
            (Bad::Time("01.01.2026"), "01.01.2026,5", "`01.01.2026` has day or month first"),
            (Bad::Time("1/31/2026 10:00"), "", "`1/31/2026 10:00` has day or month first"),
            (Bad::Time("1.5.x"), "", "`1.5.x` is no time"),
            (Bad::Few, "sep=;", "`sep=` is for Excel"),
            (Bad::Time("#datatype"), "#datatype,string,long", "looks like InfluxDB's annotated CSV"),
        ] {
            let why = bad.why(line, 1);
            assert!(why.starts_with(said), "{why}");
        }
        assert_eq!(quoted(&"x".repeat(99)), format!("`{}..`", "x".repeat(40)));
    }
}
