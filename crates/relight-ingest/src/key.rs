//! Canonical keys from names and labels in any order, within limits.
//!
//! A series is its labels, so one with a value that is too long is refused. An event is context for people and
//! tells what it can: such a value is cut.
//!
//! What many points or log records share is a [`Level`], which is read once for all of them.

use std::borrow::Cow;

use relight_core::Labels;
use relight_core::series::encode_key;

const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1 << 10;
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 1 << 10;
/// What a value that was cut ends in.
pub(crate) const CUT: &str = "…";

/// Labels that come together (those of a resource, of a scope, of a point), each key once: of equal keys the later wins.
///
/// No more are kept than a series may have, however many are put in: what shares a level pays for its labels, and
/// never for all that the sender wrote.
#[derive(Debug, Default)]
pub(crate) struct Level<'a> {
    /// Ascending by key.
    pairs: Vec<(&'a str, Cow<'a, str>)>,
    over: Option<Over>,
}

/// A limit that is broken whatever labels are added or replaced.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Over {
    #[error("more than {MAX_LABELS} labels")]
    Many,
    #[error("a label name of {0} bytes (at most {MAX_KEY_BYTES})")]
    Name(usize),
    #[error("a label of {0} bytes (at most {MAX_VALUE_BYTES})")]
    Value(usize),
}

impl<'a> Level<'a> {
    pub(crate) fn put(&mut self, key: &'a str, value: Cow<'a, str>) {
        if self.over.is_some() {
            return;
        }
        // Senders that sort their labels need no search.
        let found = match self.pairs.last() {
            Some((last, _)) if *last >= key => self.pairs.binary_search_by(|(known, _)| (*known).cmp(key)),
            _ => Err(self.pairs.len()),
        };
        match found {
            Ok(at) => self.pairs[at].1 = value,
            Err(_) if key.len() > MAX_KEY_BYTES => self.over = Some(Over::Name(key.len())),
            Err(_) if self.pairs.len() == MAX_LABELS => self.over = Some(Over::Many),
            Err(at) => self.pairs.insert(at, (key, value)),
        }
    }

    /// The value of a label.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.binary_search_by(|(known, _)| (*known).cmp(key)).ok()?;
        Some(&self.pairs[found].1)
    }

    /// Labels that are in it.
    pub(crate) const fn len(&self) -> usize {
        self.pairs.len()
    }

    /// A value that is too long to be looked at.
    pub(crate) fn put_too_long(&mut self, bytes: usize) {
        self.over.get_or_insert(Over::Value(bytes));
    }

    /// Whether there is no need to put in more: nothing that has these labels can be taken.
    pub(crate) const fn is_over(&self) -> bool {
        self.over.is_some()
    }

    pub(crate) fn clear(&mut self) {
        self.pairs.clear();
        self.over = None;
    }

    /// Why nothing that has the labels of both levels can be taken, whatever labels it has beside: there can only be
    /// more of them. A value that is too long is no such reason, since it may be replaced.
    pub(crate) fn refusal(&self, other: &Self) -> Option<String> {
        let is_new = |key: &str| self.pairs.binary_search_by(|(known, _)| (*known).cmp(key)).is_err();
        let both = self.pairs.len() + other.pairs.iter().filter(|(key, _)| is_new(key)).count();
        let over = self.over.or(other.over).or((both > MAX_LABELS).then_some(Over::Many));
        over.map(|over| over.to_string())
    }
}

/// The labels of several levels one behind the other, so that of equal keys the last level's is the later.
fn together<'l>(levels: &'l [&Level<'_>]) -> Result<Vec<(&'l str, &'l str)>, String> {
    if let Some(over) = levels.iter().find_map(|level| level.over) {
        return Err(over.to_string());
    }
    let all = levels.iter().flat_map(|level| &level.pairs);
    Ok(all.map(|(key, value)| (*key, &**value)).collect())
}

/// The labels of a resource and of a scope of it, which all its points or log records share.
pub(crate) struct Shared<'l> {
    resource: &'l Level<'l>,
    scope: &'l Level<'l>,
    /// Why nothing can be taken that shares them.
    refusal: Option<String>,
}

impl<'l> Shared<'l> {
    pub(crate) fn new(resource: &'l Level<'l>, scope: &'l Level<'l>) -> Self {
        Self { resource, scope, refusal: resource.refusal(scope) }
    }

    fn refusal(&self) -> Result<(), String> {
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// Replaces `out` by the canonical key of what has labels of its own beside these; see [`encode_levels`].
    pub(crate) fn encode(
        &self,
        name: (&str, &str),
        own: &Level<'_>,
        more: Option<(&str, &str)>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        self.refusal()?;
        encode_levels(name, &[self.resource, self.scope, own], more, out)
    }

    /// Labels of an event that has labels of its own beside these. All win over `first`, and the later over the earlier.
    pub(crate) fn labels(&self, first: Option<(&str, &str)>, own: &Level<'_>) -> Result<Labels, String> {
        self.refusal()?;
        let levels = [self.resource, self.scope, own];
        let mut all: Vec<(&str, &str)> = first.into_iter().collect();
        all.extend(together(&levels)?);
        labels(&mut all)
    }
}

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

/// Replaces `out` by the canonical key of a name (and what a part of it is called) and the labels of all levels, of which
/// the later win over the earlier and `more` over all. Fails with what is too many or too long.
pub(crate) fn encode_levels(
    (name, suffix): (&str, &str),
    levels: &[&Level<'_>],
    more: Option<(&str, &str)>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    named(name.len() + suffix.len())?;
    let mut all = together(levels)?;
    all.extend(more);
    let name: Cow<'_, str> = if suffix.is_empty() { name.into() } else { format!("{name}{suffix}").into() };
    encode(&name, &mut all, out)
}

fn named(bytes: usize) -> Result<(), String> {
    if bytes > MAX_NAME_BYTES {
        return Err(format!("a metric name of {bytes} bytes (at most {MAX_NAME_BYTES})"));
    }
    Ok(())
}

/// Replaces `out` by the canonical key of a name and its labels. Fails with what is too many or too long.
pub(crate) fn encode(name: &str, pairs: &mut Vec<(&str, &str)>, out: &mut Vec<u8>) -> Result<(), String> {
    named(name.len())?;
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
    Ok(Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), cut((*value).into()).into_owned()))))
}

/// A value of an event within its limit: what was cut stays as it is when it comes again, as from a capture.
pub(crate) fn cut(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.len() <= MAX_VALUE_BYTES {
        return value;
    }
    let end = value.floor_char_boundary(MAX_VALUE_BYTES - CUT.len());
    format!("{}{CUT}", &value[..end]).into()
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
