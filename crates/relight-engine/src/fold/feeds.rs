//! Which rows each series of a key group feeds, one list behind the other.
//!
//! What an evicted series leaves is swept up once it is half of all.

use crate::directory::Feed;

#[derive(Default)]
pub(super) struct Feeds {
    all: Vec<Feed>,
    /// By slot: where its feeds begin, and how many there are.
    spans: Vec<(u32, u32)>,
    dead: usize,
}

impl Feeds {
    #[inline]
    pub(super) fn of(&self, slot: u32) -> &[Feed] {
        let (start, len) = self.spans[slot as usize];
        &self.all[start as usize..][..len as usize]
    }

    /// Gives a slot its feeds, in the place of those it had.
    pub(super) fn set(&mut self, slot: usize, feeds: &[Feed]) {
        if slot >= self.spans.len() {
            self.spans.resize(slot + 1, (0, 0));
        }
        self.dead += self.spans[slot].1 as usize;
        self.spans[slot] = (self.all.len() as u32, feeds.len() as u32);
        self.all.extend_from_slice(feeds);
    }

    /// Closes the gaps, if they are worth it.
    pub(super) fn tidy(&mut self) {
        if self.dead * 2 <= self.all.len() {
            return;
        }
        let mut all = Vec::with_capacity(self.all.len() - self.dead);
        for (start, len) in &mut self.spans {
            let feeds = &self.all[*start as usize..][..*len as usize];
            *start = all.len() as u32;
            all.extend_from_slice(feeds);
        }
        self.all = all;
        self.dead = 0;
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Feed>() + self.spans.capacity() * 8
    }
}
