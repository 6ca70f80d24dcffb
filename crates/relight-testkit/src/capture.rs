//! Replays of a capture that a test writes as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use relight_runtime::{ReplayObserver, ReplayRequest, Report, replay};

use crate::golden::REGISTRY;

/// Replays `text` as a capture file whose name ends in `suffix`, under a config. `threads` are the engine's.
///
/// # Panics
///
/// If the config is not valid, or the text is no capture.
pub fn replay_text(
    config: &str,
    suffix: &str,
    text: &str,
    threads: usize,
    observer: &mut dyn ReplayObserver,
) -> Report {
    let file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    let config = relight_config::parse("config.yaml", config, &REGISTRY, &|_| None).expect("it is valid");
    let request = ReplayRequest {
        settings: Arc::new(config.settings),
        sources: relight_ingest::open(file.path()).expect("it is a capture"),
        threads,
        stores: None,
        snapshot_every: u64::MAX,
        outcomes: BTreeMap::new(),
        want_readings: true,
    };
    replay(request, observer).expect("it is whole")
}
