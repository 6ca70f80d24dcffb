//! What systemd is told: ready, reloading, stopping, and a watchdog that is wired to the engine's progress.
//!
//! Without systemd (`NOTIFY_SOCKET` is not set) nothing is told to nobody.

use std::convert::Infallible;
use std::time::Duration;

use relight_core::telemetry::Board;
use sd_notify::NotifyState;

/// State is loaded and listeners are bound.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("watching")]);
}

/// The config is read again; [`ready`] says that this is over, however it ended.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the config again")]);
    }
}

/// It was told to stop.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: takes what is queued, and writes a last snapshot"),
    ]);
}

/// Feeds the watchdog for as long as the engine goes round and no source is stuck for good: one that hangs is killed
/// and started anew.
pub(super) async fn watchdog(board: &Board, is_stuck: impl Fn() -> bool) -> Infallible {
    let mut limit_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut limit_us) {
        return std::future::pending().await;
    }
    let mut seen = None;
    loop {
        let beats = board.beats();
        if seen != Some(beats) && !is_stuck() {
            seen = Some(beats);
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(Duration::from_micros(limit_us / 3)).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens only where nobody asked to be told.
    let _ = sd_notify::notify(false, states);
}
