//! Lines of bounded length in a reused buffer, or messages with their length in front. Knows nothing of what they mean.

use std::io::{self, BufRead, BufReader, Read};

use crate::file::{self, Bytes};

/// A longer line is refused, and passed over without being kept.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// What editors and some writers put before UTF-8: it means nothing, at the start of a file or of one that was appended.
pub(crate) const BOM: &[u8] = "\u{FEFF}".as_bytes();

const READ_BYTES: usize = 128 << 10;

/// What ends an entry of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A line feed.
    Lines,
    /// Its length, in four bytes in front, the highest first, as the Collector's file exporter writes it.
    Lengths {
        /// Whether each entry is a zstd frame.
        is_zstd: bool,
    },
}

/// What [`Lines::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line, without its end; or a message.
    Text(&'a [u8]),
    /// A message that is not whole, or that cannot be unpacked, and why.
    Broken(String),
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
    cut: Cut,
}

impl Lines {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self::with_limit(bytes, MAX_LINE_BYTES)
    }

    /// The same of entries that end otherwise.
    pub(crate) fn cut(bytes: Bytes, cut: Cut) -> Self {
        Self { cut, ..Self::new(bytes) }
    }

    fn with_limit(bytes: Bytes, limit: usize) -> Self {
        let reader = BufReader::with_capacity(READ_BYTES, bytes);
        Self { reader, line: Vec::new(), limit, read: 0, held: false, cut: Cut::Lines }
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
        if let Cut::Lengths { is_zstd } = self.cut {
            return self.message(is_zstd);
        }
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

    fn message(&mut self, is_zstd: bool) -> io::Result<(u64, Line<'_>)> {
        if std::mem::take(&mut self.held) {
            return Ok((self.read - 1, Line::Text(&self.line)));
        }
        let mut len = Vec::with_capacity(4);
        if self.reader.by_ref().take(4).read_to_end(&mut len)? == 0 {
            return Ok((self.read, Line::End));
        }
        let number = self.read;
        self.read += 1;
        let Ok(len) = <[u8; 4]>::try_from(&len[..]) else {
            return Ok((number, Line::Broken("the file ends within the length of a message".to_owned())));
        };
        let len = u64::from(u32::from_be_bytes(len));
        self.line.clear();
        let n = if len > self.limit as u64 {
            io::copy(&mut self.reader.by_ref().take(len), &mut io::sink())?
        } else {
            self.reader.by_ref().take(len).read_to_end(&mut self.line)? as u64
        };
        let line = if n < len {
            Line::Broken(format!("the file ends within a message of {len} bytes, of which {n} are there"))
        } else if len > self.limit as u64 {
            Line::TooLong
        } else if !is_zstd {
            Line::Text(&self.line)
        } else {
            match unpack(&self.line, self.limit) {
                Err(error) => Line::Broken(format!("a message is no zstd frame: {error}")),
                Ok(unpacked) if unpacked.len() > self.limit => Line::TooLong,
                Ok(unpacked) => {
                    self.line = unpacked;
                    Line::Text(&self.line)
                }
            }
        };
        Ok((number, line))
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

/// At most one byte more than `limit`.
fn unpack(packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(file::ZSTD_WINDOW_LOG_MAX)?;
    let mut unpacked = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
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
                Line::Broken(why) => why,
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

    /// Scenario: messages with their length in front, plain and as zstd frames, one too long, one that unpacks to too much,
    /// one that is no frame; the file is cut off after each of its bytes.
    /// Guarantee: each whole message is read, and only the one that is cut off is named.
    #[test]
    fn c2_messages_are_cut_by_their_lengths() {
        let framed = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
        let packed = |message: &[u8]| framed(&zstd::encode_all(message, 3).expect("memory does not fail"));
        let read = |bytes: Vec<u8>, is_zstd: bool| {
            let mut lines = Lines::with_limit(Box::new(io::Cursor::new(bytes)), 64);
            lines.cut = Cut::Lengths { is_zstd };
            let mut seen = Vec::new();
            loop {
                seen.push(match lines.read().expect("memory does not fail").1 {
                    Line::Text(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong => "TOO LONG".to_owned(),
                    Line::Broken(why) => why.split(':').next().unwrap_or_default().to_owned(),
                    Line::End => return seen,
                });
            }
        };
        let plain = [framed(b"a\nb"), framed(b""), framed(&[b'x'; 65]), framed(b"c")].concat();
        assert_eq!(read(plain.clone(), false), ["a\nb", "", "TOO LONG", "c"]);
        let zipped = [packed(b"a\nb"), framed(b"no frame"), packed(&[b'x'; 9_999]), packed(b"c")].concat();
        assert_eq!(read(zipped, true), ["a\nb", "a message is no zstd frame", "TOO LONG", "c"]);
        for end in 0..plain.len() {
            let seen = read(plain[..end].to_vec(), false);
            let whole = match end {
                ..7 => 0,
                7..11 => 1,
                11..80 => 2,
                _ => 3,
            };
            let is_between = matches!(end, 0 | 7 | 11 | 80);
            assert_eq!(seen.len(), whole + usize::from(!is_between), "{end}: {seen:?}");
            assert_eq!(
                seen.last().is_some_and(|last| last.starts_with("the file ends within")),
                !is_between,
                "{end}"
            );
        }
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
