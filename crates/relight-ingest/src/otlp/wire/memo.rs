//! Which series a hash of raw bytes is, in the numbers that [`relight_core::aliases`] knows them by.
//!
//! A hash of 128 bits stands for the bytes themselves, which are not kept. It is keyed per process, so
//! that nobody can prepare two series with the same one.

use std::hash::BuildHasher;

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
    /// How long its attributes are, if they lie in one piece; else 0.
    run: u32,
}

/// Numbers of series by the hash of their bytes, each with its usual successor.
pub(super) struct Memo {
    entries: Vec<Entry>,
    /// Open addressing, at most half full: the upper half of a hash's first word and, one up, the number.
    /// A power of two of slots, each one cache miss; a general table has two.
    slots: Vec<u64>,
    last: u32,
    /// How good the guesses were lately.
    order: u32,
    secret: [u8; SECRET_BYTES],
}

/// The best that the guesses can be. A wrong one costs eight right ones.
const IN_ORDER: u32 = 64;
const FEWEST_SLOTS: usize = 1 << 10;

impl Memo {
    pub(super) fn new() -> Self {
        // The standard library's own source of keys, which it has for the same purpose.
        let keys = std::hash::RandomState::new();
        let mut secret = [0; SECRET_BYTES];
        for (i, part) in secret.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&keys.hash_one(i).to_le_bytes());
        }
        let slots = vec![0; FEWEST_SLOTS];
        Self { entries: Vec::new(), slots, last: NONE, order: IN_ORDER, secret }
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

    /// Whether series come in the order in which they came before.
    #[inline]
    pub(super) const fn in_order(&self) -> bool {
        self.order > 0
    }

    // Exporters repeat their series in the same order, so the one that followed last time is asked before
    // the table: it lies next to the one before and needs no second access.
    #[inline]
    fn guess(&self) -> Option<(u32, &Entry)> {
        let next = self.entries.get(self.last as usize)?.next;
        self.entries.get(next as usize).map(|entry| (next, entry))
    }

    /// The hash of the series that is expected and the length of its attributes: where they are the same
    /// bytes as last time, they need not be walked.
    #[inline]
    pub(super) fn expected(&self) -> Option<(Hash, usize)> {
        self.guess().filter(|(_, entry)| entry.run > 0).map(|(_, entry)| (entry.hash, entry.run as usize))
    }

    #[inline]
    pub(super) fn find(&mut self, hash: Hash) -> Option<u32> {
        if let Some((guess, entry)) = self.guess()
            && entry.hash == hash
        {
            self.last = guess;
            self.order = (self.order + 1).min(IN_ORDER);
            return Some(guess);
        }
        self.order = self.order.saturating_sub(8);
        let found = self.look_up(hash)?;
        self.follow(found);
        Some(found)
    }

    /// Asks the table alone, and remembers nothing of it. One call does not wait for the one before, so a
    /// loop of them has several cache misses at a time.
    #[inline]
    pub(super) fn look_up(&self, hash: Hash) -> Option<u32> {
        let mut slot = self.slot(hash);
        loop {
            let word = self.slots[slot];
            if word == 0 {
                return None;
            }
            let ix = word as u32 - 1;
            if word >> 32 == hash[0] >> 32 && self.entries[ix as usize].hash == hash {
                return Some(ix);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Takes note of a series that [`Memo::look_up`] found.
    #[inline]
    pub(super) fn met(&mut self, ix: u32) {
        let guessed = self.guess().is_some_and(|(guess, _)| guess == ix);
        self.order = if guessed { (self.order + 1).min(IN_ORDER) } else { self.order.saturating_sub(8) };
        self.follow(ix);
    }

    /// Adds a series that is not there yet. `run`: how long its attributes are, if they lie in one piece.
    pub(super) fn insert(&mut self, hash: Hash, run: usize) -> u32 {
        let ix = self.entries.len() as u32;
        self.entries.push(Entry { hash, next: NONE, run: u32::try_from(run).unwrap_or(0) });
        if self.entries.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2];
            (0..=ix).for_each(|ix| self.put(ix));
        } else {
            self.put(ix);
        }
        self.follow(ix);
        ix
    }

    fn slot(&self, hash: Hash) -> usize {
        hash[0] as usize & (self.slots.len() - 1)
    }

    fn put(&mut self, ix: u32) {
        let hash = self.entries[ix as usize].hash;
        let mut slot = self.slot(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = hash[0] >> 32 << 32 | u64::from(ix + 1);
    }

    #[inline]
    fn follow(&mut self, ix: u32) {
        if let Some(last) = self.entries.get_mut(self.last as usize) {
            last.next = ix;
        }
        self.last = ix;
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.slots.fill(0);
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
        let hashes: Vec<Hash> = (0..3_000_u64).map(|i| memo.hash(&i.to_le_bytes())).collect();
        for round in 0..4 {
            let order: Vec<usize> =
                if round == 2 { (0..3_000).rev().collect() } else { (0..3_000).collect() };
            for i in order {
                let ix = memo.find(hashes[i]).unwrap_or_else(|| memo.insert(hashes[i], 0));
                assert_eq!(ix as usize, i);
            }
        }
        memo.clear();
        assert_eq!((memo.find(hashes[3]), memo.insert(hashes[3], 0)), (None, 0));
        assert_ne!(memo.join(hashes[0], hashes[1]), memo.join(hashes[1], hashes[0]));
        assert_ne!(Memo::new().hash(b"a"), memo.hash(b"a"), "each process has its own key");
    }
}
