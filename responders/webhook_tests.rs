//! Against a target on loopback that answers by a script.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use relight_core::Labels;
use relight_core::record::Event;

use super::*;
use crate::sample::incident_and_action;

const AT: Timestamp = Timestamp::from_secs(1_614_265_330);
const CANARY: &str = "canary-7f3a";

/// A target: takes one connection an answer, and ends. An empty answer breaks the connection after the request
/// was read; `None` never answers, until the other side gives up.
struct Target {
    port: u16,
    thread: JoinHandle<Vec<String>>,
}

impl Target {
    fn new(answers: Vec<Option<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let thread =
            std::thread::spawn(move || answers.into_iter().map(|answer| take(&listener, answer)).collect());
        Self { port, thread }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook/{CANARY}", self.port)
    }

    fn requests(self) -> Vec<String> {
        self.thread.join().expect("the target ends after its last answer")
    }
}

fn take(listener: &TcpListener, answer: Option<String>) -> String {
    let (mut stream, _) = listener.accept().expect("a connection");
    let request = request(&mut stream);
    match answer {
        Some(answer) => drop(stream.write_all(answer.as_bytes())),
        None => drop(stream.read(&mut [0; 1])),
    }
    request
}

fn request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut chunk).expect("a request");
        bytes.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Gone, or one who begins a TLS handshake.
        if length == 0 || bytes[0] == 0x16 {
            return text;
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok();
        let wants: usize = head.lines().find_map(header).unwrap_or(0);
        if body.len() >= wants {
            return text;
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an answer among those of which some are none")]
fn says(status: &str, headers: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn webhook(settings: Value) -> Result<Webhook, ConfigError> {
    let config = serde_json::from_value(settings).expect("settings");
    Webhook::new(config, &Secrets::new([("token".to_owned(), Secret::new("Bearer s3cr3t"))]))
}

fn plan(webhook: &Webhook) -> Plan {
    let (incident, action) = incident_and_action();
    webhook.plan(&Request { action: &action, incident: &incident }).expect("a plan")
}

fn attempt() -> Attempt {
    Attempt { number: 1, idempotency_key: "action-1".to_owned(), at: AT }
}

fn send(webhook: &Webhook) -> Result<Receipt, ResponderError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plan = plan(webhook);
    runtime.block_on(webhook.apply(attempt(), &plan))
}

/// What one answer comes to, for an idempotent target and for one that is not.
fn check(answer: impl Fn() -> Option<String>, safe: Retry, once: Retry) {
    for (effect, expected) in [("idempotent", safe), ("fire_once", once)] {
        let target = Target::new(vec![answer()]);
        let settings = json!({ "url": target.url(), "effect": effect, "timeout": "300ms" });
        let error = send(&webhook(settings).expect("builds")).expect_err("no success");
        assert_eq!(error.retry, expected, "{:?}: {error}", answer());
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
        target.requests();
    }
}

/// Guarantee: the request is what the page says, with the same key wherever a target may look for it, signed
/// over the bytes that were sent.
#[test]
fn a_request_has_body_key_and_signature() {
    let target = Target::new(vec![says("202 Accepted", "", "")]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = webhook(json!({
        "url": target.url(), "method": "PUT", "sign_secret": secret, "headers": { "X-Team": "a" },
        "header_secrets": { "Authorization": "token" },
    }));
    let webhook = webhook.expect("builds");
    assert_eq!(send(&webhook).expect("accepted").summary, "HTTP 202 Accepted");
    let requests = target.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with(&format!("PUT /hook/{CANARY} HTTP/1.1\r\n")), "{head}");
    let signature =
        Signer::new(&Secret::new(secret)).expect("a key").sign("action-1", 1_614_265_330, body.as_bytes());
    for line in [
        "idempotency-key: action-1",
        "webhook-id: action-1",
        "webhook-timestamp: 1614265330",
        "x-team: a",
        "authorization: Bearer s3cr3t",
        "content-type: application/json",
        &format!("webhook-signature: {signature}"),
    ] {
        assert!(head.lines().any(|have| have == line), "{line}: {head}");
    }
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["incident"]["key"], "relight/01HF7YAT00TESTTESTTESTTEST/1");
    assert_eq!(body["evidence"][0]["upper"], 0.012);
    assert_eq!(body["action"]["do"], "rollback");
}

/// Guarantee: what cannot be taken back is tried again only if the target itself says that nothing happened.
#[test]
fn answers_are_classified() {
    let again = || Retry::After(None);
    for (status, safe, once) in [
        ("400 Bad Request", Retry::Never, Retry::Never),
        ("401 Unauthorized", Retry::Never, Retry::Never),
        ("410 Gone", Retry::Never, Retry::Never),
        ("429 Too Many Requests", again(), again()),
        ("408 Request Timeout", again(), Retry::Unknown),
        ("500 Internal Server Error", again(), Retry::Unknown),
        ("503 Service Unavailable", again(), Retry::Unknown),
        ("504 Gateway Timeout", again(), Retry::Unknown),
    ] {
        check(|| says(status, "", "no"), safe, once);
    }
}

#[test]
fn f04_page_429_retry_after() {
    let wish = |secs| Retry::After(Some(Span::from_secs(secs)));
    for (header, expected) in [
        ("120", wish(120)),
        ("Thu, 25 Feb 2021 15:03:10 GMT", wish(60)),
        ("Thu, 25 Feb 2021 14:00:00 GMT", wish(0)),
        ("soon", Retry::After(None)),
        ("-5", Retry::After(None)),
        ("99999999999999999999", Retry::After(None)),
    ] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let safe = expected;
            let once = if status.starts_with("503") && expected == Retry::After(None) {
                Retry::Unknown
            } else {
                expected
            };
            check(|| says(status, &format!("Retry-After: {header}\r\n"), ""), safe, once);
        }
    }
}

/// Scenario: the request is through, and then there is no answer, or the connection breaks.
#[test]
fn f05_f06_timeout_after_send() {
    check(|| None, Retry::Unknown, Retry::Unknown);
    check(|| Some(String::new()), Retry::Unknown, Retry::Unknown);
}

/// Guarantee: nothing listens, so nothing was sent: safe to try again for everybody.
#[test]
fn f01_connection_refused() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback").port();
    let settings = json!({ "url": format!("http://127.0.0.1:{port}/{CANARY}") });
    let error = send(&webhook(settings).expect("builds")).expect_err("nobody listens");
    assert_eq!(error.retry, Retry::Unreached(NotSent::Connect));
    assert_eq!(error.message, "failed to connect: connection refused");
}

/// Scenario: a name whose address `egress` does not permit.
/// Guarantee: nothing is sent, and the error says that this is why.
#[test]
fn f17_a_refused_address_was_never_sent_to() {
    let settings = json!({ "url": "https://localhost:9/x", "allow_insecure_loopback": false });
    let error = send(&webhook(settings).expect("builds")).expect_err("it is this machine");
    assert_eq!(error.retry, Retry::Unreached(NotSent::Egress), "{error}");
}

/// Guarantee: a target that closes connections after each answer never gets a request twice: there is exactly
/// one connection an attempt, as the target itself counts.
#[test]
fn f07_http_client_autoretry() {
    let target = Target::new(vec![says("200 OK", "", ""), Some(String::new()), says("200 OK", "", "")]);
    let webhook = webhook(json!({ "url": target.url() })).expect("builds");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plan = plan(&webhook);
    let oks: Vec<bool> = (0..3).map(|_| runtime.block_on(webhook.apply(attempt(), &plan)).is_ok()).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!(target.requests().len(), 3);
}

/// Guarantee: a redirect is a refusal, wherever it points; nothing goes to its address.
#[test]
fn f17_f18_redirects_are_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let trap = TcpListener::bind("127.0.0.1:0").expect("loopback");
        trap.set_nonblocking(true).expect("a socket");
        let location = format!("Location: http://{}/latest/meta-data\r\n", trap.local_addr().expect("bound"));
        check(|| says(status, &location, ""), Retry::Never, Retry::Never);
        assert!(trap.accept().is_err(), "{status} was followed");
    }
}

/// Scenario: an answer without end.
/// Guarantee: it is read up to its limit, and a success is one without being read at all.
#[test]
fn f21_response_bomb() {
    let bomb = "x".repeat(10 * 1024 * 1024);
    for (status, ok) in [("200 OK", true), ("400 Bad Request", false)] {
        let target = Target::new(vec![says(status, "", &bomb)]);
        let answer = send(&webhook(json!({ "url": target.url() })).expect("builds"));
        assert_eq!(answer.is_ok(), ok);
        let line = answer.map_or_else(|error| error.message, |receipt| receipt.summary);
        assert!(line.len() < 400, "{} bytes", line.len());
        target.requests();
    }
}

/// Scenario: a target with a certificate that nobody vouches for: here, one that speaks no TLS at all.
#[test]
fn f22_tls_bad() {
    let target = Target::new(vec![says("200 OK", "", "")]);
    let settings = json!({ "url": target.url().replace("http:", "https:") });
    let error = send(&webhook(settings).expect("builds")).expect_err("no TLS");
    assert_eq!(error.retry, Retry::Unreached(NotSent::Connect), "nothing was sent");
    assert!(!error.message.contains("127.0.0.1"), "{error}");
    target.requests();
}

/// Guarantee: no secret in anything that can be shown: messages about settings, plans, errors that quote the
/// target, and `Debug`.
#[test]
fn h08_secrets_are_never_shown() {
    let echo = format!("you sent /hook/{CANARY} with Bearer s3cr3t\u{1b}[31m\n");
    let target = Target::new(vec![says("400 Bad Request", "", &echo)]);
    let settings = json!({ "url": target.url(), "header_secrets": { "Authorization": "token" } });
    let webhook = webhook(settings.clone()).expect("builds");
    let error = send(&webhook).expect_err("refused");
    let config: WebhookConfig = serde_json::from_value(settings).expect("settings");
    let shown = format!("{error} {error:?} {config:?} {:?}", plan(&webhook));
    assert!(!shown.contains(CANARY) && !shown.contains("s3cr3t") && !shown.contains('\u{1b}'), "{shown}");
    target.requests();
    for url in
        [format!("http://{CANARY}.example.com/"), CANARY.to_owned(), format!("https://10.0.0.1/{CANARY}")]
    {
        let Err(error) = self::webhook(json!({ "url": url })) else { panic!("{url} was taken") };
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
}

/// Guarantee: what can never be sent is an error of the config.
#[test]
fn bad_settings_are_refused() {
    for (key, value) in [
        ("method", json!("CONNECT")),
        ("method", json!("A B")),
        ("headers", json!({ "X": "a\nb" })),
        ("headers", json!({ "a b": "c" })),
        ("headers", json!({ "Idempotency-Key": "c" })),
        ("header_secrets", json!({ "Authorization": "nobody" })),
        ("template", json!("{{ nothing }}")),
        ("template", json!("{{ context[0].body }}")),
        ("template", json!("[{% for event in context %}{{ event.text }}{% endfor %}]")),
        ("template", json!("{")),
        ("sign_secret", json!("hunter2")),
        ("content_type", json!("a\nb")),
        ("egress", json!(["everything"])),
    ] {
        let mut settings = json!({ "url": "https://example.com/x" });
        settings[key] = value.clone();
        assert!(webhook(settings).is_err(), "{key}: {value}");
    }
}

/// Scenario: a context that makes the body too long, and a template that cannot cope with what was logged.
/// Guarantee: the page is planned all the same, with nothing but its context left out.
#[test]
fn what_was_logged_keeps_no_page_back() {
    let (mut incident, action) = incident_and_action();
    let (labels, at) = (incident.group.clone(), incident.onset);
    let event = Event { at, kind: "log".to_owned(), labels, body: "\u{1}".repeat(MAX_BODY / 16) };
    incident.context = vec![event; 16];
    let template = r#"{"id": {{ incident.id }}, "said": "{% for event in context %}{{ 'x' if event.kind == 'deploy' else event.body / 0 }}{% endfor %}"}"#;
    for settings in [json!({}), json!({ "template": template, "content_type": "text/plain" })] {
        let mut settings = settings;
        settings["url"] = "https://example.com/x".into();
        let webhook = webhook(settings).expect("builds");
        let plan = webhook.plan(&Request { action: &action, incident: &incident }).expect("a plan");
        let sent = bytes_of(&plan.body, "text/plain");
        assert!(sent.len() < MAX_BODY && String::from_utf8_lossy(&sent).contains(&incident.id), "{plan:?}");
    }
}

/// Guarantee: whatever a label holds, the body is one JSON document with that value in its place.
#[test]
fn f28_hostile_labels_stay_values() {
    let (mut incident, action) = incident_and_action();
    for hostile in ["\",\"severity\":\"critical", "{{ 7*7 }}", "\u{0}\n\r", "</script>", "\\", "\u{202e}x"] {
        incident.group = Labels::new([("service".to_owned(), hostile.to_owned())]);
        for settings in [json!({}), json!({ "template": r#"{"group": {{ group }}, "text": {{ summary }}}"# })]
        {
            let mut settings = settings;
            settings["url"] = "https://example.com/x".into();
            let webhook = webhook(settings).expect("builds");
            let plan = webhook.plan(&Request { action: &action, incident: &incident }).expect("a plan");
            let sent: Value =
                serde_json::from_slice(&bytes_of(&plan.body, "application/json")).expect("JSON");
            assert_eq!(sent["group"]["service"], hostile);
            assert!(sent.get("severity").is_none());
            assert!(!plan.summary.chars().any(char::is_control), "{}", plan.summary);
        }
    }
}
