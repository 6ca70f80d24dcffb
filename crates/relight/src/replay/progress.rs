//! What a replay shows while it runs: a bar on a terminal, and the rows of `--scores`. What it keeps of it: the strongest findings.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use relight_core::rule::Finding;
use relight_runtime::{ReplayObserver, ScoredRow};

use super::furthest::Furthest;
use super::scores::Scores;
use crate::failure::Failure;

/// A shorter replay is over before a bar could be read.
const PATIENCE: Duration = Duration::from_millis(700);
const TEMPLATE: &str = "{bar:40} {bytes}/{total_bytes}  {msg}, {eta} left";
const TEMPLATE_UNKNOWN: &str = "{spinner} {bytes}  {msg}";

/// Watches a replay for the command line.
pub(super) struct Progress {
    started: Instant,
    is_terminal: bool,
    bar: Option<ProgressBar>,
    scores: Option<Scores>,
    furthest: Furthest,
}

impl Progress {
    pub(super) fn new(scores: Option<Scores>) -> Self {
        Self {
            started: Instant::now(),
            is_terminal: std::io::stderr().is_terminal(),
            bar: None,
            scores,
            furthest: Furthest::default(),
        }
    }

    /// Removes the bar and completes the scores. The strongest findings.
    pub(super) fn finish(self) -> Result<Vec<Finding>, Failure> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.scores.map_or(Ok(()), Scores::finish)?;
        Ok(self.furthest.into_findings())
    }
}

impl ReplayObserver for Progress {
    fn progress(&mut self, done: u64, total: u64, points: u64) {
        if !self.is_terminal || self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(total));
        if total > 0 {
            // The seed has a length of its own.
            bar.set_length(total);
        }
        bar.set_position(done);
        bar.set_message(format!("{} points", crate::words::grouped(points)));
    }

    fn findings(&mut self, findings: &[Finding]) {
        self.furthest.take(findings);
    }

    fn readings(&mut self, readings: &[ScoredRow]) {
        if let Some(scores) = &mut self.scores {
            scores.take(readings);
        }
    }
}

fn new_bar(total: u64) -> ProgressBar {
    let (bar, template) = match total {
        0 => (ProgressBar::new_spinner(), TEMPLATE_UNKNOWN),
        total => (ProgressBar::new(total), TEMPLATE),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar
}
