//! toxiproxy: connections that are slow, cut, half-open, between senders and relight, and between relight and a receiver.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::http::{ask, must};
use crate::otlp::{load, now_ms};
use crate::peer::{Peer, free_port, peer};
use crate::relight::Home;
use crate::story::Receiver;
use crate::until;

/// A proxy server that runs.
pub(crate) struct Toxiproxy {
    api: SocketAddr,
    _process: Peer,
}

impl Toxiproxy {
    pub(crate) fn start(folder: &Path) -> Self {
        let api = free_port();
        let args = ["-host", "127.0.0.1", "-port", &api.port().to_string()];
        let process = Peer::start(&peer("toxiproxy-2.5.0"), args, &folder.join("toxiproxy.said"));
        Self { api, _process: process.listening(api) }
    }

    /// Has it listen for somebody; gives where.
    pub(crate) fn before(&self, name: &str, upstream: SocketAddr) -> SocketAddr {
        let listen = free_port();
        self.listen(name, listen, upstream);
        listen
    }

    pub(crate) fn listen(&self, name: &str, listen: SocketAddr, upstream: SocketAddr) {
        let proxy = json!({"name": name, "listen": listen, "upstream": upstream, "enabled": true});
        must(self.api, "POST", "/proxies", &proxy.to_string());
    }

    /// Adds a fault to what a proxy carries `upstream`, to whom it stands before, or `downstream`.
    pub(crate) fn poison(&self, name: &str, stream: &str, kind: &str, attributes: &Value) {
        let toxic = json!({"name": kind, "type": kind, "stream": stream, "attributes": attributes});
        must(self.api, "POST", &format!("/proxies/{name}/toxics"), &toxic.to_string());
    }

    pub(crate) fn heal(&self, name: &str, kind: &str) {
        must(self.api, "DELETE", &format!("/proxies/{name}/toxics/{kind}"), "");
    }

    /// Breaks all connections and refuses new ones, or takes them again.
    pub(crate) fn enable(&self, name: &str, enabled: bool) {
        must(self.api, "POST", &format!("/proxies/{name}"), &json!({"enabled": enabled}).to_string());
    }
}

const SOURCE: &str = r#"
sources: {otlp: {type: otlp, grpc: off, http: "127.0.0.1:0"}}
"#;

/// Scenario: a connection that is cut in the middle of a request; one that is cut when the request was taken, before its
/// sender hears of it; each time the sender comes again.
/// Guarantee: of half a request nothing is applied; what comes twice is counted as such and not applied again.
#[test]
fn a16_a17_cut_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Home::new(folder.path(), &[], SOURCE).start();
    let proxies = Toxiproxy::start(folder.path());
    let proxy = proxies.before("relight", daemon.at("otlp"));
    let began = now_ms() - 10_000;
    let body = load("shop", 500, began, 1.0);
    proxies.poison("relight", "upstream", "limit_data", &json!({"bytes": body.len() / 2}));
    assert!(ask(proxy, "POST", "/v1/metrics", &body).is_err());
    daemon.wait_for("it knows", |daemon| daemon.requests("otlp", "disconnected") == 1.0);
    assert_eq!((daemon.points(), daemon.metric("relight_series", &[])), (0.0, 0.0));
    proxies.heal("relight", "limit_data");

    proxies.poison("relight", "downstream", "timeout", &json!({"timeout": 3_000}));
    assert!(ask(proxy, "POST", "/v1/metrics", &body).is_err());
    daemon.wait_for("it was taken", |daemon| daemon.points() == 500.0);
    proxies.heal("relight", "timeout");
    must(proxy, "POST", "/v1/metrics", &body);
    // What came twice is found when its bin closes.
    must(proxy, "POST", "/v1/metrics", &load("other", 1, began + 5_000, 1.0));
    daemon.wait_for("it knows", |daemon| daemon.refused() >= 500.0);
    let repeated = daemon.metric("relight_refused_total", &["reason=\"duplicate\""]);
    assert_eq!((daemon.points(), repeated, daemon.refused()), (1_001.0, 500.0, 500.0));
    assert_eq!(daemon.metric("relight_series", &[]), 501.0);
    daemon.stop();
}

/// Scenario: one sender's line carries 10 KiB a second; others send beside it.
/// Guarantee: they are answered while it is still at it, and what it sends is taken in the end.
#[test]
fn a_slow_sender_slows_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Home::new(folder.path(), &[], SOURCE).start();
    let proxies = Toxiproxy::start(folder.path());
    let proxy = proxies.before("relight", daemon.at("otlp"));
    proxies.poison("relight", "upstream", "bandwidth", &json!({"rate": 10}));
    let now = now_ms();
    let slow = std::thread::spawn(move || must(proxy, "POST", "/v1/metrics", &load("slow", 500, now, 1.0)));
    daemon.wait_for("it has begun", |daemon| daemon.metric("relight_source", &["reading_bytes"]) > 0.0);
    for n in 0..20 {
        must(daemon.at("otlp"), "POST", "/v1/metrics", &load("shop", 10, now + n, 1.0));
    }
    assert!(!slow.is_finished());
    daemon.wait_for("the others", |daemon| daemon.points() == 200.0);
    slow.join().expect("it is taken");
    daemon.wait_for("all", |daemon| daemon.points() == 700.0);
    daemon.stop();
}

/// Scenario: lines go dead without a word: one before a request's head, one in the middle of its body.
/// Guarantee: relight gives both up by itself, and with them what it held for them; others are served.
#[test]
fn half_open_connections_are_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Home::new(folder.path(), &[], SOURCE).start();
    let proxies = Toxiproxy::start(folder.path());
    let proxy = proxies.before("relight", daemon.at("otlp"));
    let open = |n: f64| {
        move |daemon: &crate::relight::Relight| {
            daemon.metric("relight_source", &["what=\"connections_open\""]) == n
        }
    };
    let connect = || TcpStream::connect(proxy).expect("it listens");
    let (_silent, mut half) = (connect(), connect());
    half.write_all(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        .expect("it is read");
    daemon.wait_for("both are open", open(2.0));
    proxies.poison("relight", "upstream", "timeout", &json!({"timeout": 0}));
    half.write_all(&[b' '; 999]).expect("the proxy takes it");
    must(daemon.at("otlp"), "POST", "/v1/metrics", &load("shop", 10, now_ms(), 1.0));
    daemon.wait_for("both are given up", open(0.0));
    let held = daemon.metric("relight_source", &["reading_bytes"]);
    assert_eq!((held, daemon.points(), daemon.requests("otlp", "timed_out")), (0.0, 10.0, 1.0));
    daemon.stop();
}

const HOOK: &str = r#"
sources: {otlp: {type: otlp, grpc: off, http: "127.0.0.1:0"}}
signals: {load: {value: load, by: [service.name]}}
detectors: {high: {type: threshold, signal: load, above: 10}}
responders: {chat: {type: webhook, url: "http://HOOK/hook", reach: notify, timeout: 1s}}
rules: [{name: load-high, when: high.score > 1.0, group_by: [service.name], respond: [{do: notify, with: chat}]}]
"#;

/// Scenario: the receiver of a page takes it, but its answer never arrives; later it does.
/// Guarantee: relight sends the same bytes under the same key until it hears an answer, and not once more.
#[test]
fn f05_page_timeout_after_send() {
    let folder = tempfile::tempdir().expect("a folder");
    let proxies = Toxiproxy::start(folder.path());
    let receiver = Receiver::start(folder.path(), free_port(), 200);
    let hook = proxies.before("receiver", receiver.at);
    proxies.poison("receiver", "downstream", "timeout", &json!({"timeout": 0}));
    let daemon = Home::new(folder.path(), &[], &HOOK.replace("HOOK", &hook.to_string())).start();
    let began = now_ms() - 10_000;
    for n in 0..5 {
        must(daemon.at("otlp"), "POST", "/v1/metrics", &load("shop", 1, began + n * 1_000, 50.0));
    }
    let mut told = vec![receiver.next(), receiver.next()];
    proxies.heal("receiver", "timeout");
    until(|| "an answer".to_owned(), || daemon.metric("relight_actions", &[]) == 0.0);
    daemon.stop();
    told.extend(receiver.rest());
    assert!(told.iter().all(|page| *page == told[0]), "{told:?}");
    assert!(told[0]["key"].as_str().is_some_and(|key| !key.is_empty()), "{told:?}");
}
