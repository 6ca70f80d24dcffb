//! Lines of bounded length in a reused buffer. Knows nothing of what they mean.

use std::io::{self, BufRead, BufReader, Read};

use crate::file::Bytes;

/// A longer line is refused, and passed over without being kept.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// What editors and some writers put before UTF-8: it means nothing, at the start of a file or of one that was appended.
pub(crate) const BOM: &[u8] = "\u{FEFF}".as_bytes();

const READ_BYTES: usize = 128 << 10;

/// What [`Lines::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line, without its end.
    Text(&'a [u8]),
    /// A line beyond [`MAX_LINE_BYTES`].
    TooLong,
    /// No more lines.
    End,
}

/// A reader of lines.
pub(crate) struct Lines {
    reader: BufReader<Bytes>,
    line: Vec<u8>,
    limit: usize,
    read: u64,
    held: bool,
}

impl Lines {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self::with_limit(bytes, MAX_LINE_BYTES)
    }

    fn with_limit(bytes: Bytes, limit: usize) -> Self {
        let reader = BufReader::with_capacity(READ_BYTES, bytes);
        Self { reader, line: Vec::new(), limit, read: 0, held: false }
    }

    /// How many lines were read.
    pub(crate) const fn count(&self) -> u64 {
        self.read
    }

    /// The line read last is to be read again.
    pub(crate) const fn hold(&mut self) {
        self.held = true;
    }

    /// The next line and its number, from 0.
    pub(crate) fn read(&mut self) -> io::Result<(u64, Line<'_>)> {
        if !std::mem::take(&mut self.held) {
            self.line.clear();
            // One byte for the line's end and one that tells a line of exactly the limit from a longer one.
            let most = self.limit as u64 + 2;
            let n = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
            if n == 0 {
                return Ok((self.read, Line::End));
            }
            self.read += 1;
            if self.line.last() != Some(&b'\n') && n as u64 == most {
                self.skip_rest()?;
            }
        }
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let line = if text.len() > self.limit { Line::TooLong } else { Line::Text(text) };
        Ok((self.read - 1, line))
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let chunk = self.reader.fill_buf()?;
            let end = chunk.iter().position(|b| *b == b'\n');
            let (n, done) = end.map_or((chunk.len(), chunk.is_empty()), |at| (at + 1, true));
            self.reader.consume(n);
            if done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, expected: &[&str]) {
        let mut lines = Lines::with_limit(Box::new(text.as_bytes()), 8);
        let mut seen = Vec::new();
        loop {
            seen.push(match lines.read().expect("memory does not fail").1 {
                Line::Text(line) => String::from_utf8_lossy(line).into_owned(),
                Line::TooLong => "TOO LONG".to_owned(),
                Line::End => break,
            });
        }
        assert_eq!(seen, expected, "{text:?}");
        assert_eq!(lines.count(), expected.len() as u64);
    }

    /// Scenario: lines of every ending, and of lengths around the limit.
    /// Guarantee: each is one line; one beyond the limit costs no more memory than the limit, and the next is whole.
    #[test]
    fn lines_are_split_and_bounded() {
        check("", &[]);
        check("a\nb\r\n\nc", &["a", "b", "", "c"]);
        check("12345678\n123456789\nx\n", &["12345678", "TOO LONG", "x"]);
        check("12345678\r\n12345678", &["12345678", "12345678"]);
        check("1234567890123456789012345\ny", &["TOO LONG", "y"]);
        check("1234567890", &["TOO LONG"]);
        check("\u{FEFF}a\n\u{FEFF}\nb\u{FEFF}", &["a", "", "b\u{FEFF}"]);
    }

    #[test]
    fn a_held_line_is_read_again() {
        let mut lines = Lines::new(Box::new("a\nb\n".as_bytes()));
        assert_eq!(lines.read().expect("reads"), (0, Line::Text(b"a")));
        lines.hold();
        assert_eq!(lines.read().expect("reads"), (0, Line::Text(b"a")));
        assert_eq!(lines.read().expect("reads"), (1, Line::Text(b"b")));
        assert_eq!(lines.count(), 2);
    }
}
