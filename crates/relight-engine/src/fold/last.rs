//! What is kept of every series: its last point, and the pace of a running total.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::record::Kind;
use relight_core::{Span, Timestamp};

/// An increase this many times as fast as the pace is not explained by the pace.
const FASTER: f32 = 16.0;

/// Increase per nanosecond in the upper half of an `f32`: two bytes a series, 1 % precise. Zero is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pace(u16);

impl Pace {
    pub(super) const UNKNOWN: Self = Self(0);

    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    pub(super) const fn is_known(self) -> bool {
        self.0 > 0
    }

    /// Follows a rise at once and a fall by an eighth a point, so that a pause does not make the pace unknown.
    #[inline]
    pub(super) fn follow(self, rate: f32) -> Self {
        let rate = rate.max(self.get() * 0.875).min(f32::MAX);
        Self((rate.to_bits() >> 16) as u16)
    }

    /// Whether an increase over a time is explained by the pace.
    pub(super) fn explains(self, rate: f32) -> bool {
        rate <= FASTER * self.get()
    }

    /// How many times a rate is as fast, or as slow.
    pub(super) fn distance(self, rate: f32) -> f32 {
        let pace = self.get();
        (rate / pace).max(pace / rate)
    }
}

/// Increase per nanosecond.
#[inline]
pub(super) fn rate(increase: f64, time: Span) -> f32 {
    increase as f32 / time.ns().max(1) as f32
}

/// The last point of a series: the next one is a difference to it. Packed, since there is one a series and alignment
/// would cost five bytes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, packed)]
pub(super) struct Last {
    /// The code of its kind, and [`Last::WATCHED`].
    form: u8,
    pub(super) pace: Pace,
    /// [`Timestamp::MIN`] before the first point.
    pub(super) at: Timestamp,
    /// The running total; of a histogram its count; of deltas the bits of [`Last::start`].
    pub(super) total: f64,
}

impl Last {
    pub(super) const NEVER: Self = Self::new(Kind::Gauge, Timestamp::MIN, 0.0);
    /// The series has a [`Watch`]. In the same byte as the kind, so that a steady point asks for both at once.
    const WATCHED: u8 = 0x80;

    pub(super) const fn new(kind: Kind, at: Timestamp, total: f64) -> Self {
        Self { form: kind as u8, pace: Pace::UNKNOWN, at, total }
    }

    pub(super) const fn kind(self) -> Kind {
        Kind::ALL[(self.form & !Self::WATCHED) as usize]
    }

    pub(super) const fn is_watched(self) -> bool {
        self.form & Self::WATCHED != 0
    }

    pub(super) const fn watch(&mut self, is_watched: bool) {
        self.form = self.form & !Self::WATCHED | if is_watched { Self::WATCHED } else { 0 };
    }

    /// Whether the last point was of this kind and the series has no [`Watch`].
    #[inline]
    pub(super) const fn is_calm(self, kind: Kind) -> bool {
        self.form == kind as u8
    }

    /// Of a delta, the start that was sent with it: there is no total, and a field of its own would be 8 bytes a series.
    pub(super) const fn start(self) -> Timestamp {
        Timestamp::from_ns(self.total.to_bits().cast_signed())
    }
}

impl Codec for Last {
    fn encode(&self, out: &mut Vec<u8>) {
        { self.form }.encode(out);
        { self.pace }.0.encode(out);
        { self.at }.encode(out);
        { self.total }.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let form = u8::decode(reader)?;
        let pace = Pace(u16::decode(reader)?);
        if (form & !Self::WATCHED) as usize >= Kind::ALL.len()
            || pace.get().is_sign_negative()
            || !pace.get().is_finite()
        {
            return Err(Corrupt::Value("last point"));
        }
        Ok(Self { form, pace, at: Codec::decode(reader)?, total: Codec::decode(reader)? })
    }
}
