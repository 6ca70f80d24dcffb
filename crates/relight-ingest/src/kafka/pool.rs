//! Memory for values on their way to the engine: taken, shared, and given back by whoever is last to hold it.
//!
//! A value is copied once, out of the client's memory. A batch of 500 points has 180 KB, and fresh memory of that
//! size is mapped page by page: more than the copy itself.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

/// Buffers that are kept: what a queue holds, and a few on the way.
const KEPT: usize = 128;
/// A larger buffer is not kept, so that one huge record does not hold its memory for good.
const LARGEST: usize = 1 << 20;

/// Buffers of one reader.
pub(super) struct Pool {
    give: Sender<Vec<u8>>,
    take: Receiver<Vec<u8>>,
}

/// A buffer that goes back to its pool.
struct Lent {
    bytes: Vec<u8>,
    give: Sender<Vec<u8>>,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (give, take) = bounded(KEPT);
        Self { give, take }
    }

    /// A copy of a value.
    pub(super) fn copy(&self, value: &[u8]) -> Bytes {
        let mut bytes = self.take.try_recv().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(value);
        Bytes::from_owner(Lent { bytes, give: self.give.clone() })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.bytes.capacity() <= LARGEST {
            // A pool that is full or gone needs no more.
            let _ = self.give.try_send(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: copies that are shared, dropped and made again, one of them huge.
    /// Guarantee: each holds its own value for as long as anybody holds it; memory is used again, but not the huge.
    #[test]
    fn buffers_come_back() {
        let pool = Pool::new();
        let first = pool.copy(b"first");
        let (shared, place) = (first.clone(), first.as_ptr());
        drop(first);
        let second = pool.copy(b"second");
        assert_eq!((&shared[..], &second[..]), (&b"first"[..], &b"second"[..]));
        drop(shared);
        let third = pool.copy(b"3");
        assert_eq!((third.as_ptr(), &third[..]), (place, &b"3"[..]));
        drop(pool.copy(&vec![0; LARGEST + 1]));
        assert!(pool.take.is_empty());
    }
}
