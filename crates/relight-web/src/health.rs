//! Whether the engine goes round: its heartbeat, watched between requests.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use relight_core::telemetry::Board;

/// The longest turn that is still health: a million rows take a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Health {
    board: Board,
    seen: Mutex<(u64, Instant)>,
}

impl Health {
    pub(crate) fn new(board: Board) -> Self {
        let seen = Mutex::new((board.beats(), now()));
        Self { board, seen }
    }

    /// An error says for how long the engine has stood still, as far as these requests have seen.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_at(now())
    }

    fn check_at(&self, now: Instant) -> Result<(), String> {
        let beats = self.board.beats();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != beats {
            *seen = (beats, now);
        }
        let still = now.saturating_duration_since(seen.1);
        if still <= PATIENCE {
            Ok(())
        } else {
            Err(format!("the engine has stood still for {} s", still.as_secs()))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a hang is measured by a clock that the engine does not read")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the engine goes round once, then hangs, then goes round again.
    /// Guarantee: unhealthy while it hangs, and only then.
    #[test]
    fn a_heart_that_stands_still_is_told() {
        let board = Board::default();
        let health = Health::new(board.clone());
        let start = now();
        let at = |secs| start + Duration::from_secs(secs);
        board.beat();
        assert_eq!(health.check_at(at(40)), Ok(()));
        assert_eq!(health.check_at(at(70)), Ok(()));
        assert_eq!(health.check_at(at(71)), Err("the engine has stood still for 31 s".to_owned()));
        board.beat();
        assert_eq!(health.check_at(at(72)), Ok(()));
    }
}
