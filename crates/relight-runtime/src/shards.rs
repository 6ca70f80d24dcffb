//! Fold and Detect, spread over threads by key group.
//!
//! Key groups fall to threads in contiguous runs. What is computed does not depend on how many
//! threads there are: a group is worked by one thread at a time, and contributions that cross groups
//! are exchanged once a turn and added in an order of their own.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use relight_core::rule::Settings;
use relight_core::series::KEY_GROUPS;
use relight_core::{KeyGroup, Span, Timestamp};
use relight_engine::detect::{Detect, Verdicts};
use relight_engine::directory::RowAddr;
use relight_engine::fold::{Closing, Fold, Partials};
use relight_engine::intake::{Routed, RoutedPoint};

use crate::error::RuntimeError;

/// Jobs that may wait for one thread: enough to keep it busy while the next batch is decoded.
const QUEUE: usize = 4;
/// Points that are gathered before a shard is handed them: enough to write to each group's log many
/// cache lines at a time, few enough to lie in a core's own cache (24 bytes each, and 40 a run).
const BATCH: usize = 16_384;

/// What one thread owns.
pub(crate) struct Shard {
    pub(crate) fold: Fold,
    pub(crate) detect: Detect,
    groups: std::ops::Range<usize>,
}

type Job = Box<dyn FnOnce(&mut Shard) + Send>;

struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing the queue ends the thread; a panic in it was reported when it happened.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Hands {
    /// One thread: the caller's own.
    Inline(Box<Shard>),
    Threads(Vec<Worker>),
}

pub(crate) struct Shards {
    hands: Hands,
    owner: [u8; KEY_GROUPS],
    waiting: Vec<Routed>,
    interval: Span,
}

impl Shards {
    pub(crate) fn new(settings: &Settings, threads: usize) -> Self {
        let threads = threads.clamp(1, KEY_GROUPS);
        let first = |i: usize| (i * KEY_GROUPS).div_ceil(threads);
        let mut owner = [0; KEY_GROUPS];
        for i in 0..threads {
            owner[first(i)..first(i + 1)].fill(i as u8);
        }
        let shard = |i: usize| Shard {
            fold: Fold::new(settings.interval()),
            detect: Detect::new(settings),
            groups: first(i)..first(i + 1),
        };
        let hands = if threads == 1 {
            Hands::Inline(Box::new(shard(0)))
        } else {
            Hands::Threads((0..threads).map(|i| worker(shard(i))).collect())
        };
        Self {
            hands,
            owner,
            waiting: (0..threads).map(|_| Routed::default()).collect(),
            interval: settings.interval(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Which shard owns a key group.
    pub(crate) fn owner(&self, group: KeyGroup) -> usize {
        self.owner[group.ix()] as usize
    }

    /// Things by the shard that owns them.
    pub(crate) fn by_owner<T>(
        &self,
        all: impl IntoIterator<Item = T>,
        group: impl Fn(&T) -> KeyGroup,
    ) -> Vec<Vec<T>> {
        let mut by_owner: Vec<Vec<T>> = (0..self.len()).map(|_| Vec::new()).collect();
        for one in all {
            by_owner[self.owner(group(&one))].push(one);
        }
        by_owner
    }

    /// Takes what intake handed on and leaves `routed` empty.
    pub(crate) fn route(&mut self, routed: &mut Routed) -> Result<(), RuntimeError> {
        if self.len() == 1 {
            self.waiting[0].append(routed);
            return if self.waiting[0].points.len() >= BATCH { self.flush() } else { Ok(()) };
        }
        for series in routed.series.drain(..) {
            self.waiting[self.owner[series.at.group.ix()] as usize].series.push(series);
        }
        for row in routed.rows.drain(..) {
            self.waiting[self.owner[row.at.group.ix()] as usize].rows.push(row);
        }
        for (series, at) in routed.ends.drain(..) {
            self.waiting[self.owner[series.group.ix()] as usize].ends.push((series, at));
        }
        // By shard, the run that its last point was of.
        let mut begun = [u32::MAX; KEY_GROUPS];
        for RoutedPoint { series, mut value, run: ix } in routed.points.drain(..) {
            let (run, owner) = (&routed.runs[ix as usize], self.owner[series.group.ix()] as usize);
            let to = &mut self.waiting[owner];
            if run.kind.is_histogram() {
                let histogram = std::mem::take(&mut routed.histograms[value as usize]);
                value = to.histograms.len() as f64;
                to.histograms.push(histogram);
            }
            if begun[owner] != ix {
                begun[owner] = ix;
                to.begin(run);
            }
            to.push(series, value);
        }
        routed.clear_points();
        if self.waiting.iter().any(|w| w.points.len() >= BATCH) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RuntimeError> {
        let workers = match &mut self.hands {
            Hands::Inline(shard) => {
                shard.take(&mut self.waiting[0]);
                return Ok(());
            }
            Hands::Threads(workers) => workers,
        };
        for (worker, waiting) in workers.iter().zip(&mut self.waiting) {
            if !waiting.is_empty() {
                let mut batch = std::mem::take(waiting);
                worker.send(Box::new(move |shard| shard.take(&mut batch)))?;
            }
        }
        Ok(())
    }

    /// Runs one job on every shard and returns the answers in shard order.
    pub(crate) fn each<R, J>(&mut self, jobs: impl Fn(usize) -> J) -> Result<Vec<R>, RuntimeError>
    where
        R: Send + 'static,
        J: FnOnce(&mut Shard) -> R + Send + 'static,
    {
        self.flush()?;
        let workers = match &mut self.hands {
            Hands::Inline(shard) => return Ok(vec![jobs(0)(shard)]),
            Hands::Threads(workers) => workers,
        };
        let (answers, received) = channel();
        for (i, worker) in workers.iter().enumerate() {
            let (job, answers) = (jobs(i), answers.clone());
            worker.send(Box::new(move |shard| {
                // The caller is gone only if it gave up on another shard.
                let _ = answers.send((i, job(shard)));
            }))?;
        }
        drop(answers);
        let mut all: Vec<(usize, R)> = received.iter().collect();
        if all.len() < workers.len() {
            return Err(RuntimeError::Worker);
        }
        all.sort_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Runs a job on the shard that owns a key group.
    pub(crate) fn on<R, J>(&mut self, group: KeyGroup, job: J) -> Result<R, RuntimeError>
    where
        R: Send + 'static,
        J: FnOnce(&mut Shard) -> R + Send + 'static,
    {
        self.flush()?;
        let owner = self.owner(group);
        let worker = match &mut self.hands {
            Hands::Inline(shard) => return Ok(job(shard)),
            Hands::Threads(workers) => &workers[owner],
        };
        let (answer, received) = channel();
        worker.send(Box::new(move |shard| {
            let _ = answer.send(job(shard));
        }))?;
        received.recv().map_err(|_| RuntimeError::Worker)
    }

    /// Folds one bin, exchanges the contributions, and judges it.
    pub(crate) fn step(
        &mut self,
        bin: Timestamp,
        at: Timestamp,
        ranks: Vec<u16>,
        event_rows: Vec<RowAddr>,
        want_all: bool,
    ) -> Result<Verdicts, RuntimeError> {
        let (owner, shards, interval) = (self.owner, self.len(), self.interval);
        let ranks: Arc<[u16]> = ranks.into();
        let partials = self.each(|_| {
            let ranks = Arc::clone(&ranks);
            move |shard: &mut Shard| shard.fold(&Closing { bin, interval, ranks: &ranks }, &owner, shards)
        })?;
        let partials = Arc::new(partials);
        let event_rows: Arc<[RowAddr]> = event_rows.into();
        let verdicts = self.each(|me| {
            let (partials, event_rows) = (Arc::clone(&partials), Arc::clone(&event_rows));
            move |shard: &mut Shard| {
                for from in partials.iter() {
                    shard.detect.take(&from[me].scalars, &from[me].buckets);
                    shard.detect.take_shared(&from[me].shared);
                }
                let mine = event_rows.iter().filter(|row| owner[row.group.ix()] as usize == me);
                shard.detect.take_events(&mine.copied().collect::<Vec<_>>());
                let mut out = Verdicts { all: want_all.then(Vec::new), ..Verdicts::default() };
                shard.detect.step(at, &mut out);
                out
            }
        })?;
        let mut sum = Verdicts { all: want_all.then(Vec::new), ..Verdicts::default() };
        for mut verdicts in verdicts {
            sum.findings.append(&mut verdicts.findings);
            sum.faults.append(&mut verdicts.faults);
            sum.carried.append(&mut verdicts.carried);
            if let (Some(all), Some(mut more)) = (&mut sum.all, verdicts.all) {
                all.append(&mut more);
            }
        }
        Ok(sum)
    }
}

impl Shard {
    fn take(&mut self, routed: &mut Routed) {
        routed.series.drain(..).for_each(|series| self.fold.add_series(&series));
        routed.rows.drain(..).for_each(|row| self.detect.add_row(&row));
        self.fold.push(routed);
        routed.clear_points();
    }

    /// Contributions of this shard's series, by the shard that owns the row.
    fn fold(&mut self, closing: &Closing<'_>, owner: &[u8; KEY_GROUPS], shards: usize) -> Vec<Partials> {
        let mut mine = Partials::default();
        for group in self.groups.clone() {
            self.fold.close(KeyGroup::nth(group), closing, &mut mine);
        }
        if shards == 1 {
            return vec![mine];
        }
        let mut split: Vec<Partials> = (0..shards).map(|_| Partials::default()).collect();
        for partial in mine.scalars {
            split[owner[partial.row.group.ix()] as usize].scalars.push(partial);
        }
        for buckets in mine.buckets {
            split[owner[buckets.row.group.ix()] as usize].buckets.push(buckets);
        }
        for contribution in mine.shared {
            split[owner[contribution.row.group.ix()] as usize].shared.push(contribution);
        }
        split
    }
}

fn worker(mut shard: Shard) -> Worker {
    let (jobs, queue) = sync_channel::<Job>(QUEUE);
    let thread = std::thread::spawn(move || {
        for job in queue {
            job(&mut shard);
        }
    });
    Worker { jobs: Some(jobs), thread: Some(thread) }
}

impl Worker {
    fn send(&self, job: Job) -> Result<(), RuntimeError> {
        let jobs = self.jobs.as_ref().expect("the queue is open until the worker is dropped");
        jobs.send(job).map_err(|_| RuntimeError::Worker)
    }
}
