//! What a listener knows of metric families: their kinds, the samples that wait for one, and the file behind them.
//!
//! Kinds are settled here, before a record is made, so that a journal, a capture and a rewind read the same kinds
//! again. Requests run side by side; the lock is held for moments and never while a file is written.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use relight_core::record::Kind;
use relight_core::{Span, Timestamp};

use super::held::{Held, Sample, WAIT};
use super::kinds::{Family, Kinds};
use super::store;
use crate::listen::Tell;
use crate::listen::stats::{SourceStats, add};

/// Kinds are written to disk at most this often; what a kill takes waits for metadata again.
const SAVE_EVERY: Span = Span::from_secs(1);
/// Guesses are told at most this often.
const TELL_EVERY: Span = Span::from_secs(60);
/// Families that one line names.
const NAMED: usize = 5;

/// The families of one source.
pub(in crate::listen) struct Families {
    inner: Mutex<Inner>,
    path: Option<PathBuf>,
    lateness: Span,
    source: String,
    tell: Tell,
    saved: Mutex<Option<Timestamp>>,
}

#[derive(Default)]
struct Inner {
    kinds: Kinds,
    held: Held,
    /// Given out for a request that was not taken: for the next one.
    ready: Vec<Sample>,
    /// A family that samples wait for was settled.
    is_settled: bool,
    guessed: Vec<String>,
    told: Option<Timestamp>,
}

/// A sample whose kind is known by now.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) sample: Sample,
    pub(super) kind: Kind,
    /// It came with an earlier request, whose sender will not bring it again.
    is_earlier: bool,
}

/// What became of the samples of a request whose kind was not known when it was read.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Of this request and of those before: to be taken now.
    pub(super) released: Vec<Released>,
    /// To be kept, once the request is taken.
    pub(super) held: Vec<Sample>,
}

impl Families {
    /// With what a process before this one has kept at `path`; returns, for people, why that cannot be read.
    pub(in crate::listen) fn open(
        source: &str,
        path: Option<PathBuf>,
        lateness: Span,
        tell: Tell,
    ) -> (Self, Option<String>) {
        let loaded = path.as_deref().map_or(Ok(Vec::new()), store::load);
        let notice = loaded.as_ref().err().map(|why| {
            let path = path.as_deref().unwrap_or(std::path::Path::new("")).display();
            format!(
                "{source}: the types of its metric families in `{path}` cannot be read ({why}): families without a type suffix in their names wait for metadata again"
            )
        });
        let kinds = Kinds::restore(loaded.unwrap_or_default());
        let inner = Mutex::new(Inner { kinds, ..Inner::default() });
        let (source, saved) = (source.to_owned(), Mutex::new(None));
        (Self { inner, path, lateness, source, tell, saved }, notice)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.lock().kinds.begin();
    }

    /// Takes what metadata says of a family; `None`: that its type is unknown.
    pub(super) fn learn(&self, name: &str, said: Option<Family>, now: Timestamp) {
        let mut inner = self.lock();
        if inner.kinds.learn(name, said, now) {
            let is = if said == Some(Family::Counter) { "a counter" } else { "no counter" };
            let source = &self.source;
            (self.tell)(&format!(
                "{source}: metadata says that `{name}` is {is}, and it was taken for the contrary until now: its series begin anew"
            ));
        }
        if inner.held.settle(name) {
            inner.is_settled = true;
        }
    }

    /// How a series counts, if that is known.
    pub(super) fn kind(&self, name: &str, has_quantile: bool) -> Option<Kind> {
        self.lock().kinds.kind(name, has_quantile)
    }

    /// Decides about samples whose kind was not known, of this request and of those before.
    pub(super) fn settle(&self, samples: Vec<Sample>, now: Timestamp, stats: &SourceStats) -> Settled {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut decided: HashSet<Box<str>> = inner.held.expired(now).into_iter().collect();
        for sample in &samples {
            let name = sample.name();
            let is_open = !decided.contains(name) && inner.kinds.kind(name, false).is_none();
            if is_open && inner.held.wait(name, sample.at, now) {
                inner.held.settle(name);
                decided.insert(name.into());
            }
        }
        let mut names: Vec<Box<str>> = decided.iter().cloned().collect();
        names.sort_unstable();
        let guessed: Vec<String> =
            names.iter().filter(|name| inner.kinds.guess(name)).map(ToString::to_string).collect();
        add(&stats.families_guessed, guessed.len() as u64);
        inner.guessed.extend(guessed);
        let mut out = Settled::default();
        let mut before = std::mem::take(&mut inner.ready);
        if std::mem::take(&mut inner.is_settled) || !names.is_empty() {
            let (released, dropped) = inner.held.release(self.lateness);
            add(&stats.held_dropped, dropped);
            before.extend(released);
        }
        let earlier = before.into_iter().map(|sample| (sample, true));
        for (sample, is_earlier) in earlier.chain(samples.into_iter().map(|sample| (sample, false))) {
            match inner.kinds.kind(sample.name(), false) {
                None if !is_earlier && !decided.contains(sample.name()) => out.held.push(sample),
                known => {
                    let kind = known.unwrap_or(Kind::Gauge);
                    out.released.push(Released { sample, kind, is_earlier });
                }
            }
        }
        self.tell_guesses(inner, now);
        show(inner, stats);
        out
    }

    /// The request was taken: what it held is kept. `newest`: the newest of its points.
    pub(super) fn taken(&self, held: Vec<Sample>, newest: Timestamp, stats: &SourceStats) {
        let mut inner = self.lock();
        add(&stats.samples_held, held.len() as u64);
        inner.held.moved_to(newest);
        let dropped = inner.held.keep(held, self.lateness);
        add(&stats.held_dropped, dropped);
        show(&inner, stats);
    }

    /// The request was not taken, and will come again: what was given out for it waits for the next.
    pub(super) fn not_taken(&self, settled: Settled) {
        let given = settled.released.into_iter().filter(|given| given.is_earlier);
        self.lock().ready.extend(given.map(|given| given.sample));
    }

    fn tell_guesses(&self, inner: &mut Inner, now: Timestamp) {
        if inner.guessed.is_empty() || inner.told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            inner.guessed.truncate(super::held::MAX_WAITING);
            return;
        }
        inner.told = Some(now);
        let guessed = std::mem::take(&mut inner.guessed);
        let mut names = String::new();
        for name in guessed.iter().take(NAMED) {
            let comma = if names.is_empty() { "" } else { ", " };
            write!(names, "{comma}`{name}`").expect("a String takes any text");
        }
        let more = guessed.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (source, secs) = (&self.source, WAIT.secs_f64());
        (self.tell)(&format!(
            "{source}: no metadata came within {secs} s for {names}{more}: taken for gauges, since no name says otherwise; if one counts up, have the sender send metadata (`metadata_config: {{send: true}}`) or name it `_total`"
        ));
    }

    /// Whether there is something to write, and it is time to.
    pub(super) fn wants_saving(&self, now: Timestamp) -> bool {
        let is_due =
            |saved: Option<Timestamp>| saved.is_none_or(|at| now.since(at) >= SAVE_EVERY || now < at);
        self.path.is_some()
            && self.lock().kinds.is_changed
            && self.saved.try_lock().is_ok_and(|saved| is_due(*saved))
    }

    /// Writes the kinds to disk if they have changed. Returns whether they are there.
    pub(super) fn save(&self, now: Timestamp) -> bool {
        let Some(path) = &self.path else { return true };
        // One at a time: the later has the newer kinds.
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let families = {
            let mut inner = self.lock();
            if !std::mem::take(&mut inner.kinds.is_changed) {
                return true;
            }
            inner.kinds.saved()
        };
        *saved = Some(now);
        let is_saved = store::save(path, families).is_ok();
        if !is_saved {
            self.lock().kinds.is_changed = true;
        }
        is_saved
    }
}

impl Drop for Families {
    fn drop(&mut self) {
        self.save(Timestamp::MAX);
    }
}

fn show(inner: &Inner, stats: &SourceStats) {
    stats.families.store(inner.kinds.len() as u64, Ordering::Relaxed);
    stats.families_waiting.store(inner.held.families() as u64, Ordering::Relaxed);
    stats.held_bytes.store(inner.held.bytes() as u64, Ordering::Relaxed);
}
