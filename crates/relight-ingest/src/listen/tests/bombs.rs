//! Bodies that are larger than they look, or packed in ways that nobody reads.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use proptest::prelude::*;
use relight_core::Timestamp;
use relight_core::responder::Secrets;
use relight_core::source::{Limits, SourceKind};

use super::super::Outcome;
use super::super::body::{Coding, inflate};
use super::super::front::{ListenerShared, Way};
use super::*;
use crate::live::{Budget, Hub, Load, Reads};
use crate::memory::MemoryBudget;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory does not fail")
}

/// A source whose requests may hold so much memory altogether.
fn world(max_reading_bytes: usize) -> World {
    let mut otlp = otlp_source();
    otlp.limits.max_reading_bytes = max_reading_bytes;
    World::new(SourceKind::Otlp(otlp), Engine::Takes, &Secrets::default())
}

/// Scenario: 17 MiB where 16 are allowed, with the length said beforehand and without.
/// Guarantee: refused for good, and nothing is kept of it.
#[test]
fn a05_body_too_large() {
    let world = World::otlp(Engine::Takes);
    let body = vec![0; 17 << 20];
    let answer = post(world.address("http"), "/v1/metrics", &[PROTOBUF], &body);
    assert_eq!((answer.status, answer.header("retry-after")), (413, ""));

    let mut socket = client::connect(world.address("http"));
    let head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
        transfer-encoding: chunked\r\n\r\n1100000\r\n";
    socket.write_all(head.as_bytes()).expect("it is read");
    let _ = socket.write_all(&body);
    assert_eq!(client::answer(socket).status, 413);

    let answer = grpc(&world, &Call::of("metrics", body));
    let (code, details) = answer.grpc();
    assert_eq!((code, String::from_utf8_lossy(&details).contains("RetryInfo")), ("8", false));
    world.await_that("memory to be given back", || world.figure("reading_bytes") == 0);
    assert_eq!((world.loads().len(), world.stats.requests(Outcome::TooLarge)), (0, 3));
}

/// Scenario: 128 MiB of zeros in 128 KiB and less, to a source that may hold 65 MiB.
/// Guarantee: refused as too large, which it could not be had more memory been asked for.
#[test]
fn a06_gzip_bomb() {
    let zeros = vec![0; 128 << 20];
    // The second lies about its length: it says 1 KiB.
    let honest = gzip(&zeros);
    let mut liar = honest.clone();
    let len = liar.len();
    liar[len - 4..].copy_from_slice(&1024_u32.to_le_bytes());
    let world = world(65 << 20);
    for (name, bomb) in [("gzip", honest), ("gzip", liar), ("zstd", zstd(&zeros))] {
        let answer =
            post(world.address("http"), "/v1/metrics", &[PROTOBUF, ("content-encoding", name)], &bomb);
        assert_eq!((answer.status, answer.header("retry-after")), (413, ""), "{name}: {}", answer.text());
    }
    world.await_that("memory to be given back", || world.figure("reading_bytes") == 0);
    assert_eq!(world.loads().len(), 0);
}

/// Scenario: the same by gRPC; then a body packed twice.
/// Guarantee: RESOURCE_EXHAUSTED; of the other one layer is unpacked and no more.
#[test]
fn a07_gzip_bomb_grpc() {
    let world = world(65 << 20);
    let bomb = gzip(&vec![0; 128 << 20]);
    let answer = grpc(&world, &Call { encoding: "gzip", ..Call::of("metrics", bomb) });
    assert_eq!(answer.grpc().0, "8");
    let inner = gzip(b"\x0a\x00");
    let answer = grpc(&world, &Call { encoding: "gzip", ..Call::of("metrics", gzip(&inner)) });
    assert_eq!(answer.header("grpc-status"), "0");
    assert!(matches!(&world.loads()[..], [Load::Metrics(bytes)] if bytes[..] == inner[..]));
}

#[test]
fn a08_unsupported_encoding() {
    let world = World::otlp(Engine::Takes);
    let body = b"\x0a\x00";
    for (coding, body, status) in [
        ("br", body.to_vec(), 415),
        ("snappy", body.to_vec(), 415),
        ("x", body.to_vec(), 415),
        ("gzip, gzip", gzip(&gzip(body)), 415),
        ("gzip", body.to_vec(), 400),
        ("gzip", b"plain text that is longer than a trailer".to_vec(), 400),
        ("zstd", body.to_vec(), 400),
        ("GZIP", gzip(body), 200),
        ("zstd", zstd(body), 200),
        ("identity", body.to_vec(), 200),
    ] {
        let answer =
            post(world.address("http"), "/v1/metrics", &[PROTOBUF, ("content-encoding", coding)], &body);
        assert_eq!(answer.status, status, "{coding}");
    }
    assert_eq!(world.loads().len(), 3, "nothing is handed on raw");
    for (encoding, message, code) in
        [("br", body.to_vec(), "12"), ("gzip", body.to_vec(), "3"), ("zstd", zstd(body), "0")]
    {
        let answer = grpc(&world, &Call { encoding, ..Call::of("metrics", message) });
        assert_eq!(answer.header("grpc-status"), code, "{encoding}");
    }
}

/// Guarantee: nesting overflows nothing, in groups, in messages and in JSON.
#[test]
fn a09_proto_group_depth() {
    let world = World::otlp(Engine::Takes);
    let mut value = b"\x0a\x01x".to_vec();
    let wrap = |field: u8, inner: &[u8]| {
        let mut out = Vec::new();
        super::super::reply::put_bytes(field.into(), inner, &mut out);
        out
    };
    for _ in 0..101 {
        value = wrap(5, &wrap(1, &value));
    }
    let deep = wrap(1, &wrap(2, &wrap(2, &wrap(5, &value))));
    for body in [b"\x0b".repeat(1_000_000), wrap(1, &b"\x0b".repeat(1_000_000)), deep] {
        assert_eq!(post(world.address("http"), "/v1/logs", &[PROTOBUF], &body).status, 400);
        assert_eq!(grpc(&world, &Call::of("logs", body)).header("grpc-status"), "3");
    }
}

#[test]
fn a10_json_depth() {
    let world = World::otlp(Engine::Takes);
    let deep = "[".repeat(1_000_000);
    for body in [deep.clone(), format!("{{\"resourceMetrics\":{deep}"), format!("{{\"unknown\":{deep}")] {
        for path in ["/v1/metrics", "/v1/logs", "/v1/traces", "/v1/events"] {
            let kind = if path == "/v1/events" { "application/cloudevents+json" } else { JSON.1 };
            let answer = post(world.address("http"), path, &[("content-type", kind)], body.as_bytes());
            assert_eq!(answer.status, 400, "{path}");
        }
    }
}

/// Scenario: 2,000,000 points of three bytes in one request.
/// Guarantee: refused before as many objects are made of it.
#[test]
fn a11_huge_repeated() {
    let world = World::otlp(Engine::Takes);
    let points = "{},".repeat(2_000_000) + "{}";
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
    );
    let answer = post(world.address("http"), "/v1/metrics", &[JSON], body.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("at most 500000"), "{}", answer.text());
    assert_eq!(world.loads().len(), 0);
}

/// Scenario: a change event with a list of numbers that as a tree takes sixteen times as much as in the request.
/// Guarantee: refused before it is one.
#[test]
fn a11_huge_list_in_an_event() {
    let world = World::otlp(Engine::Takes);
    let event = |n: usize| {
        let list = "0,".repeat(n);
        format!(r#"{{"specversion":"1.0","id":"1","source":"ci","type":"deploy","data":[{list}0]}}"#)
    };
    let kind = [("content-type", "application/cloudevents+json")];
    for (n, status) in [(900_000, 200), (1_100_000, 400)] {
        assert_eq!(post(world.address("http"), "/v1/events", &kind, event(n).as_bytes()).status, status);
    }
    assert_eq!(world.entries(), 1);
}

#[test]
fn a21_header_flood() {
    let world = World::otlp(Engine::Takes);
    let many: Vec<(String, String)> = (0..200).map(|i| (format!("x-{i}"), "1".to_owned())).collect();
    let long = [("x".to_owned(), "y".repeat(64 << 10))];
    let middling = [("x".to_owned(), "y".repeat(17 << 10))];
    for headers in [&many[..], &long, &middling] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let answer = post(world.address("http"), "/v1/metrics", &headers, b"");
        assert_eq!(answer.status, 431);
    }
    let answer = grpc(&world, &Call { token: &"y".repeat(15 << 10), ..Call::of("metrics", "") });
    assert_eq!(answer.header("grpc-status"), "0", "15 KiB are allowed");
    let answer = grpc(&world, &Call { token: &"y".repeat(17 << 10), ..Call::of("metrics", "") });
    assert_eq!(answer.status, 431);
}

/// Inflates without a socket.
fn unpack(coding: Coding, wire: &[u8], limit: usize) -> Result<Vec<u8>, Outcome> {
    let (hub, _opened) = Hub::new(BTreeMap::new());
    let inlet = hub.open("test", Reads::Push, &Budget::new(1));
    let clock = Arc::new(|| Timestamp::MIN);
    let shared = Arc::new(ListenerShared::new(
        Way::Straight(inlet),
        Limits::default(),
        (Vec::new(), clock),
        MemoryBudget::default(),
    ));
    let front = Arc::new(shared.for_peer([127, 0, 0, 1].into()));
    let held = front.admit(&HeaderMap::new()).expect("there is room").held;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let inflated = runtime.block_on(inflate(coding, wire.to_vec().into(), limit, held));
    inflated.map(|(bytes, _)| bytes.to_vec()).map_err(|fault| fault.outcome)
}

/// Guarantee: what gzip and zstd packed comes back, in one part or several, and up to the limit exactly.
#[test]
fn packed_bodies_come_back() {
    for len in [0, 1, 1_000, 70_000, 1_500_000] {
        let plain: Vec<u8> = (0..len).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (coding, packed) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
            let unpack = |wire: &[u8], limit| unpack(coding, wire, limit);
            assert_eq!(unpack(&packed, plain.len()).as_ref(), Ok(&plain), "{coding:?} {len}");
            let twice = packed.repeat(2);
            assert_eq!(unpack(&twice, 2 * plain.len()), Ok(plain.repeat(2)), "{coding:?} {len}");
            if len > 0 {
                assert_eq!(unpack(&packed, plain.len() - 1), Err(Outcome::TooLarge), "{coding:?} {len}");
                assert_eq!(unpack(&packed[..packed.len() - 1], 1 << 21), Err(Outcome::Malformed));
            }
        }
    }
    let mut wrong = gzip(b"some text");
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    assert_eq!(unpack(Coding::Gzip, &wrong, 100), Err(Outcome::Malformed), "its checksum is wrong");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Guarantee: damage is found out and never panics; what is accepted is what was packed.
    #[test]
    fn damaged_bodies(at in any::<usize>(), bit in 0..8_u8, cut in any::<usize>(), is_gzip in any::<bool>()) {
        let plain = b"0123456789".repeat(40);
        let (coding, mut wire) =
            if is_gzip { (Coding::Gzip, gzip(&plain)) } else { (Coding::Zstd, zstd(&plain)) };
        let at = at % wire.len();
        wire[at] ^= 1 << bit;
        wire.truncate(1 + cut % (2 * wire.len()));
        let found = unpack(coding, &wire, 1 << 20);
        prop_assert!(!is_gzip || found.as_ref().is_err() || found.as_ref() == Ok(&plain));
    }
}
