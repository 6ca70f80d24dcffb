//! Remote write, Alertmanager and change events from the outside.

use relight_core::record::{Kind, Reason};
use relight_core::responder::Secrets;
use relight_core::source::{Address, Alertmanager, RemoteWrite, SourceKind};
use relight_core::{KeyView, Timestamp};

use super::super::Outcome;
use super::super::reply::put_bytes;
use super::*;
use crate::live::Load;

const WRITE: [(&str, &str); 2] = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];

fn remote_write(engine: Engine) -> World {
    let mut write = RemoteWrite { listen: Address::local(0), ..RemoteWrite::default() };
    write.limits.max_waiting_bytes = 1;
    World::new(SourceKind::PrometheusRemoteWrite(write), engine, &Secrets::default())
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
    let mut out = Vec::new();
    for (key, value) in labels {
        put_bytes(1, &message(&[(1, key.as_bytes()), (2, value.as_bytes())]), &mut out);
    }
    let sample = [&b"\x09"[..], &value.to_le_bytes(), b"\x10\x88\x27"].concat();
    put_bytes(2, &sample, &mut out);
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
        refused.extend_from_slice(&record.refused);
    }
    (points, refused)
}

/// Scenario: series whose names say what they are, and then metadata that knows better.
/// Guarantee: metadata wins, for its own request already.
#[test]
fn kinds_of_remote_write() {
    let world = remote_write(Engine::Takes);
    let names = ["up", "http_total", "h_bucket", "h_sum", "odd_total", "jobs"];
    let all: Vec<Vec<u8>> = names.map(|name| named(name, 1.0)).into();
    let mut fields: Vec<(u64, &[u8])> = all.iter().map(|series| (1, series.as_slice())).collect();
    assert_eq!(write(&world, &fields).status, 204);
    let (gauge, counts) = (Kind::Gauge, Kind::Cumulative);
    let kinds = |world: &World| points(world).0.into_iter().map(|point| point.1).collect::<Vec<_>>();
    assert_eq!(kinds(&world), [gauge, counts, counts, counts, counts, gauge]);
    let told = [metadata(2, "odd_total"), metadata(1, "jobs"), metadata(3, "h"), metadata(0, "up")];
    fields.extend(told.iter().map(|told| (3, told.as_slice())));
    assert_eq!(write(&world, &fields).status, 204);
    assert_eq!(kinds(&world), [gauge, counts, counts, counts, gauge, counts]);
}

/// Guarantee: stale markers and NaN are no fault of the sender's; what is one is told with a 400, and the
/// rest is in.
#[test]
fn refusals_of_remote_write() {
    let world = remote_write(Engine::Takes);
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let (good, stale, nan) = (named("a", 7.0), named("a", stale), named("a", f64::NAN));
    assert_eq!(write(&world, &[(1, &good), (1, &stale), (1, &nan)]).status, 204);
    let (taken, refused) = points(&world);
    assert_eq!(taken, [("a".to_owned(), Kind::Gauge, 7.0)]);
    assert_eq!(refused, [(Reason::NoRecordedValue, 1), (Reason::NonFinite, 1)]);

    let long = "x".repeat(2_000);
    let wide = series(&[("__name__", "a"), ("k", &long)], 1.0);
    let nameless = series(&[("k", "v")], 1.0);
    let native = [named("a", 1.0), message(&[(4, b"")])].concat();
    let answer = write(&world, &[(1, &wide), (1, &nameless), (1, &native)]);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("label_limit 1, malformed 1, bad_histogram 1"), "{}", answer.text());
    assert_eq!(points(&world).0.len(), 1);
}

/// Scenario: a series with 60 KiB of labels and as many samples as a request may have; another beside it.
/// Guarantee: its key lies in the record once, and each sample is of its own series.
#[test]
fn a_key_of_remote_write_is_kept_once() {
    let world = remote_write(Engine::Takes);
    let value = "v".repeat(1 << 10);
    let keys: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let labels = keys.iter().map(|key| (key.as_str(), value.as_str()));
    let mut broad = series(&labels.chain([("__name__", "a")]).collect::<Vec<_>>(), 7.0);
    let sample = message(&[(2, &[&b"\x09"[..], &7.0_f64.to_le_bytes(), b"\x10\x88\x27"].concat())]);
    broad.extend(sample.repeat(99_998));
    assert_eq!(write(&world, &[(1, &broad), (1, &named("b", 1.0))]).status, 204);
    let loads = world.loads();
    let [Load::Record(record)] = &loads[..] else { panic!("remote write is decoded here") };
    assert!((61_440..63_000).contains(&record.keys.len()), "{} bytes of keys", record.keys.len());
    let names = record.points.iter().map(|point| KeyView::new(record.key(point)).name());
    assert!(names.eq(std::iter::repeat_n("a", 99_999).chain(["b"])));
}

#[test]
fn what_is_no_remote_write_is_refused() {
    let world = remote_write(Engine::Takes);
    let to = world.address("listen");
    let snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).expect("it fits");
    let v2 = [("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"), WRITE[1]];
    for (path, headers, body, status) in [
        ("/api/v1/write", WRITE, snappy(b""), 204),
        ("/api/v1/write", WRITE, snappy(b"\x0a\x7f"), 400),
        ("/api/v1/write", WRITE, b"\xff\xff\xff".to_vec(), 400),
        ("/api/v1/write", WRITE, b"\x0a\x00".to_vec(), 400),
        // A block that says it has 4 GiB.
        ("/api/v1/write", WRITE, b"\xff\xff\xff\xff\x0f\0".to_vec(), 413),
        ("/api/v1/write", v2, snappy(b""), 415),
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
    let (to, good) = (world.address("listen"), named("a", 7.0));
    let body = snap::raw::Encoder::new().compress_vec(&message(&[(1, &good)])).expect("it fits");
    let again = body.clone();
    let first = std::thread::spawn(move || post(to, "/api/v1/write", &WRITE, &again));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let answer = post(to, "/api/v1/write", &WRITE, &body);
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false));
    world.go();
    assert_eq!(first.join().expect("answered").status, 204);
}

/// Scenario: Alertmanager notifies, repeats itself, and finds the queue full.
/// Guarantee: an alert's change is taken once; a full queue is 503, never 429, and what was refused then is
/// taken when it comes again.
#[test]
fn alerts_come_through_once() {
    let mut kind = Alertmanager { listen: Address::local(0), ..Alertmanager::default() };
    kind.limits.max_waiting_bytes = 1;
    let mut world = World::new(SourceKind::Alertmanager(kind), Engine::Waits, &Secrets::default());
    let to = world.address("listen");
    let send = move |name: &str| {
        let alert = format!(
            r#"{{"status":"firing","labels":{{"alertname":"{name}"}},"annotations":{{}},
            "startsAt":"2026-11-23T08:00:10Z","endsAt":"0001-01-01T00:00:00Z"}}"#
        );
        let body = format!(r#"{{"version":"4","alerts":[{alert}]}}"#);
        post(to, "/alerts", &[("content-type", "application/json")], body.as_bytes()).status
    };
    let first = std::thread::spawn(move || send("a"));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    assert_eq!(send("b"), 503);
    world.go();
    assert_eq!(first.join().expect("answered"), 200);
    assert_eq!([send("b"), send("a"), send("b")], [200, 200, 200]);
    assert_eq!((world.entries(), world.figure("repeated_events")), (2, 2));
    assert_eq!(post(to, "/alerts", &[], br#"{"version":"3","alerts":[]}"#).status, 400);
    assert_eq!(world.stats.requests(Outcome::Busy), 1);
}
