//! Protobuf's own framing: keys, varints, lengths, groups. Knows no message of OTLP.
//!
//! Accepts what prost accepts and refuses what it refuses (overlong keys, ten-byte varints, groups to be
//! skipped, [`MAX_DEPTH`] levels), so that nobody gets another answer here than from a collector.
#![expect(
    clippy::inline_always,
    reason = "a call for each key and each length was a tenth of a point's time, and the compiler made them"
)]

use super::WireError;

/// Messages and groups within each other, as prost and protobuf's own readers have it.
pub(super) const MAX_DEPTH: u8 = 100;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const GROUP: u8 = 3;
pub(super) const END_GROUP: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// One message: what lies before it in the request is kept, so that `at` is a position in the request.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    /// The request up to the end of this message.
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Levels that may still be entered.
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { bytes: body, at: 0, depth: MAX_DEPTH }
    }

    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { at: self.at, what }
    }

    /// The next field and its wire type; `None` at the end of the message.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<(u32, u8)>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let key = u32::try_from(key).map_err(|_| self.malformed("a key beyond 32 bits"))?;
        if key >> 3 == 0 {
            return Err(self.malformed("field number 0"));
        }
        Ok(Some((key >> 3, (key & 7) as u8)))
    }

    // Keys and most lengths have one byte.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at) {
            Some(byte @ 0..0x80) => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let Some(byte) = self.bytes.get(self.at) else {
                return Err(self.malformed("cut off within a varint"));
            };
            if shift == 63 && *byte > 1 {
                break;
            }
            self.at += 1;
            value |= u64::from(*byte & 0x7F) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a varint beyond 64 bits"))
    }

    /// The varint of a field of this wire type.
    pub(super) fn integer(&mut self, wire: u8) -> Result<u64, WireError> {
        self.expect(wire, VARINT)?;
        self.varint()
    }

    #[inline(always)]
    pub(super) fn expect(&self, wire: u8, expected: u8) -> Result<(), WireError> {
        if wire == expected { Ok(()) } else { Err(self.malformed("a field of the wrong wire type")) }
    }

    /// Passes over `len` bytes and returns where they began.
    #[inline(always)]
    pub(super) fn pass(&mut self, len: u64) -> Result<usize, WireError> {
        let begin = self.at;
        if len > (self.bytes.len() - begin) as u64 {
            return Err(self.malformed("a length beyond the end of its message"));
        }
        self.at += len as usize;
        Ok(begin)
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, WireError> {
        let Some(bytes) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) else {
            return Err(self.malformed("cut off within eight bytes"));
        };
        self.at += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// The eight bytes of a field of this wire type.
    #[inline(always)]
    pub(super) fn eight(&mut self, wire: u8) -> Result<u64, WireError> {
        self.expect(wire, FIXED64)?;
        self.fixed64()
    }

    /// The float of a field of this wire type.
    pub(super) fn double(&mut self, wire: u8) -> Result<f64, WireError> {
        self.eight(wire).map(f64::from_bits)
    }

    /// The bytes of a field of this wire type.
    #[inline(always)]
    pub(super) fn slice(&mut self, wire: u8) -> Result<&'a [u8], WireError> {
        self.expect(wire, BYTES)?;
        let len = self.varint()?;
        let begin = self.pass(len)?;
        Ok(&self.bytes[begin..self.at])
    }

    /// The text of a field of this wire type.
    pub(super) fn text(&mut self, wire: u8) -> Result<&'a str, WireError> {
        let bytes = self.slice(wire)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a text that is not UTF-8"))
    }

    /// The message in a field of this wire type.
    #[inline]
    pub(super) fn message(&mut self, wire: u8) -> Result<Self, WireError> {
        self.expect(wire, BYTES)?;
        if self.depth == 0 {
            return Err(self.malformed("more than 100 levels deep"));
        }
        let len = self.varint()?;
        let begin = self.pass(len)?;
        Ok(Self { bytes: &self.bytes[..self.at], at: begin, depth: self.depth - 1 })
    }

    /// What is left of the message.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Passes over a field that nobody knows.
    pub(super) fn skip(&mut self, field: u32, wire: u8) -> Result<(), WireError> {
        if self.depth == 0 {
            return Err(self.malformed("more than 100 levels deep"));
        }
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.pass(8).map(drop),
            FIXED32 => self.pass(4).map(drop),
            BYTES => self.slice(wire).map(drop),
            GROUP => self.skip_group(field),
            END_GROUP => Err(self.malformed("the end of a group that has not begun")),
            _ => Err(self.malformed("a wire type that does not exist")),
        }
    }

    fn skip_group(&mut self, group: u32) -> Result<(), WireError> {
        loop {
            match self.key()? {
                None => return Err(self.malformed("a group without an end")),
                Some((field, END_GROUP)) if field == group => return Ok(()),
                Some((field, wire)) => {
                    self.depth -= 1;
                    self.skip(field, wire)?;
                    self.depth += 1;
                }
            }
        }
    }
}
