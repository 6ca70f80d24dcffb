//! A backlog that is worked off while live data goes on coming by another way.

use std::net::SocketAddr;
use std::path::Path;

use relight_core::Timestamp;
use relight_core::incident::{ActionState, Incident};

use crate::broker::Broker;
use crate::collector::{Collector, patient};
use crate::otlp::{load, now_ms};
use crate::peer::{free_port, text};
use crate::relight::Home;

/// Seconds that the backlog reaches back.
const PAST: u64 = 3 * 3_600;
/// Of each partition, how many seconds lie between two records: a megabyte of the first spans ten times as long.
const APART: [u64; 4] = [10, 5, 2, 1];
/// Points of one record.
const INSTANCES: u64 = 20;
/// Bytes that may wait in the queue of the live source: two of the four requests that the Collector makes at a time.
const MAX_WAITING: u64 = 40 << 10;
const CONFIG: &str = r#"
mode: auto
warm_up: 0s
sources:
  queue:
    type: kafka
    brokers: ["BROKER"]
    group: GROUP
    start: earliest
    topics: [{topic: TOPIC, format: otlp_json}]
    fetch: {max_waiting_bytes: 1048576}
LIVE
signals: {load: {value: load, by: [service.name]}}
detectors:
  load_high: {type: ewma, signal: load, half_life: 10m, warm_up: 30, min_deviation: 5, direction: above}
responders:
  pager: {type: exec, command: [/bin/sh, "FOLDER/page"], reach: notify, idempotent: true}
  switch: {type: exec, command: [/bin/sh, "FOLDER/act"]}
rules:
  - name: load-high
    when: load_high.score > 1.0
    for: 20s
    keep_firing_for: 30s
    group_by: [service.name]
    respond:
      - {do: notify, with: pager}
      - {do: switch, with: switch}
"#;

/// Whether the service of a partition is ill at this second of the backlog: each for ten minutes, the last until forty
/// minutes before its end.
fn is_ill(partition: u64, second: u64) -> bool {
    let begins = 1_800 + partition * 2_000;
    (begins..begins + 600).contains(&second)
}

/// Writes the backlog; gives the topic and the number of its points.
fn backlog(broker: &Broker) -> (String, u64) {
    let topic = broker.create("backlog", APART.len() as i32);
    let began = now_ms() - PAST * 1_000;
    let writer = broker.writer();
    let mut points = 0;
    for second in 0..PAST {
        for (partition, _) in (0..).zip(APART).filter(|(_, apart)| second % apart == 0) {
            let quiet = 10.0 + (second * 7 % 10) as f64 * 0.1;
            let value = if is_ill(partition, second) { 50.0 } else { quiet };
            let body = load(&format!("s{partition}"), INSTANCES, began + second * 1_000, value);
            writer.send(&topic, partition as i32, &body);
            points += INSTANCES;
        }
    }
    writer.finish();
    (topic, points)
}

/// A relight in a folder of its own, with programs that write down what they were called for.
fn home(folder: &Path, broker: &Broker, topic: &str, live: Option<SocketAddr>) -> Home {
    for what in ["page", "act"] {
        let script =
            format!("echo \"$RELIGHT_ACTION\" >> {}\n", folder.join(format!("{what}.log")).display());
        std::fs::write(folder.join(what), script).expect("a folder of our own");
    }
    let source = |at| {
        format!(
            "  live: {{type: otlp, grpc: off, http: \"{at}\", limits: {{max_waiting_bytes: {MAX_WAITING}}}}}"
        )
    };
    let config = CONFIG
        .replace("BROKER", &broker.plain.to_string())
        .replace("GROUP", &format!("{topic}-{}", if live.is_some() { "live" } else { "alone" }))
        .replace("TOPIC", topic)
        .replace("LIVE", &live.map(source).unwrap_or_default())
        .replace("FOLDER", &folder.display().to_string());
    // A Collector that was sent away sends what it has in any order; and the log, once it is read, holds nothing up.
    let keys = [("interval", "10s"), ("allowed_lateness", "10m"), ("idle_after", "20s"), ("catch_up", "30s")];
    Home::new(folder, &keys, &config)
}

/// What the stream alone decides of an incident.
fn found(incident: &Incident) -> (String, [Option<Timestamp>; 4], u64, u64, String) {
    let Incident { id, onset, first_finding, detected, recovered, findings, worst_score, evidence, .. } =
        incident;
    let times = [Some(*onset), Some(*first_finding), *detected, *recovered];
    (id.clone(), times, *findings, worst_score.to_bits(), format!("{evidence:?}"))
}

/// Scenario: a relight that may act starts on a backlog of three hours in four partitions, of which one comes ten times as
/// fast as another; a Collector that gives up on nothing sends it live data all the while.
/// Guarantee: the Collector is told to come again, and nothing of what it has is lost; what waits stays bounded; the incidents are those of a relight that reads the backlog alone; and nothing is done about them.
#[test]
fn b21_a_backlog_beside_a_live_source() {
    let (broker, folder) = (Broker::of_tests(), tempfile::tempdir().expect("a folder"));
    let (topic, written) = backlog(&broker);
    let at = |name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder of our own");
        folder
    };
    let (alone, beside) = (at("alone"), at("beside"));

    let undisturbed = home(&alone, &broker, &topic, None);
    let daemon = undisturbed.start();
    daemon.wait_for("all of the backlog", |daemon| daemon.points() >= written as f64);
    daemon.stop();

    let http = free_port();
    let sending = patient("otlphttp", &format!("\"http://{http}\""));
    let collector = Collector::start(folder.path(), &[sending], &["metrics"]);
    let (mut sent, mut waiting, began) = (0, [0.0_f64; 2], now_ms());
    let mut send = || {
        // Each a millisecond of its own.
        collector.send(&load("live", 500, began + sent, 1.0));
        sent += 1;
    };
    // It has more than may wait before there is anybody to take it.
    for _ in 0..50 {
        send();
    }
    let disturbed = home(&beside, &broker, &topic, Some(http));
    let daemon = disturbed.start();
    daemon.wait_for("most of it", |daemon| {
        send();
        for (most, source) in waiting.iter_mut().zip(["\"live", "\"queue/"]) {
            *most = most.max(daemon.metric("relight_partition_queue_bytes", &[source]));
        }
        daemon.points() >= written as f64
    });
    let all = (written + 500 * sent) as f64;
    assert!(daemon.requests("live", "busy") >= 1.0, "it was never sent away");
    let said = collector.process.said();
    assert!(said.contains("Throttle"), "it does not wait as long as it is told: {said}");
    daemon.wait_for("all of it", |daemon| daemon.points() >= all);
    assert_eq!((daemon.points(), daemon.refused()), (all, 0.0));
    daemon.stop();

    for (waiting, most) in waiting.into_iter().zip([MAX_WAITING, 1 << 20]) {
        assert!(waiting > 0.0 && waiting <= most as f64, "{waiting} bytes waited, of {most}");
    }
    let [(expected, planned), (incidents, actions)] = [&undisturbed, &disturbed].map(Home::left);
    assert_eq!(expected.len(), APART.len());
    let found = |incidents: &[Incident]| incidents.iter().map(found).collect::<Vec<_>>();
    assert_eq!(found(&incidents), found(&expected));
    for (folder, actions) in [(&alone, planned), (&beside, actions)] {
        let acts = actions.iter().filter(|action| action.mutates).map(|action| action.state);
        assert_eq!(acts.collect::<Vec<_>>(), [ActionState::Blocked; APART.len()]);
        assert_eq!(text(&folder.join("act.log")), "", "old news was acted on");
        assert_eq!(text(&folder.join("page.log")).lines().count(), APART.len(), "each fault is told once");
    }
}
