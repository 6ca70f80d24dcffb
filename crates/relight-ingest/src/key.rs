//! Canonical keys from names and labels in any order, within limits.
//!
//! A series is its labels, so one with a value that is too long is refused. An event is context for people and
//! tells what it can: such a value is cut.

use relight_core::Labels;
use relight_core::series::encode_key;

const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1 << 10;
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 1 << 10;
/// What a value that was cut ends in.
const CUT: &str = "…";

/// Sorts labels by key; of equal keys the later wins. Fails with too many, or with a name that is too long.
fn settle(pairs: &mut Vec<(&str, &str)>) -> Result<(), String> {
    pairs.sort_by_key(|(key, _)| *key);
    pairs.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    if pairs.len() > MAX_LABELS {
        return Err(format!("{} labels (at most {MAX_LABELS})", pairs.len()));
    }
    match pairs.iter().find(|(key, _)| key.len() > MAX_KEY_BYTES) {
        Some((key, _)) => Err(format!("a label name of {} bytes (at most {MAX_KEY_BYTES})", key.len())),
        None => Ok(()),
    }
}

/// Replaces `out` by the canonical key of a name and its labels. Fails with what is too many or too long.
pub(crate) fn encode(name: &str, pairs: &mut Vec<(&str, &str)>, out: &mut Vec<u8>) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("a metric name of {} bytes (at most {MAX_NAME_BYTES})", name.len()));
    }
    settle(pairs)?;
    if let Some((key, value)) = pairs.iter().find(|(_, value)| value.len() > MAX_VALUE_BYTES) {
        return Err(format!("label `{key}` has {} bytes (at most {MAX_VALUE_BYTES})", value.len()));
    }
    out.clear();
    encode_key(name, pairs.iter().copied(), out);
    Ok(())
}

/// Labels of an event. Fails with too many, or with a name that is too long; a value that is too long is cut.
pub(crate) fn labels(pairs: &mut Vec<(&str, &str)>) -> Result<Labels, String> {
    settle(pairs)?;
    Ok(Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), cut(value)))))
}

/// A value within its limit: what was cut stays as it is when it comes again from a capture.
fn cut(value: &str) -> String {
    if value.len() <= MAX_VALUE_BYTES {
        return value.to_owned();
    }
    let end = value.floor_char_boundary(MAX_VALUE_BYTES - CUT.len());
    format!("{}{CUT}", &value[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_canonical_and_the_later_label_wins() {
        let mut out = Vec::new();
        encode("m", &mut vec![("b", "1"), ("a", "2"), ("b", "3"), ("b", "4")], &mut out)
            .expect("within limits");
        assert_eq!(out, b"m\xFEa\xFF2\xFEb\xFF4");
    }

    #[test]
    fn limits_are_named() {
        let long = "x".repeat(1025);
        let many: Vec<String> = (0..65).map(|i| i.to_string()).collect();
        let mut pairs: Vec<_> = many.iter().map(|k| (k.as_str(), "")).collect();
        let many = Err("65 labels (at most 64)".to_owned());
        assert_eq!(
            (encode("m", &mut pairs, &mut Vec::new()), labels(&mut pairs).map(drop)),
            (many.clone(), many)
        );
        let series =
            |name: &str, key: &str, value: &str| encode(name, &mut vec![(key, value)], &mut Vec::new());
        assert!(series("m", "a", &long).is_err());
        assert!(series("m", &long[..257], "").is_err());
        assert!(labels(&mut vec![(&long[..257], "")]).is_err());
        assert!(series(&long, "a", "").is_err());
        assert!(series(&long[..1024], &long[..256], &long[..1024]).is_ok());
    }

    /// Scenario: values about the limit, of letters of one byte and of several.
    /// Guarantee: an event's is cut between two letters, within the limit, and ends in `…`; cut again it is the same.
    #[test]
    fn a_long_value_of_an_event_is_cut() {
        for (letter, n, kept) in
            [("x", 1_024, 1_024), ("x", 1_025, 1_021), ("ü", 512, 512), ("ü", 513, 510), ("🔥", 1 << 18, 255)]
        {
            let value = letter.repeat(n);
            let first = labels(&mut vec![("a", "b"), ("trace", &value)]).expect("it is cut");
            let told = first.get("trace").expect("it is there");
            let end = if kept < n { CUT } else { "" };
            assert_eq!(told, letter.repeat(kept) + end, "{n} of {letter}");
            assert!(told.len() <= MAX_VALUE_BYTES && first.get("a") == Some("b"));
            assert_eq!(labels(&mut vec![("a", "b"), ("trace", told)]), Ok(first.clone()));
        }
    }
}
