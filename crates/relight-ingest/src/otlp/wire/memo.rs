//! Which series a hash of raw bytes is, in the numbers that [`relight_core::aliases`] knows them by.
//!
//! A hash of 128 bits stands for the bytes themselves, which are not kept. It is keyed per process, so
//! that nobody can prepare two series with the same one.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128_with_secret;

pub(super) const NONE: u32 = u32::MAX;
/// What xxh3 makes of a seed is as long.
const SECRET_BYTES: usize = 192;

/// 128 bits that stand for bytes.
pub(super) type Hash = [u64; 2];

#[derive(Clone, Copy)]
struct Entry {
    hash: Hash,
    /// Who followed when it was last met.
    next: u32,
}

/// Numbers of series by the hash of their bytes, each with its usual successor.
pub(super) struct Memo {
    entries: Vec<Entry>,
    table: HashTable<u32>,
    last: u32,
    secret: [u8; SECRET_BYTES],
}

impl Memo {
    pub(super) fn new() -> Self {
        // The standard library's own source of keys, which it has for the same purpose.
        let keys = std::hash::RandomState::new();
        let mut secret = [0; SECRET_BYTES];
        for (i, part) in secret.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&keys.hash_one(i).to_le_bytes());
        }
        Self { entries: Vec::new(), table: HashTable::new(), last: NONE, secret }
    }

    #[inline]
    pub(super) fn hash(&self, bytes: &[u8]) -> Hash {
        let hash = xxh3_128_with_secret(bytes, &self.secret);
        [hash as u64, (hash >> 64) as u64]
    }

    /// One hash of two, in this order.
    pub(super) fn join(&self, first: Hash, second: Hash) -> Hash {
        let mut both = [0; 32];
        for (part, word) in both.chunks_exact_mut(8).zip(first.into_iter().chain(second)) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        self.hash(&both)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    // Exporters repeat their series in the same order, so the one that followed last time is asked before
    // the table: it lies next to the one before and needs no second access.
    #[inline]
    pub(super) fn find(&mut self, hash: Hash) -> Option<u32> {
        let last = self.entries.get(self.last as usize);
        let guess = last.map_or(NONE, |last| last.next);
        if let Some(entry) = self.entries.get(guess as usize)
            && entry.hash == hash
        {
            self.last = guess;
            return Some(guess);
        }
        let found = *self.table.find(hash[0], |ix| self.entries[*ix as usize].hash == hash)?;
        self.follow(found);
        Some(found)
    }

    /// Adds a series that [`Memo::find`] did not find.
    pub(super) fn insert(&mut self, hash: Hash) -> u32 {
        let ix = self.entries.len() as u32;
        self.entries.push(Entry { hash, next: NONE });
        let entries = &self.entries;
        self.table.insert_unique(hash[0], ix, |ix| entries[*ix as usize].hash[0]);
        self.follow(ix);
        ix
    }

    fn follow(&mut self, ix: u32) {
        if let Some(last) = self.entries.get_mut(self.last as usize) {
            last.next = ix;
        }
        self.last = ix;
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.table.clear();
        self.last = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: series in one order, in another, and after all was forgotten.
    /// Guarantee: each keeps its number whatever the order, and numbers begin anew at 0.
    #[test]
    fn numbers_are_dense_and_stay() {
        let mut memo = Memo::new();
        let hashes: Vec<Hash> = (0..500_u64).map(|i| memo.hash(&i.to_le_bytes())).collect();
        for round in 0..4 {
            let order: Vec<usize> = if round == 2 { (0..500).rev().collect() } else { (0..500).collect() };
            for i in order {
                let ix = memo.find(hashes[i]).unwrap_or_else(|| memo.insert(hashes[i]));
                assert_eq!(ix as usize, i);
            }
        }
        memo.clear();
        assert_eq!((memo.find(hashes[3]), memo.insert(hashes[3])), (None, 0));
        assert_ne!(memo.join(hashes[0], hashes[1]), memo.join(hashes[1], hashes[0]));
        assert_ne!(Memo::new().hash(b"a"), memo.hash(b"a"), "each process has its own key");
    }
}
