//! `relight health`: asks a running daemon whether its engine moves. For whoever has no other client: a container without a shell.
//!
//! One request over plain HTTP to an address of `admin`; no config is read, so none can be wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::failure::Failure;
use crate::output;

/// A daemon that is well answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is a line.
const MAX_BYTES: u64 = 4_096;

pub(crate) fn run(admin: SocketAddr) -> Result<(), Failure> {
    let answer =
        ask(admin).with_context(|| format!("nothing answers at {admin}: is `admin` another address?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return output::print(&output::shown_lines(body));
    }
    Err(Failure::Run(anyhow!("not healthy: {}", body.trim())))
}

fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
