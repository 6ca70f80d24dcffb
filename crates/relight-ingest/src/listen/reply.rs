//! Answers as bytes: OTLP's responses and Google's status in protobuf and JSON, and the body that carries them.
//!
//! Written by hand: four messages of two fields each do not need a protobuf library.

use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use relight_core::record::Reason;
use serde_json::json;

use super::front::{MAX_MESSAGE_BYTES, cut};
use super::signal::Signal;

/// A body that is there as a whole, and what gRPC says after it.
#[derive(Debug, Default)]
pub(super) struct Payload {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Payload {
    pub(super) fn new(data: impl Into<Bytes>) -> Self {
        Self { data: Some(data.into()).filter(|data| !data.is_empty()), trailers: None }
    }

    pub(super) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self { trailers: Some(trailers), ..self }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// How a request is written, and so its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Protobuf,
    Json,
}

impl Form {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// What was taken of a request that was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Points, log records or spans that were refused.
    pub(super) rejected: u64,
    /// Why; empty if there is nothing to say.
    pub(super) message: String,
}

impl Taken {
    /// `refused` with, of a request that was decoded here, the first complaints of the decoder.
    pub(super) fn new(refused: &[(Reason, u32)], complaints: &[String]) -> Self {
        let refused: Vec<_> = refused.iter().filter(|(reason, n)| is_rejection(*reason) && *n > 0).collect();
        let mut message = String::new();
        for (reason, n) in &refused {
            let comma = if message.is_empty() { "" } else { ", " };
            write!(message, "{comma}{} {n}", reason.name()).expect("a String takes any text");
        }
        let complaints = if refused.is_empty() { &[] } else { complaints };
        for complaint in complaints {
            write!(message, "; {complaint}").expect("a String takes any text");
        }
        cut(&mut message, MAX_MESSAGE_BYTES);
        Self { rejected: refused.iter().map(|(_, n)| u64::from(*n)).sum(), message }
    }
}

/// Whether a sender has to know. What was there already was sent again, which it should; what came in too
/// many is in; and a marker without a value has been understood.
pub(super) const fn is_rejection(reason: Reason) -> bool {
    !matches!(reason, Reason::Duplicate | Reason::FoldedEarly | Reason::NoRecordedValue)
}

/// An export response: empty unless something was rejected.
pub(super) fn export(signal: Signal, form: Form, taken: &Taken) -> Vec<u8> {
    let is_whole = *taken == Taken::default();
    match form {
        Form::Protobuf if is_whole => Vec::new(),
        Form::Protobuf => {
            let mut partial = Vec::new();
            if taken.rejected > 0 {
                put_varint(1 << 3, &mut partial);
                put_varint(taken.rejected, &mut partial);
            }
            put_bytes(2, taken.message.as_bytes(), &mut partial);
            let mut out = Vec::new();
            put_bytes(1, &partial, &mut out);
            out
        }
        Form::Json if is_whole => b"{}".to_vec(),
        Form::Json => {
            // 64-bit integers are strings in protobuf's JSON.
            let rejected = taken.rejected.to_string();
            let partial = json!({ signal.rejected_key(): rejected, "errorMessage": taken.message });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

/// `google.rpc.Status`; with `retry_secs`, its details have a `google.rpc.RetryInfo`.
pub(super) fn status(form: Form, code: u8, message: &str, retry_secs: Option<u64>) -> Vec<u8> {
    if form == Form::Json {
        return json!({ "code": code, "message": message }).to_string().into_bytes();
    }
    let mut out = Vec::new();
    put_varint(1 << 3, &mut out);
    put_varint(code.into(), &mut out);
    put_bytes(2, message.as_bytes(), &mut out);
    if let Some(secs) = retry_secs {
        let (mut delay, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
        put_varint(1 << 3, &mut delay);
        put_varint(secs, &mut delay);
        put_bytes(1, &delay, &mut info);
        put_bytes(1, b"type.googleapis.com/google.rpc.RetryInfo", &mut any);
        put_bytes(2, &info, &mut any);
        put_bytes(3, &any, &mut out);
    }
    out
}

/// A varint, low bits first.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length-delimited field.
pub(super) fn put_bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(field << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rejections_are_told_and_briefly() {
        let refused = [(Reason::Duplicate, 9), (Reason::Late, 3), (Reason::NonFinite, 4)];
        let taken = Taken::new(&refused, &["`m`: odd".to_owned()]);
        assert_eq!((taken.rejected, taken.message.as_str()), (7, "late 3, non_finite 4; `m`: odd"));
        assert_eq!(Taken::new(&refused[..1], &["`m`: odd".to_owned()]), Taken::default());
        let many = vec!["ä".repeat(1_000); 9];
        assert!(Taken::new(&refused, &many).message.len() <= MAX_MESSAGE_BYTES);
    }

    #[test]
    fn bytes_are_those_of_the_protocol() {
        let taken = Taken { rejected: 300, message: "no".to_owned() };
        assert_eq!(export(Signal::Logs, Form::Protobuf, &taken), b"\x0a\x07\x08\xac\x02\x12\x02no");
        assert_eq!(export(Signal::Logs, Form::Protobuf, &Taken::default()), b"");
        assert_eq!(
            export(Signal::Logs, Form::Json, &taken),
            br#"{"partialSuccess":{"errorMessage":"no","rejectedLogRecords":"300"}}"#
        );
        assert_eq!(status(Form::Protobuf, 3, "no", None), b"\x08\x03\x12\x02no");
        assert_eq!(
            status(Form::Protobuf, 14, "", Some(2)),
            b"\x08\x0e\x12\x00\x1a\x30\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x02"
        );
    }
}
