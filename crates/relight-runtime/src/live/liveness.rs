//! Which partitions are idle, stalled or just started, and how far that lets time go on.
//!
//! Silence is no state of the engine but an input: what comes out of here are advances, which the driver
//! journals and hands to Intake. Reads no clock, holds no data and knows no watermark of its own.

use relight_core::{Span, Timestamp};
use relight_ingest::live::Reads;

/// The bounds within which silence is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// A partition without records for this long is idle, if it is caught up.
    pub(crate) idle_after: Span,
    /// How far one partition may be ahead of the slowest, and how long a stalled one is waited for.
    pub(crate) max_skew: Span,
    /// How long a listener's watermark stays after a start where the snapshot or its journal left it, so that batches
    /// which were sent again are not late.
    pub(crate) catch_up: Span,
    /// How far behind the newest a point may be.
    pub(crate) lateness: Span,
}

/// What is known of one partition's silence.
#[derive(Debug)]
struct Partition {
    reads: Reads,
    /// When its last record came; at first, when it was opened.
    last_record: Timestamp,
    /// The last fetch that found nothing more, if nothing has come since.
    caught_up: Option<Timestamp>,
    unreachable_since: Option<Timestamp>,
    /// It has brought points, so that its silence may be an exporter's pause. Not known of one that was read before this
    /// start until its first record comes.
    has_points: Option<bool>,
    /// A point or event of it has counted, in this run or in the state. Before that its silence says nothing of time.
    has_brought: bool,
    /// When it was opened or, by the mark in its journal, started: a watermark that is kept is so from then on.
    started: Timestamp,
    /// What its journal holds beyond the snapshot is still on its way. Silence says nothing of it, and what lets time go on
    /// has its place in the journal already.
    is_behind: bool,
    closed: bool,
}

/// What the state knows of a partition when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// The partition is new.
    Unknown,
    /// It was read before, and no point or event of it has counted.
    Empty,
    /// Points or events of it have counted.
    Brought,
}

/// What silence comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The watermark moves to here.
    Advance(Timestamp),
    /// The watermark was kept where a start found it; from now on its records move it.
    Release,
}

/// The silence of all partitions, by their index.
#[derive(Debug)]
pub(crate) struct Liveness {
    patience: Patience,
    partitions: Vec<Option<Partition>>,
    /// The first watermark that any partition came to.
    base: Option<Timestamp>,
    /// When the first partition that has brought something was opened or brought it.
    first_brought: Option<Timestamp>,
}

impl Liveness {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, partitions: Vec::new(), base: None, first_brought: None }
    }

    /// Other bounds from now on.
    pub(crate) const fn patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// A partition is read from now on. `past` is what the state knows of it. Returns whether its watermark is
    /// to be kept for a while. Where there is a journal that is told by the mark of the start in it.
    pub(crate) fn open(&mut self, ix: u32, reads: Reads, past: Past, now: Timestamp) -> bool {
        let ix = ix as usize;
        let resumed = past != Past::Unknown;
        if past == Past::Brought {
            self.first_brought.get_or_insert(now);
        }
        if self.partitions.len() <= ix {
            self.partitions.resize_with(ix + 1, || None);
        }
        self.partitions[ix] = Some(Partition {
            reads,
            last_record: now,
            caught_up: None,
            unreachable_since: None,
            has_points: (!resumed).then_some(false),
            has_brought: past == Past::Brought,
            started: now,
            is_behind: reads == Reads::Journalled,
            closed: false,
        });
        resumed && reads == Reads::Push
    }

    /// The mark of a start was taken.
    pub(crate) fn started(&mut self, ix: u32, now: Timestamp) {
        if let Some(partition) = self.get(ix) {
            partition.started = now;
        }
    }

    /// A record came, with points or with events alone. `has_brought`: a point or event of the partition has counted so far.
    pub(crate) fn record(
        &mut self,
        ix: u32,
        has_points: bool,
        has_brought: bool,
        watermark: Timestamp,
        now: Timestamp,
    ) {
        if watermark.is_known() {
            self.base.get_or_insert(watermark);
        }
        if has_brought {
            self.first_brought.get_or_insert(now);
        }
        let Some(partition) = self.get(ix) else { return };
        partition.has_brought |= has_brought;
        partition.last_record = now;
        partition.caught_up = None;
        partition.unreachable_since = None;
        partition.has_points = Some(has_points || partition.has_points == Some(true));
    }

    /// Nothing is taken of the partition at present: that a listener brings nothing is then no silence of its own, and what
    /// its senders have to bring again shall not be late.
    pub(crate) fn held_back(&mut self, ix: u32, now: Timestamp) {
        if let Some(partition) = self.get(ix).filter(|partition| partition.reads != Reads::Pull) {
            partition.last_record = now;
        }
    }

    /// The partition was read to its end by a fetch at `at`; or its journal was, after a start.
    pub(crate) fn caught_up(&mut self, ix: u32, at: Timestamp, now: Timestamp) {
        let Some(partition) = self.get(ix) else { return };
        if std::mem::take(&mut partition.is_behind) {
            // From now on senders are heard, and the time that the reading took was no silence of theirs.
            (partition.last_record, partition.started) = (now, now);
        }
        partition.caught_up = Some(at);
        partition.unreachable_since = None;
    }

    /// The partition cannot be reached. Returns whether that is news.
    pub(crate) fn unreachable(&mut self, ix: u32, now: Timestamp) -> bool {
        let Some(partition) = self.get(ix) else { return false };
        let is_news = partition.unreachable_since.is_none();
        partition.unreachable_since.get_or_insert(now);
        partition.caught_up = None;
        is_news
    }

    /// Nothing more will come from it.
    pub(crate) fn close(&mut self, ix: u32) {
        if let Some(partition) = self.get(ix) {
            partition.closed = true;
        }
    }

    /// Whether a partition cannot be reached.
    pub(crate) fn is_stalled(&self, ix: u32) -> bool {
        self.open_ones().any(|(known, p)| known == ix && p.unreachable_since.is_some())
    }

    /// What silence comes to at `now`, for a partition at a time. `watermark` tells where each stands, `is_kept` which are
    /// kept there; `heard` is `now` by the clock that records are received by.
    pub(crate) fn poll(
        &self,
        now: Timestamp,
        heard: Timestamp,
        watermark: &dyn Fn(u32) -> Timestamp,
        is_kept: &dyn Fn(u32) -> bool,
    ) -> Vec<(u32, Silence)> {
        let Patience { idle_after, max_skew, catch_up, lateness } = self.patience;
        let reachable = || self.open_ones().filter(|(_, p)| p.unreachable_since.is_none());
        let others = reachable().map(|(ix, _)| watermark(ix)).min();
        let moving = reachable().filter(|(_, p)| p.has_brought).map(|(ix, _)| watermark(ix)).min();
        let mut all = Vec::new();
        for (ix, partition) in self.open_ones().filter(|(_, p)| !p.is_behind) {
            if is_kept(ix) {
                let is_over = now >= partition.started.plus(catch_up);
                all.extend(is_over.then_some((ix, Silence::Release)));
                continue;
            }
            let to = match partition.unreachable_since {
                // Only for the others' sake: where there are none, what it brings later shall not be late.
                Some(since) => others.filter(|_| now >= since.plus(max_skew)),
                // The clock has nothing to say where no record has shown how the log's time relates to it.
                None if partition.is_empty_log() => {
                    let since =
                        self.first_brought.map_or(partition.last_record, |at| at.max(partition.last_record));
                    moving.filter(|_| partition.caught_up.is_some() && now >= since.plus(idle_after))
                }
                None => partition.idle((now, heard), idle_after).map(|at| at.minus(lateness)),
            };
            all.extend(to.filter(|to| *to > watermark(ix)).map(|to| (ix, Silence::Advance(to))));
        }
        all
    }

    /// The watermark beyond which a partition is held back, so that the slowest is not left behind by
    /// more than `max_skew`. `None`: nothing is known yet.
    pub(crate) fn limit(&self, watermark: &dyn Fn(u32) -> Timestamp) -> Option<Timestamp> {
        let mut slowest: Option<Timestamp> = None;
        for (ix, partition) in self.open_ones() {
            let at = watermark(ix);
            let known = if at.is_known() {
                Some(at)
            } else {
                // Its first records are still on their way, or may yet be written: it may be as far back as any other began.
                let awaited = partition.reads == Reads::Pull && partition.unreachable_since.is_none();
                self.base.filter(|_| awaited)
            };
            slowest = [slowest, known].into_iter().flatten().min();
        }
        slowest.map(|at| at.plus(self.patience.max_skew))
    }

    fn get(&mut self, ix: u32) -> Option<&mut Partition> {
        self.partitions.get_mut(ix as usize)?.as_mut()
    }

    fn open_ones(&self) -> impl Iterator<Item = (u32, &Partition)> {
        let all = (0..).zip(&self.partitions);
        all.filter_map(|(ix, p)| Some((ix, p.as_ref().filter(|p| !p.closed)?)))
    }
}

impl Partition {
    /// Whether it is a log of which nothing has counted so far.
    fn is_empty_log(&self) -> bool {
        self.reads == Reads::Pull && !self.has_brought
    }

    /// Until when it is known that nothing has come, if it is idle.
    fn idle(&self, (now, heard): (Timestamp, Timestamp), idle_after: Span) -> Option<Timestamp> {
        let quiet = now >= self.last_record.plus(idle_after);
        match self.reads {
            Reads::Push | Reads::Journalled => quiet.then_some(heard),
            // Events come when they come: one that carries nothing else is not waited for.
            Reads::Pull => {
                self.caught_up.map(|at| at.min(heard)).filter(|_| quiet || self.has_points == Some(false))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle_after: Span::from_secs(60),
        max_skew: Span::from_secs(120),
        catch_up: Span::from_secs(30),
        lateness: Span::from_secs(10),
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + secs)
    }

    fn advances(liveness: &Liveness, now: i64, watermarks: &[Timestamp]) -> Vec<(u32, Silence)> {
        kept(liveness, now, watermarks, &[])
    }

    /// With these partitions kept where they are.
    fn kept(liveness: &Liveness, now: i64, watermarks: &[Timestamp], kept: &[u32]) -> Vec<(u32, Silence)> {
        liveness.poll(at(now), at(now), &|ix| watermarks[ix as usize], &|ix| kept.contains(&ix))
    }

    /// Scenario: a listener and two partitions of a log, all silent; of the log one was read to its end and
    /// had points, the other not.
    /// Guarantee: a listener is idle for want of a request; a log only if a fetch found nothing more.
    #[test]
    fn c19_idle_partition() {
        let mut liveness = Liveness::new(PATIENCE);
        for (ix, reads) in (0..).zip([Reads::Push, Reads::Pull, Reads::Pull]) {
            assert!(!liveness.open(ix, reads, Past::Unknown, at(0)));
            liveness.record(ix, true, true, at(-10), at(0));
        }
        liveness.caught_up(1, at(50), at(50));
        let marks = [at(-10); 3];
        assert_eq!(advances(&liveness, 59, &marks), []);
        let expected = [(0, Silence::Advance(at(50))), (1, Silence::Advance(at(40)))];
        assert_eq!(advances(&liveness, 60, &marks), expected);
    }

    /// Scenario: a listener is held back for minutes, since a log is far behind; then it is not, and brings nothing.
    /// Guarantee: it is idle only once it could have brought something for long enough.
    #[test]
    fn a_listener_that_is_held_back_is_not_idle() {
        let mut liveness = Liveness::new(PATIENCE);
        for (ix, reads) in (0..).zip([Reads::Push, Reads::Pull]) {
            liveness.open(ix, reads, Past::Unknown, at(0));
            liveness.record(ix, true, true, at(-10), at(0));
        }
        let marks = [at(-10); 2];
        for secs in 0..300 {
            liveness.held_back(0, at(secs));
            assert_eq!(advances(&liveness, secs, &marks), [], "{secs}");
        }
        assert_eq!(advances(&liveness, 358, &marks), []);
        assert_eq!(advances(&liveness, 359, &marks), [(0, Silence::Advance(at(349)))]);
    }

    /// Guarantee: a log that carries events alone is idle as soon as it is caught up.
    #[test]
    fn events_alone_are_not_waited_for() {
        let mut liveness = Liveness::new(PATIENCE);
        liveness.open(0, Reads::Pull, Past::Unknown, at(0));
        liveness.record(0, false, true, at(-10), at(0));
        assert_eq!(advances(&liveness, 1, &[at(-10)]), []);
        liveness.caught_up(0, at(1), at(1));
        assert_eq!(advances(&liveness, 1, &[at(-10)]), [(0, Silence::Advance(at(-9)))]);
    }

    /// Scenario: of two logs one has brought nothing so far, in this run or before it; the other begins after an hour, with
    /// records of an hour ago.
    /// Guarantee: alone, the empty log moves no time. Beside the other it is waited for as long as `idle_after` from the first
    /// record on and needs a fetch that found nothing; then it goes where the other stands, and never by the clock.
    #[test]
    fn an_empty_log_goes_with_the_others() {
        for past in [Past::Unknown, Past::Empty] {
            let mut liveness = Liveness::new(PATIENCE);
            (0..2).for_each(|ix| assert!(!liveness.open(ix, Reads::Pull, past, at(0))));
            let unknown = Timestamp::MIN;
            assert_eq!(advances(&liveness, 3_600, &[unknown; 2]), []);
            (0..2).for_each(|ix| liveness.caught_up(ix, at(3_599), at(3_599)));
            assert_eq!(advances(&liveness, 3_600, &[unknown; 2]), [], "{past:?}: no record has shown a time");
            liveness.record(0, true, true, at(10), at(3_600));
            let marks = [at(10), unknown];
            assert_eq!(advances(&liveness, 3_659, &marks), [], "{past:?}");
            let expected = [(1, Silence::Advance(at(10)))];
            assert_eq!(advances(&liveness, 3_660, &marks), expected, "{past:?}");
            liveness.record(1, true, true, at(12), at(3_700));
            liveness.caught_up(1, at(3_765), at(3_765));
            let expected = [(1, Silence::Advance(at(3_755)))];
            assert_eq!(
                advances(&liveness, 3_766, &[at(10), at(12)]),
                expected,
                "{past:?}: the clock speaks of it now"
            );
        }
    }

    /// Scenario: an empty log whose end no fetch has reported, beside one that brings records.
    /// Guarantee: it is waited for, since nobody knows that it is empty.
    #[test]
    fn an_empty_log_is_one_that_a_fetch_found_empty() {
        let mut liveness = Liveness::new(PATIENCE);
        (0..2).for_each(|ix| assert!(!liveness.open(ix, Reads::Pull, Past::Unknown, at(0))));
        liveness.record(0, true, true, at(-10), at(0));
        assert_eq!(advances(&liveness, 9_999, &[at(-10), Timestamp::MIN]), []);
    }

    /// Scenario: two logs that were read before this start, one of events alone, as its first record tells.
    /// Guarantee: neither is idle before it is known what it carries; then that of events is, as soon as it is caught up.
    #[test]
    fn what_was_read_before_may_pause() {
        let mut liveness = Liveness::new(PATIENCE);
        for ix in 0..2 {
            liveness.open(ix, Reads::Pull, Past::Brought, at(0));
            liveness.caught_up(ix, at(1), at(1));
        }
        assert_eq!(advances(&liveness, 1, &[at(-10); 2]), []);
        liveness.record(0, true, true, at(-10), at(2));
        liveness.record(1, false, true, at(-10), at(2));
        (0..2).for_each(|ix| liveness.caught_up(ix, at(3), at(3)));
        assert_eq!(advances(&liveness, 3, &[at(-10); 2]), [(1, Silence::Advance(at(-7)))]);
    }

    /// Scenario: one of two partitions cannot be reached; then neither can.
    /// Guarantee: it is waited for as long as `max_skew`, then goes with the others; alone it waits for ever, so
    /// that nothing of a log is lost because its broker was away.
    #[test]
    fn a_stalled_partition_holds_the_others_for_a_while() {
        let mut liveness = Liveness::new(PATIENCE);
        for ix in 0..2 {
            liveness.open(ix, Reads::Pull, Past::Unknown, at(0));
            liveness.record(ix, true, true, at(-10), at(0));
        }
        assert!(liveness.unreachable(1, at(5)));
        assert!(!liveness.unreachable(1, at(6)), "one stall is told once");
        liveness.record(0, true, true, at(110), at(119));
        let marks = [at(110), at(-10)];
        assert_eq!(advances(&liveness, 124, &marks), []);
        assert_eq!(advances(&liveness, 125, &marks), [(1, Silence::Advance(at(110)))]);
        assert!(liveness.is_stalled(1) && !liveness.is_stalled(0));
        liveness.unreachable(0, at(126));
        assert_eq!(advances(&liveness, 9_999, &marks), []);
        liveness.caught_up(1, at(10_000), at(10_000));
        assert!(!liveness.is_stalled(1) && liveness.is_stalled(0));
    }

    /// Guarantee: a listener that the state knows keeps its watermark for `catch_up`, and is not idle meanwhile.
    #[test]
    fn a_listener_catches_up_after_a_start() {
        let mut liveness = Liveness::new(PATIENCE);
        assert!(liveness.open(0, Reads::Push, Past::Brought, at(0)));
        assert!(!liveness.open(1, Reads::Pull, Past::Brought, at(0)), "a log is read from its offset");
        assert_eq!(kept(&liveness, 29, &[at(-900); 2], &[0]), []);
        assert_eq!(kept(&liveness, 30, &[at(-900); 2], &[0]), [(0, Silence::Release)]);
        assert_eq!(advances(&liveness, 60, &[at(-900); 2]), [(0, Silence::Advance(at(50)))]);
    }

    /// Scenario: a listener's journal is read again for two minutes, with the mark of an earlier start in it; then it was
    /// read to its end, and this start is marked.
    /// Guarantee: the watermark is let go `catch_up` after the mark of this start, and not by an earlier one's.
    #[test]
    fn a_journal_is_read_to_its_end_first() {
        let mut liveness = Liveness::new(PATIENCE);
        assert!(!liveness.open(0, Reads::Journalled, Past::Brought, at(0)), "its mark tells");
        assert_eq!(advances(&liveness, 119, &[at(-900)]), [], "it is not idle");
        liveness.started(0, at(1));
        assert_eq!(kept(&liveness, 119, &[at(-900)], &[0]), []);
        liveness.caught_up(0, Timestamp::MIN, at(119));
        assert_eq!(advances(&liveness, 120, &[at(-900)]), [], "it could not be heard before");
        liveness.started(0, at(120));
        assert_eq!(kept(&liveness, 149, &[at(-900)], &[0]), []);
        assert_eq!(kept(&liveness, 150, &[at(-900)], &[0]), [(0, Silence::Release)]);
        assert_eq!(advances(&liveness, 180, &[at(-900)]), [(0, Silence::Advance(at(170)))]);
    }

    /// Guarantee: the slowest that is known bounds all; one whose first records are awaited counts as being where
    /// the first one began; a listener that nobody talks to bounds nothing.
    #[test]
    fn the_slowest_bounds_the_others() {
        let mut liveness = Liveness::new(PATIENCE);
        for (ix, reads) in (0..).zip([Reads::Pull, Reads::Pull, Reads::Push]) {
            liveness.open(ix, reads, Past::Unknown, at(0));
        }
        let unknown = Timestamp::MIN;
        assert_eq!(liveness.limit(&|_| unknown), None);
        liveness.record(0, true, true, at(-10_000), at(0));
        liveness.record(0, true, true, at(-9_000), at(1));
        let marks = [at(-9_000), unknown, unknown];
        assert_eq!(liveness.limit(&|ix| marks[ix as usize]), Some(at(-9_880)));
        liveness.caught_up(1, at(2), at(2));
        assert_eq!(liveness.limit(&|ix| marks[ix as usize]), Some(at(-9_880)), "it may yet be written to");
        let followed = [at(-9_000), at(-9_000), unknown];
        assert_eq!(liveness.limit(&|ix| followed[ix as usize]), Some(at(-8_880)));
        (0..2).for_each(|ix| liveness.close(ix));
        assert_eq!(liveness.limit(&|ix| marks[ix as usize]), None);
    }
}
