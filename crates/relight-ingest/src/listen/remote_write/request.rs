//! The two messages of remote write: what their series come to, one by one.
//!
//! A message that breaks off is refused as a whole, since nothing says where its next series begins. What is wrong
//! within one series is refused with that series alone.

use relight_core::Timestamp;
use relight_core::aliases::Aliases;
use relight_core::record::{Kind, Reason, Record};
use relight_core::refusal::Origin;

use super::families::{Families, Settled};
use super::held::Sample;
use super::kinds::Family;
use super::{NS_PER_MS, Version, is_stale, native};
use crate::key::{Level, encode_levels};
use crate::listen::front::Fault;
use crate::listen::proto::{Fields, Value, each};
use crate::listen::signal::MAX_ENTRIES;
use crate::listen::stats::SourceStats;

/// Native histograms of one request: 25 MiB of buckets. Prometheus sends 2,000 at a time.
const MAX_HISTOGRAMS: usize = 6_250;
/// Labels that name a service, the first that a series has.
const SERVICES: [&str; 4] = ["service.name", "service_name", "service", "job"];

/// What a request came to.
pub(super) struct Decoded {
    pub(super) record: Record,
    pub(super) settled: Settled,
    pub(super) written: Written,
}

/// How much was taken of a request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) samples: u64,
    pub(super) histograms: u64,
}

/// Reads a message.
pub(super) fn decode(
    message: &[u8],
    version: Version,
    (families, stats): (&Families, &SourceStats),
    now: Timestamp,
) -> Result<Decoded, Fault> {
    families.begin();
    let mut reader = RequestReader::new(families, now);
    let (read, name) = match version {
        Version::One => (reader.version_one(message), "WriteRequest"),
        Version::Two => (reader.version_two(message), "io.prometheus.write.v2.Request"),
    };
    read.map_err(|why| Fault::malformed(format!("not a {name}: {why}")))?;
    let RequestReader { record, unknown, written, .. } = reader;
    let settled = families.settle(unknown, now, stats);
    Ok(Decoded { record, settled, written })
}

/// One series, before its samples are read.
#[derive(Default)]
struct Series<'a> {
    name: &'a str,
    has_quantile: bool,
    /// Labels that came, the name aside: more than are kept if one came twice.
    labels: usize,
    /// The value of the most telling label of [`SERVICES`], and which that is.
    service: Option<(usize, &'a str)>,
    start: Timestamp,
    said: Option<Family>,
}

impl<'a> Series<'a> {
    const fn new() -> Self {
        let (name, has_quantile, labels, service) = ("", false, 0, None);
        Self { name, has_quantile, labels, service, start: Timestamp::MIN, said: None }
    }

    fn label(&mut self, key: &'a str, value: &'a str, to: &mut Level<'a>) {
        if key == "__name__" {
            self.name = value;
            return;
        }
        self.has_quantile |= key == "quantile";
        if let Some(rank) = SERVICES.iter().position(|service| *service == key)
            && self.service.is_none_or(|(best, _)| rank < best)
        {
            self.service = Some((rank, value));
        }
        self.labels += 1;
        to.put(key, value.into());
    }

    fn service(&self) -> &'a str {
        self.service.map_or("", |(_, service)| service)
    }

    /// The kind that version 2 says.
    fn said(&self) -> Option<Kind> {
        let is_part = ["_bucket", "_count", "_sum"].iter().any(|suffix| self.name.ends_with(suffix));
        let counts = match self.said? {
            Family::Counter => !self.name.ends_with("_created"),
            Family::Parts => is_part,
            Family::GaugeHistogram | Family::Gauge => false,
        };
        Some(if counts { Kind::Cumulative } else { Kind::Gauge })
    }
}

/// Reads the series of one request.
struct RequestReader<'f> {
    families: &'f Families,
    now: Timestamp,
    record: Record,
    /// Samples whose kind is not known.
    unknown: Vec<Sample>,
    written: Written,
    key: Vec<u8>,
}

impl<'f> RequestReader<'f> {
    fn new(families: &'f Families, now: Timestamp) -> Self {
        let (record, unknown, written) = (Record::default(), Vec::new(), Written::default());
        Self { families, now, record, unknown, written, key: Vec::new() }
    }

    fn version_one(&mut self, message: &[u8]) -> Result<(), &'static str> {
        // Metadata first, wherever it lies: it says what the series beside it are.
        each(message, 3, &mut |metadata| {
            // A description that cannot be read says nothing, and harms no series.
            if let Ok((name, code)) = metadata_of(metadata) {
                self.families.learn(name, Family::of(code), self.now);
            }
            Ok::<(), &'static str>(())
        })?;
        let mut labels = Level::default();
        each(message, 1, &mut |series| {
            labels.clear();
            let mut head = Series::new();
            let read = each(series, 1, &mut |pair| {
                let (key, value) = label(pair)?;
                head.label(key, value, &mut labels);
                Ok::<(), &'static str>(())
            });
            self.series((head, &labels), read, series, 4)
        })
    }

    fn version_two(&mut self, message: &[u8]) -> Result<(), &'static str> {
        let mut symbols = Vec::new();
        each(message, 4, &mut |symbol| {
            symbols.push(std::str::from_utf8(symbol));
            Ok::<(), &'static str>(())
        })?;
        let symbol = |ix: u64| {
            let found = usize::try_from(ix).ok().and_then(|ix| symbols.get(ix));
            found.ok_or("a reference to a symbol that is not there")?.map_err(|_| "a text that is not UTF-8")
        };
        let mut labels = Level::default();
        each(message, 5, &mut |series| {
            labels.clear();
            let mut head = Series::new();
            let read = head_of(series, &symbol, &mut head, &mut labels);
            self.series((head, &labels), read, series, 3)
        })
    }

    /// Takes the samples and histograms of a series, or refuses it. `read`: whether what it is could be read.
    fn series(
        &mut self,
        (head, labels): (Series<'_>, &Level<'_>),
        read: Result<(), &'static str>,
        series: &[u8],
        histograms: u32,
    ) -> Result<(), &'static str> {
        let (mut scalars, mut natives) = (0, 0);
        for field in Fields::new(series) {
            match field {
                Ok((2, _)) => scalars += 1,
                Ok((number, _)) if number == histograms => natives += 1,
                Ok(_) => {}
                Err(why) => {
                    self.refuse(&head, (Reason::Malformed, why), 1);
                    return Ok(());
                }
            }
        }
        if self.record.points.len() + self.unknown.len() + scalars > MAX_ENTRIES {
            return Err("too many samples in one request");
        }
        if let Err((reason, why)) =
            read.map_err(|why| (Reason::Malformed, why.to_owned())).and_then(|()| self.encode(&head, labels))
        {
            self.refuse(&head, (reason, &why), (scalars + natives).max(1) as u32);
            return Ok(());
        }
        self.scalars(&head, series);
        self.natives(&head, series, histograms);
        Ok(())
    }

    /// Puts the canonical key of a series into `self.key`.
    fn encode(&mut self, head: &Series<'_>, labels: &Level<'_>) -> Result<(), (Reason, String)> {
        if head.name.is_empty() {
            return Err((Reason::Malformed, "a series without `__name__`".to_owned()));
        }
        encode_levels((head.name, ""), &[labels], None, &mut self.key)
            .map_err(|why| (Reason::LabelLimit, why))?;
        if labels.len() != head.labels {
            return Err((Reason::Malformed, "a label that comes twice".to_owned()));
        }
        Ok(())
    }

    fn scalars(&mut self, head: &Series<'_>, series: &[u8]) {
        let kind = self.kind(head);
        let (mut placed, mut shared) = (None, None);
        for field in Fields::new(series) {
            let Ok((2, sample)) = field else { continue };
            let bytes = sample.bytes();
            let read = bytes.map_err(|why| (Reason::Malformed, why)).and_then(sample_of);
            match (read, kind) {
                (Err(refused), _) => {
                    self.refuse(head, refused, 1);
                    self.end(refused, bytes.unwrap_or_default(), 2);
                }
                (Ok(ScalarSample { at, start, value }), Some(kind)) => {
                    // The key lies in the record once, however many samples the series has.
                    let key = *placed.get_or_insert_with(|| self.record.push_key(&self.key));
                    let start = if start.is_known() { start } else { head.start };
                    self.record.push_point_of(key, at, start, kind, value);
                    self.written.samples += 1;
                }
                (Ok(ScalarSample { at, value, .. }), None) => {
                    let key = shared.get_or_insert_with(|| self.key.as_slice().into());
                    self.unknown.push(Sample { key: std::sync::Arc::clone(key), at, value });
                    self.written.samples += 1;
                }
            }
        }
    }

    fn kind(&self, head: &Series<'_>) -> Option<Kind> {
        let known = self.families.kind(head.name, head.has_quantile);
        match head.said() {
            said @ Some(kind) if said != known => {
                let family = if kind == Kind::Cumulative { Family::Counter } else { Family::Gauge };
                self.families.learn(head.name, Some(family), self.now);
                said
            }
            said => said.or(known),
        }
    }

    fn natives(&mut self, head: &Series<'_>, series: &[u8], number: u32) {
        for field in Fields::new(series) {
            let Ok((found, Value::Bytes(histogram))) = field else { continue };
            if found != number {
                continue;
            }
            if self.record.histograms.len() >= MAX_HISTOGRAMS {
                let why = "more than 6,250 native histograms in one request: lower `max_samples_per_send`";
                self.refuse(head, (Reason::MemoryLimit, why), 1);
                continue;
            }
            match native::read(histogram) {
                Ok((at, buckets)) => {
                    let kind = Kind::CumulativeHistogram;
                    self.record.push_histogram(&self.key, at, head.start, kind, buckets);
                    self.written.histograms += 1;
                }
                Err(refused) => {
                    self.refuse(head, refused, 1);
                    self.end(refused, histogram, 15);
                }
            }
        }
    }

    /// Notes the end of a series, if that is what was refused; `field` holds its time in ms.
    fn end(&mut self, (reason, _): (Reason, &str), sample: &[u8], field: u32) {
        if reason != Reason::NoRecordedValue {
            return;
        }
        let times = Fields::new(sample).filter_map(Result::ok).filter(|(number, _)| *number == field);
        let ms = times.filter_map(|(_, value)| value.varint().ok()).last().unwrap_or(0);
        if let Some(ns) = ms.cast_signed().checked_mul(NS_PER_MS) {
            let key = self.record.push_key(&self.key);
            self.record.push_end(key, Aliases::NONE, Timestamp::from_ns(ns));
        }
    }

    fn refuse(&mut self, head: &Series<'_>, (reason, why): (Reason, &str), n: u32) {
        let origin = Origin { metric: head.name, service: head.service() };
        if matches!(reason, Reason::NoRecordedValue | Reason::NonFinite) {
            // Prometheus means them well: the end of a series, the quantile of a summary without observations.
            self.record.refuse(reason);
        } else {
            self.record.refuse_named(reason, origin, why, n);
        }
    }
}

/// A family's name and the number of its type.
fn metadata_of(metadata: &[u8]) -> Result<(&str, u64), &'static str> {
    let (mut code, mut name) = (0, "");
    for field in Fields::new(metadata) {
        match field? {
            (1, value) => code = value.varint()?,
            (2, value) => name = value.text()?,
            _ => {}
        }
    }
    Ok((name, code))
}

fn label(pair: &[u8]) -> Result<(&str, &str), &'static str> {
    let (mut key, mut value) = ("", "");
    for field in Fields::new(pair) {
        match field? {
            (1, text) => key = text.text()?,
            (2, text) => value = text.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Labels, type and start of a series of version 2.
fn head_of<'a>(
    series: &[u8],
    symbol: &dyn Fn(u64) -> Result<&'a str, &'static str>,
    head: &mut Series<'a>,
    labels: &mut Level<'a>,
) -> Result<(), &'static str> {
    let mut refs = Vec::new();
    for field in Fields::new(series) {
        match field? {
            (1, Value::Varint(one)) => refs.push(one),
            (1, packed) => {
                let mut left = Fields::new(packed.bytes()?);
                while let Some(one) = left.packed() {
                    refs.push(one?);
                }
            }
            (5, metadata) => head.said = each_type(metadata.bytes()?)?,
            (6, ms) => head.start = start(ms.varint()?),
            _ => {}
        }
    }
    let (pairs, rest) = refs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a label without a value");
    }
    for [key, value] in pairs {
        head.label(symbol(*key)?, symbol(*value)?, labels);
    }
    Ok(())
}

fn each_type(metadata: &[u8]) -> Result<Option<Family>, &'static str> {
    let mut code = 0;
    for field in Fields::new(metadata) {
        if let (1, value) = field? {
            code = value.varint()?;
        }
    }
    Ok(Family::of(code))
}

/// When a sum started, in ms; 0 where that is not known.
fn start(ms: u64) -> Timestamp {
    let ns = ms.cast_signed().checked_mul(NS_PER_MS).filter(|ns| *ns > 0);
    ns.map_or(Timestamp::MIN, Timestamp::from_ns)
}

struct ScalarSample {
    at: Timestamp,
    start: Timestamp,
    value: f64,
}

/// A sample, or why it is none.
fn sample_of(sample: &[u8]) -> Result<ScalarSample, (Reason, &'static str)> {
    let (mut bits, mut ms, mut began) = (0, 0, Timestamp::MIN);
    let mut read = || {
        for field in Fields::new(sample) {
            match field? {
                (1, value) => bits = value.fixed64()?,
                (2, value) => ms = value.varint()?.cast_signed(),
                // Of version 2: when the sum started.
                (3, value) => began = start(value.varint()?),
                _ => {}
            }
        }
        Ok(())
    };
    read().map_err(|why: &'static str| (Reason::Malformed, why))?;
    let value = f64::from_bits(bits);
    match ms.checked_mul(NS_PER_MS) {
        _ if is_stale(bits) => Err((Reason::NoRecordedValue, "")),
        _ if !value.is_finite() => Err((Reason::NonFinite, "")),
        None => Err((Reason::Future, "a time beyond the year 2262")),
        Some(ns) => Ok(ScalarSample { at: Timestamp::from_ns(ns), start: began, value }),
    }
}
