//! OTLP's answers, by HTTP and by gRPC.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use relight_core::record::Reason;
use relight_core::refusal::{Origin, Refusals};

use super::super::Outcome;
use super::*;
use crate::live::{Load, Verdict};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
/// A resource with a scope with nothing in it: not empty, and yet no point, log record or span.
const ENVELOPE: &[u8] = b"\x0a\x02\x12\x00";
/// `Status` of code 3 and no details: what a malformed request is answered with.
const INVALID: &[u8] = b"\x08\x03\x12";

fn gauge(points: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
    )
}

/// Scenario: envelopes without an entry, and nothing at all.
/// Guarantee: success without `partial_success`, by any way in.
#[test]
fn a01_empty_envelope() {
    let world = World::otlp(Engine::Takes);
    let http = world.address("http");
    for signal in ["metrics", "logs", "traces"] {
        for body in [ENVELOPE, b""] {
            let answer = post(http, &format!("/v1/{signal}"), &[PROTOBUF], body);
            assert_eq!((answer.status, answer.header("content-type")), (200, PROTOBUF.1));
            assert_eq!(answer.text(), "");
            let answer = grpc(&world, &Call::of(signal, body));
            assert_eq!((answer.header("grpc-status"), answer.body.as_slice()), ("0", &b"\0\0\0\0\0"[..]));
        }
        for body in ["{}", r#"{"resourceMetrics":[{}]}"#, r#"{"resourceMetrics":[],"more":{"x":[1]}}"#] {
            let answer = post(http, &format!("/v1/{signal}"), &[JSON], body.as_bytes());
            assert_eq!((answer.status, answer.header("content-type")), (200, JSON.1));
            assert_eq!(answer.text(), "{}");
        }
    }
    assert_eq!(world.entries(), 0);
    assert_eq!(world.stats.requests(Outcome::Taken), 21);
}

/// Guarantee: what is no protobuf is refused with a status that says so, and nobody sends it again.
#[test]
fn a02_malformed_protobuf() {
    let world = World::otlp(Engine::Says(Verdict::Malformed("cut short".to_owned())));
    let bad: [&[u8]; 4] = [b"\xff\xff\xff", b"\x0a\x7f\x01", b"\x0a\x02\x0f\x01", b"\x0d\x01"];
    for (signal, body) in ["metrics", "logs", "traces"].into_iter().flat_map(|s| bad.map(|body| (s, body))) {
        let answer = post(world.address("http"), &format!("/v1/{signal}"), &[PROTOBUF], body);
        assert_eq!((answer.status, answer.header("retry-after")), (400, ""), "{signal} {body:?}");
        assert_eq!(answer.header("content-type"), PROTOBUF.1);
        assert!(answer.body.starts_with(INVALID), "{:?}", answer.text());
        let (answer, hint) = (grpc(&world, &Call::of(signal, body)), "RetryInfo");
        let (code, details) = answer.grpc();
        assert_eq!((answer.status, code), (200, "3"));
        assert!(details.starts_with(INVALID) && !String::from_utf8_lossy(&details).contains(hint));
        assert!(!answer.header("grpc-message").is_empty());
    }
    assert_eq!(world.stats.requests(Outcome::Malformed), 24);
}

#[test]
fn a03_malformed_json() {
    let world = World::otlp(Engine::Takes);
    let point = r#"{"timeUnixNano":"5","asInt":"7"}"#;
    let enumeration = gauge(point).replace("\"gauge\":{", "\"sum\":{\"aggregationTemporality\":\"DELTA\",");
    for bad in [
        &b"{\"resourceMetrics\":[{}],}"[..],
        b"{\"resourceMetrics\":[\"\xff\"]}",
        b"[]",
        b"",
        enumeration.as_bytes(),
    ] {
        let answer = post(world.address("http"), "/v1/metrics", &[JSON], bad);
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(bad));
        assert_eq!(answer.header("content-type"), JSON.1);
        let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("a Status");
        assert_eq!(status["code"], 3);
    }
    assert_eq!(world.entries(), 0);
    let mixed = gauge(&format!(r#"{point},{{"timeUnixNano":5,"asInt":7,"newField":[]}}"#));
    assert_eq!(post(world.address("http"), "/v1/metrics", &[JSON], mixed.as_bytes()).text(), "{}");
    assert_eq!(world.entries(), 2, "64-bit integers are strings or numbers, unknown fields are left alone");
}

/// Scenario: 100 points, of which 7 are NaN; the same as the engine's word on an undecoded request.
/// Guarantee: 93 are in, and the sender reads of which source, metric and service the 7 were, by any way in.
#[test]
fn a04_partial_reject() {
    let refused = vec![(Reason::NonFinite, 7), (Reason::Duplicate, 2)];
    let mut names = Refusals::default();
    names.add(Reason::NonFinite, Origin { metric: "m", service: "shop" }, "no number", 7);
    names.add(Reason::Duplicate, Origin::default(), "", 2);
    let world = World::otlp(Engine::Says(Verdict::TakenInPart { refused, names }));
    let mut points = String::new();
    for i in 0..100 {
        let value = if i < 7 { "\"NaN\"" } else { "1" };
        write!(points, "{}{{\"timeUnixNano\":\"5\",\"asDouble\":{value}}}", if i > 0 { "," } else { "" })
            .expect("a String takes any text");
    }
    let answer = post(world.address("http"), "/v1/metrics", &[JSON], gauge(&points).as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        r#"{"partialSuccess":{"errorMessage":"non_finite 7; source `test`: `m`: non_finite 7 (a value that is NaN or infinite)","rejectedDataPoints":"7"}}"#
    );
    assert_eq!(world.entries(), 93);

    let message = b"non_finite 7; source `test`: `m` of service `shop`: non_finite 7 (no number)";
    let (all, text) = (message.len() as u8 + 4, message.len() as u8);
    let expected = [&[0x0a, all, 0x08, 0x07, 0x12, text], &message[..]].concat();
    let answer = post(world.address("http"), "/v1/metrics", &[PROTOBUF], ENVELOPE);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &expected[..]));
    let answer = grpc(&world, &Call::of("metrics", ENVELOPE));
    assert_eq!(answer.header("grpc-status"), "0");
    assert_eq!(answer.body[5..], expected);
    assert_eq!((world.stats.requests(Outcome::Partial), world.stats.rejected(Reason::NonFinite)), (3, 21));
}

/// Guarantee: a point with too many or too long attributes is refused alone, and counted.
#[test]
fn a12_wide_attributes() {
    let world = World::otlp(Engine::Takes);
    let text = |n: usize| "x".repeat(n);
    let attribute =
        |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
    let many: Vec<String> = (0..10_000).map(|i| attribute(&i.to_string(), "")).collect();
    for attributes in [many.join(","), attribute(&text(1 << 20), ""), attribute("k", &text(1 << 20))] {
        let wide = format!(r#"{{"timeUnixNano":"5","asInt":1,"attributes":[{attributes}]}}"#);
        let body = gauge(&format!(r#"{wide},{{"timeUnixNano":"5","asInt":1}}"#));
        let answer = post(world.address("http"), "/v1/metrics", &[JSON], body.as_bytes());
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(r#""rejectedDataPoints":"1""#), "{}", answer.text());
        assert!(answer.body.len() < 5_000, "{}", answer.body.len());
        assert_eq!(world.entries(), 1);
    }
    assert_eq!(world.stats.rejected(Reason::LabelLimit), 3);
}

#[test]
fn a13_content_type_mismatch() {
    let world = World::otlp(Engine::Takes);
    let http = world.address("http");
    for (headers, path, body, status) in [
        (&[PROTOBUF][..], "/v1/logs", "{}", 400),
        (&[JSON], "/v1/logs", "\n\0", 400),
        (&[], "/v1/metrics", "{}", 415),
        (&[("content-type", "text/plain")], "/v1/metrics", "{}", 415),
        (&[("content-type", "application/json; charset=utf-8")], "/v1/metrics", "{}", 200),
        (&[JSON, ("origin", "http://x")], "/v1/metrics", "{}", 403),
        (&[JSON], "/v1/metrics/", "{}", 404),
        (&[JSON], "/", "{}", 404),
    ] {
        let answer = post(http, path, headers, body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?} {path}");
    }
    let get = |path: &str| {
        let mut socket = client::connect(http);
        std::io::Write::write_all(&mut socket, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .expect("read");
        client::answer(socket)
    };
    assert!(get("/").text().contains("/v1/metrics"));
    assert_eq!(
        (get("/v1/metrics").status, get("/v1/metrics").header("allow").to_owned()),
        (405, "POST".to_owned())
    );
    assert_eq!(grpc(&world, &Call::of("/x.Unknown/Export", "")).header("grpc-status"), "12");
    assert_eq!(post(world.address("grpc"), "/v1/metrics", &[JSON], b"{}").status, 415);
}

/// Scenario: a log record with a stack trace of a hundred lines as an attribute, by all ways in, and a change event.
/// Guarantee: each is taken, the long value is cut; too many labels and too long names are refused as those of points are.
#[test]
fn an_event_with_a_long_value_is_taken() {
    let world = World::otlp(Engine::Takes);
    let trace = "\tat com.example.Shop.pay(Shop.java:42)\n".repeat(100);
    let told = format!("{}…", &trace[..1_021]);
    let logs = |key: &str, value: &str| {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
        let attributes = vec![KeyValue { key: key.to_owned(), value, ..KeyValue::default() }];
        let log_records = vec![LogRecord { time_unix_nano: 5, attributes, ..LogRecord::default() }];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    };
    let json = serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "5",
        "attributes": [{"key": "exception.stacktrace", "value": {"stringValue": trace}}]}]}]}]});
    let event = serde_json::json!({"specversion": "1.0", "id": "1", "source": "ci", "type": "deploy",
        "data": {"labels": {"exception.stacktrace": trace}}});
    let (http, body) = (world.address("http"), logs("exception.stacktrace", &trace));
    assert_eq!(post(http, "/v1/logs", &[JSON], json.to_string().as_bytes()).text(), "{}");
    assert_eq!(post(http, "/v1/logs", &[PROTOBUF], &body).text(), "");
    assert_eq!(grpc(&world, &Call::of("logs", &*body)).header("grpc-status"), "0");
    let kind = [("content-type", "application/cloudevents+json")];
    assert_eq!(post(http, "/v1/events", &kind, event.to_string().as_bytes()).status, 200);
    let values = world.loads().into_iter().map(|load| {
        let Load::Record(record) = load else { panic!("events are decoded here") };
        record.events[0].labels.get("exception.stacktrace").map(str::to_owned)
    });
    assert_eq!(values.collect::<Vec<_>>(), vec![Some(told); 4]);

    assert_eq!(post(http, "/v1/logs", &[PROTOBUF], &logs(&trace, "x")).status, 200);
    assert_eq!((world.entries(), world.stats.rejected(Reason::LabelLimit)), (0, 1));
}

/// A World whose queue one waiting request fills.
fn full() -> World {
    let mut otlp = otlp_source();
    otlp.limits.max_waiting_bytes = 1;
    let kind = relight_core::source::SourceKind::Otlp(otlp);
    World::new(kind, Engine::Waits, &relight_core::responder::Secrets::default())
}

/// Scenario: the queue is full; the refused request is sent again once there is room.
/// Guarantee: it is sent away with the time to come again, and then taken once.
#[test]
fn a14_throttled_http() {
    let mut world = full();
    let http = world.address("http");
    let first = std::thread::spawn(move || post(http, "/v1/metrics", &[PROTOBUF], ENVELOPE));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let mut answer = post(http, "/v1/events", &[("content-type", "application/cloudevents+json")], EVENT);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=30).contains(&seconds));
    world.go();
    assert_eq!(first.join().expect("answered").status, 200);
    answer = post(http, "/v1/events", &[("content-type", "application/cloudevents+json")], EVENT);
    assert_eq!((answer.status, answer.text().contains(r#""taken":1"#)), (200, true), "{}", answer.text());
    assert_eq!(world.entries(), 1);
}

const EVENT: &[u8] =
    br#"{"specversion":"1.0","id":"1","source":"ci","type":"deploy","data":{"labels":{"service":"shop"}}}"#;

#[test]
fn a15_throttled_grpc() {
    let mut world = full();
    let http = world.address("http");
    let first = std::thread::spawn(move || post(http, "/v1/metrics", &[PROTOBUF], ENVELOPE));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let answer = grpc(&world, &Call::of("metrics", ENVELOPE));
    let (code, details) = answer.grpc();
    assert_eq!(code, "14");
    let marker = b"type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08";
    let at = details.windows(marker.len()).position(|part| part == marker).expect("RetryInfo");
    assert!((1..=30).contains(&details[at + marker.len()]));
    world.go();
    assert_eq!(first.join().expect("answered").status, 200);
    assert_eq!(grpc(&world, &Call::of("metrics", ENVELOPE)).header("grpc-status"), "0");
    assert_eq!(world.loads().len(), 2);
}

/// While something is set, what is pushed is sent away with the time to come again, by both protocols, and nothing of
/// it comes through; then it is taken.
fn check_sends_away(set: impl Fn(&World, bool)) {
    let world = World::otlp(Engine::Takes);
    set(&world, true);
    let answer = post(world.address("http"), "/v1/metrics", &[PROTOBUF], ENVELOPE);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    assert_eq!(grpc(&world, &Call::of("metrics", ENVELOPE)).grpc().0, "14");
    assert_eq!(world.loads().len(), 0);
    set(&world, false);
    assert_eq!(post(world.address("http"), "/v1/metrics", &[PROTOBUF], ENVELOPE).status, 200);
    assert_eq!(world.loads().len(), 1);
}

/// Scenario: this relight stands by while another acts, then takes over.
/// Guarantee: see [`check_sends_away`].
#[test]
fn a_standby_sends_away_what_is_pushed() {
    check_sends_away(|world, is_set| world.hub.stand_by(is_set));
}

/// Scenario: memory is short, and then it is not.
/// Guarantee: see [`check_sends_away`].
#[test]
fn d06_what_is_pushed_is_sent_away_while_memory_is_short() {
    check_sends_away(|world, is_set| world.hub.brake().hold(is_set));
}

/// Scenario: a request is applied, but its sender is gone before it hears of it, and sends it again.
/// Guarantee: both go to the engine as they are, which knows the points by series and time; what it cannot
/// know so, change events, is taken once.
#[test]
fn a17_ack_lost_retry() {
    let mut world = World::otlp(Engine::Waits);
    let http = world.address("http");
    let mut socket = client::connect(http);
    let head = client::head("/v1/metrics", &[PROTOBUF], ENVELOPE.len());
    std::io::Write::write_all(&mut socket, &[head.as_bytes(), ENVELOPE].concat()).expect("it is read");
    world.await_that("it to wait", || world.figure("requests_waiting") == 1);
    drop(socket);
    world.await_requests(Outcome::Disconnected, 1);
    world.go();
    assert_eq!(post(http, "/v1/metrics", &[PROTOBUF], ENVELOPE).status, 200);
    let loads = world.loads();
    assert_eq!(loads.len(), 2);
    assert!(loads.iter().all(|load| matches!(load, Load::Metrics(bytes) if &bytes[..] == ENVELOPE)));

    let kind = [("content-type", "application/cloudevents+json")];
    let answers = [0, 1].map(|_| post(http, "/v1/events", &kind, EVENT).text());
    assert_eq!(
        answers,
        [r#"{"refused":{},"repeated":0,"taken":1}"#, r#"{"refused":{},"repeated":1,"taken":0}"#]
    );
    assert_eq!(world.entries(), 1);
}

/// Scenario: a change event is on its way to the engine when its sender goes away; it sends the event again before the engine
/// has taken the first, and once more afterwards.
/// Guarantee: the event is taken once: meanwhile its sender is told to come again, then that it is a repetition.
#[test]
fn a17_ack_lost_retry_of_an_event() {
    let mut world = World::otlp(Engine::Waits);
    let http = world.address("http");
    let kind = [("content-type", "application/cloudevents+json")];
    let mut socket = client::connect(http);
    let head = client::head("/v1/events", &kind, EVENT.len());
    std::io::Write::write_all(&mut socket, &[head.as_bytes(), EVENT].concat()).expect("it is read");
    world.await_that("it to wait", || world.figure("requests_waiting") == 1);
    drop(socket);
    world.await_requests(Outcome::Disconnected, 1);
    assert_eq!(post(http, "/v1/events", &kind, EVENT).status, 503);
    world.go();
    let mut answer = post(http, "/v1/events", &kind, EVENT);
    while answer.status == 503 {
        answer = post(http, "/v1/events", &kind, EVENT);
    }
    assert_eq!(answer.text(), r#"{"refused":{},"repeated":1,"taken":0}"#);
    assert_eq!(world.entries(), 1);
}

/// Scenario: relight stops with requests unanswered.
/// Guarantee: their senders are told to come again.
#[test]
fn a_dropped_answer_is_no_success() {
    let world = World::otlp(Engine::Drops);
    assert_eq!(post(world.address("http"), "/v1/metrics", &[PROTOBUF], ENVELOPE).status, 503);
    assert_eq!(grpc(&world, &Call::of("metrics", ENVELOPE)).header("grpc-status"), "14");
    assert_eq!(world.stats.requests(Outcome::Stopping), 2);
}

/// Scenario: two resources with three spans, by all ways in.
/// Guarantee: they are counted, and nothing of them goes to the engine.
#[test]
fn traces_are_counted() {
    let world = World::otlp(Engine::Takes);
    let protobuf = b"\x0a\x06\x12\x04\x12\x00\x12\x00\x0a\x04\x12\x02\x12\x00";
    let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{"name":"x"}]}]},{"scopeSpans":[{"spans":[{}]}]}]}"#;
    assert_eq!(post(world.address("http"), "/v1/traces", &[PROTOBUF], protobuf).status, 200);
    assert_eq!(post(world.address("http"), "/v1/traces", &[JSON], json).text(), "{}");
    assert_eq!(grpc(&world, &Call::of("traces", protobuf)).header("grpc-status"), "0");
    assert_eq!((world.figure("spans"), world.loads().len()), (9, 0));
}
