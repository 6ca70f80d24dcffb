//! Remote write from the outside: both versions, kinds, native histograms and refusals.

use std::path::Path;
use std::sync::atomic::Ordering;

use relight_core::record::{Histogram, Kind, Reason};
use relight_core::responder::Secrets;
use relight_core::source::{Address, RemoteWrite, SourceKind};
use relight_core::{KeyView, Timestamp};

use super::super::reply::{put_bytes, put_varint};
use super::*;
use crate::live::Load;

const WRITE: [(&str, &str); 2] = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];

fn remote_write(engine: Engine) -> World {
    keeping(engine, None)
}

fn keeping(engine: Engine, families: Option<&Path>) -> World {
    let mut write = RemoteWrite { listen: Address::local(0), ..RemoteWrite::default() };
    write.limits.max_waiting_bytes = 1;
    World::keeping(SourceKind::PrometheusRemoteWrite(write), engine, &Secrets::default(), families)
}

fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, bytes) in fields {
        put_bytes(*number, bytes, &mut out);
    }
    out
}

/// A time series with one sample, `value` at 5 s.
fn series(labels: &[(&str, &str)], value: f64) -> Vec<u8> {
    series_at(labels, 5, value)
}

fn series_at(labels: &[(&str, &str)], secs: u64, value: f64) -> Vec<u8> {
    let mut out = labelled(labels);
    put_bytes(2, &sample(secs, value), &mut out);
    out
}

fn labelled(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in labels {
        put_bytes(1, &message(&[(1, key.as_bytes()), (2, value.as_bytes())]), &mut out);
    }
    out
}

fn sample(secs: u64, value: f64) -> Vec<u8> {
    let mut out = [&b"\x09"[..], &value.to_le_bytes(), b"\x10"].concat();
    put_varint(secs * 1_000, &mut out);
    out
}

fn named(name: &str, value: f64) -> Vec<u8> {
    series(&[("__name__", name)], value)
}

fn metadata(code: u8, family: &str) -> Vec<u8> {
    [&[8, code][..], &message(&[(2, family.as_bytes())])].concat()
}

fn write(world: &World, fields: &[(u64, &[u8])]) -> Answer {
    let body = snap::raw::Encoder::new().compress_vec(&message(fields)).expect("it fits");
    post(world.address("listen"), "/api/v1/write", &WRITE, &body)
}

/// Name, kind and value of a point.
type Sample = (String, Kind, f64);

/// The points that came through, and what was refused.
fn points(world: &World) -> (Vec<Sample>, Vec<(Reason, u32)>) {
    let (mut points, mut refused) = (Vec::new(), Vec::new());
    for load in world.loads() {
        let Load::Record(record) = load else { panic!("remote write is decoded here") };
        for point in &record.points {
            assert_eq!(point.at, Timestamp::from_secs(5));
            let key = KeyView::new(record.key(point));
            assert_eq!(key.get("__name__"), None);
            points.push((key.name().to_owned(), point.kind, point.value));
        }
        for end in &record.ends {
            assert_eq!(end.at, Timestamp::from_secs(5));
            points.push((format!("end of {}", KeyView::new(record.key(end)).name()), end.kind, end.value));
        }
        refused.extend_from_slice(&record.refused);
    }
    (points, refused)
}

/// Scenario: series whose names say what they are, and then metadata that knows better.
/// Guarantee: metadata wins, for its own request already.
#[test]
fn kinds_of_remote_write() {
    let world = remote_write(Engine::Takes);
    let names = ["up", "http_total", "h_bucket", "h_sum", "odd_total", "load_ratio"];
    let all: Vec<Vec<u8>> = names.map(|name| named(name, 1.0)).into();
    let mut fields: Vec<(u64, &[u8])> = all.iter().map(|series| (1, series.as_slice())).collect();
    assert_eq!(write(&world, &fields).status, 204);
    let (gauge, counts) = (Kind::Gauge, Kind::Cumulative);
    let kinds = |world: &World| points(world).0.into_iter().map(|point| point.1).collect::<Vec<_>>();
    assert_eq!(kinds(&world), [gauge, counts, counts, counts, counts, gauge]);
    let told = [metadata(2, "odd_total"), metadata(1, "load_ratio"), metadata(3, "h"), metadata(0, "up")];
    fields.extend(told.iter().map(|told| (3, told.as_slice())));
    assert_eq!(write(&world, &fields).status, 204);
    assert_eq!(kinds(&world), [gauge, counts, counts, counts, gauge, counts]);
}

/// Names, kinds and times (s) of points.
fn taken(world: &World) -> Vec<(String, Kind, i64)> {
    let mut points = Vec::new();
    for load in world.loads() {
        let Load::Record(record) = load else { panic!("remote write is decoded here") };
        points.extend(record.points.iter().map(|point| {
            let name = KeyView::new(record.key(point)).name().to_owned();
            (name, point.kind, point.at.secs())
        }));
    }
    points
}

fn write_at(world: &World, secs: u64, names: &[&str]) {
    world.clock.store(secs.cast_signed(), Ordering::Relaxed);
    let all: Vec<Vec<u8>> =
        names.iter().map(|name| series_at(&[("__name__", name)], secs, secs as f64)).collect();
    let fields: Vec<(u64, &[u8])> = all.iter().map(|series| (1, series.as_slice())).collect();
    assert_eq!(write(world, &fields).status, 204);
}

/// Scenario: a counter and a gauge whose names do not tell, beside one whose name does; metadata of the counter comes
/// after a minute, of the gauge never. Then the process is started anew, twice, and once more with its file damaged.
/// Guarantee: neither is a point before it is known what it is; the counter's samples that are not late come with its
/// metadata, the gauge's after 90 s with a line that says so; after a restart both are what they were, at once; with a
/// damaged file they wait again, and are never of another kind.
#[test]
fn a11_families_wait_for_metadata_and_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let families = folder.path().join("families");
    let (gauge, counts) = (Kind::Gauge, Kind::Cumulative);
    let world = keeping(Engine::Takes, Some(&families));
    for secs in (1_000..1_060).step_by(15) {
        write_at(&world, secs, &["jobs", "depth", "http_total"]);
    }
    assert!(taken(&world).iter().all(|(name, ..)| name == "http_total"));
    assert_eq!((world.figure("metadata_families_waiting"), world.figure("metadata_samples_held")), (2, 8));
    world.clock.store(1_060, Ordering::Relaxed);
    assert_eq!(write(&world, &[(3, &metadata(1, "jobs"))]).status, 204);
    assert_eq!(taken(&world), [("jobs".to_owned(), counts, 1_045)], "the others are late by now");
    write_at(&world, 1_089, &["jobs", "depth"]);
    assert_eq!(taken(&world), [("jobs".to_owned(), counts, 1_089)]);
    assert_eq!(world.told().len(), 0);
    write_at(&world, 1_090, &["depth"]);
    let expected = [("depth".to_owned(), gauge, 1_089), ("depth".to_owned(), gauge, 1_090)];
    assert_eq!(taken(&world), expected);
    let told = world.told();
    assert!(told[0].contains("no metadata came within 90 s for `depth`: taken for gauges"), "{told:?}");
    let figures = ["metadata_families_waiting", "metadata_families_guessed", "metadata_held_bytes"];
    assert_eq!(figures.map(|name| world.figure(name)), [0, 1, 0]);
    drop(world);

    for _ in 0..2 {
        let world = keeping(Engine::Takes, Some(&families));
        write_at(&world, 2_000, &["jobs", "depth"]);
        assert_eq!(taken(&world), [("jobs".to_owned(), counts, 2_000), ("depth".to_owned(), gauge, 2_000)]);
    }
    let file = families.join("test.json");
    let whole = std::fs::read(&file).expect("it is kept");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("there is room");
    let world = keeping(Engine::Takes, Some(&families));
    let notices = world.running.as_ref().expect("it runs").notices();
    assert!(notices.len() == 1 && notices[0].contains("test.json` cannot be read"), "{notices:?}");
    write_at(&world, 3_000, &["jobs", "depth"]);
    assert_eq!(taken(&world), []);
}

/// Scenario: a sender of one family alone that waits; the engine is stopping when its metadata comes; the sender tries
/// again. And a backlog of five minutes in one request.
/// Guarantee: samples that were answered with success are given out by the next request that is taken, none twice; a
/// backlog is taken whole.
#[test]
fn what_waits_is_not_lost_with_a_request() {
    let world = remote_write(Engine::Takes);
    write_at(&world, 1_000, &["jobs"]);
    write_at(&world, 1_010, &["jobs"]);
    assert_eq!(taken(&world), []);
    world.hub.stand_by(true);
    assert_eq!(write(&world, &[(3, &metadata(1, "jobs"))]).status, 503);
    world.hub.stand_by(false);
    assert_eq!(taken(&world), []);
    write_at(&world, 1_015, &["jobs"]);
    let mut times: Vec<i64> = taken(&world).into_iter().map(|(.., at)| at).collect();
    times.sort_unstable();
    assert_eq!(times, [1_000, 1_010, 1_015]);

    let backlog = (1_000..1_300).step_by(10).fold(labelled(&[("__name__", "depth")]), |mut series, secs| {
        put_bytes(2, &sample(secs, 1.0), &mut series);
        series
    });
    assert_eq!(write(&world, &[(1, &backlog)]).status, 204);
    assert_eq!(taken(&world).len(), 30);
}

/// Guarantee: stale markers and NaN are no fault of the sender's; what is one is told with a 400 that names the series,
/// and the rest is in.
#[test]
fn refusals_of_remote_write() {
    let world = remote_write(Engine::Takes);
    let good = named("a_ratio", 7.0);
    for stale in [0x7ff0_0000_0000_0002, 0x7ff8_0000_0000_0002, 0xfff8_0000_0000_0002] {
        let (stale, nan) = (named("a_ratio", f64::from_bits(stale)), named("a_ratio", f64::NAN));
        assert_eq!(write(&world, &[(1, &good), (1, &stale), (1, &nan)]).status, 204);
        let (taken, refused) = points(&world);
        let (point, end) = ("a_ratio".to_owned(), "end of a_ratio".to_owned());
        assert_eq!(taken, [(point, Kind::Gauge, 7.0), (end, Kind::Gauge, 0.0)]);
        assert_eq!(refused, [(Reason::NoRecordedValue, 1), (Reason::NonFinite, 1)]);
    }
    let long = "x".repeat(2_000);
    let at = |name, labels: &[(&str, &str)]| {
        series(&[&[("__name__", name), ("job", "shop")], labels].concat(), 1.0)
    };
    let texts = [
        (at("wide_ratio", &[("k", &long)]), "`wide_ratio` of service `shop`: label_limit 1"),
        (
            series(&[("k", "v"), ("service", "cart")], 1.0),
            "service `cart`: malformed 1 (a series without `__name__`)",
        ),
        (
            at("twice_ratio", &[("k", "1"), ("k", "2")]),
            "`twice_ratio` of service `shop`: malformed 1 (a label that comes twice)",
        ),
        ([at("broken_ratio", &[]), vec![0x0a, 0x7f]].concat(), "malformed 1 (it ends within a field)"),
        (
            message(&[(1, &message(&[(1, b"__name__"), (2, b"\xff")])), (2, &sample(5, 1.0))]),
            "a text that is not UTF-8",
        ),
        (
            [at("sampled_ratio", &[]), message(&[(2, b"\x09\x01")])].concat(),
            "`sampled_ratio` of service `shop`: malformed 1",
        ),
        (
            [at("native", &[]), message(&[(4, b"\x0a")])].concat(),
            "`native` of service `shop`: bad_histogram 1",
        ),
    ];
    for (bad, expected) in &texts {
        let answer = write(&world, &[(1, &good), (1, bad), (1, &good)]);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(expected), "{} for {expected}", answer.text());
        let taken = points(&world).0;
        assert!(
            taken.iter().filter(|point| point.0 == "a_ratio").count() == 2,
            "{taken:?} beside {expected}"
        );
    }
    // Metadata that cannot be read harms nobody.
    assert_eq!(write(&world, &[(3, b"\x12\x05x"), (1, &good)]).status, 204);
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

fn varint_field(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(number << 3, &mut out);
    put_varint(value, &mut out);
    out
}

fn packed(number: u64, values: &[u64]) -> Vec<u8> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for value in values {
        put_varint(*value, &mut all);
    }
    put_bytes(number, &all, &mut out);
    out
}

fn span(number: u64, offset: i64, length: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(number, &[varint_field(1, zigzag(offset)), varint_field(2, length)].concat(), &mut out);
    out
}

fn doubles(number: u64, values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(number, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(), &mut out);
    out
}

/// Deltas of the counts 3, 1, 4 in the buckets that end at 1, 2 and 8, at schema 0.
fn native(more: &[u8]) -> Vec<u8> {
    let spans = [span(11, 0, 2), span(11, 1, 1)].concat();
    [&spans, &packed(12, &[3, -2, 3].map(zigzag))[..], &varint_field(6, 2), &varint_field(15, 5_000), more]
        .concat()
}

/// The bounds and counts of buckets that have something.
fn filled(histogram: &Histogram) -> Vec<(f64, u64)> {
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    bounds.zip(histogram.counts.iter().copied()).filter(|(_, n)| *n > 0).collect()
}

/// Scenario: native histograms in integers, in floats, and with bounds of their own; beside them ones that make no sense
/// or may fall.
/// Guarantee: each becomes a histogram with its counts where its buckets end; those that cannot be read are refused alone.
#[test]
fn native_histograms_are_read() {
    let floats =
        [span(11, 0, 2), span(11, 1, 1), doubles(13, &[3.0, 1.2, 4.0]), varint_field(15, 5_000)].concat();
    let custom = [
        varint_field(4, zigzag(-53)),
        span(11, 1, 2),
        packed(12, &[5, 1].map(zigzag)),
        doubles(16, &[0.1, 0.5]),
        varint_field(15, 5_000),
    ]
    .concat();
    let (up_to, inf) = (vec![(1.0, 3), (2.0, 1), (8.0, 4)], f64::INFINITY);
    let with_zero = [&[(0.0, 2)][..], &up_to].concat();
    let stale = [&b"\x19"[..], &0x7ff0_0000_0000_0002_u64.to_le_bytes()].concat();
    for (histogram, expected) in [
        (native(b""), Ok(with_zero)),
        (floats, Ok(up_to)),
        (custom, Ok(vec![(0.5, 5), (inf, 6)])),
        (native(&varint_field(14, 3)), Err("bad_histogram 1 (a gauge histogram")),
        (native(&packed(12, &[1].map(zigzag))), Err("make no sense")),
        (native(&packed(12, &[-9].map(zigzag))), Err("make no sense")),
        (native(&varint_field(4, zigzag(99))), Err("make no sense")),
        (native(&span(11, 1 << 30, 1)), Err("make no sense")),
        (native(&span(11, 0, 1 << 60)), Err("make no sense")),
        (native(&stale), Err("")),
    ] {
        let world = remote_write(Engine::Takes);
        let labels = labelled(&[("__name__", "rpc_seconds"), ("job", "shop")]);
        let series = [labels, message(&[(4, &histogram)])].concat();
        let answer = write(&world, &[(1, &named("a_ratio", 1.0)), (1, &series)]);
        let loads = world.loads();
        let [Load::Record(record)] = &loads[..] else { panic!("one request") };
        match expected {
            Ok(expected) => {
                assert_eq!(answer.status, 204, "{}", answer.text());
                assert_eq!(answer.header("x-prometheus-remote-write-histograms-written"), "1");
                assert_eq!(filled(&record.histograms[0]), expected);
                let point = &record.points[1];
                assert_eq!((point.kind, point.at.secs()), (Kind::CumulativeHistogram, 5));
            }
            Err("") => assert_eq!((answer.status, record.points.len()), (204, 1)),
            Err(expected) => {
                assert_eq!((answer.status, record.points.len()), (400, 1));
                assert!(answer.text().contains(expected), "{}", answer.text());
                assert!(answer.text().contains("`rpc_seconds` of service `shop`"), "{}", answer.text());
            }
        }
    }
}

/// Scenario: a request of version 2: a counter with its type and start, a gauge, a part of a classic histogram, a series
/// without a type whose name does not tell, one with a reference to nowhere.
/// Guarantee: types are those that came with the series, and are known to later requests without; the last is refused
/// alone; the answer says how much was written.
#[test]
fn version_two_carries_its_types() {
    let world = remote_write(Engine::Takes);
    let symbols = ["", "__name__", "jobs", "depth", "rpc_bucket", "other"];
    let series = |name: u64, kind: u64, more: &[u8]| {
        let mut metadata = Vec::new();
        put_bytes(5, &varint_field(1, kind), &mut metadata);
        let mut samples = Vec::new();
        put_bytes(2, &sample(5, 1.0), &mut samples);
        [&packed(1, &[1, name])[..], &samples, &metadata, more].concat()
    };
    let all = [
        series(2, 1, &varint_field(6, 3_000)),
        series(3, 2, b""),
        series(4, 3, b""),
        series(5, 0, b""),
        series(9, 2, b""),
        series(2, 0, b""),
    ];
    let mut fields: Vec<(u64, &[u8])> = symbols.iter().map(|symbol| (4, symbol.as_bytes())).collect();
    fields.extend(all.iter().map(|series| (5, series.as_slice())));
    let body = snap::raw::Encoder::new().compress_vec(&message(&fields)).expect("it fits");
    let v2 = [("content-type", "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\""), WRITE[1]];
    let answer = post(world.address("listen"), "/api/v1/write", &v2, &body);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("a reference to a symbol that is not there"), "{}", answer.text());
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), "5");
    let loads = world.loads();
    let [Load::Record(record)] = &loads[..] else { panic!("one request") };
    let shown: Vec<_> = record
        .points
        .iter()
        .map(|point| (KeyView::new(record.key(point)).name(), point.kind, point.start))
        .collect();
    let (never, counts) = (Timestamp::MIN, Kind::Cumulative);
    let expected = [
        ("jobs", counts, Timestamp::from_secs(3)),
        ("depth", Kind::Gauge, never),
        ("rpc_bucket", counts, never),
        ("jobs", counts, never),
    ];
    assert_eq!(shown, expected);
}

/// Guarantee: names of codings, types and messages have no case, and may have spaces around them.
#[test]
fn codings_of_remote_write_have_no_case() {
    let world = remote_write(Engine::Takes);
    let plain = message(&[(1, &named("a_ratio", 1.0))]);
    let packed = snap::raw::Encoder::new().compress_vec(&plain).expect("it fits");
    let kind = "application/x-protobuf";
    for (kind, coding, body, status) in [
        (kind, "Snappy", &packed, 204),
        (kind, "  SNAPPY ", &packed, 204),
        (kind, "", &packed, 204),
        ("Application/X-Protobuf; Proto=prometheus.WriteRequest", "snappy", &packed, 204),
        (kind, "Identity", &plain, 204),
        (kind, "zstd", &packed, 415),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", &packed, 415),
        ("application/json", "snappy", &packed, 415),
    ] {
        let headers = [("content-type", kind), ("content-encoding", coding)];
        let answer = post(world.address("listen"), "/api/v1/write", &headers, body);
        assert_eq!(answer.status, status, "{kind} {coding}: {}", answer.text());
    }
}

/// Scenario: a series with 60 KiB of labels and as many samples as a request may have; another beside it.
/// Guarantee: its key lies in the record once, and each sample is of its own series.
#[test]
fn a_key_of_remote_write_is_kept_once() {
    let world = remote_write(Engine::Takes);
    let value = "v".repeat(1 << 10);
    let keys: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let labels = keys.iter().map(|key| (key.as_str(), value.as_str()));
    let mut broad = series(&labels.chain([("__name__", "a_ratio")]).collect::<Vec<_>>(), 7.0);
    let sample = message(&[(2, &sample(5, 7.0))]);
    broad.extend(sample.repeat(99_998));
    assert_eq!(write(&world, &[(1, &broad), (1, &named("b_ratio", 1.0))]).status, 204);
    let loads = world.loads();
    let [Load::Record(record)] = &loads[..] else { panic!("remote write is decoded here") };
    assert!((61_440..63_000).contains(&record.keys.len()), "{} bytes of keys", record.keys.len());
    let names = record.points.iter().map(|point| KeyView::new(record.key(point)).name());
    assert!(names.eq(std::iter::repeat_n("a_ratio", 99_999).chain(["b_ratio"])));
}

#[test]
fn what_is_no_remote_write_is_refused() {
    let world = remote_write(Engine::Takes);
    let to = world.address("listen");
    let snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).expect("it fits");
    for (path, headers, body, status) in [
        ("/api/v1/write", WRITE, snappy(b""), 204),
        ("/api/v1/write", WRITE, snappy(b"\x0a\x7f"), 400),
        ("/api/v1/write", WRITE, b"\xff\xff\xff".to_vec(), 400),
        ("/api/v1/write", WRITE, b"\x0a\x00".to_vec(), 400),
        // A block that says it has 4 GiB.
        ("/api/v1/write", WRITE, b"\xff\xff\xff\xff\x0f\0".to_vec(), 413),
        ("/api/v1/write", [WRITE[0], ("content-encoding", "gzip")], snappy(b""), 415),
        ("/elsewhere", WRITE, snappy(b""), 404),
    ] {
        let answer = post(to, path, &headers, &body);
        assert_eq!(answer.status, status, "{path} {body:?}: {}", answer.text());
    }
    assert_eq!(world.loads().len(), 0);
}

/// Guarantee: Prometheus, which tries again after 5xx, is told when.
#[test]
fn remote_write_is_throttled() {
    let mut world = remote_write(Engine::Waits);
    let (to, good) = (world.address("listen"), named("a_ratio", 7.0));
    let body = snap::raw::Encoder::new().compress_vec(&message(&[(1, &good)])).expect("it fits");
    let again = body.clone();
    let first = std::thread::spawn(move || post(to, "/api/v1/write", &WRITE, &again));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let answer = post(to, "/api/v1/write", &WRITE, &body);
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false));
    world.go();
    assert_eq!(first.join().expect("answered").status, 204);
}
