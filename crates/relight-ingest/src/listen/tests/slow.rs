//! Senders that are slow, go away, or talk nonsense; and the end of it all.
//!
//! Time is tokio's own and stands still while there is something to do: ten seconds pass at once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relight_core::Timestamp;
use relight_core::responder::Secrets;
use relight_core::source::{SourceKind, SourceSpec};

use super::super::{Outcome, Running, SourceStats, start};
use super::world::BOUND;
use super::*;
use crate::live::Hub;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// Lets a sender talk to a source whose time passes only while nobody else does anything.
fn with_virtual_time(talk: impl FnOnce(SocketAddr, SocketAddr) + Send + 'static) -> Arc<SourceStats> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (hub, _opened) = Hub::new(BTreeMap::new());
    let spec = SourceSpec { name: "test".to_owned(), kind: SourceKind::Otlp(otlp_source()) };
    let clock = Arc::new(|| Timestamp::from_secs(1));
    let running: Running =
        start(&spec, &Secrets::default(), &hub, clock, runtime.handle(), Path::new("no-journals"))
            .expect("it starts");
    let address = |key| running.addresses().iter().find(|(name, _)| *name == key).expect("it listens").1;
    let (http, grpc) = (address("http"), address("grpc"));
    let talk = std::thread::spawn(move || talk(http, grpc));
    runtime.block_on(async {
        while !talk.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::thread::yield_now();
        }
    });
    talk.join().expect("the sender got its answers");
    Arc::clone(running.stats())
}

/// What the other side says until it closes the connection.
fn last_words(mut socket: &TcpStream) -> String {
    let mut said = Vec::new();
    socket.read_to_end(&mut said).expect("it closes within the bound");
    String::from_utf8_lossy(&said).into_owned()
}

/// Scenario: connections that say nothing, half a line, half a head, half of HTTP/2's preface.
/// Guarantee: each is closed, on either port.
#[test]
fn a18_slowloris_headers() {
    let stats = with_virtual_time(|http, grpc| {
        for to in [http, grpc] {
            for start in ["", "POST /v1", "POST /v1/metrics HTTP/1.1\r\nhost: x\r\nx-a", "PRI * HTTP/2.0\r\n"]
            {
                let mut socket = client::connect(to);
                socket.write_all(start.as_bytes()).expect("it is read");
                assert!(!last_words(&socket).contains("200"), "{start}");
            }
        }
    });
    assert_eq!(stats.requests(Outcome::Taken), 0);
}

/// Scenario: a head, and then a body that stops in its middle.
/// Guarantee: the sender is told that it took too long, nothing is applied, and the memory is given back.
#[test]
fn a19_slow_body() {
    let stats = with_virtual_time(|http, _| {
        let mut socket = client::connect(http);
        let head = client::head("/v1/metrics", &[PROTOBUF], 1_000);
        socket.write_all(&[head.as_bytes(), &[0; 500]].concat()).expect("it is read");
        assert_eq!(client::answer(socket).status, 408);
    });
    assert_eq!(stats.requests(Outcome::TimedOut), 1);
    assert!(stats.figures().iter().all(|figure| figure.name != "reading_bytes" || figure.value == 0));
}

/// Guarantee: half a request is no request.
#[test]
fn a16_client_disconnect_mid_body() {
    let world = World::otlp(Engine::Takes);
    let mut socket = client::connect(world.address("http"));
    let head = client::head("/v1/metrics", &[PROTOBUF], 1_000_000);
    socket.write_all(&[head.as_bytes(), &vec![0; 500_000]].concat()).expect("it is read");
    world.await_that("half of it", || world.figure("wire_bytes") >= 500_000);
    drop(socket);
    world.await_requests(Outcome::Disconnected, 1);
    world.await_that("memory to be given back", || world.figure("reading_bytes") == 0);
    assert_eq!((world.loads().len(), world.figure("requests_in_flight")), (0, 0));
}

/// Scenario: more connections than one sender may have; then some of them go.
/// Guarantee: those beyond are closed at once and counted, and there is room again afterwards.
#[test]
fn connections_are_bounded() {
    let mut otlp = otlp_source();
    otlp.limits.max_connections_per_ip = 3;
    let world = World::new(SourceKind::Otlp(otlp), Engine::Takes, &Secrets::default());
    let http = world.address("http");
    let held: Vec<TcpStream> = (0..3).map(|_| client::connect(http)).collect();
    world.await_that("three connections", || world.figure("connections_open") == 3);
    assert_eq!(last_words(&client::connect(http)), "");
    assert_eq!(world.figure("connections_turned_away"), 1);
    drop(held);
    world.await_that("them to go", || world.figure("connections_open") == 0);
    assert_eq!(post(http, "/v1/metrics", &[PROTOBUF], b"").status, 200);
}

/// Scenario: more requests at a time than there may be.
/// Guarantee: those beyond are sent away with the time to come again.
#[test]
fn requests_are_bounded() {
    let mut otlp = otlp_source();
    otlp.limits.max_requests = 1;
    let mut world = World::new(SourceKind::Otlp(otlp), Engine::Waits, &Secrets::default());
    let http = world.address("http");
    let first = std::thread::spawn(move || post(http, "/v1/metrics", &[PROTOBUF], b"\x0a\0"));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let answer = post(http, "/v1/metrics", &[PROTOBUF], b"\x0a\0");
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false));
    world.go();
    assert_eq!(first.join().expect("answered").status, 200);
}

/// Scenario: there may be two requests at a time, and the bodies of three are awaited.
/// Guarantee: what is awaited takes no place: a request that is there as a whole is taken.
#[test]
fn a19_an_awaited_body_takes_no_place() {
    let mut otlp = otlp_source();
    otlp.limits.max_requests = 2;
    let world = World::new(SourceKind::Otlp(otlp), Engine::Takes, &Secrets::default());
    let http = world.address("http");
    let head = client::head("/v1/metrics", &[PROTOBUF], 1_000);
    let _slow: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut socket = client::connect(http);
            socket.write_all(&[head.as_bytes(), &[0; 500]].concat()).expect("it is read");
            socket
        })
        .collect();
    world.await_that("three bodies to be awaited", || world.figure("requests_in_flight") == 3);
    assert_eq!(post(http, "/v1/metrics", &[PROTOBUF], b"\x0a\0").status, 200);
}

/// Scenario: relight stops while a request waits for the engine.
/// Guarantee: it is answered, nobody is let in any more, and the partition is let go with what listened, not before.
#[test]
fn a_stop_answers_what_is_in_flight() {
    let mut world = World::otlp(Engine::Waits);
    let http = world.address("http");
    let first = std::thread::spawn(move || post(http, "/v1/metrics", &[PROTOBUF], b"\x0a\0"));
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let mut running = world.running.take().expect("it runs");
    let stopped = world.runtime.spawn(async move { (running.stop(BOUND).await, running) });
    world.await_that("the door to close", || TcpStream::connect(http).is_err());
    world.go();
    assert_eq!(first.join().expect("answered").status, 200);
    let (all_answered, running) = world.runtime.block_on(stopped).expect("it stopped");
    assert!(all_answered && !world.is_closed());
    drop(running);
    world.await_that("the partition to be let go", || world.is_closed());
}

/// Scenario: the engine never answers.
/// Guarantee: the stop is over in its time all the same, and says that it left somebody unanswered.
#[test]
fn a_stop_is_bounded() {
    let mut world = World::otlp(Engine::Waits);
    let http = world.address("http");
    let first = std::thread::spawn(move || {
        let mut socket = client::connect(http);
        let head = client::head("/v1/metrics", &[PROTOBUF], 2);
        socket.write_all(&[head.as_bytes(), b"\x0a\0"].concat()).expect("it is read");
        last_words(&socket)
    });
    world.await_that("the first to wait", || world.figure("requests_waiting") == 1);
    let mut running = world.running.take().expect("it runs");
    assert!(!world.runtime.block_on(running.stop(Duration::from_millis(10))));
    assert_eq!(first.join().expect("closed"), "");
}

#[test]
fn an_address_in_use_is_said_with_what_to_do() {
    let world = World::otlp(Engine::Takes);
    let taken = world.address("grpc");
    let otlp = relight_core::source::Otlp { grpc: relight_core::source::Listen::At(taken), ..otlp_source() };
    let spec = SourceSpec { name: "shop".to_owned(), kind: SourceKind::Otlp(otlp) };
    let (hub, opened) = Hub::new(BTreeMap::new());
    let clock = Arc::new(|| Timestamp::from_secs(1));
    let error =
        start(&spec, &Secrets::default(), &hub, clock, world.runtime.handle(), Path::new("no-journals"))
            .err()
            .expect("in use");
    let message = error.to_string();
    assert!(message.starts_with(&format!("cannot listen on {taken} (")), "{message}");
    assert!(message.ends_with("stop who listens there, or change `sources.shop.grpc`"), "{message}");
    assert!(opened.try_recv().is_err(), "no partition is opened that nobody feeds");
}
