//! The form of a series' lines: everything but the time, the time received and the value.
//!
//! Sound because JSON is context-free: a line that is a known good line with one time put for another
//! and one number put for another parses to the same thing with that time and that number.

use relight_core::Timestamp;
use relight_core::record::Kind;
use serde_json::value::RawValue;

use crate::scan::{json_number, json_time};

/// What differs from line to line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hole {
    T,
    Received,
    Value,
}

/// A line without what fills its holes, and what the rest of it says.
#[derive(Debug, Clone)]
pub(super) struct Form {
    text: Box<[u8]>,
    /// Where in `text` each hole is, in order.
    holes: Vec<(usize, Hole)>,
    pub(super) start: Timestamp,
    pub(super) kind: Kind,
    pub(super) partition: u32,
}

/// What fills the holes of one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Filled {
    pub(super) t: Timestamp,
    pub(super) received: Option<Timestamp>,
    pub(super) value: f64,
}

impl Form {
    /// Takes the form of a line that was read the long way. `holes` are slices of it; nothing is
    /// learned of a line whose time or value is not written in a shape that [`Form::fill`] reads.
    pub(super) fn learn(
        line: &[u8],
        holes: [(Hole, Option<&RawValue>); 3],
        (start, kind, partition): (Timestamp, Kind, u32),
    ) -> Option<Self> {
        let mut places: Vec<(usize, usize, Hole)> = holes
            .into_iter()
            .filter_map(|(hole, raw)| {
                let raw = raw?.get();
                let from = (raw.as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
                Some((from, from + raw.len(), hole))
            })
            .collect();
        places.sort_unstable_by_key(|(from, ..)| *from);
        let mut form = Self { text: Box::default(), holes: Vec::with_capacity(3), start, kind, partition };
        let (mut text, mut done) = (Vec::with_capacity(line.len()), 0);
        for (from, to, hole) in places {
            text.extend_from_slice(line.get(done..from)?);
            form.holes.push((text.len(), hole));
            done = to;
        }
        text.extend_from_slice(line.get(done..)?);
        form.text = text.into();
        form.fill(line).is_some().then_some(form)
    }

    /// Reads a line of this form; `None` if it is not of this form.
    pub(super) fn fill(&self, line: &[u8]) -> Option<Filled> {
        let mut filled = Filled { t: Timestamp::MIN, received: None, value: f64::NAN };
        let (mut rest, mut done) = (line, 0);
        for (at, hole) in &self.holes {
            rest = rest.strip_prefix(&self.text[done..*at])?;
            done = *at;
            rest = match hole {
                Hole::T => take(&mut filled.t, json_time(rest)?),
                Hole::Received => take(filled.received.insert(Timestamp::MIN), json_time(rest)?),
                Hole::Value => take(&mut filled.value, json_number(rest)?),
            };
        }
        (*rest == self.text[done..]).then_some(filled)
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.holes.capacity() * size_of::<(usize, Hole)>()
    }
}

fn take<'a, T>(place: &mut T, (value, rest): (T, &'a [u8])) -> &'a [u8] {
    *place = value;
    rest
}
