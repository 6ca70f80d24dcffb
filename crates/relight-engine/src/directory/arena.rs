//! Series keys in one arena, each with its successor.
//!
//! What was evicted leaves its number, its slot and, once half of the arena is such, its bytes to those that come
//! after it: a label that churns does not fill memory. Knows nothing of why or when a series goes.

use hashbrown::{DefaultHashBuilder, HashTable};
use relight_core::record::Kind;
use relight_core::series::{KEY_GROUPS, KeyGroup};
use std::hash::BuildHasher;

/// Where a series lives: its key group and its slot in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesAddr {
    /// Key group.
    pub group: KeyGroup,
    /// Slot within the group, in arrival order.
    pub slot: u32,
}

const NONE: u32 = u32::MAX;

/// One series, or a number that nobody has: its slot is then [`NONE`].
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Where its key begins, and how long it is.
    key: (u32, u32),
    /// The series that followed when it was last seen.
    next: u32,
    slot: u32,
    group: KeyGroup,
    kind: Kind,
}

impl Known {
    const NOBODY: Self =
        Self { key: (0, 0), next: NONE, slot: NONE, group: KeyGroup::nth(0), kind: Kind::Gauge };

    const fn addr(&self) -> SeriesAddr {
        SeriesAddr { group: self.group, slot: self.slot }
    }
}

pub(super) struct Arena {
    bytes: Vec<u8>,
    /// By number.
    known: Vec<Known>,
    /// Series of each key group, by slot; [`NONE`] where there is none.
    members: Vec<Vec<u32>>,
    /// Numbers that nobody has.
    free: Vec<u32>,
    /// Slots of each key group that nobody has.
    free_slots: Vec<Vec<u32>>,
    /// Bytes of keys that are gone.
    dead_bytes: usize,
    table: HashTable<u32>,
    // Keyed per process, so that nobody can prepare colliding names; it is never iterated.
    hasher: DefaultHashBuilder,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            known: Vec::new(),
            members: vec![Vec::new(); KEY_GROUPS],
            free: Vec::new(),
            free_slots: vec![Vec::new(); KEY_GROUPS],
            dead_bytes: 0,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len() - self.free.len()
    }

    /// The numbers that series have, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.known).filter(|(_, known)| known.slot != NONE).map(|(ix, _)| ix)
    }

    pub(super) fn key(&self, ix: u32) -> &[u8] {
        key_in(&self.bytes, self.known[ix as usize].key)
    }

    pub(super) fn number(&self, at: SeriesAddr) -> u32 {
        self.members[at.group.ix()][at.slot as usize]
    }

    pub(super) fn key_at(&self, at: SeriesAddr) -> &[u8] {
        self.key(self.number(at))
    }

    pub(super) fn index_of(&self, key: &[u8]) -> Option<u32> {
        self.table.find(self.hasher.hash_one(key), |ix| self.key(*ix) == key).copied()
    }

    // Exporters repeat their series in the same order, so the successor of the series before is
    // nearly always the one that comes now: one comparison instead of a hash and a cache miss.
    #[inline]
    pub(super) fn find(&mut self, key: &[u8], hint: &mut u32) -> Option<SeriesAddr> {
        let guess = self.known.get(*hint as usize).map_or(0, |known| known.next);
        match self.known.get(guess as usize) {
            Some(guessed) if key_in(&self.bytes, guessed.key) == key && !key.is_empty() => {
                *hint = guess;
                Some(guessed.addr())
            }
            _ => self.search(key, hint),
        }
    }

    #[inline(never)]
    fn search(&mut self, key: &[u8], hint: &mut u32) -> Option<SeriesAddr> {
        let found = self.index_of(key)?;
        if let Some(known) = self.known.get_mut(*hint as usize) {
            known.next = found;
        }
        *hint = found;
        Some(self.addr(found))
    }

    pub(super) fn kind(&self, ix: u32) -> Kind {
        self.known[ix as usize].kind
    }

    pub(super) fn kind_at(&self, at: SeriesAddr) -> Kind {
        self.kind(self.number(at))
    }

    pub(super) fn addr(&self, ix: u32) -> SeriesAddr {
        self.known[ix as usize].addr()
    }

    /// Whether the key's place can still be written as a `u32`: 4 GiB of names are a limit like any other.
    pub(super) fn has_room(&self, key: &[u8]) -> bool {
        u32::try_from(self.bytes.len() + key.len()).is_ok()
    }

    pub(super) fn add(&mut self, key: &[u8], kind: Kind) -> (u32, SeriesAddr) {
        let group = KeyGroup::of(key);
        let slot = self.take_slot(group);
        let span = (self.bytes.len() as u32, key.len() as u32);
        self.bytes.extend_from_slice(key);
        let ix = self.take_number();
        self.known[ix as usize] = Known { key: span, next: ix.saturating_add(1), slot, group, kind };
        self.members[group.ix()][slot as usize] = ix;
        let (known, bytes, hasher) = (&self.known, &self.bytes, &self.hasher);
        self.table.insert_unique(hasher.hash_one(key), ix, |ix| {
            hasher.hash_one(key_in(bytes, known[*ix as usize].key))
        });
        (ix, SeriesAddr { group, slot })
    }

    fn take_number(&mut self) -> u32 {
        if let Some(ix) = self.free.pop() {
            return ix;
        }
        self.known.push(Known::NOBODY);
        self.known.len() as u32 - 1
    }

    fn take_slot(&mut self, group: KeyGroup) -> u32 {
        if let Some(slot) = self.free_slots[group.ix()].pop() {
            return slot;
        }
        let members = &mut self.members[group.ix()];
        members.push(NONE);
        members.len() as u32 - 1
    }

    /// Takes a series out. Its number and its slot go to the next that come, the lowest first: those of a new
    /// target come in an order of their own, and so do slots that were freed together.
    pub(super) fn remove(&mut self, at: SeriesAddr) {
        let ix = self.number(at);
        let hash = self.hasher.hash_one(self.key(ix));
        if let Ok(entry) = self.table.find_entry(hash, |known| *known == ix) {
            entry.remove();
        }
        let known = &mut self.known[ix as usize];
        self.dead_bytes += known.key.1 as usize;
        (known.key, known.slot) = ((0, 0), NONE);
        self.members[at.group.ix()][at.slot as usize] = NONE;
        self.free.push(ix);
        self.free_slots[at.group.ix()].push(at.slot);
    }

    /// To be called once after what was taken out.
    pub(super) fn tidy(&mut self) {
        let descending = |a: &u32, b: &u32| b.cmp(a);
        self.free.sort_unstable_by(descending);
        self.free_slots.iter_mut().for_each(|slots| slots.sort_unstable_by(descending));
        if self.dead_bytes * 2 <= self.bytes.len() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dead_bytes);
        for known in &mut self.known {
            let key = key_in(&self.bytes, known.key);
            known.key = (bytes.len() as u32, key.len() as u32);
            bytes.extend_from_slice(key);
        }
        self.bytes = bytes;
        self.dead_bytes = 0;
    }

    /// A series is from now on of this kind.
    pub(super) fn set_kind(&mut self, ix: u32, kind: Kind) {
        self.known[ix as usize].kind = kind;
    }

    /// Slots of a group in key order.
    pub(super) fn order(&self, group: KeyGroup) -> Vec<u32> {
        let members = &self.members[group.ix()];
        let taken = |slot: &u32| members[*slot as usize] != NONE;
        let mut order: Vec<u32> = (0..members.len() as u32).filter(taken).collect();
        order.sort_unstable_by(|a, b| self.key(members[*a as usize]).cmp(self.key(members[*b as usize])));
        order
    }

    pub(super) fn state_bytes(&self) -> usize {
        let members: usize = self.members.iter().chain(&self.free_slots).map(|m| m.capacity() * 4).sum();
        self.bytes.capacity()
            + self.known.capacity() * size_of::<Known>()
            + self.free.capacity() * 4
            + members
            + self.table.capacity() * 5
    }
}

fn key_in(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    &bytes[start as usize..][..len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: somebody prepares names that collide in a table whose hash they know.
    /// Guarantee: they do not know it: each table has a key of its own, which no name, file or figure shows.
    #[test]
    fn d10_hash_flood() {
        let (one, other) = (Arena::new(), Arena::new());
        let names = (0..100_u32).map(|n| format!("name{n}").into_bytes());
        let same = names.filter(|name| one.hasher.hash_one(name) == other.hasher.hash_one(name)).count();
        assert_eq!(same, 0);
    }

    /// Scenario: names come and go, round after round, with lengths that differ.
    /// Guarantee: each is found where it was put and nowhere else, by its name and by a guess; numbers, slots and bytes
    /// are used again.
    #[test]
    fn places_are_used_again() {
        let mut arena = Arena::new();
        let name = |n: usize| format!("{n:0width$}", width = 4 + n % 29).into_bytes();
        let mut known: Vec<(usize, SeriesAddr)> = Vec::new();
        for round in 0..50 {
            for n in 100 * round..100 * (round + 1) {
                known.push((n, arena.add(&name(n), Kind::Gauge).1));
            }
            for (n, at) in known.drain(..if round == 0 { 0 } else { 100 }) {
                arena.remove(at);
                assert_eq!(arena.find(&name(n), &mut NONE.clone()), None);
            }
            arena.tidy();
            let mut hint = NONE;
            for (n, at) in &known {
                assert_eq!(arena.find(&name(*n), &mut hint), Some(*at));
                assert_eq!(arena.key_at(*at), name(*n));
            }
            assert_eq!((arena.len(), arena.numbers().count()), (100, 100));
        }
        assert!(arena.known.len() <= 200 && arena.bytes.len() <= 2 * 200 * 33);
        let slots: usize = arena.members.iter().map(Vec::len).sum();
        assert!(slots <= 900, "{slots} slots for 200 names at a time");
    }
}
