//! What the first records of a partition say about its time, and where commands go.

use relight_core::aliases::Aliases;
use relight_core::codec::Reader;
use relight_core::record::{ControlRecord, Kind, Record};
use relight_core::rule::Settings;
use relight_core::series::{Labels, key_of};
use relight_core::signal::Binning;
use relight_core::{Span, Timestamp};

use super::{Intake, Routed};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn intake() -> Intake {
    Intake::new(&Settings {
        binning: Binning::Interval(Span::from_secs(10)),
        allowed_lateness: Span::from_secs(10),
        max_skew: Span::from_secs(120),
        max_series: 100,
        series_ttl: Span::ZERO,
        sources: Vec::new(),
        signals: Vec::new(),
        detectors: Vec::new(),
        rules: Vec::new(),
        trouble: None,
        fleet_limit: None,
        fingerprint: Vec::new(),
    })
}

fn point(offset: u64, secs: i64) -> Record {
    let mut record = Record { offset, ..Record::default() };
    let key = key_of("m", &Labels::default());
    record.push_point(&key, at(secs), Timestamp::MIN, Kind::Gauge, 1.0);
    record
}

fn said(offset: u64, secs: i64, target: &str) -> Record {
    let (verb, target) = ("ack".to_owned(), target.to_owned());
    let controls = vec![ControlRecord::Command { at: at(secs), verb, target }];
    Record { offset, controls, ..Record::default() }
}

/// Points at these seconds, in one partition to its end: the seconds of those that count.
fn check(times: &[i64], counted: &[i64]) {
    let (mut intake, mut out) = (intake(), Routed::default());
    let p = intake.partition("p");
    for (offset, secs) in (0..).zip(times) {
        intake.handle(p, &point(offset, *secs), &mut Aliases::default(), &mut out);
    }
    intake.end_source(p, &mut out);
    let when = |run: u32| out.runs[run as usize].at.since(at(0)).ns() / 1_000_000_000;
    let seen: Vec<i64> = out.points.iter().map(|point| when(point.run)).collect();
    assert_eq!(seen, counted, "of {times:?}");
    assert_eq!(intake.next_offset("p"), times.len() as u64, "of {times:?}");
}

/// Guarantee: a wild time counts only if the record after it agrees, the very first one too; one record
/// alone is taken at its word.
#[test]
fn a_wild_time_needs_a_second_record() {
    check(&[5], &[5]);
    check(&[0, 15, 30], &[0, 15, 30]);
    check(&[86_400, 0, 15, 30], &[0, 15, 30]);
    check(&[86_400, 86_415, 86_430], &[86_400, 86_415, 86_430]);
    check(&[0, 86_400, 15, 30], &[0, 15, 30]);
    check(&[0, 86_400, 86_415], &[0, 86_400, 86_415]);
    check(&[86_400, 0, 86_400, 15], &[0, 15]);
}

/// Scenario: one record with a point that its own newest point would make late, in either order; then points on both sides of
/// the watermark that the record leaves.
/// Guarantee: lateness is judged by the watermark from before the record, for each of its points; the next record's by the one
/// after it.
#[test]
fn lateness_is_judged_before_the_record() {
    for times in [[95, 160], [160, 95]] {
        let (mut intake, mut out) = (intake(), Routed::default());
        let p = intake.partition("p");
        let mut both = point(1, times[0]);
        let key = key_of("m", &Labels::default());
        both.push_point(&key, at(times[1]), Timestamp::MIN, Kind::Gauge, 1.0);
        for record in [&point(0, 100), &both] {
            intake.handle(p, record, &mut Aliases::default(), &mut out);
        }
        assert_eq!((intake.counters().points, intake.partition_watermark(p)), (3, at(150)), "{times:?}");
        for (offset, secs) in [(2, 149), (3, 150)] {
            intake.handle(p, &point(offset, secs), &mut Aliases::default(), &mut out);
        }
        let late = intake.counters().refused(super::Reason::Late);
        assert_eq!((intake.counters().points, late), (4, 1), "{times:?}");
    }
}

/// Guarantee: where records are further apart than the limit, their own gap is the limit; the last one counts. A lone wild
/// time counts neither there, nor at the end; nor does a dense partition with two outages become a sparse one.
#[test]
fn sparse_records_confirm_themselves() {
    let hourly = |n: i64| (0..n).map(|h| h * 3_600).collect::<Vec<_>>();
    for n in [1, 2, 3, 4, 50] {
        check(&hourly(n), &hourly(n));
    }
    for wild in [5 * 3_600, 86_400 * 365, 86_400 * 36_500] {
        let mut times = hourly(10);
        times.push(9 * 3_600 + wild);
        times.extend(hourly(20).split_off(10));
        check(&times, &hourly(20));
    }
    let end = |times: &[i64], last: i64| [times, &[last]].concat();
    check(&end(&hourly(10), 19 * 3_600), &end(&hourly(10), 19 * 3_600));
    check(&end(&hourly(10), 86_400 * 60), &hourly(10));
    check(&[0, 86_400 * 365], &[0]);
    let outages = [0, 60, 120, 7_200, 7_260, 86_400, 86_460, 86_520];
    check(&end(&outages, 90_200), &outages);
}

/// Scenario: an hourly series with its time of arrival, whose times are the ends of the hours; then a dense one.
/// Guarantee: a time may lie as far ahead of its arrival as the data are apart, and ten minutes where that is less.
#[test]
fn sparse_records_may_carry_the_end_of_their_period() {
    let come = |times: &[(i64, i64)]| {
        let (mut intake, mut out) = (intake(), Routed::default());
        let p = intake.partition("p");
        for (offset, (secs, received)) in (0..).zip(times) {
            let record = Record { received: Some(at(*received)), ..point(offset, *secs) };
            intake.handle(p, &record, &mut Aliases::default(), &mut out);
        }
        intake.counters().refused(super::Reason::Future)
    };
    let hourly: Vec<(i64, i64)> = (0..5).map(|h| (h * 3_600, h * 3_600)).collect();
    let ahead = |secs: i64| [&hourly[..], &[(18_000, 18_000 - secs)]].concat();
    assert_eq!((come(&ahead(3_000)), come(&ahead(3_601))), (0, 1));
    assert_eq!(come(&[(0, 0), (60, 60), (120, 120), (780, 179)]), 1);
}

/// Scenario: lines that cannot be read stand behind a jump at the end of a file.
/// Guarantee: they are counted once, and known: a run that goes on does not count them again.
#[test]
fn lines_that_wait_with_a_jump_are_known_with_it() {
    let (mut intake, mut out) = (intake(), Routed::default());
    let p = intake.partition("p");
    for (offset, secs) in [(0, 0), (1, 15), (2, 86_400)] {
        intake.handle(p, &point(offset, secs), &mut Aliases::default(), &mut out);
    }
    let mut bad = Record { offset: 3, ..Record::default() };
    bad.refuse(super::Reason::Malformed);
    intake.handle(p, &bad, &mut Aliases::default(), &mut out);
    assert_eq!(intake.next_offset("p"), 2);
    intake.end_source(p, &mut out);
    assert_eq!(intake.next_offset("p"), 4);
    intake.handle(p, &bad, &mut Aliases::default(), &mut out);
    assert_eq!(intake.counters().refused(super::Reason::Malformed), 1);
}

/// Scenario: commands of one instant in two partitions, one that is late, one at the end of a bin, and
/// one behind all data.
/// Guarantee: each comes with the bin of its time, in order, at an instant of its own within the bin; the
/// late one where its partition has come to; and a bin in which somebody only spoke is no bin of data.
#[test]
fn commands_come_with_the_turn_of_their_bin() {
    let (mut intake, mut out) = (intake(), Routed::default());
    let (b, a) = (intake.partition("b"), intake.partition("a"));
    for (p, record) in [
        (b, point(0, 0)),
        (a, point(0, 0)),
        (b, said(1, 3, "second")),
        (a, said(1, 3, "first")),
        (a, point(2, 55)),
        (b, point(2, 55)),
        (b, said(3, 0, "late")),
        (b, said(4, 20, "end of a bin")),
        (a, said(3, 100, "behind")),
    ] {
        intake.handle(p, &record, &mut Aliases::default(), &mut out);
    }
    intake.end_source(a, &mut out);
    intake.end_source(b, &mut out);
    let mut seen = Vec::new();
    while let Some(bin) = intake.next_bin(None) {
        let data = intake.has_bin(bin);
        let ready = intake.close(bin, &mut out);
        let say = |c: super::Command| format!("{}@{}", c.target, c.at.since(at(0)).ns());
        let commands: Vec<String> = ready.commands.into_iter().map(say).collect();
        seen.push((bin.since(at(0)).ns() / 1_000_000_000, data, commands.join(" ")));
    }
    // The partition stood at 55 - 10 s when the late ones came.
    assert_eq!(
        seen,
        [
            (0, true, "first@3000000000 second@3000000001".to_owned()),
            (40, false, "late@45000000000 end of a bin@45000000001".to_owned()),
            (50, true, String::new()),
        ]
    );
}

/// Guarantee: where a partition begins that a file names is told by that file, not by what is closed.
#[test]
fn a_partition_begins_where_its_file_has_come_to() {
    let (mut intake, mut out) = (intake(), Routed::default());
    let (file, other) = (intake.partition("file"), intake.partition("other"));
    let one = intake.partition_of(file, "file:1");
    assert!(intake.partitions[file as usize].has_ended(), "no record is the file's own");
    intake.handle(one, &point(0, 0), &mut Aliases::default(), &mut out);
    intake.handle(one, &point(1, 100), &mut Aliases::default(), &mut out);
    intake.handle(other, &point(0, 0), &mut Aliases::default(), &mut out);
    intake.handle(other, &point(1, 30), &mut Aliases::default(), &mut out);
    assert_eq!(intake.watermark(), at(20));
    let two = intake.partition_of(file, "file:2");
    assert_eq!(intake.partition_watermark(two), at(90));
    let own = intake.partition_of(file, "file");
    assert_eq!((own, intake.partition_watermark(own)), (file, at(90)));
    intake.handle(own, &point(2, 120), &mut Aliases::default(), &mut out);
    assert_eq!(intake.partition_of(file, "file:1"), one);
    assert!(!intake.partitions[file as usize].has_ended(), "it has records of its own by now");
    intake.end_others(&[other], &mut out);
    assert_eq!(intake.watermark(), at(20));
    assert!(intake.partitions.iter().all(|p| p.has_ended() == (p.source == file)));
}

/// Scenario: the mark of a start before a partition's first record and behind it; it comes once more; a snapshot; an advance.
/// Guarantee: where nothing was brought before it keeps nothing. It has a place and is no record; the snapshot tells that the
/// watermark is kept; and a mark that is known does nothing.
#[test]
fn a_start_keeps_the_watermark_of_a_partition_that_is_known() {
    let (mut intake, mut out) = (intake(), Routed::default());
    let p = intake.partition("p");
    let point = |offset, secs| Record { received: Some(at(secs)), ..point(offset, secs) };
    intake.start(p, 0);
    intake.handle(p, &point(1, 0), &mut Aliases::default(), &mut out);
    assert_eq!((intake.is_kept(p), intake.partition_watermark(p)), (false, at(-10)));
    intake.start(p, 2);
    intake.handle(p, &point(3, 60), &mut Aliases::default(), &mut out);
    assert_eq!((intake.is_kept(p), intake.partition_watermark(p)), (true, at(-10)));
    assert_eq!((intake.next_offset("p"), intake.counters().records), (4, 2));
    let mut saved = Vec::new();
    intake.save(&mut saved);
    let mut again = self::intake();
    again.load(intake.partitions(), &mut Reader::new(&saved)).expect("it is whole");
    for mut intake in [intake, again] {
        assert!(intake.is_kept(p));
        intake.advance(p, at(50), &mut out);
        intake.start(p, 2);
        assert_eq!((intake.is_kept(p), intake.partition_watermark(p)), (false, at(50)));
    }
}
