//! A sender: HTTP/1.1 written by hand, so that it can be wrong in every way, and gRPC by hyper's client.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::World;
use super::world::BOUND;

/// An HTTP answer; of gRPC headers and trailers together.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code and the decoded details of a gRPC answer.
    pub(super) fn grpc(&self) -> (&str, Vec<u8>) {
        use base64::Engine;
        let details = self.header("grpc-status-details-bin");
        let details = base64::engine::general_purpose::STANDARD_NO_PAD.decode(details).expect("base 64");
        (self.header("grpc-status"), details)
    }
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("somebody listens");
    socket.set_read_timeout(Some(BOUND)).expect("a bound");
    socket.set_write_timeout(Some(BOUND)).expect("a bound");
    socket
}

/// The head of a POST; the connection is closed after its answer.
pub(super) fn head(path: &str, headers: &[(&str, &str)], len: usize) -> String {
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let fixed = format!("host: x\r\nconnection: close\r\ncontent-length: {len}\r\n");
    format!("POST {path} HTTP/1.1\r\n{fixed}{}\r\n", headers.concat())
}

/// Reads to the end of the connection.
pub(super) fn answer(mut from: impl Read) -> Answer {
    let mut bytes = Vec::new();
    // Who sends more than was wanted sees the connection reset behind its answer.
    let _ = from.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}

/// Posts to an HTTP listener.
pub(super) fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    call(to, "POST", path, headers, body)
}

/// The same with another method.
pub(super) fn call(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut socket = connect(to);
    let head = head(path, headers, body.len()).replacen("POST", method, 1);
    socket.write_all(head.as_bytes()).expect("it is read");
    // Of a body that is too large not all is read.
    let _ = socket.write_all(body);
    answer(socket)
}

/// A gRPC call.
pub(super) struct Call<'a> {
    pub(super) signal: &'a str,
    pub(super) encoding: &'a str,
    pub(super) token: &'a str,
    pub(super) message: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(super) fn of(signal: &'a str, message: impl Into<Vec<u8>>) -> Self {
        Self { signal, encoding: "", token: "", message: message.into() }
    }

    fn path(&self) -> String {
        let (package, service) = match self.signal {
            "metrics" => ("metrics", "Metrics"),
            "logs" => ("logs", "Logs"),
            "traces" => ("trace", "Trace"),
            other => return other.to_owned(),
        };
        format!("/opentelemetry.proto.collector.{package}.v1.{service}Service/Export")
    }
}

/// Makes a gRPC call.
pub(super) fn grpc(world: &World, call: &Call<'_>) -> Answer {
    let mut frame = vec![u8::from(!call.encoding.is_empty())];
    frame.extend_from_slice(&(call.message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&call.message);
    let address = world.address("grpc");
    let mut request = hyper::Request::post(format!("http://{address}{}", call.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !call.encoding.is_empty() {
        request = request.header("grpc-encoding", call.encoding);
    }
    if !call.token.is_empty() {
        request = request.header("authorization", call.token);
    }
    let request = request.body(Full::new(Bytes::from(frame))).expect("a request");
    world.runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.expect("somebody listens");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
                .await
                .expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let exchange = async {
            let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole answer");
            let trailers = body.trailers().cloned().unwrap_or_default();
            let all = head.headers.iter().chain(&trailers);
            let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let headers = all.map(|(name, value)| (name.to_string(), text(value))).collect();
            Answer { status: head.status.as_u16(), headers, body: body.to_bytes().to_vec() }
        };
        let answer = tokio::time::timeout(BOUND, exchange).await.expect("an answer in time");
        connection.abort();
        answer
    })
}
