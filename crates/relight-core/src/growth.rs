//! How columns grow.

/// Of how many elements a column has room at least, once it has any: an eighth of a few is none.
const LEAST: usize = 8;

/// Makes room for `more` elements, with an eighth of slack rather than a doubling: a column of a million rows must not
/// hold two.
#[inline]
pub fn reserve<T>(column: &mut Vec<T>, more: usize) {
    if column.capacity() - column.len() < more {
        column.reserve_exact(more.max(column.len() / 8).max(LEAST));
    }
}
