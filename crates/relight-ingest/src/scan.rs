//! Times and numbers from bytes: the shapes that captures are full of by hand, the rest by jiff.

use relight_core::Timestamp;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// Splits a JSON number off the front, by JSON's own grammar.
pub(crate) fn json_number(bytes: &[u8]) -> Option<(f64, &[u8])> {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let int = usize::from(bytes.first() == Some(&b'-'));
    let mut at = int + digits(int);
    if at == int || (bytes[int] == b'0' && at > int + 1) {
        return None;
    }
    if bytes.get(at) == Some(&b'.') {
        let n = digits(at + 1);
        if n == 0 {
            return None;
        }
        at += 1 + n;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let n = digits(at + 1 + sign);
        if n == 0 {
            return None;
        }
        at += 1 + sign + n;
    }
    let (token, rest) = bytes.split_at(at);
    Some((std::str::from_utf8(token).ok()?.parse().ok()?, rest))
}

/// Splits a JSON time off the front: an RFC 3339 string without escapes, or whole seconds, milliseconds,
/// microseconds or nanoseconds since the epoch, told apart by their size as in a table.
pub(crate) fn json_time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    if let Some(text) = bytes.strip_prefix(b"\"") {
        let end = text.iter().position(|b| *b == b'"')?;
        return Some((rfc3339(&text[..end])?, &text[end + 1..]));
    }
    let int = usize::from(bytes.first() == Some(&b'-'));
    let end = int + bytes[int..].iter().take_while(|b| b.is_ascii_digit()).count();
    if bytes.get(int) == Some(&b'0') && end > int + 1 {
        return None;
    }
    let (token, rest) = bytes.split_at(end);
    // What looks like an integer so far may go on as a fraction.
    if matches!(rest.first(), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let whole: i64 = std::str::from_utf8(token).ok()?.parse().ok()?;
    Some((Timestamp::from_ns(whole.checked_mul(unit_ns(whole))?), rest))
}

/// Reads RFC 3339.
pub(crate) fn rfc3339(text: &[u8]) -> Option<Timestamp> {
    if let Some(fixed) = text.strip_suffix(b"Z").and_then(fixed_shape) {
        return Some(fixed);
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads the times that people put into tables: epoch seconds, milliseconds, microseconds or
/// nanoseconds (told apart by their size), RFC 3339, and ISO 8601 without a zone, which is UTC.
pub(crate) fn table_time(text: &[u8]) -> Option<Timestamp> {
    if let Some(epoch) = epoch(text) {
        return Some(epoch);
    }
    if let Some(fixed) = fixed_shape(text).or_else(|| rfc3339(text)) {
        return Some(fixed);
    }
    let civil: jiff::civil::DateTime = std::str::from_utf8(text).ok()?.parse().ok()?;
    let at = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    i64::try_from(at.as_nanosecond()).ok().map(Timestamp::from_ns)
}

/// The unit of an epoch time, which its size tells: the bounds lie in the year 5138 as the larger unit
/// and in 1973 as the smaller one, and no real capture is near them.
fn unit_ns(whole: i64) -> i64 {
    match whole.unsigned_abs() {
        0..=99_999_999_999 => 1_000_000_000,
        100_000_000_000..=99_999_999_999_999 => 1_000_000,
        100_000_000_000_000..=99_999_999_999_999_999 => 1_000,
        _ => 1,
    }
}

/// Epoch time in the unit that its size tells, with a fraction or without.
pub(crate) fn epoch(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(whole) = whole.parse::<i64>() else {
        return None;
    };
    let unit_ns = unit_ns(whole);
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digit by digit: a float would be off by up to 120 ns.
    let (mut part_ns, mut digit_ns) = (0, unit_ns);
    for digit in fraction.bytes() {
        digit_ns /= 10;
        part_ns += i64::from(digit - b'0') * digit_ns;
    }
    let part_ns = if text.starts_with('-') { -part_ns } else { part_ns };
    whole.checked_mul(unit_ns)?.checked_add(part_ns).map(Timestamp::from_ns)
}

/// `2026-11-23T08:00:10` (or with a blank for the `T`), with up to nine digits of fraction, as UTC.
fn fixed_shape(text: &[u8]) -> Option<Timestamp> {
    let (head, fraction) = text.split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b' ', h0, h1, b':', mi0, mi1, b':', s0, s1] =
        *head
    else {
        return None;
    };
    let (century, year) = (two(y0, y1)?, two(y2, y3)?);
    let (month, day) = (two(mo0, mo1)?, two(d0, d1)?);
    let (hour, minute, second) = (two(h0, h1)?, two(mi0, mi1)?, two(s0, s1)?);
    // Leap seconds and impossible dates are left to jiff.
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_since_epoch(century * 100 + year, month, day)?;
    let secs = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let ns = secs.checked_mul(NS_PER_SECOND)?.checked_add(fraction_ns(fraction)?)?;
    Some(Timestamp::from_ns(ns))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn fraction_ns(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(b".").filter(|d| (1..=9).contains(&d.len()))?;
    let mut ns = 0;
    for digit in digits {
        ns = ns * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(ns * 10_i64.pow(9 - digits.len() as u32))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that
/// the leap day is the last of its year; 400 of them have 146,097 days.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let march_year = year - i64::from(month <= 2);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    Some(march_year * 365 + leap_days + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the fast path and the library agree on every day it can be asked about.
    #[test]
    fn fixed_shape_agrees_with_jiff() {
        let mut day = jiff::civil::date(1700, 1, 1);
        while day.year() < 2250 {
            let text = format!("{day}T23:59:59.000000001Z");
            let expected: Timestamp = text.parse().expect("a valid time");
            assert_eq!(text.as_bytes().strip_suffix(b"Z").and_then(fixed_shape), Some(expected), "{text}");
            day = day.tomorrow().expect("before the end of time");
        }
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-11-23T24:00:01Z",
            "",
            "Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    /// Guarantee: every way of writing one moment in a table means that moment.
    #[test]
    fn table_times() {
        let moment = Timestamp::from_secs(1_396_310_400);
        for text in [
            "1396310400",
            "1396310400000",
            "1396310400000000",
            "1396310400000000000",
            "1396310400.0",
            "1396310400000.000",
            "2014-04-01 00:00:00",
            "2014-04-01T00:00:00",
            "2014-04-01T00:00:00Z",
            "2014-04-01T02:00:00+02:00",
            "2014-04-01",
            "2014-04-01 00:00",
            "2014-04-01 00:00:00.000",
        ] {
            assert_eq!(table_time(text.as_bytes()), Some(moment), "{text}");
        }
        assert_eq!(table_time(b"1.5"), Some(Timestamp::from_ns(1_500_000_000)));
        assert_eq!(table_time(b"-0.5"), Some(Timestamp::from_ns(-500_000_000)));
        assert_eq!(table_time(b"1396310400.123456789"), Some(Timestamp::from_ns(1_396_310_400_123_456_789)));
        for text in ["", "value", "nan", "1e400", "99999999999999999999", "2014-04"] {
            assert_eq!(table_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn json_tokens_follow_the_grammar() {
        for text in ["0", "-0", "1", "-12.5", "1e3", "1.5E-3", "123456789012345678"] {
            let (value, rest) =
                json_number(format!("{text},").as_bytes()).map(|(v, r)| (v, r.to_vec())).expect(text);
            assert_eq!((value, rest), (text.parse().expect("a float"), b",".to_vec()), "{text}");
        }
        for text in ["", "-", "01", "+1", ".5", "1.", "1e", "1e+", "NaN", "inf"] {
            assert_eq!(json_number(text.as_bytes()), None, "{text}");
        }
        for text in ["1396310400", "1396310400000", "1396310400000000", "1396310400000000000"] {
            let read = json_time(text.as_bytes());
            assert_eq!(read, Some((Timestamp::from_secs(1_396_310_400), &b""[..])), "{text}");
        }
        assert_eq!(json_time(b"12,"), Some((Timestamp::from_secs(12), &b","[..])));
        assert_eq!(json_time(b"\"1970-01-01T00:00:01Z\"}"), Some((Timestamp::from_secs(1), &b"}"[..])));
        for text in ["", "-", "1.5", "1e3", "012", "\"1970-01-01T00:00:01Z", "null", "99999999999999999999"] {
            assert_eq!(json_time(text.as_bytes()), None, "{text}");
        }
    }
}
