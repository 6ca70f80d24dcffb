//! Senders that would have all of its memory, or all of its connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use tokio::net::TcpSocket;

use crate::daemon::*;

/// A gigabyte of zeros, packed a thousand times, that says at its end how many bytes it will be. Its blocks know nothing of each
/// other, so that one stands for all.
fn bomb(says: u32) -> Vec<u8> {
    let mut block = Vec::with_capacity(1 << 20);
    let mut packer = Compress::new(Compression::default(), false);
    packer.compress_vec(&vec![0; 16 << 20], &mut block, FlushCompress::Full).expect("memory does not fail");
    let head = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    let (end, checksum) = ([1, 0, 0, 255, 255], [0; 4]);
    [&head[..], &block.repeat(64), &end, &checksum, &says.to_le_bytes()].concat()
}

/// Scenario: bodies that become a gigabyte: one says so at its end, one says that it is small.
/// Guarantee: each is refused for good, and the process has not grown by more than one request may have.
#[test]
fn a06_gzip_bomb() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ""));
    send(&daemon, 0..10, quiet);
    let bombs = [bomb(1 << 30), bomb(1_024)];
    assert!(bombs[0].len() < 2 << 20, "{}", bombs[0].len());
    let before = daemon.memory_kib("VmRSS:");
    for body in bombs {
        let mut stream = connect(daemon.http);
        let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\n";
        stream.write_all(head("POST", "/v1/metrics", headers, body.len()).as_bytes()).expect("it reads");
        let _ = stream.write_all(&body);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    let grown = daemon.memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown <= 80 << 10, "it has grown by {grown} KiB");
    send(&daemon, 10..20, quiet);
    assert!(daemon.stop().success());
}

/// Connections from so many addresses of this machine, so many each.
fn connect_from(to: SocketAddr, addresses: u8, each: usize) -> Vec<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let from = (1..=addresses).flat_map(|i| std::iter::repeat_n(Ipv4Addr::new(127, 0, 1, i), each));
    let connect = |from: Ipv4Addr| {
        let connected = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
            socket.connect(to).await?.into_std()
        });
        let stream = connected.expect("it listens");
        stream.set_nonblocking(true).expect("a socket of our own");
        stream
    };
    from.map(connect).collect()
}

fn is_closed(mut stream: &TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Scenario: ten machines hold as many connections as each may have, and send a byte of a request's head now and then.
/// Guarantee: others are answered while all of the slow ones are open, so that nobody waits for them; and all of those are closed
/// once their time for a head is over. Those beyond what a machine may have are closed at once.
#[test]
fn a18_slowloris_headers() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&config(dir.path(), NOBODY, ", limits: {max_connections_per_ip: 48}"));
    let began = Instant::now();
    let mut slow = connect_from(daemon.http, 10, 50);
    let (mut beside, mut second) = (0, 0);
    while !slow.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are open", slow.len());
        slow.retain(|stream| !is_closed(stream));
        if began.elapsed() < Duration::from_secs(8) {
            // Only those that came too many may be gone.
            assert!(slow.len() >= 480, "{} are left after {:?}", slow.len(), began.elapsed());
        }
        for mut stream in &slow {
            let _ = stream.write(b"P");
        }
        send(&daemon, second..second + 1, quiet);
        second += 1;
        // However long the answer took, it came before any of them was closed.
        beside += usize::from(slow.iter().filter(|stream| !is_closed(stream)).count() >= 480);
        pause(Duration::from_millis(100));
    }
    assert_eq!(daemon.source("connections_turned_away", ""), 20.0);
    assert!(beside > 0, "of {second} none was answered beside the slow ones");
}
