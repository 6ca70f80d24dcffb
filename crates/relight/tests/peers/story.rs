//! The story of README.md, from its own files: a Collector writes to Kafka, relight reads it, one metric breaks, and somebody is
//! told by webhook.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver as Lines;

use relight_core::incident::{Incident, IncidentState};
use serde_json::Value;

use crate::broker::Broker;
use crate::collector::Collector;
use crate::peer::{Peer, free_port, of_tree, peer, text};
use crate::relight::{Home, Relight};
use crate::{PATIENCE, pause};

const PYTHON: &str = "python-1.45.2/bin/python";

/// `receiver.py`, and what it was sent.
pub(crate) struct Receiver {
    pub(crate) at: SocketAddr,
    process: Peer,
    told: Lines<String>,
}

impl Receiver {
    pub(crate) fn start(folder: &Path, at: SocketAddr, status: u16) -> Self {
        let script = of_tree("testdata/story/receiver.py").display().to_string();
        let args = [script, at.port().to_string(), status.to_string()];
        let (process, told) = Peer::telling(&peer(PYTHON), args, &folder.join("receiver.said"));
        Self { at, process: process.listening(at), told }
    }

    /// The next request.
    pub(crate) fn next(&self) -> Value {
        let line = self.told.recv_timeout(PATIENCE).expect("a request");
        serde_json::from_str(&line).expect("it is JSON")
    }

    /// Stops it; gives the requests that nobody has asked for.
    pub(crate) fn rest(self) -> Vec<Value> {
        drop(self.process);
        self.told.iter().map(|line| serde_json::from_str(&line).expect("it is JSON")).collect()
    }
}

/// `shop.py`: breaks and heals by a line on its standard input.
struct Shop(Child);

impl Shop {
    fn start(collector: SocketAddr) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(peer(PYTHON)).arg(of_tree("testdata/story/shop.py"));
        let child = command.arg(collector.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Self(child.expect("util-linux has `setpriv`"))
    }

    fn toggle(&mut self) {
        self.0.stdin.as_mut().expect("it is piped").write_all(b"\n").expect("it runs");
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that the story needs but its receiver.
struct World {
    home: Home,
    daemon: Relight,
    shop: Shop,
    _collector: Collector,
}

impl World {
    /// Starts the story's files on ports and a topic of this test's own.
    fn start(folder: &Path, name: &str, hook: SocketAddr) -> Self {
        let broker = Broker::of_tests();
        let topic = broker.create(name, 1);
        let http = free_port();
        let own = |file: &str| {
            let changes = [
                ("127.0.0.1:29092", broker.plain.to_string()),
                ("127.0.0.1:14318", http.to_string()),
                ("127.0.0.1:9777", "127.0.0.1:0".to_owned()),
                ("127.0.0.1:8099", hook.to_string()),
                ("otlp_metrics", topic.clone()),
            ];
            let text = text(&of_tree("testdata/story").join(file));
            changes.iter().fold(text, |text, (of, to)| text.replace(of, to))
        };
        let collector = Collector::with_config(folder, &own("collector.yaml"), http);
        let home = Home::with_config(folder, &own("relight.yaml"));
        let (daemon, shop) = (home.start(), Shop::start(http));
        daemon
            .wait_for("the detector has learned", |daemon| daemon.metric("relight_bins_total", &[]) >= 35.0);
        Self { home, daemon, shop, _collector: collector }
    }

    /// Breaks it until there is an incident, heals it until that is over, and ends.
    fn heal(mut self) -> Vec<Incident> {
        self.shop.toggle();
        self.daemon.wait_for("it is over", |daemon| daemon.metric("relight_incidents", &[]) == 0.0);
        self.daemon.stop();
        self.home.incidents()
    }
}

/// A page has what a human needs to know, and it is what relight itself knows.
fn check(page: &Value, incidents: &[Incident]) {
    let [incident] = incidents else { panic!("{} incidents", incidents.len()) };
    assert_eq!(incident.state, IncidentState::Resolved);
    let (told, evidence) = (&page["body"]["incident"], &page["body"]["evidence"][0]);
    assert_eq!(told["id"], incident.id.as_str());
    assert_eq!(told["onset"], incident.onset.to_string());
    assert_eq!(page["body"]["group"]["service.name"], "shop");
    let number = |name: &str| evidence[name].as_f64().unwrap_or(f64::NAN);
    let (lower, expected, upper, value) =
        (number("lower"), number("expected"), number("upper"), number("value"));
    assert!(lower < expected && expected < upper && upper < value, "{evidence:#}");
    assert!((1.9..2.5).contains(&expected) && value > 10.0, "{evidence:#}");
    assert!(page["key"].as_str().is_some_and(|key| key.starts_with(&incident.id)), "{page:#}");
}

/// Scenario: a shop's metric goes through a Collector and Kafka to relight; it breaks, and heals.
/// Guarantee: one incident, and the receiver gets exactly one body: with the band, the onset and the incident's id.
#[test]
fn a_collector_writes_to_kafka_and_a_fault_pages_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(folder.path(), free_port(), 200);
    let mut world = World::start(folder.path(), "story", receiver.at);
    world.shop.toggle();
    let page = receiver.next();
    let incidents = world.heal();
    assert_eq!(receiver.rest(), Vec::<Value>::new());
    check(&page, &incidents);
}

/// Scenario: the same, with a receiver that answers 503 for a while, is down for a while, and comes back.
/// Guarantee: it gets the body once it is back, once, under the key and with the bytes of the first attempt.
#[test]
fn a_page_waits_for_its_receiver() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = free_port();
    let receiver = Receiver::start(folder.path(), at, 503);
    let mut world = World::start(folder.path(), "patience", at);
    world.shop.toggle();
    let mut refused = vec![receiver.next(), receiver.next()];
    refused.extend(receiver.rest());
    // As long as an attempt or two.
    pause(5_000);
    let receiver = Receiver::start(folder.path(), at, 200);
    let page = receiver.next();
    for before in &refused {
        assert_eq!((&before["key"], &before["body"]), (&page["key"], &page["body"]));
        assert_eq!(before["status"], 503);
    }
    let incidents = world.heal();
    assert_eq!(receiver.rest(), Vec::<Value>::new());
    check(&page, &incidents);
}
