//! `webhook`: one HTTP request, to one URL.
//!
//! No redirect is followed, no proxy used and nothing tried again here: the bus does that, by what an answer
//! means. The URL and the values of headers are secrets: they appear in no message, no plan and no ledger.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::OnceLock;
use std::time::Duration;

use relight_core::detector::ConfigError;
use relight_core::responder::{
    Attempt, Capabilities, EffectKind, NotSent, Observation, Plan, PlanError, Reach, Receipt, Request,
    Responder, ResponderError, Retry, Secret, Secrets,
};
use relight_core::{Span, Timestamp};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::document::{document, one_line, redacted, summary};
use crate::egress::{Egress, Refused};
use crate::signature::Signer;
use crate::template::{MAX_BODY, Template, is_json};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// For one attempt as a whole: a page that takes longer is better tried again, and what changes the world
/// may be slow to say that it did.
const NOTIFY_WITHIN: Span = Span::from_secs(10);
const MUTATE_WITHIN: Span = Span::from_secs(30);
/// Bytes of an answer that are read, and only of one that says no.
const MAX_ANSWER: usize = 64 * 1024;
/// Headers that are the bus's and the client's own.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "webhook-id",
    "webhook-timestamp",
];

/// What sending it twice means to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Effect {
    /// The same as once: the target looks at `Idempotency-Key`, or it does not matter.
    Idempotent,
    /// Twice the effect: never sent again in doubt.
    FireOnce,
}

/// Settings of `webhook`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where to. All of it is a secret.
    url: Secret,
    /// The HTTP method.
    #[serde(default = "post")]
    method: String,
    /// More headers. Their values are secrets.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// More headers, whose values are the secrets of these names.
    #[serde(default)]
    header_secrets: BTreeMap<String, String>,
    /// The body as a minijinja template over the fields of the default body. Left out: the default body.
    #[serde(default)]
    template: Option<String>,
    /// The body's media type. One of JSON makes the template's values JSON.
    #[serde(default = "json_type")]
    content_type: String,
    /// Whether it only tells somebody (`notify`) or changes the world (`mutate`).
    #[serde(default)]
    reach: Reach,
    /// Whether sending it twice is the same as once. Left out: of what notifies `idempotent`, of what mutates
    /// `fire_once`.
    #[serde(default)]
    effect: Option<Effect>,
    /// Signs requests as Standard Webhooks does: `whsec_...`, several separated by blanks.
    #[serde(default)]
    sign_secret: Option<Secret>,
    /// The time that one attempt has. Left out: 10s for what notifies, 30s for what mutates.
    #[serde(default)]
    timeout: Option<Span>,
    /// Leave for addresses that are not public: `10.0.0.0/8`, or `HOST:PORT` for a host in a private network.
    #[serde(default)]
    egress: Vec<String>,
    /// Whether `http://127.0.0.1` and the like may be asked, without TLS.
    #[serde(default = "yes")]
    allow_insecure_loopback: bool,
}

fn post() -> String {
    "POST".to_owned()
}

fn json_type() -> String {
    "application/json".to_owned()
}

const fn yes() -> bool {
    true
}

/// Sends one request an attempt.
pub struct Webhook {
    url: Url,
    method: Method,
    headers: HeaderMap,
    template: Option<Template>,
    content_type: String,
    reach: Reach,
    effect: Effect,
    signer: Option<Signer>,
    timeout: Duration,
    egress: Egress,
    /// What no message may show.
    secrets: Vec<Secret>,
    client: OnceLock<Result<Client, String>>,
}

impl Responder for Webhook {
    const NAME: &'static str = "webhook";
    const DOC: &'static str = include_str!("webhook.md");
    type Config = WebhookConfig;

    fn example() -> Value {
        json!({ "url": "https://hooks.example.com/relight/4f1c", "reach": "notify" })
    }

    fn new(config: WebhookConfig, secrets: &Secrets) -> Result<Self, ConfigError> {
        // Not the parser's own message: it may say what it could not parse.
        let url = Url::parse(config.url.reveal()).map_err(|_| ConfigError::at("url", "is not a URL"))?;
        let egress = Egress::new(&config.egress, &url, config.allow_insecure_loopback);
        let egress = egress.map_err(|message| ConfigError::at("url", message))?;
        let method = Method::from_bytes(config.method.as_bytes()).ok();
        let method = method.filter(|method| ![Method::CONNECT, Method::TRACE].contains(method));
        let method = method.ok_or_else(|| ConfigError::at("method", "is not a method that can be sent"))?;
        HeaderValue::from_str(&config.content_type)
            .map_err(|_| ConfigError::at("content_type", "is not a media type"))?;
        let template = config.template.map(|text| Template::new(text, &config.content_type)).transpose();
        let signer = config.sign_secret.as_ref().map(Signer::new).transpose();
        let limit = if config.reach == Reach::Notify { NOTIFY_WITHIN } else { MUTATE_WITHIN };
        let by_reach = if config.reach == Reach::Notify { Effect::Idempotent } else { Effect::FireOnce };
        let mut values = config.headers;
        for (name, secret) in config.header_secrets {
            let at = format!("header_secrets.{name}");
            let value = secrets
                .get(&secret)
                .ok_or_else(|| ConfigError::at(at, format!("no secret named `{secret}`")))?;
            values.insert(name, value.clone());
        }
        Self {
            headers: headers(&values)?,
            method,
            template: template.map_err(|message| ConfigError::at("template", message))?,
            content_type: config.content_type,
            reach: config.reach,
            effect: config.effect.unwrap_or(by_reach),
            signer: signer.map_err(|message| ConfigError::at("sign_secret", message))?,
            timeout: Duration::from_nanos(config.timeout.unwrap_or(limit).ns().max(1).unsigned_abs()),
            egress,
            secrets: hidden(config.url, &url, values, config.sign_secret.as_ref()),
            url,
            client: OnceLock::new(),
        }
        .tried()
    }

    fn capabilities(&self) -> Capabilities {
        let effect = match self.effect {
            Effect::Idempotent => EffectKind::Idempotent,
            Effect::FireOnce => EffectKind::FireOnce,
        };
        Capabilities { effect, reach: self.reach, observes: false, reverts: false }
    }

    /// What somebody logged must not keep a page from being sent: with a context that cannot be told, it is sent without.
    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        self.filled_in(document(request), request).or_else(|_| {
            let mut document = document(request);
            document["context"] = Value::Array(Vec::new());
            self.filled_in(document, request)
        })
    }

    async fn preflight(&self, _plan: &Plan) -> Result<(), ResponderError> {
        self.client().map(|_| ())
    }

    async fn observe(&self, _plan: &Plan) -> Result<Observation, ResponderError> {
        Ok(Observation::Unknown)
    }

    async fn apply(&self, attempt: Attempt, plan: &Plan) -> Result<Receipt, ResponderError> {
        let body = bytes_of(&plan.body, &self.content_type);
        let mut request = self
            .client()?
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone())
            .header("content-type", &self.content_type)
            .header("idempotency-key", &attempt.idempotency_key);
        if let Some(signer) = &self.signer {
            let (id, secs) = (&attempt.idempotency_key, attempt.at.ns().div_euclid(1_000_000_000));
            request = request.header("webhook-id", id).header("webhook-timestamp", secs);
            request = request.header("webhook-signature", signer.sign(id, secs, &body));
        }
        if ![Method::GET, Method::HEAD].contains(&self.method) {
            request = request.body(body);
        }
        match request.send().await {
            Ok(response) => self.judge(response, attempt.at).await,
            Err(error) => Err(self.broken(&error)),
        }
    }

    async fn revert(&self, _: Attempt, _: &Plan, _: &Receipt) -> Result<Receipt, ResponderError> {
        Err(ResponderError { message: "a webhook cannot be taken back".to_owned(), retry: Retry::Never })
    }
}

impl Webhook {
    fn filled_in(&self, document: Value, request: &Request<'_>) -> Result<Plan, PlanError> {
        let body = match &self.template {
            Some(template) => template.render(&document).map_err(|e| PlanError(format!("template: {e}")))?,
            None => document,
        };
        if bytes_of(&body, &self.content_type).len() > MAX_BODY {
            return Err(PlanError(format!("the body is longer than {MAX_BODY} bytes")));
        }
        Ok(Plan { summary: summary(request), body })
    }

    /// A template is filled in before it counts, with context and without, so that what can never work is an error of
    /// the config.
    fn tried(self) -> Result<Self, ConfigError> {
        let (mut incident, action) = crate::sample::incident_and_action();
        for what in ["", "where `context` is empty, as it may be: "] {
            let request = Request { action: &action, incident: &incident };
            let plan = self.filled_in(document(&request), &request);
            plan.map_err(|PlanError(message)| ConfigError::at("template", format!("{what}{message}")))?;
            incident.context.clear();
        }
        Ok(self)
    }

    fn client(&self) -> Result<&Client, ResponderError> {
        let client = self.client.get_or_init(|| {
            Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .http1_only()
                // A connection is used once: on one that the target has just closed, the client would send a
                // request again by itself, without anybody's leave.
                .pool_max_idle_per_host(0)
                .connect_timeout(CONNECT_WITHIN)
                .timeout(self.timeout)
                .dns_resolver(self.egress.clone())
                .user_agent(concat!("relight/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| error.without_url().to_string())
        });
        let failed = |message: &String| ResponderError {
            message: message.clone(),
            retry: Retry::Unreached(NotSent::Connect),
        };
        client.as_ref().map_err(failed)
    }

    /// What an answer means. One that might come after the effect is no licence to try again, unless trying
    /// again does no harm.
    async fn judge(&self, response: Response, at: Timestamp) -> Result<Receipt, ResponderError> {
        let status = response.status();
        if status.is_success() {
            return Ok(Receipt { summary: format!("HTTP {status}") });
        }
        let wish = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, at));
        let is_safe = self.effect == Effect::Idempotent;
        let retry = match status {
            // Neither was looked at: too many, or too early.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::TOO_EARLY => Retry::After(wish),
            // With the header it is the target that asks for patience; without, it may be a proxy whose
            // connection broke after the request was through.
            StatusCode::SERVICE_UNAVAILABLE if is_safe || wish.is_some() => Retry::After(wish),
            StatusCode::REQUEST_TIMEOUT if is_safe => Retry::After(wish),
            StatusCode::REQUEST_TIMEOUT => Retry::Unknown,
            status if status.is_server_error() && is_safe => Retry::After(wish),
            status if status.is_server_error() => Retry::Unknown,
            _ => Retry::Never,
        };
        let said = self.said(response).await;
        let said = if said.is_empty() { said } else { format!(": {said}") };
        Err(ResponderError { message: format!("HTTP {status}{said}"), retry })
    }

    /// The beginning of a refusal, for people.
    async fn said(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while body.len() < MAX_ANSWER {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
        }
        let text = redacted(&String::from_utf8_lossy(&body), self.secrets.iter().map(Secret::reveal));
        one_line(text.trim())
    }

    /// No answer. What failed before there was a connection was never sent.
    fn broken(&self, error: &reqwest::Error) -> ResponderError {
        let fail = |message: String, retry| ResponderError { message, retry };
        if error.is_builder() {
            return fail("the request cannot be built".to_owned(), Retry::Unsent(NotSent::Request));
        }
        if error.is_connect() || error.is_dns() {
            let (why, kind) = cause(error);
            return fail(format!("failed to connect: {why}"), Retry::Unreached(kind));
        }
        let what = if error.is_timeout() { "no answer within" } else { "the connection broke within" };
        fail(format!("{what} {:?}", self.timeout), Retry::Unknown)
    }
}

/// Why there is no connection, in words that hold no part of the URL.
fn cause(error: &reqwest::Error) -> (String, NotSent) {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<Refused>() {
            return (Refused.to_string(), NotSent::Egress);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.raw_os_error().is_some()
        {
            return (error.kind().to_string(), NotSent::Connect);
        }
        source = error.source();
    }
    let words =
        if error.is_timeout() { "it took too long" } else { "its name or its certificate is not in order" };
    (words.to_owned(), NotSent::Connect)
}

fn headers(values: &BTreeMap<String, Secret>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        let at = format!("headers.{name}");
        let key = HeaderName::from_bytes(name.as_bytes());
        let key = key.map_err(|_| ConfigError::at(&at, "is not the name of a header"))?;
        if RESERVED.contains(&key.as_str()) || key == "webhook-signature" {
            return Err(ConfigError::at(&at, "is relight's own to set"));
        }
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| ConfigError::at(&at, "its value holds what no header may"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// The secrets and the telling parts of the URL.
fn hidden(
    url: Secret,
    parsed: &Url,
    headers: BTreeMap<String, Secret>,
    sign: Option<&Secret>,
) -> Vec<Secret> {
    let parts = [Some(parsed.as_str()), Some(parsed.path()), parsed.query(), parsed.password()];
    let parts = parts.into_iter().flatten().map(Secret::new);
    let words =
        headers.values().flat_map(|value| value.reveal().split(' ')).map(Secret::new).collect::<Vec<_>>();
    let keys = sign.iter().flat_map(|sign| sign.reveal().split(' ')).map(Secret::new).collect::<Vec<_>>();
    [url].into_iter().chain(parts).chain(words).chain(keys).chain(headers.into_values()).collect()
}

fn bytes_of(body: &Value, content_type: &str) -> Vec<u8> {
    match body {
        Value::String(text) if !is_json(content_type) => text.clone().into_bytes(),
        body => body.to_string().into_bytes(),
    }
}

/// Seconds, or a date; anything else is no wish.
fn retry_after(value: &HeaderValue, at: Timestamp) -> Option<Span> {
    let text = value.to_str().ok()?.trim();
    if let Ok(secs) = text.parse::<u32>() {
        return Some(Span::from_secs(i64::from(secs)));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_secs(until.as_second()).since(at).max(Span::ZERO))
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
