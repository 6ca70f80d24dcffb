//! The daemon as a process, beside the real programs that it is made to live with: the OpenTelemetry SDK and Collector,
//! Prometheus, Alertmanager, an Apache Kafka broker, and toxiproxy in between.
//!
//! `testdata/peers/test.sh` fetches them, starts a broker and runs these tests. A peer that is missing is a failure that
//! names the command which brings it. Everything listens on loopback, is waited for by its port and stopped by its
//! process id; what a killed test leaves behind is killed by the kernel. Nothing in here looks into the daemon while it runs.

mod alertmanager;
mod backlog;
mod broker;
mod collector;
mod http;
mod otlp;
mod peer;
mod prometheus;
mod relight;
mod sdk;
mod story;
mod toxiproxy;

use std::time::{Duration, Instant};

/// Far longer than anything here takes; only a hang is ended by it.
const PATIENCE: Duration = Duration::from_mins(2);

/// A pause between two looks at something that happens in other processes.
fn pause(millis: u64) {
    let (_keep, never) = crossbeam_channel::bounded::<()>(0);
    // Nothing is ever sent.
    let _ = never.recv_timeout(Duration::from_millis(millis));
}

/// Waits for something that other processes do.
fn until(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{}", what());
        pause(100);
    }
}
