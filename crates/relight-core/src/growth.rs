//! How columns grow.

/// Makes room for `more` elements, with an eighth of slack rather than a doubling: a column of a million rows must not
/// hold two.
#[inline]
pub fn reserve<T>(column: &mut Vec<T>, more: usize) {
    if column.capacity() - column.len() < more {
        column.reserve_exact(more.max(column.len() / 8));
    }
}
