//! OTLP over gRPC: three unary calls on HTTP/2, their messages handed on as bytes.
//!
//! No gRPC library: a unary call is five bytes of frame before one message and a status after it, and so the
//! limits, the inflater and the tokens are the very ones of HTTP. (tonic inflates a message before it looks
//! at its size.) No streaming, no reflection.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::body::{self, Coding};
use super::front::{Admitted, Fault, Front};
use super::http::{nothing_at, respond};
use super::reply::{self, Form, Payload};
use super::signal::{self, Signal};
use super::stats::Outcome;

const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// A flag and a length before each message.
const FRAME_BYTES: usize = 5;
/// The status's message goes into a header, whose list has 16 KiB at most, and again into its details.
const MAX_HEADER_MESSAGE: usize = 1 << 10;

/// Answers one call.
pub(super) async fn handle(front: &Arc<Front>, request: Request<Incoming>) -> (Outcome, Response<Payload>) {
    let speaks_grpc = request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()));
    if !speaks_grpc {
        let about = "relight takes OTLP over gRPC here; OTLP over HTTP has a port of its own (4318)\n";
        let response = respond(StatusCode::UNSUPPORTED_MEDIA_TYPE, "text/plain", about);
        return (Outcome::Unsupported, response);
    }
    match export(front, request).await {
        Ok((outcome, message)) => (outcome, success(&message)),
        Err(fault) => (fault.outcome, refuse(front, &fault)),
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    let content_type = content_type.to_ascii_lowercase();
    let proto = content_type
        .strip_prefix(b"application/grpc")
        .map(|rest| rest.strip_prefix(b"+proto").unwrap_or(rest));
    proto.is_some_and(|rest| rest.is_empty() || rest.starts_with(b";"))
}

async fn export(front: &Arc<Front>, request: Request<Incoming>) -> Result<(Outcome, Vec<u8>), Fault> {
    let Admitted { permit, mut held } = front.admit(request.headers())?;
    let signal = Signal::of_method(request.uri().path()).ok_or_else(|| nothing_at(request.uri().path()))?;
    let named = request.headers().get(ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
    let coding = Coding::named(named)
        .ok_or_else(|| Fault::new(Outcome::Unsupported, "grpc-encoding must be gzip, zstd or identity"))?;
    let limit = front.limits.max_wire_bytes.saturating_add(FRAME_BYTES);
    let frame = body::read(request.into_body(), limit, &mut held).await?;
    let (is_packed, message) = unframe(&frame)?;
    drop(frame);
    let coding = if is_packed { coding } else { Coding::Identity };
    let (body, held) = body::inflate(coding, message, front.limits.max_inflated_bytes, held).await?;
    let taken = signal::take(front, signal, Form::Protobuf, body).await?;
    drop((permit, held));
    let outcome = if taken.rejected > 0 { Outcome::Partial } else { Outcome::Taken };
    Ok((outcome, reply::export(signal, Form::Protobuf, &taken)))
}

/// The one message of a call, and whether it is packed.
fn unframe(frame: &Bytes) -> Result<(bool, Bytes), Fault> {
    let Some((&[flag, a, b, c, d], _)) = frame.split_first_chunk::<FRAME_BYTES>() else {
        return Err(Fault::malformed("the call has no message"));
    };
    let message = frame.slice(FRAME_BYTES..);
    if flag > 1 {
        return Err(Fault::malformed("a message flag that gRPC does not have"));
    }
    if message.len() != u32::from_be_bytes([a, b, c, d]) as usize {
        return Err(Fault::malformed("a call has one message, whole"));
    }
    Ok((flag == 1, message))
}

fn success(message: &[u8]) -> Response<Payload> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let mut response = Response::new(Payload::new(frame).with_trailers(trailers));
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

/// An answer without a message: all that is said is in its headers.
fn refuse(front: &Front, fault: &Fault) -> Response<Payload> {
    let mut response = Response::new(Payload::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip,zstd,identity"));
    let code = fault.outcome.grpc();
    headers.insert(STATUS, HeaderValue::from(u16::from(code)));
    let mut message = fault.message.clone();
    super::front::cut(&mut message, MAX_HEADER_MESSAGE);
    if let Ok(value) = HeaderValue::from_str(&percent(&message)) {
        headers.insert(MESSAGE, value);
    }
    let retry = fault.outcome.is_passing().then(|| front.retry_secs());
    let details = STANDARD_NO_PAD.encode(reply::status(Form::Protobuf, code, &message, retry));
    if let Ok(value) = HeaderValue::from_str(&details) {
        headers.insert(DETAILS, value);
    }
    response
}

/// gRPC's own percent-encoding of messages: all but printable ASCII, and the percent sign.
fn percent(message: &str) -> String {
    let mut out = String::new();
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte.into());
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from_digit(half.into(), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_grpc_asks() {
        assert_eq!(percent("100 % ä\n"), "100 %25 %C3%A4%0A");
    }

    #[test]
    fn a_call_has_one_whole_message() {
        for (frame, expected) in [
            (&b"\0\0\0\0\x02hi"[..], Some((false, &b"hi"[..]))),
            (b"\x01\0\0\0\0", Some((true, b""))),
            (b"\0\0\0\0\x03hi", None),
            (b"\0\0\0\0\x01hi", None),
            (b"\x02\0\0\0\x02hi", None),
            (b"\0\0\0\0", None),
            (b"", None),
        ] {
            let found = unframe(&Bytes::copy_from_slice(frame)).ok();
            assert_eq!(
                found.as_ref().map(|(packed, message)| (*packed, &message[..])),
                expected,
                "{frame:?}"
            );
        }
    }

    #[test]
    fn grpc_is_told_from_what_looks_like_it() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("Application/gRPC", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/x-protobuf", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), expected, "{kind}");
        }
    }
}
