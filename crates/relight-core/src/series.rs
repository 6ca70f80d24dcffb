//! Names and labels, their canonical bytes, and the key group those bytes fall into.
//!
//! Names and values are kept verbatim: any UTF-8, never sanitised.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many key groups there are: the unit of parallel work, checkpoint and hand-over.
pub const KEY_GROUPS: usize = 128;

/// A fixed fraction of all series, or of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(u8);

impl KeyGroup {
    /// The key group of canonical bytes: xxh3_64 with seed 0, modulo [`KEY_GROUPS`].
    pub fn of(canonical: &[u8]) -> Self {
        Self((hash(canonical) % KEY_GROUPS as u64) as u8)
    }

    /// The `n`th key group; `n` is taken modulo [`KEY_GROUPS`].
    pub const fn nth(n: usize) -> Self {
        Self((n % KEY_GROUPS) as u8)
    }

    /// Its number, below [`KEY_GROUPS`].
    pub const fn ix(self) -> usize {
        self.0 as usize
    }
}

/// xxh3_64 with seed 0: the hash of key groups and of digests. Not for hostile keys in a table.
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Sorted, unique labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(
    from = "std::collections::BTreeMap<String, String>",
    into = "std::collections::BTreeMap<String, String>"
)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// From pairs in any order. Of equal keys the later one wins, as resource, scope and point attributes do.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unique: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match unique.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                _ => unique.push(pair),
            }
        }
        Self(unique)
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the labels named by `keys`; those that are missing are left out.
    #[must_use]
    pub fn only(&self, keys: &[String]) -> Self {
        Self(self.0.iter().filter(|(k, _)| keys.contains(k)).cloned().collect())
    }
}

impl From<std::collections::BTreeMap<String, String>> for Labels {
    fn from(map: std::collections::BTreeMap<String, String>) -> Self {
        Self(map.into_iter().collect())
    }
}

impl From<Labels> for std::collections::BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0.into_iter().collect()
    }
}

impl fmt::Display for Labels {
    /// `{cluster="eu-1",service="checkout"}`, quoted as PromQL does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (key, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            // What could move a terminal's cursor comes in names, too.
            write!(f, "{}={value:?}", key.escape_debug())?;
        }
        f.write_str("}")
    }
}

// Neither byte occurs in UTF-8, so the canonical form needs no escapes and no lengths.
const BEFORE_KEY: u8 = 0xFE;
const BEFORE_VALUE: u8 = 0xFF;

/// Appends the canonical bytes of a name and its labels: the identity of a series or of a row.
pub fn encode_key<'a>(name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    for (key, value) in labels {
        out.push(BEFORE_KEY);
        out.extend_from_slice(key.as_bytes());
        out.push(BEFORE_VALUE);
        out.extend_from_slice(value.as_bytes());
    }
}

/// The canonical bytes of a name and its labels, as an owned key.
pub fn key_of(name: &str, labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(name, labels.iter(), &mut out);
    out
}

/// Canonical bytes, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyView<'a> {
    bytes: &'a [u8],
}

impl<'a> KeyView<'a> {
    /// Reads canonical bytes that [`encode_key`] wrote. Damaged bytes give empty texts, never a panic.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The metric or signal name.
    pub fn name(self) -> &'a str {
        text(self.bytes.split(|b| *b == BEFORE_KEY).next().unwrap_or_default())
    }

    /// Labels in key order.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.bytes.split(|b| *b == BEFORE_KEY).skip(1).map(|pair| {
            let mut halves = pair.splitn(2, |b| *b == BEFORE_VALUE);
            (text(halves.next().unwrap_or_default()), text(halves.next().unwrap_or_default()))
        })
    }

    /// The value of a label.
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The labels, owned.
    pub fn to_labels(self) -> Labels {
        Labels(self.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn keys_read_back() {
        let labels = labels(&[("b", "2"), ("a", "1=\u{1F525}"), ("b", "3"), ("", "")]);
        let key = key_of("http.server.duration", &labels);
        let view = KeyView::new(&key);
        assert_eq!(view.name(), "http.server.duration");
        assert_eq!(view.to_labels(), labels);
        assert_eq!(view.get("b"), Some("3"));
        assert_eq!(labels.to_string(), "{=\"\",a=\"1=\u{1F525}\",b=\"3\"}");
    }

    /// Guarantee: the key group of a series never changes between releases: state on disk depends on it.
    #[test]
    fn key_group_vectors() {
        // xxh3_64("") = 2d06800538d394c2, as published with the algorithm's reference test vectors.
        assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let key = key_of("up", &labels(&[("job", "shop")]));
        assert_eq!(key, b"up\xFEjob\xFFshop");
        assert_eq!(KeyGroup::of(b"").ix(), 0x42);
        assert_eq!(KeyGroup::of(&key).ix(), KEY_GROUP_OF_UP);
    }
    const KEY_GROUP_OF_UP: usize = 96;
}
