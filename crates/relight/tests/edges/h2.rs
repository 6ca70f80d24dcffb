//! HTTP/2 as nobody should speak it, frame by frame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::daemon::*;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came: its type, and what it holds.
pub(crate) type Frame = (u8, Vec<u8>);

pub(crate) struct Peer {
    stream: TcpStream,
    frames: Receiver<Frame>,
}

impl Peer {
    fn new(to: SocketAddr) -> Self {
        Self::over(connect(to))
    }

    pub(crate) fn over(mut stream: TcpStream) -> Self {
        let reads = stream.try_clone().expect("a socket can be cloned");
        let (tell, frames) = channel();
        std::thread::spawn(move || read(reads, &tell));
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it reads");
        let mut peer = Self { stream, frames };
        assert!(peer.send(SETTINGS, 0, 0, b""));
        peer
    }

    /// Whether the other side still takes frames.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) -> bool {
        let mut frame = (body.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(body);
        self.stream.write_all(&frame).is_ok()
    }

    /// What came, up to where it is enough or the other side has closed.
    pub(crate) fn frames(&self, is_enough: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.frames.recv_timeout(PATIENCE) {
            frames.push(frame);
            if is_enough(&frames) {
                break;
            }
        }
        frames
    }

    /// The code with which the other side ended the connection.
    fn goaway(&self) -> Option<u32> {
        let frames = self.frames(|frames| frames.last().is_some_and(|(kind, _)| *kind == GOAWAY));
        let (kind, body) = frames.last()?;
        (*kind == GOAWAY).then(|| number(&body[4..8]))
    }
}

/// Reads frames until there are no more.
fn read(mut from: impl Read, tell: &Sender<Frame>) {
    let mut head = [0; 9];
    while from.read_exact(&mut head).is_ok() {
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if from.read_exact(&mut body).is_err() || tell.send((head[3], body)).is_err() {
            return;
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}

/// The head of a gRPC call.
fn call() -> Vec<u8> {
    post("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "application/grpc")
}

/// The head of a POST, packed: the first two from the standard's table, the others spelt out.
pub(crate) fn post(path: &str, kind: &str) -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    for (name, value) in [(":path", path), (":authority", "x"), ("content-type", kind), ("te", "trailers")] {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend(text.as_bytes());
        }
    }
    head
}

fn more_streams_than_there_may_be(to: SocketAddr) {
    let mut peer = Peer::new(to);
    let head = call();
    assert!((0..200).all(|i| peer.send(HEADERS, END_HEADERS, 2 * i + 1, &head)));
    let refused = |frames: &[Frame]| {
        let refused = |(kind, body): &&Frame| *kind == RST_STREAM && number(body) == REFUSED_STREAM;
        frames.iter().filter(refused).count()
    };
    let frames = peer.frames(|frames| refused(frames) == 200 - 128);
    assert_eq!(refused(&frames), 200 - 128);
    let settings = &frames.iter().find(|(kind, _)| *kind == SETTINGS).expect("settings").1;
    let streams =
        settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| number(&setting[2..]));
    assert_eq!(streams, Some(128), "it says how many there may be");
}

fn streams_that_are_reset_at_once(to: SocketAddr) {
    let mut peer = Peer::new(to);
    let head = call();
    let cancel = 8_u32.to_be_bytes();
    let taken = (0..10_000).take_while(|i| {
        peer.send(HEADERS, END_HEADERS, 2 * i + 1, &head) && peer.send(RST_STREAM, 0, 2 * i + 1, &cancel)
    });
    let taken = taken.count();
    assert_eq!(peer.goaway(), Some(ENHANCE_YOUR_CALM), "{taken} were taken");
}

fn a_head_without_an_end(to: SocketAddr) {
    let mut peer = Peer::new(to);
    let mut head = call();
    let mut is_open = peer.send(HEADERS, 0, 1, &head);
    // The same header again and again.
    head = [b"\x00\x01a\x7f\x80\x3f".as_slice(), &[b'b'; 8_191]].concat();
    for _ in 0..10_000 {
        is_open = is_open && peer.send(CONTINUATION, 0, 1, &head);
    }
    assert!(!is_open, "80 MiB of a head were taken");
}

fn a_body_of_nothing(to: SocketAddr) {
    let mut peer = Peer::new(to);
    assert!(peer.send(HEADERS, END_HEADERS, 1, &call()));
    let taken = (0..100_000).take_while(|_| peer.send(DATA, 0, 1, b"")).count();
    let code = peer.goaway();
    assert!(taken < 100_000 && code == Some(ENHANCE_YOUR_CALM), "{taken} were taken, then {code:?}");
}

/// Scenario: more streams than there may be; ten thousand that are reset at once; a head that does not end; a body of empty frames.
/// Guarantee: what is too much is refused, who floods is told to calm down and put out, memory stays where it is, and
/// others are served.
#[test]
fn a20_h2_stream_flood() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    send(&daemon, 0..5, quiet);
    let grpc = daemon.addresses[0];
    let before = daemon.memory_kib("VmRSS:");
    more_streams_than_there_may_be(grpc);
    streams_that_are_reset_at_once(grpc);
    a_head_without_an_end(grpc);
    a_body_of_nothing(grpc);
    let grown = daemon.memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown <= 16 << 10, "it has grown by {grown} KiB");
    send(&daemon, 5..10, quiet);
    wait_until("the end of their connections", || {
        daemon.metric("relight_source{source=\"otlp\",what=\"connections_open\",kind=\"\"}") == Some(0.0)
    });
    assert!(daemon.stop().success());
}
