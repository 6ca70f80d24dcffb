//! News of incidents, told to people as they come.
//!
//! Told after the turns that brought them about, when the ledger has those: a kill in between keeps a line untold, and never
//! the page, which is the ledger's. A turn that a failing ledger did not take runs again after a kill; what was told of it
//! is told once more, and nothing else is told twice.

use relight_core::{Span, Timestamp};

use super::Live;
use crate::pipeline::News;

/// Tells people one piece of news.
pub type TellNews = Box<dyn Fn(&News) + Send>;

/// How often there is room for more, and the number told of what there was none for.
const MINUTE: Span = Span::from_secs(60);

pub(super) struct Reporter {
    tell: TellNews,
    next: Timestamp,
}

impl Live {
    /// Incidents and what is done about them are told.
    pub fn tell_of_incidents(&mut self, tell: TellNews) {
        self.reporter = Some(Reporter { tell, next: self.clock.now().plus(MINUTE) });
    }

    /// At [`Timestamp::MAX`] the run ends, and all is told.
    pub(super) fn tell_news(&mut self, now: Timestamp) {
        let Some(reporter) = &mut self.reporter else { return };
        for news in self.pipeline.take_news() {
            (reporter.tell)(&news);
        }
        if now < reporter.next {
            return;
        }
        reporter.next = now.plus(MINUTE);
        let more = self.pipeline.more_news();
        if more.total() > 0 {
            (reporter.tell)(&News::More(more));
        }
    }
}
