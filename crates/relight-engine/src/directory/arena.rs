//! Series keys in one arena in arrival order, each with its successor.

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

pub(super) struct Arena {
    bytes: Vec<u8>,
    /// `ends[i]` is where the key of series i ends; it begins where the one before ends.
    ends: Vec<u32>,
    /// The series that followed series i when it was last seen.
    next: Vec<u32>,
    slots: Vec<u32>,
    groups: Vec<u8>,
    kinds: Vec<Kind>,
    /// Series of each key group, by slot.
    members: Vec<Vec<u32>>,
    table: HashTable<u32>,
    // Keyed per process, so that nobody can prepare colliding names; it is never iterated.
    hasher: DefaultHashBuilder,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            next: Vec::new(),
            slots: Vec::new(),
            groups: Vec::new(),
            kinds: Vec::new(),
            members: vec![Vec::new(); KEY_GROUPS],
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn key(&self, ix: u32) -> &[u8] {
        let ix = ix as usize;
        let start = if ix == 0 { 0 } else { self.ends[ix - 1] as usize };
        &self.bytes[start..self.ends[ix] as usize]
    }

    pub(super) fn key_at(&self, at: SeriesAddr) -> &[u8] {
        self.key(self.members[at.group.ix()][at.slot as usize])
    }

    pub(super) fn index_of(&self, key: &[u8]) -> Option<u32> {
        self.table.find(self.hasher.hash_one(key), |ix| self.key(*ix) == key).copied()
    }

    // Exporters repeat their series in the same order, so the successor of the series before is
    // nearly always the one that comes now: one comparison instead of a hash and a cache miss.
    pub(super) fn find(&mut self, key: &[u8], hint: &mut u32) -> Option<SeriesAddr> {
        let before = *hint;
        let guess = if before == NONE { 0 } else { self.next.get(before as usize).copied().unwrap_or(0) };
        if (guess as usize) < self.ends.len() && self.key(guess) == key {
            *hint = guess;
            return Some(self.addr(guess));
        }
        let found = self.index_of(key)?;
        if let Some(next) = self.next.get_mut(before as usize) {
            *next = found;
        }
        *hint = found;
        Some(self.addr(found))
    }

    pub(super) fn kind(&self, ix: u32) -> Kind {
        self.kinds[ix as usize]
    }

    pub(super) fn kind_at(&self, at: SeriesAddr) -> Kind {
        self.kind(self.members[at.group.ix()][at.slot as usize])
    }

    pub(super) fn addr(&self, ix: u32) -> SeriesAddr {
        SeriesAddr { group: KeyGroup::nth(self.groups[ix as usize] as usize), slot: self.slots[ix as usize] }
    }

    /// Whether the key's end can still be written as a `u32`: 4 GiB of names are a limit like any other.
    pub(super) fn has_room(&self, key: &[u8]) -> bool {
        u32::try_from(self.bytes.len() + key.len()).is_ok()
    }

    pub(super) fn add(&mut self, key: &[u8], kind: Kind) -> (u32, SeriesAddr) {
        let ix = self.ends.len() as u32;
        let group = KeyGroup::of(key);
        let slot = self.members[group.ix()].len() as u32;
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
        self.next.push(ix + 1);
        self.slots.push(slot);
        self.groups.push(group.ix() as u8);
        self.kinds.push(kind);
        self.members[group.ix()].push(ix);
        let (ends, bytes, hasher) = (&self.ends, &self.bytes, &self.hasher);
        self.table.insert_unique(hasher.hash_one(key), ix, |ix| {
            let ix = *ix as usize;
            let start = if ix == 0 { 0 } else { ends[ix - 1] as usize };
            hasher.hash_one(&bytes[start..ends[ix] as usize])
        });
        (ix, SeriesAddr { group, slot })
    }

    /// Slots of a group in key order.
    pub(super) fn order(&self, group: KeyGroup) -> Vec<u32> {
        let members = &self.members[group.ix()];
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.key(members[*a as usize]).cmp(self.key(members[*b as usize])));
        order
    }

    pub(super) fn state_bytes(&self) -> usize {
        let members: usize = self.members.iter().map(|m| m.capacity() * 4).sum();
        self.bytes.capacity()
            + self.ends.capacity() * 4
            + self.next.capacity() * 4
            + self.slots.capacity() * 4
            + self.groups.capacity() * 2
            + members
            + self.table.capacity() * 5
    }
}
