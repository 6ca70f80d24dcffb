//! Writes records in relight's own format: a line for each point, event and control record.
//!
//! The lines of one record stand in the order of their times, each with the record's partition and time of arrival.
//! Of a record it is told before it whether a point is late; of lines, each before the next. In this order none of
//! them makes a later one late, so both readings come to the same. What the decoder refused is not written.

use std::io::Write as _;

use relight_core::record::{ControlRecord, Event, Kind, Point, Record};
use relight_core::{KeyView, Timestamp};

/// The word for a kind; a gauge needs none.
const fn word(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Gauge => None,
        Kind::Cumulative => Some("cumulative"),
        Kind::Delta => Some("delta"),
        Kind::CumulativeHistogram => Some("histogram"),
        Kind::DeltaHistogram => Some("delta_histogram"),
    }
}

/// What a line is about.
enum Item<'a> {
    Point(&'a Point),
    End(&'a Point),
    Event(&'a Event),
    Control(&'a ControlRecord),
}

const fn time_of(control: &ControlRecord) -> Timestamp {
    match control {
        ControlRecord::Advance { to: at }
        | ControlRecord::Outcome { at, .. }
        | ControlRecord::Command { at, .. } => *at,
    }
}

/// Appends the lines of a record.
pub(crate) fn record(partition: &str, record: &Record, out: &mut Vec<u8>) {
    let points = record.points.iter().map(|point| (point.at, Item::Point(point)));
    let events = record.events.iter().map(|event| (event.at, Item::Event(event)));
    let controls = record.controls.iter().map(|control| (time_of(control), Item::Control(control)));
    let ends = record.ends.iter().map(|end| (end.at, Item::End(end)));
    let mut items: Vec<(Timestamp, Item<'_>)> = points.chain(ends).chain(events).chain(controls).collect();
    // Stable: of points of one series and time the first counts.
    items.sort_by_key(|(at, _)| *at);
    for (at, item) in items {
        match item {
            Item::Control(ControlRecord::Advance { to }) => advanced(*to, out),
            // As RFC 3339, which has room for every i64 of nanoseconds.
            _ => push(out, format_args!("{{\"t\":\"{at}\"")),
        }
        match item {
            Item::Point(one) => point(one, record, out),
            Item::End(one) => {
                let key = KeyView::new(record.key(one));
                field("metric", key.name(), out);
                labels(key.labels(), out);
                field("kind", "end", out);
            }
            Item::Event(one) => event(one, out),
            Item::Control(one) => control(one, out),
        }
        end(partition, record.received, out);
    }
}

/// Appends an advance.
pub(crate) fn advance(partition: &str, to: Timestamp, received: Timestamp, out: &mut Vec<u8>) {
    advanced(to, out);
    end(partition, Some(received), out);
}

fn advanced(to: Timestamp, out: &mut Vec<u8>) {
    push(out, format_args!("{{\"advance\":{{\"to\":\"{to}\"}}"));
}

fn control(control: &ControlRecord, out: &mut Vec<u8>) {
    match control {
        ControlRecord::Advance { .. } => {}
        ControlRecord::Outcome { action, ok, detail, .. } => {
            json(",\"outcome\":{\"action\":", action, out);
            push(out, format_args!(",\"ok\":{ok}"));
            field("detail", detail, out);
            out.push(b'}');
        }
        ControlRecord::Command { verb, target, .. } => {
            json(",\"command\":{\"verb\":", verb, out);
            field("target", target, out);
            out.push(b'}');
        }
    }
}

fn point(point: &Point, record: &Record, out: &mut Vec<u8>) {
    let key = KeyView::new(record.key(point));
    field("metric", key.name(), out);
    labels(key.labels(), out);
    if let Some(kind) = word(point.kind) {
        field("kind", kind, out);
    }
    if point.start != Timestamp::MIN {
        push(out, format_args!(",\"start\":\"{}\"", point.start));
    }
    match record.histograms.get(point.value as usize).filter(|_| point.kind.is_histogram()) {
        Some(histogram) => {
            json(",\"bounds\":", &histogram.bounds, out);
            json(",\"counts\":", &histogram.counts, out);
        }
        None if point.value.is_finite() => json(",\"value\":", &point.value, out),
        None => field("value", "NaN", out),
    }
}

fn event(event: &Event, out: &mut Vec<u8>) {
    field("event", &event.kind, out);
    labels(event.labels.iter(), out);
    field("body", &event.body, out);
}

fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"labels\":{");
    for (i, (key, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json("", key, out);
        json(":", value, out);
    }
    out.push(b'}');
}

fn end(partition: &str, received: Option<Timestamp>, out: &mut Vec<u8>) {
    if let Some(received) = received {
        push(out, format_args!(",\"received\":\"{received}\""));
    }
    field("partition", partition, out);
    out.extend_from_slice(b"}\n");
}

fn field(key: &str, text: &str, out: &mut Vec<u8>) {
    push(out, format_args!(",\"{key}\":"));
    json("", text, out);
}

fn json<T: serde::Serialize + ?Sized>(before: &str, value: &T, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    serde_json::to_writer(out, value).expect("texts and numbers are JSON, and a Vec takes any bytes");
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes any bytes");
}
