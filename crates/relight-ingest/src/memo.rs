//! Remembers what the text of a series came to, so that it is worked out once and not at every sample.
//!
//! Bounded: when full it is forgotten as a whole and learned anew, which also rids it of series that
//! have ended. It never changes what is decoded, only how fast.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// About 300,000 series of ten labels.
const MAX_BYTES: usize = 128 << 20;
const ENTRY_BYTES: usize = 160;
const NONE: u32 = u32::MAX;

/// One series, as it is written in this capture.
struct Entry<T> {
    raw: Box<[u8]>,
    value: T,
    next: u32,
}

/// What each series' raw text came to.
///
/// Exporters repeat their series in the same order each scrape, so each entry remembers who followed
/// it, and that one is guessed before the hash table is asked.
pub(crate) struct Memo<T> {
    entries: Vec<Entry<T>>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    last: u32,
    bytes: usize,
}

impl<T> Memo<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: NONE,
            bytes: 0,
        }
    }

    /// The series that is expected now.
    pub(crate) fn guess(&self) -> Option<u32> {
        let next = self.entries.get(self.last as usize)?.next;
        (next != NONE).then_some(next)
    }

    /// A series by its text.
    pub(crate) fn find(&self, raw: &[u8]) -> Option<u32> {
        self.table.find(self.hasher.hash_one(raw), |ix| *self.entries[*ix as usize].raw == *raw).copied()
    }

    /// Adds a series that is not there yet. `extra_bytes`: what `value` holds beyond its own size.
    pub(crate) fn insert(&mut self, raw: &[u8], value: T, extra_bytes: usize) -> u32 {
        self.charge(raw.len() + ENTRY_BYTES + extra_bytes);
        let ix = self.entries.len() as u32;
        self.entries.push(Entry { raw: raw.into(), value, next: NONE });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = hasher.hash_one(raw);
        self.table.insert_unique(hash, ix, |ix| hasher.hash_one(&*entries[*ix as usize].raw));
        ix
    }

    /// Accounts for memory, and forgets everything if it would be too much.
    fn charge(&mut self, bytes: usize) {
        if self.bytes + bytes > MAX_BYTES {
            self.clear();
        }
        self.bytes += bytes;
    }

    /// Accounts for a value that grows from `old` to `new` bytes; `false` if there is no room for it.
    pub(crate) fn grow(&mut self, old: usize, new: usize) -> bool {
        let bytes = self.bytes.saturating_sub(old) + new;
        let fits = bytes <= MAX_BYTES;
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Takes note that this series came now.
    pub(crate) fn visit(&mut self, ix: u32) {
        if let Some(last) = self.entries.get_mut(self.last as usize) {
            last.next = ix;
        }
        self.last = ix;
    }

    /// The text of a series; empty if it is no text.
    pub(crate) fn text(&self, ix: u32) -> &str {
        std::str::from_utf8(&self.entries[ix as usize].raw).unwrap_or_default()
    }

    /// What it came to.
    pub(crate) fn get(&self, ix: u32) -> &T {
        &self.entries[ix as usize].value
    }

    /// The same, to change.
    pub(crate) fn get_mut(&mut self, ix: u32) -> &mut T {
        &mut self.entries[ix as usize].value
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.table.clear();
        self.last = NONE;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: three series in the same order, scrape after scrape, then in another.
    /// Guarantee: from the second scrape on each is guessed; another order is learned likewise.
    #[test]
    fn the_usual_successor_is_guessed() {
        let mut memo = Memo::new();
        let mut wrong = Vec::new();
        for scrape in ["abc", "abc", "abc", "cba", "cba", "cba"] {
            let mut n = 0;
            for (i, raw) in scrape.bytes().enumerate() {
                let guess = memo.guess();
                let ix = memo.find(&[raw]).unwrap_or_else(|| memo.insert(&[raw], i, 0));
                n += u32::from(guess != Some(ix));
                memo.visit(ix);
            }
            wrong.push(n);
        }
        assert_eq!(wrong, [3, 1, 0, 3, 1, 0]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memo = Memo::new();
        for i in 0..200_u32 {
            let ix = memo.insert(&i.to_le_bytes(), i, MAX_BYTES / 50);
            memo.visit(ix);
            assert_eq!(*memo.get(ix), i);
            assert!(memo.bytes <= MAX_BYTES && memo.entries.len() <= 50);
        }
    }
}
