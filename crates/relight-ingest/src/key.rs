//! Canonical keys from names and labels in any order, within limits.

use relight_core::Labels;
use relight_core::series::encode_key;

const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1 << 10;
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 1 << 10;

/// Sorts labels by key; of equal keys the later wins. Fails with what is too many or too long.
pub(crate) fn settle(pairs: &mut Vec<(&str, &str)>) -> Result<(), String> {
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
    for (key, value) in pairs {
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("a label name of {} bytes (at most {MAX_KEY_BYTES})", key.len()));
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!("label `{key}` has {} bytes (at most {MAX_VALUE_BYTES})", value.len()));
        }
    }
    Ok(())
}

/// Replaces `out` by the canonical key of a name and its labels.
pub(crate) fn encode(name: &str, pairs: &mut Vec<(&str, &str)>, out: &mut Vec<u8>) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("a metric name of {} bytes (at most {MAX_NAME_BYTES})", name.len()));
    }
    settle(pairs)?;
    out.clear();
    encode_key(name, pairs.iter().copied(), out);
    Ok(())
}

/// Labels of an event.
pub(crate) fn labels(pairs: &mut Vec<(&str, &str)>) -> Result<Labels, String> {
    settle(pairs)?;
    Ok(Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))))
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
        assert_eq!(settle(&mut pairs), Err("65 labels (at most 64)".to_owned()));
        assert!(settle(&mut vec![("a", &long)]).is_err());
        assert!(settle(&mut vec![(&long[..257], "")]).is_err());
        assert!(encode(&long, &mut vec![], &mut Vec::new()).is_err());
        assert!(settle(&mut vec![(&long[..256], &long[..1024])]).is_ok());
    }
}
