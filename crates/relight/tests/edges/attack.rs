//! Senders that take all they can, beside one that is well behaved: it must not notice.
//!
//! Peers are addresses of 127.0.0.0/8: the attacker is 127.0.0.1, the healthy sender another one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::daemon::*;
use crate::h2::{DATA, END_HEADERS, HEADERS, Peer};

const ATTACKER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const HEALTHY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Sends points one after another from the healthy sender's address, each once; how many were taken.
pub(crate) fn healthy(daemon: &Daemon, seconds: std::ops::Range<i64>) -> usize {
    let taken = seconds.filter(|second| {
        let body = point(*second, quiet(*second));
        let head = head("POST", "/v1/metrics", "Content-Type: application/json\r\n", body.len());
        let mut stream = connect_as(daemon.http, HEALTHY);
        let mut answer = String::new();
        let is_sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        is_sent.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    });
    taken.count()
}

/// An HTTP/2 connection with so many requests whose bodies do not go on.
fn slow_streams(to: SocketAddr, path: &str, kind: &str, count: u32) -> Peer {
    let mut peer = Peer::over(connect_as(to, ATTACKER));
    let head = crate::h2::post(path, kind);
    for stream in (1..).step_by(2).take(count as usize) {
        assert!(peer.send(HEADERS, END_HEADERS, stream, &head) && peer.send(DATA, 0, stream, b"\x0a"));
    }
    // Settings and the answer to ours have come: the frames before are read in their order.
    assert!(peer.send(crate::h2::PING, 0, 0, &[0; 8]));
    peer.frames(|frames| frames.iter().any(|(kind, _)| *kind == crate::h2::PING));
    peer
}

/// Scenario: one address opens two HTTP/2 connections with 128 streams each, to either port, and lets their bodies wait.
/// Guarantee: each request of a sender on another address is taken meanwhile.
#[test]
fn a19_slow_streams_of_one_address() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let grpc = daemon.addresses[0];
    let slow = [
        slow_streams(grpc, METRICS, "application/grpc", 128),
        slow_streams(grpc, METRICS, "application/grpc", 128),
        slow_streams(daemon.http, "/v1/metrics", "application/x-protobuf", 128),
        slow_streams(daemon.http, "/v1/metrics", "application/x-protobuf", 128),
    ];
    wait_until("all streams", || daemon.gauge("requests_in_flight") >= 256.0);
    assert_eq!(healthy(&daemon, 0..50), 50);
    drop(slow);
    assert!(daemon.stop().success());
}

/// Scenario: one address opens 300 connections and sends bodies that come a byte now and then.
/// Guarantee: each request of a sender on another address is taken meanwhile; the slow ones are told 408.
#[test]
fn a19_slow_bodies_of_one_address() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ", limits: {max_connections_per_ip: 400}"));
    let headers = "Content-Type: application/x-protobuf\r\n";
    let head = head("POST", "/v1/metrics", headers, 10_000);
    let slow: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = connect_as(daemon.http, ATTACKER);
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"x")).expect("it reads");
            stream
        })
        .collect();
    wait_until("all bodies", || daemon.gauge("requests_in_flight") >= 256.0);
    assert_eq!(healthy(&daemon, 0..50), 50);
    for mut stream in slow {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(daemon.stop().success());
}

/// Scenario: 200 connections to the admin port that say nothing.
/// Guarantee: `relight health` gets its answer, each time.
#[test]
fn a18_silent_connections_to_the_admin_port() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(daemon.admin)).collect();
    for round in 0..5 {
        let health =
            relight().args(["health", "--admin", &daemon.admin.to_string()]).output().expect("it is built");
        assert!(health.status.success(), "{round}: {}", String::from_utf8_lossy(&health.stderr));
    }
    drop(silent);
    assert!(daemon.stop().success());
}

/// Sends all of a request before it reads a byte, as many clients do.
fn send_all(to: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut stream = connect(to);
    stream.write_all(head.as_bytes()).expect("the head is read");
    for piece in body.chunks(1 << 16) {
        stream.write_all(piece).expect("the body is read, though it is too much");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and no reset");
    answer
}

/// Scenario: bodies that are refused before they are read whole: too large with its length said and without, no format, no
/// such path. The sender writes all of it before it reads.
/// Guarantee: the refusal arrives; the connection is not reset.
#[test]
fn a05_a_refusal_arrives() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let protobuf = "Content-Type: application/x-protobuf\r\n";
    let body = vec![0; 24 << 20];
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let of_chunks =
        format!("POST /v1/metrics HTTP/1.1\r\nHost: x\r\n{protobuf}Transfer-Encoding: chunked\r\n\r\n");
    for (head, body, status) in [
        (head("POST", "/v1/metrics", protobuf, body.len()), &body, "413"),
        (of_chunks, &chunked, "413"),
        (head("POST", "/v1/metrics", "Content-Type: text/html\r\n", body.len()), &body, "415"),
        (head("POST", "/nothing", protobuf, body.len()), &body, "404"),
    ] {
        let answer = send_all(daemon.http, &head, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    assert_eq!(healthy(&daemon, 0..5), 5);
    assert!(daemon.stop().success());
}

/// Scenario: requests that a proxy before relight may read in another way than relight does.
/// Guarantee: each is refused with 400, and its connection is closed: what follows is no request.
#[test]
fn h16_ambiguous_framing() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    let next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for headers in [
        "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
        "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: x\r\nHost: y\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let request = format!(
            "POST /v1/traces HTTP/1.1\r\nContent-Type: application/json\r\n{headers}\r\n2\r\n{{}}\r\n0\r\n\r\n"
        );
        let answer = send_all(daemon.http, &request, next.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers}: {answer}");
        assert!(!answer.contains("HTTP/1.1 200"), "{headers}: {answer}");
    }
    let answer = send_all(daemon.http, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = send_all(daemon.http, "GET / HTTP/1.0\r\n\r\n", b"");
    assert!(answer.contains(" 200 OK"), "{answer}");
    assert!(daemon.stop().success());
}
