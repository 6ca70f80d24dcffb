//! The points of one metric: their fields, which series each is, and its place in the record.

mod compound;

use relight_core::Timestamp;
use relight_core::record::{Kind, Point, Reason};

use super::WireError;
use super::memo::Hash;
use super::metrics::Walk;
use super::reader::{BYTES, Reader};
use super::schema::KEY_VALUE;
use crate::otlp::value::{Nanos, Unsigned};
use crate::otlp::{NO_VALUE, NON_FINITE, OVER_LIMIT, Refusal, ended, named, time};

/// Numbers of the fields that the kinds of points have in different places.
#[derive(Clone, Copy)]
struct Layout {
    attributes: u32,
    flags: u32,
}

const NUMBER: Layout = Layout { attributes: 7, flags: 8 };
const HISTOGRAM: Layout = Layout { attributes: 9, flags: 10 };
const EXPONENTIAL: Layout = Layout { attributes: 1, flags: 10 };
const SUMMARY: Layout = Layout { attributes: 7, flags: 8 };

/// What all kinds of points have.
#[derive(Clone, Copy, Default)]
struct Common {
    start: Nanos,
    at: Nanos,
    flags: u32,
    attributes: Option<Hash>,
    /// How long the attributes are, if they lie in one piece; else 0.
    run: usize,
}

/// One point of a gauge or a sum.
#[derive(Clone, Copy)]
pub(super) struct Number<'a> {
    whole: Reader<'a>,
    common: Common,
    value: Option<f64>,
}

/// Points whose series are looked up together where they come in no order that is known.
const BATCH: usize = 64;

/// A point's series by its number, and where its attributes are should they be needed.
#[derive(Clone, Copy)]
struct Series<'a> {
    alias: u32,
    point: Reader<'a>,
    attributes: u32,
}

/// One metric on its way into a record.
pub(super) struct Points<'w, 'd, 'a> {
    pub(super) walk: &'w mut Walk<'d, 'a>,
    pub(super) name: &'a str,
    /// Of resource, scope, name and kind of data.
    pub(super) hash: Hash,
    pub(super) kind: Result<Kind, Refusal>,
}

impl<'a> Points<'_, '_, 'a> {
    /// Takes the points of one part of the metric's data, which is in this field of the metric.
    pub(super) fn each(&mut self, data: Reader<'a>, kind: u32) -> Result<(), WireError> {
        self.kind = named(self.name).and(self.kind);
        let walked = self.walk_points(data, kind);
        // Those that wait are of this metric, whatever follows them.
        self.take_pending()?;
        match walked {
            Ok(()) => Ok(()),
            Err(error) => self.refuse_malformed(error, "the rest of the metric"),
        }
    }

    fn walk_points(&mut self, mut data: Reader<'a>, kind: u32) -> Result<(), WireError> {
        while let Some((field, wire)) = data.key()? {
            if field != 1 {
                data.skip(field, wire)?;
                continue;
            }
            let point = data.message(wire)?;
            self.walk.budget.points(1)?;
            let read = match kind {
                5 | 7 => self.number(point),
                9 => self.histogram(point),
                10 => self.exponential(point),
                _ => self.summary(point),
            };
            if let Err(error) = read {
                self.refuse_malformed(error, "point")?;
            }
        }
        Ok(())
    }

    /// Refuses what cannot be read, by name. Errors that concern the request go on.
    #[cold]
    fn refuse_malformed(&mut self, error: WireError, part: &str) -> Result<(), WireError> {
        let WireError::Malformed { what, .. } = error else { return Err(error) };
        self.walk.unread.get_or_insert(error);
        self.walk.refuse_points(Reason::Malformed, self.name, &format!("malformed {part}: {what}"));
        Ok(())
    }

    #[inline]
    fn number(&mut self, whole: Reader<'a>) -> Result<(), WireError> {
        let (mut point, mut common, mut value) = (whole, Common::default(), None);
        while let Some((field, wire)) = point.key()? {
            match field {
                4 => value = Some(point.double(wire)?),
                6 => value = Some(point.eight(wire)? as i64 as f64),
                _ => self.common(NUMBER, (field, wire), &mut point, &mut common)?,
            }
        }
        let number = Number { whole, common, value };
        if self.walk.decoder.memo.in_order() {
            let alias = self.alias(whole, NUMBER, &common)?;
            return self.take(number, alias);
        }
        self.walk.pending.push(number);
        if self.walk.pending.len() < BATCH { Ok(()) } else { self.take_pending() }
    }

    /// Looks up the points that wait. 1,000 points in no order took 670 ns each one by one, most of it
    /// waiting for memory.
    fn take_pending(&mut self) -> Result<(), WireError> {
        if self.walk.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.walk.pending);
        let mut found = [None; BATCH];
        for (found, number) in found.iter_mut().zip(&pending) {
            *found = self.walk.decoder.memo.look_up(self.identity(&number.common));
        }
        for (number, found) in pending.iter().zip(found) {
            let alias = match found {
                Some(alias) => {
                    self.walk.decoder.memo.met(alias);
                    Ok(alias)
                }
                // It may have been met for the first time earlier in this batch.
                None => self.alias(number.whole, NUMBER, &number.common),
            };
            if let Err(error) = alias.and_then(|alias| self.take(*number, alias)) {
                self.refuse_malformed(error, "point")?;
            }
        }
        pending.clear();
        self.walk.pending = pending;
        Ok(())
    }

    #[inline]
    fn take(&mut self, Number { whole, common, value }: Number<'a>, alias: u32) -> Result<(), WireError> {
        let series = Series { alias, point: whole, attributes: NUMBER.attributes };
        let (kind, at) = match self.admit(&common) {
            Ok(admitted) => admitted,
            Err(end) => return self.end(series, "", end),
        };
        match value {
            Some(value) => self.scalar(series, ("", None), (at, common.start.start()), kind, value)?,
            None => self.refuse(NO_VALUE),
        }
        Ok(())
    }

    #[inline]
    fn common(
        &mut self,
        layout: Layout,
        (field, wire): (u32, u8),
        point: &mut Reader<'a>,
        common: &mut Common,
    ) -> Result<(), WireError> {
        match field {
            2 => common.start = Nanos(Unsigned(point.eight(wire)?)),
            3 => common.at = Nanos(Unsigned(point.eight(wire)?)),
            _ if field == layout.attributes => self.attributes(layout, wire, point, common)?,
            _ if field == layout.flags => common.flags = point.integer(wire)? as u32,
            _ => point.skip(field, wire)?,
        }
        Ok(())
    }

    /// Hashes attributes that follow each other, without looking into them; nor at them one by one, where they
    /// are those that are expected: what was walked once ends where it ended then.
    #[inline]
    fn attributes(
        &mut self,
        layout: Layout,
        wire: u8,
        point: &mut Reader<'a>,
        common: &mut Common,
    ) -> Result<(), WireError> {
        let begin = point.at;
        let memo = &self.walk.decoder.memo;
        if common.attributes.is_none()
            && memo.in_order()
            && let Some((expected, len)) = memo.expected()
            && let Some(bytes) = point.bytes.get(begin..begin + len)
        {
            let run = memo.hash(bytes);
            if add(self.hash, run) == expected {
                (point.at, common.attributes, common.run) = (begin + len, Some(run), len);
                return Ok(());
            }
        }
        point.slice(wire)?;
        let key = (layout.attributes as u8) << 3 | BYTES;
        while point.bytes.get(point.at) == Some(&key) {
            point.at += 1;
            let len = point.varint()?;
            point.pass(len)?;
        }
        let run = memo.hash(&point.bytes[begin..point.at]);
        (common.attributes, common.run) = match common.attributes {
            None => (Some(run), point.at - begin),
            Some(before) => (Some(memo.join(before, run)), 0),
        };
        Ok(())
    }

    fn identity(&self, common: &Common) -> Hash {
        add(self.hash, common.attributes.unwrap_or_default())
    }

    #[inline]
    fn alias(&mut self, point: Reader<'a>, layout: Layout, common: &Common) -> Result<u32, WireError> {
        let hash = self.identity(common);
        match self.walk.decoder.memo.find(hash) {
            Some(alias) => Ok(alias),
            None => self.first_met(hash, point, layout.attributes, common.run),
        }
    }

    #[inline]
    fn series(
        &mut self,
        point: Reader<'a>,
        layout: Layout,
        common: &Common,
    ) -> Result<Series<'a>, WireError> {
        let alias = self.alias(point, layout, common)?;
        Ok(Series { alias, point, attributes: layout.attributes })
    }

    #[cold]
    fn first_met(
        &mut self,
        hash: Hash,
        mut point: Reader<'a>,
        attributes: u32,
        run: usize,
    ) -> Result<u32, WireError> {
        while let Some((field, wire)) = point.key()? {
            if field == attributes {
                point.message(wire)?.check(&KEY_VALUE)?;
            } else {
                point.skip(field, wire)?;
            }
        }
        Ok(self.walk.decoder.memo.insert(hash, run))
    }

    #[cold]
    fn refuse(&mut self, (reason, why): Refusal) {
        match why {
            "" => self.walk.record.refuse(reason),
            why => self.walk.refuse_points(reason, self.name, why),
        }
    }

    /// Kind and time of a point that has a value; else when its series ended, if it says so.
    #[inline]
    fn admit(&mut self, common: &Common) -> Result<(Kind, Timestamp), Option<Timestamp>> {
        let admitted = self.kind.and_then(|kind| Ok((kind, time(common.flags, common.at)?)));
        admitted.map_err(|refusal| {
            self.refuse(refusal);
            ended(refusal, common.at)
        })
    }

    /// A marker that a series has ended, if there is one.
    #[cold]
    fn end(&mut self, series: Series<'a>, suffix: &str, at: Option<Timestamp>) -> Result<(), WireError> {
        let Some(at) = at else { return Ok(()) };
        let alias = series.alias;
        let is_known = self.walk.decoder.aliases.knows(alias);
        let key = if is_known { Some((0, 0)) } else { self.named_key(series, (suffix, None))? };
        if let Some(key) = key {
            self.walk.record.push_end(key, alias, at);
        }
        Ok(())
    }

    #[inline]
    fn scalar(
        &mut self,
        series: Series<'a>,
        label: (&str, Option<f64>),
        time: (Timestamp, Timestamp),
        kind: Kind,
        value: f64,
    ) -> Result<(), WireError> {
        if value.is_finite() && !label.1.is_some_and(f64::is_nan) {
            return self.place(series, label, time, kind, value).map(drop);
        }
        // A summary without observations has no quantiles: no fault of the sender.
        self.refuse(if label.1.is_some() { (Reason::NonFinite, "") } else { NON_FINITE });
        Ok(())
    }

    /// Puts a point into the record, with its key if Intake does not know the series; `false` if its labels
    /// are over a limit.
    #[inline]
    fn place(
        &mut self,
        series: Series<'a>,
        label: (&str, Option<f64>),
        (at, start): (Timestamp, Timestamp),
        kind: Kind,
        value: f64,
    ) -> Result<bool, WireError> {
        let alias = series.alias;
        let key =
            if self.walk.decoder.aliases.knows(alias) { Some((0, 0)) } else { self.key(series, label)? };
        if let Some((key_start, key_len)) = key {
            self.walk.record.points.push(Point { key_start, key_len, alias, at, start, kind, value });
        }
        Ok(key.is_some())
    }

    #[cold]
    fn key(
        &mut self,
        series: Series<'a>,
        label: (&str, Option<f64>),
    ) -> Result<Option<(u32, u32)>, WireError> {
        let key = self.named_key(series, label)?;
        if key.is_none() {
            self.refuse(OVER_LIMIT);
        }
        Ok(key)
    }

    /// Puts a series' key into the record; `None` if its labels are over a limit.
    fn named_key(
        &mut self,
        series: Series<'a>,
        (suffix, quantile): (&str, Option<f64>),
    ) -> Result<Option<(u32, u32)>, WireError> {
        let Walk { decoder, record, budget, names, .. } = &mut *self.walk;
        let (name, attributes) = ((self.name, suffix), (series.point, series.attributes));
        let quantile = quantile.map(|quantile| quantile.to_string());
        let is_named = budget.has_names()
            && names.encode(name, attributes, quantile.as_deref(), &mut decoder.key)?
            && budget.name(decoder.key.len());
        Ok(is_named.then(|| record.push_key(&decoder.key)))
    }
}

#[inline]
const fn add(a: Hash, b: Hash) -> Hash {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])]
}
