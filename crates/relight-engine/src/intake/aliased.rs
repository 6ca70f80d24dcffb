//! Tests: points whose source has a number of its own for their series.

use std::collections::BTreeMap;

use relight_core::aliases::Aliases;
use relight_core::record::{Kind, Point, Reason, Record};
use relight_core::rule::Settings;
use relight_core::signal::Binning;
use relight_core::{Span, Timestamp};

use super::{Intake, MAX_AHEAD, Routed};
use crate::directory::IdleSeries;

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn intake(max_series: usize) -> (Intake, u32) {
    let mut intake = Intake::new(&Settings {
        binning: Binning::Interval(Span::from_secs(10)),
        allowed_lateness: Span::ZERO,
        max_skew: Span::from_secs(120),
        max_series,
        series_ttl: Span::ZERO,
        sources: Vec::new(),
        detectors: Vec::new(),
        signals: Vec::new(),
        rules: Vec::new(),
        trouble: None,
        fleet_limit: None,
        fingerprint: Vec::new(),
    });
    let partition = intake.partition("otlp");
    (intake, partition)
}

/// A record of points with these aliases, as a decoder writes it: with keys only where they are needed.
fn record(offset: u64, at: Timestamp, series: &[u32], aliases: &Aliases) -> Record {
    // A time that jumps ahead of this is held where nothing says when it was received.
    let received = (at == START).then_some(at);
    let mut record = Record { offset, received, ..Record::default() };
    for alias in series {
        let known = aliases.knows(*alias);
        let (key_start, key_len) =
            record.push_key(if known { "" } else { NAMES[*alias as usize] }.as_bytes());
        let (start, kind, value) = (Timestamp::MIN, Kind::Gauge, f64::from(*alias));
        record.points.push(Point { key_start, key_len, alias: *alias, at, start, kind, value });
    }
    record
}

const NAMES: [&str; 4] = ["zero", "one", "two", "three"];

/// The names of the series that points went to, beside their values.
fn taken(intake: &Intake, routed: &mut Routed) -> Vec<(String, f64)> {
    let name = |at| String::from_utf8_lossy(intake.directory().series_key(at)).into_owned();
    routed.points.drain(..).map(|point| (name(point.series), point.value)).collect()
}

fn named(series: &[u32]) -> Vec<(String, f64)> {
    series.iter().map(|alias| (NAMES[*alias as usize].to_owned(), f64::from(*alias))).collect()
}

/// Scenario: a source tells four series by key, in an order that is not that of its numbers, and then by
/// number; only three have room.
/// Guarantee: the numbers stand for the same series; the refused one stays unknown, so that each of its
/// points brings its key and is counted.
#[test]
fn numbers_stand_for_the_series_they_were_told_for() {
    let (mut intake, partition) = intake(3);
    let (mut aliases, mut routed) = (Aliases::default(), Routed::default());
    for offset in 0..3_u64 {
        let record = record(offset, START, &[2, 0, 3, 1, 2], &aliases);
        assert!(!record.keys.is_empty(), "the refused series' key comes every time");
        intake.handle(partition, &record, &mut aliases, &mut routed);
        assert_eq!(taken(&intake, &mut routed), named(&[2, 0, 3, 2]));
        assert_eq!(intake.counters().refused(Reason::SeriesLimit), offset + 1);
    }
    assert!(aliases.knows(3) && !aliases.knows(1));
}

/// Scenario: a record whose time jumps ahead is held; its source forgets its numbers before the next record
/// confirms it.
/// Guarantee: the held points still reach their series.
#[test]
fn a_held_record_carries_its_keys() {
    let (mut intake, partition) = intake(10);
    let (mut aliases, mut routed) = (Aliases::default(), Routed::default());
    intake.handle(partition, &record(0, START, &[0, 1, 2], &aliases), &mut aliases, &mut routed);
    taken(&intake, &mut routed);
    let ahead = START.plus(MAX_AHEAD).plus(Span::from_secs(60));
    let held = record(1, ahead, &[1, 3, 0], &aliases);
    assert_eq!(held.keys, b"three");
    intake.handle(partition, &held, &mut aliases, &mut routed);
    assert!(routed.points.is_empty());
    aliases.clear();
    intake.handle(partition, &record(2, ahead, &[2], &aliases), &mut aliases, &mut routed);
    assert_eq!(taken(&intake, &mut routed), named(&[1, 3, 0, 2]));
}

/// Scenario: a gauge reports a negative zero.
/// Guarantee: there is one zero from here on: what a sum makes of the sign would depend on the order of adding.
#[test]
fn there_is_one_zero() {
    let (mut intake, partition) = intake(3);
    let (mut aliases, mut routed) = (Aliases::default(), Routed::default());
    let mut record = record(0, START, &[0], &aliases);
    record.points[0].value = -0.0;
    intake.handle(partition, &record, &mut aliases, &mut routed);
    assert_eq!(routed.points[0].value.to_bits(), 0.0_f64.to_bits());
}

/// Scenario: of three series one is evicted, and one that is new takes its place; the source knows numbers for all.
/// Guarantee: its numbers are void from then on, so that no point of one series reaches another; told anew they are
/// right, and there was room for the new one in a full table.
#[test]
fn a_number_of_an_evicted_series_is_void() {
    let (mut intake, partition) = intake(3);
    let (mut aliases, mut routed) = (Aliases::default(), Routed::default());
    intake.handle(partition, &record(0, START, &[0, 1, 2], &aliases), &mut aliases, &mut routed);
    let at = routed.points[1].series;
    taken(&intake, &mut routed);
    let gone = [IdleSeries { at, last: START, rows: Vec::new(), waiting: None }];
    let new = (&mut routed.series, &mut routed.rows);
    intake.directory_mut().evict(&gone, &BTreeMap::new(), new);
    assert_eq!(intake.directory().series_len(), 2);
    aliases.renew(intake.directory().generation());
    assert!((0..4).all(|alias| !aliases.knows(alias)));
    let again = record(1, START, &[3, 2, 0], &aliases);
    intake.handle(partition, &again, &mut aliases, &mut routed);
    assert_eq!(taken(&intake, &mut routed), named(&[3, 2, 0]));
    let again = record(2, START, &[1, 3, 2, 0], &aliases);
    intake.handle(partition, &again, &mut aliases, &mut routed);
    assert_eq!(taken(&intake, &mut routed), named(&[3, 2, 0]), "there are three again");
    assert_eq!(intake.counters().refused(Reason::SeriesLimit), 1);
}

/// Guarantee: while there is no memory for them new series are refused under a reason of their own, and known ones are
/// taken.
#[test]
fn a_directory_that_is_shut_takes_what_it_knows() {
    let (mut intake, partition) = intake(10);
    let (mut aliases, mut routed) = (Aliases::default(), Routed::default());
    intake.handle(partition, &record(0, START, &[0, 1], &aliases), &mut aliases, &mut routed);
    intake.directory_mut().shut(true);
    intake.handle(partition, &record(1, START, &[0, 1, 2], &aliases), &mut aliases, &mut routed);
    assert_eq!(taken(&intake, &mut routed), named(&[0, 1, 0, 1]));
    assert_eq!(intake.counters().refused(Reason::MemoryLimit), 1);
    assert_eq!(intake.overflow().iter().collect::<Vec<_>>(), [("otlp", "two", 1)]);
    intake.directory_mut().shut(false);
    intake.handle(partition, &record(2, START, &[2], &aliases), &mut aliases, &mut routed);
    assert_eq!(taken(&intake, &mut routed), named(&[2]));
}
