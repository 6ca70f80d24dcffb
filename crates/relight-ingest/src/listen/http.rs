//! OTLP over HTTP, and change events beside it.
//!
//! The answer has the format of the request. What a path takes is decided here; limits, tokens and the way
//! to the engine are the front's.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};

use super::body::{self, Coding};
use super::events::Events;
use super::front::{Admitted, Fault, Front, Held};
use super::reply::{self, Form, Payload};
use super::signal::{self, MAX_JSON_BYTES, Signal};
use super::stats::Outcome;
use crate::json;

/// What one answers to somebody who looks what is here.
const ABOUT: &str =
    "relight takes OTLP here: POST /v1/metrics, /v1/logs, /v1/traces; and CloudEvents: POST /v1/events\n";

/// Answers one request to the OTLP listener.
pub(super) async fn handle(
    front: &Arc<Front>,
    events: &Events,
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    let path = request.uri().path();
    if path == "/" && request.method() == Method::GET {
        return (Outcome::Taken, respond(StatusCode::OK, "text/plain", ABOUT));
    }
    if path == "/v1/events" {
        return match take_events(front, events, request).await {
            Ok((outcome, summary)) => (outcome, respond(StatusCode::OK, Form::Json.content_type(), summary)),
            Err(fault) => refuse(front, Form::Json, &fault),
        };
    }
    // Of what has no format of its own, or none that is known, the answer is in the one that people can read.
    let form = form(request.headers()).unwrap_or(Form::Json);
    match export(front, request).await {
        Ok((outcome, bytes)) => (outcome, respond(StatusCode::OK, form.content_type(), bytes)),
        Err(fault) => refuse(front, form, &fault),
    }
}

async fn export(front: &Arc<Front>, request: Request<Incoming>) -> Result<(Outcome, Vec<u8>), Fault> {
    let path = request.uri().path();
    let signal = Signal::of_path(path).ok_or_else(|| nothing_at(path))?;
    let admitted = post(front, &request)?;
    let form = form(request.headers()).ok_or_else(|| {
        let message = "Content-Type must be application/x-protobuf or application/json";
        Fault::new(Outcome::Unsupported, message)
    })?;
    let (body, held) = plain_body(front, request, form == Form::Json, admitted).await?;
    let taken = signal::take(front, signal, form, body).await?;
    drop(held);
    let outcome = if taken.rejected > 0 { Outcome::Partial } else { Outcome::Taken };
    Ok((outcome, reply::export(signal, form, &taken)))
}

async fn take_events(
    front: &Arc<Front>,
    events: &Events,
    request: Request<Incoming>,
) -> Result<(Outcome, String), Fault> {
    let admitted = post(front, &request)?;
    let headers = request.headers().clone();
    let (body, _held) = plain_body(front, request, true, admitted).await?;
    events.take(front, &headers, &body).await
}

/// Checks all that can be told from the head of a request.
pub(super) fn post(front: &Arc<Front>, request: &Request<Incoming>) -> Result<Admitted, Fault> {
    post_or(&Method::POST, front, request)
}

/// The same where another method is taken as well.
pub(super) fn post_or(
    other: &Method,
    front: &Arc<Front>,
    request: &Request<Incoming>,
) -> Result<Admitted, Fault> {
    let admitted = front.admit(request.headers())?;
    if request.method() != Method::POST && request.method() != other {
        return Err(Fault::new(Outcome::WrongMethod, "only POST is taken here"));
    }
    Ok(admitted)
}

pub(super) fn nothing_at(path: &str) -> Fault {
    let shown: String = path.chars().take(80).collect();
    Fault::new(Outcome::NotFound, format!("nothing is at `{shown}`"))
}

/// Reads and inflates a body. Its place among the requests is kept for as long as what comes back.
pub(super) async fn plain_body(
    front: &Front,
    request: Request<Incoming>,
    is_json: bool,
    admitted: Admitted,
) -> Result<(Bytes, Admitted), Fault> {
    let coding = one_coding(request.headers())?;
    let Admitted { permit, mut held } = admitted;
    let wire = body::read(request.into_body(), front.limits.max_wire_bytes, &mut held).await?;
    let most = if is_json { MAX_JSON_BYTES } else { usize::MAX };
    let limit = front.limits.max_inflated_bytes.min(most);
    let (bytes, mut held): (Bytes, Held) = body::inflate(coding, wire, limit, held).await?;
    if is_json {
        json::bounded(&bytes).map_err(Fault::malformed)?;
        held.grow(json::decoded_bytes(&bytes))?;
    }
    Ok((bytes, Admitted { permit, held }))
}

/// The one layer that a body is packed in.
fn one_coding(headers: &HeaderMap) -> Result<Coding, Fault> {
    let mut layers = headers.get_all(CONTENT_ENCODING).iter();
    let name = layers.next().map_or(&b""[..], HeaderValue::as_bytes);
    let only = Coding::named(name).filter(|_| layers.next().is_none());
    only.ok_or_else(|| {
        let message = "Content-Encoding must be one of gzip, zstd and identity, once";
        Fault::new(Outcome::Unsupported, message)
    })
}

fn form(headers: &HeaderMap) -> Option<Form> {
    match media_type(headers).as_deref() {
        Some("application/x-protobuf") => Some(Form::Protobuf),
        Some("application/json") => Some(Form::Json),
        _ => None,
    }
}

/// The media type without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let whole = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// An answer that is not success: a `google.rpc.Status`, and when to come again if that may help.
pub(super) fn refuse(front: &Front, form: Form, fault: &Fault) -> (Outcome, Response<Payload>) {
    let outcome = fault.outcome;
    let bytes = reply::status(form, outcome.grpc(), &fault.message, None);
    let status = StatusCode::from_u16(outcome.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, form.content_type(), bytes);
    let headers = response.headers_mut();
    if outcome.is_passing() {
        headers.insert(RETRY_AFTER, HeaderValue::from(front.retry_secs()));
    }
    match outcome {
        Outcome::Unauthenticated => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Outcome::WrongMethod => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    (outcome, response)
}

pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Payload> {
    let mut response = Response::new(Payload::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
