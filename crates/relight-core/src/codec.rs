//! Fixed-width little-endian encoding of state, and the envelope that guards it on disk.
//!
//! Not JSON: infinities and last bits must survive. Nothing here reads or writes a file.

use crate::time::{Span, Timestamp};

/// Bytes that are not what they should be. Carries what was being read, for the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The bytes ended in the middle of a value.
    #[error("ended {missing} bytes early while reading {what}")]
    Short {
        /// What was being read.
        what: &'static str,
        /// How many bytes were missing.
        missing: usize,
    },
    /// A value that no writer writes.
    #[error("impossible value for {0}")]
    Value(&'static str),
    /// Not an envelope of ours.
    #[error("not a relight file (bad magic)")]
    Magic,
    /// Written by a newer release.
    #[error("schema version {found} is newer than this release's {known}")]
    Future {
        /// The version found.
        found: u16,
        /// The newest version this release reads.
        known: u16,
    },
    /// The checksum does not match the bytes.
    #[error("checksum does not match")]
    Checksum,
    /// Bytes were left over.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// A cursor over encoded bytes. Every read is checked; none panics.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Corrupt> {
        let Some((head, rest)) = self.bytes.split_at_checked(n) else {
            return Err(Corrupt::Short { what, missing: n - self.bytes.len() });
        };
        self.bytes = rest;
        Ok(head)
    }

    /// A length prefix (`u32`), checked against what is left so that a damaged one cannot ask for gigabytes.
    pub fn len(&mut self, element_bytes: usize, what: &'static str) -> Result<usize, Corrupt> {
        let n = u32::decode(self)? as usize;
        if n.saturating_mul(element_bytes.max(1)) > self.bytes.len() {
            return Err(Corrupt::Short { what, missing: n * element_bytes.max(1) - self.bytes.len() });
        }
        Ok(n)
    }

    /// How many bytes are left.
    pub const fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Fails unless everything was read.
    pub const fn finish(self) -> Result<(), Corrupt> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Corrupt::Trailing(self.bytes.len())) }
    }
}

/// State that is written to disk and read back bit for bit.
pub trait Codec: Sized {
    /// Appends the little-endian bytes of `self`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what [`Codec::encode`] wrote.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt>;
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Codec for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
                let bytes = reader.take(size_of::<$t>(), stringify!($t))?;
                Ok(<$t>::from_le_bytes(bytes.try_into().expect("take gives the length asked for")))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

impl Codec for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match u8::decode(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt::Value("bool")),
        }
    }
}

impl Codec for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(())
    }
}

impl Codec for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        self.ns().encode(out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        i64::decode(reader).map(Self::from_ns)
    }
}

impl Codec for Span {
    fn encode(&self, out: &mut Vec<u8>) {
        self.ns().encode(out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        i64::decode(reader).map(Self::from_ns)
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let bytes = decode_bytes(reader, "text")?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Corrupt::Value("text"))
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u32).encode(out);
        for item in self {
            item.encode(out);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let n = reader.len(0, "list")?;
        // A damaged length is bounded by the bytes that are left, not by what it claims.
        let mut items = Vec::with_capacity(n.min(reader.left()));
        for _ in 0..n {
            items.push(T::decode(reader)?);
        }
        Ok(items)
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        if bool::decode(reader)? { T::decode(reader).map(Some) } else { Ok(None) }
    }
}

impl<T: Codec, const N: usize> Codec for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        for item in self {
            item.encode(out);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let items = (0..N).map(|_| T::decode(reader)).collect::<Result<Vec<T>, _>>()?;
        items.try_into().map_err(|_| Corrupt::Value("array"))
    }
}

/// Appends a `u32` length and the bytes.
pub fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u32).encode(out);
    out.extend_from_slice(bytes);
}

/// Reads what [`encode_bytes`] wrote.
pub fn decode_bytes<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], Corrupt> {
    let n = reader.len(1, what)?;
    reader.take(n, what)
}

/// Implements [`Codec`] for a struct by its fields, in the order given.
#[macro_export]
macro_rules! codec_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Codec for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::codec::Codec::encode(&self.$field, out);)*
            }
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Corrupt> {
                Ok(Self { $($field: $crate::codec::Codec::decode(reader)?),* })
            }
        }
    };
}

const MAGIC: [u8; 4] = *b"RLGT";
/// Bytes of an envelope around its payload: magic, kind, version, length, CRC32C.
pub const ENVELOPE_BYTES: usize = 4 + 4 + 2 + 8 + 4;

/// Wraps a payload for the disk: magic, what it is, schema version, length, CRC32C over all of it.
pub fn seal(kind: [u8; 4], version: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&kind);
    version.encode(&mut out);
    (payload.len() as u64).encode(&mut out);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), payload);
    crc.encode(&mut out);
    out.extend_from_slice(payload);
    out
}

/// Opens what [`seal`] wrote and returns the schema version and the payload. The checksum is judged
/// before the version: garbage in the version field is damage, not a newer release.
pub fn open(kind: [u8; 4], known: u16, bytes: &[u8]) -> Result<(u16, &[u8]), Corrupt> {
    let mut reader = Reader::new(bytes);
    if reader.take(4, "magic")? != MAGIC || reader.take(4, "kind")? != kind {
        return Err(Corrupt::Magic);
    }
    let version = u16::decode(&mut reader)?;
    let len = u64::decode(&mut reader)?;
    let crc = u32::decode(&mut reader)?;
    let payload = reader.take(usize::try_from(len).map_err(|_| Corrupt::Value("length"))?, "payload")?;
    reader.finish()?;
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..18]), payload) != crc {
        return Err(Corrupt::Checksum);
    }
    if version > known {
        return Err(Corrupt::Future { found: version, known });
    }
    Ok((version, payload))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use proptest::prelude::*;

    fn encoded(value: &impl Codec) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    thread_local! {
        static READ: Cell<u32> = const { Cell::new(0) };
    }

    /// A byte that counts how often one is read.
    #[derive(Debug)]
    struct Counted;

    impl Codec for Counted {
        fn encode(&self, out: &mut Vec<u8>) {
            0_u8.encode(out);
        }
        fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
            READ.with(|count| count.set(count.get() + 1));
            u8::decode(reader).map(|_| Self)
        }
    }

    proptest! {
        /// Guarantee: every bit of a float, infinities and NaN payloads included, survives.
        #[test]
        fn floats_survive_bit_for_bit(bits: u64) {
            let mut out = Vec::new();
            f64::from_bits(bits).encode(&mut out);
            prop_assert_eq!(f64::decode(&mut Reader::new(&out)).expect("reads back").to_bits(), bits);
        }

        /// Guarantee: arbitrary bytes make no decoder panic. A value that decodes is the one that its bytes encode, and
        /// holds no more memory than elements that they could hold; anything else is an error.
        #[test]
        fn hostile_bytes_are_an_error(
            lists: Vec<Vec<u64>>,
            text: String,
            harm in proptest::option::of((any::<prop::sample::Index>(), 1..=255_u8)),
            keep: prop::sample::Index,
            noise: Vec<u8>,
        ) {
            for mut bytes in [encoded(&lists), encoded(&text), noise] {
                bytes.truncate(keep.index(bytes.len() + 1));
                if let Some((at, flips)) = harm.filter(|_| !bytes.is_empty()) {
                    let at = at.index(bytes.len());
                    bytes[at] ^= flips;
                }
                let mut reader = Reader::new(&bytes);
                if let Ok(lists) = Vec::<Vec<u64>>::decode(&mut reader) {
                    prop_assert_eq!(encoded(&lists), &bytes[..bytes.len() - reader.left()]);
                    let held: usize = lists.iter().map(Vec::capacity).sum();
                    prop_assert!(lists.capacity() <= bytes.len() && held <= bytes.len());
                }
                let mut reader = Reader::new(&bytes);
                if let Ok(text) = String::decode(&mut reader) {
                    prop_assert_eq!(encoded(&text), &bytes[..bytes.len() - reader.left()]);
                    prop_assert!(text.capacity() <= bytes.len());
                }
                // Without the checksum of its contents nothing is an envelope.
                prop_assert!(open(*b"TEST", 1, &bytes).is_err());
            }
        }

        /// Guarantee: a length beyond what is left is an error before any element is read or any memory is taken for it.
        #[test]
        fn a_length_is_bounded_by_what_is_left(n: u32, element_bytes in 0..64_usize, left in 0..4_096_usize) {
            let bytes = [&n.to_le_bytes()[..], &vec![0; left]].concat();
            let fits = n as usize * element_bytes.max(1) <= left;
            let len = Reader::new(&bytes).len(element_bytes, "elements");
            match len {
                Ok(len) => prop_assert!(fits && len == n as usize),
                Err(Corrupt::Short { what, missing }) => {
                    prop_assert!(!fits && what == "elements");
                    prop_assert_eq!(missing, n as usize * element_bytes.max(1) - left);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
            let is_short = |what| move |error: Corrupt| matches!(error, Corrupt::Short { what: of, .. } if of == what);
            if n as usize > left {
                READ.set(0);
                prop_assert!(Vec::<Counted>::decode(&mut Reader::new(&bytes)).is_err_and(is_short("list")));
                prop_assert_eq!(READ.get(), 0, "elements were read");
                prop_assert!(String::decode(&mut Reader::new(&bytes)).is_err_and(is_short("text")));
            }
        }

        /// Guarantee: a flipped bit anywhere in a sealed payload is noticed.
        #[test]
        fn a_flipped_bit_is_noticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut sealed = seal(*b"TEST", 3, &payload);
            prop_assert_eq!(open(*b"TEST", 3, &sealed).expect("opens"), (3, payload.as_slice()));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(*b"TEST", 3, &sealed).is_err());
        }
    }

    #[test]
    fn a_newer_release_is_refused_by_name() {
        let sealed = seal(*b"TEST", 9, b"x");
        assert_eq!(open(*b"TEST", 3, &sealed), Err(Corrupt::Future { found: 9, known: 3 }));
    }
}
