//! One HTTP request after another, each on a connection of its own: what the peers' own interfaces need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// Asks; an error is a connection that broke, or was never made.
pub(crate) fn ask(to: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))?;
    Ok(Answer { status, text })
}

/// Asks where a refusal would be a fault of the test.
pub(crate) fn must(to: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let answer =
        ask(to, method, path, body).unwrap_or_else(|error| panic!("{method} {path} of {to}: {error}"));
    assert!((200..300).contains(&answer.status), "{method} {path} of {to}: {}", answer.text);
    answer.text
}
