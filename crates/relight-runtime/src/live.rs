//! The live driver: streams in as they come, turns as time goes on, effects out.
//!
//! One thread, the engine's, takes deliveries from the sources' queues in turn, moves time on where a
//! partition is silent, runs the turns, and lets snapshots be written beside them. It decides nothing
//! about what a record means, and it is the one place that turns clocks into inputs of the engine.

mod clock;
mod closing;
mod figures;
mod heart;
mod holds;
mod lateness;
mod ledger;
mod liveness;
mod memory;
mod news;
mod received;
mod recording;
mod refusals;
mod reload;
mod silence;
mod snapshots;
mod standby;
mod stream;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use relight_core::record::Record;
use relight_core::rule::Settings;
use relight_core::telemetry::{Board, Sample};
use relight_core::{Span, Timestamp};
use relight_engine::control::ControlInput;
use relight_ingest::live::{Awaited, Delivery, Load, Next, Outlet, Reads};

use crate::error::RuntimeError;
use crate::pipeline::{Commit, Outbox, Pipeline, Stores, Watch, Written};

pub use clock::{Clock, SystemClock};
pub use heart::Pulse;
pub use memory::{MemoryLimits, Meter, memory_limit, resident_bytes};
pub use news::TellNews;
pub use received::ReceivedClock;
pub use reload::Reload;
pub use trouble::Trouble;

use clock::ControlClock;
use closing::Closing;
use figures::Figures;
use heart::Heart;
use liveness::{Liveness, Past};
use memory::Memory;
use news::Reporter;
use recording::Recording;
use reload::patience;
use stream::Stream;

/// Deliveries taken from one partition before the others have their turn.
const QUANTUM: usize = 16;
/// The longest wait for anything: how late a silent partition's advance or a figure may be.
const TICK: Duration = Duration::from_millis(200);
/// How often the figures are posted.
const POST_EVERY: Span = Span::from_secs(1);

/// How a live run goes about it.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// A partition without records for this long is idle, if it is caught up.
    pub idle_after: Span,
    /// How long a listener's watermark stays after a start where the snapshot or its journal left it.
    pub catch_up: Span,
    /// Time between two snapshots.
    pub snapshot_every: Span,
    /// The run before this one was killed: what listeners had taken since its last snapshot is gone.
    pub was_killed: bool,
    /// After a cold start nothing is changed for so long.
    pub warm_up: Span,
}

/// What comes from outside beside the streams.
#[derive(Debug)]
pub enum LiveInput {
    /// An outcome, a command: something that Control is to be told.
    Control(ControlInput),
    /// A source is in trouble.
    Trouble(Trouble),
    /// Another relight acts from now on. With somebody who waits for it to be let go of, a snapshot is cut first: all
    /// that was let out is in it.
    StandBy(Option<Sender<()>>),
    /// A human asks for something. Told whether it is in the ledger: what is not may be forgotten.
    Command {
        /// See [`ControlInput::Command`].
        verb: String,
        /// To what.
        target: String,
        /// Who is told.
        kept: Sender<bool>,
    },
    /// Another config.
    Reload(Box<Reload>),
    /// Something that people should know of what runs beside the engine.
    Notice(String),
    /// What is queued is still taken, a snapshot is cut, and the run ends.
    Stop,
}

/// Tells people what happens, a line at a time.
pub type Tell = Box<dyn Fn(&str) + Send>;

/// Samples of what runs beside the engine.
pub type MoreSamples = Box<dyn Fn() -> Vec<Sample> + Send>;

/// A live run: opened on its stores, then run on its streams.
pub struct Live {
    settings: Arc<Settings>,
    how: LiveSettings,
    pipeline: Pipeline,
    clock: ControlClock,
    liveness: Liveness,
    streams: Vec<Stream>,
    record: Record,
    board: Board,
    figures: Figures,
    tell: Tell,
    cut: Sender<Written>,
    cuts: Receiver<Written>,
    writer: Option<JoinHandle<()>>,
    next_cut: Timestamp,
    next_post: Timestamp,
    /// When what is held for a source that is down is held on.
    next_blind: Timestamp,
    /// When it is asked again which series have deltas that overlap.
    next_shared: Timestamp,
    /// When partitions that no source has opened are ended.
    settle_at: Option<Timestamp>,
    awaited: Awaited,
    more: Option<MoreSamples>,
    recording: Recording,
    heart: Option<Heart>,
    memory: Option<Memory>,
    reporter: Option<Reporter>,
    closing: Closing,
}

impl Live {
    /// Opens an engine on its stores and goes on from what they hold.
    pub fn open(
        settings: Arc<Settings>,
        live: LiveSettings,
        threads: usize,
        stores: Stores,
        outbox: Box<dyn Outbox>,
        clock: Box<dyn Clock>,
        (board, tell): (Board, Tell),
    ) -> Result<Self, RuntimeError> {
        let mut notices = Vec::new();
        let mut pipeline =
            Pipeline::open(Arc::clone(&settings), threads, stores, outbox, Commit::EveryTurn, &mut notices)?;
        let last = pipeline.control_state().applied_through().map(|applied| applied.control);
        let (clock, behind) = ControlClock::start(clock, last);
        if let Some(behind) = behind {
            notices.push(format!(
                "the wall clock is {behind} behind what the ledger has seen: deadlines go on from the ledger's time"
            ));
        }
        let now = clock.now();
        pipeline.set_now(now);
        pipeline.measure_when_sent();
        let (cut, cuts) = bounded(1);
        let mut run = Self {
            figures: Figures::new(now, pipeline.generation()),
            liveness: Liveness::new(patience(&live, &settings)),
            next_cut: now.plus(live.snapshot_every),
            next_post: now,
            next_blind: now,
            next_shared: now,
            settle_at: Some(now.plus(live.catch_up)),
            streams: Vec::new(),
            record: Record::default(),
            settings,
            how: live,
            pipeline,
            clock,
            board,
            tell,
            cut,
            cuts,
            writer: None,
            more: None,
            recording: Recording::default(),
            heart: None,
            memory: None,
            reporter: None,
            closing: Closing::new(now),
            awaited: Awaited::default(),
        };
        for notice in &notices {
            run.notice(notice);
        }
        run.pipeline.control(ControlInput::Restart, now)?;
        for hold in holds::after_start(run.pipeline.doubts(), behind, run.how.warm_up, now) {
            run.pipeline.control(hold, now)?;
        }
        run.tell_doubts(now)?;
        Ok(run)
    }

    /// Samples of others, to be posted with the engine's own.
    pub fn also_post(&mut self, more: MoreSamples) {
        self.more = Some(more);
    }

    /// Nothing is taken before these sources have opened their partitions, or `catch_up` is over: what
    /// waits in a log may be older than what a listener brings.
    pub fn wait_for(&mut self, sources: Awaited) {
        self.awaited = sources;
    }

    /// Obeys a human's command, at once. Whether that is in the ledger.
    pub fn steer(&mut self, verb: String, target: String) -> Result<bool, RuntimeError> {
        // Control time may be ahead of the clock, by data from its future; a command from before it would be taken for
        // one that was obeyed already.
        let control = self.pipeline.control_state().applied_through().map(|applied| applied.control);
        let at = control.map_or_else(|| self.clock.now(), |control| control.max(self.clock.now()));
        self.notice(&format!("command: {verb} {target}"));
        self.pipeline.control(ControlInput::Command { at, verb, target }, at)?;
        Ok(self.pipeline.ledger_fault().is_none())
    }

    /// Of each partition that the state knows, the first offset that is not in it: where sources go on.
    pub fn resume(&self) -> BTreeMap<String, u64> {
        self.pipeline.covered().clone()
    }

    /// Runs until it is told to stop, or cannot go on. `opened` brings the partitions of the sources.
    pub fn run(
        &mut self,
        opened: &Receiver<Outlet>,
        inputs: &Receiver<LiveInput>,
        watch: &mut dyn Watch,
    ) -> Result<(), RuntimeError> {
        let mut still_open = Some(opened);
        loop {
            self.board.beat();
            let now = self.clock.now();
            self.pipeline.set_now(now);
            let is_complete = self.awaited.are_here() || self.settle_at.is_none();
            while let Some(next) = still_open.map(Receiver::try_recv) {
                match next {
                    Ok(outlet) => self.open_stream(outlet, now)?,
                    Err(TryRecvError::Empty) => break,
                    // That nothing more will come is always at hand: waited for, it would be no wait.
                    Err(TryRecvError::Disconnected) => still_open = None,
                }
            }
            for input in inputs.try_iter() {
                match input {
                    LiveInput::Control(input) => self.pipeline.control(input, now)?,
                    LiveInput::Trouble(trouble) => self.trouble(trouble, now)?,
                    LiveInput::StandBy(release) => self.stand_by(release, now)?,
                    LiveInput::Command { verb, target, kept } => {
                        let is_kept = self.steer(verb, target)?;
                        // Whoever asked may be gone.
                        let _ = kept.try_send(is_kept);
                    }
                    LiveInput::Reload(reload) => self.reload(*reload, now)?,
                    LiveInput::Notice(notice) => self.notice(&notice),
                    LiveInput::Stop => return self.stop(watch),
                }
            }
            self.watch_memory(now);
            let taken = is_complete && self.drain(now, watch)?;
            self.hold_blind(now)?;
            self.silence(now, watch)?;
            self.tell_panics(now)?;
            self.watch_fleet_limit();
            self.report_writer_conflicts(now)?;
            self.deadlines(now)?;
            self.tell_news(now);
            self.tend_ledger(now)?;
            self.beat(now)?;
            self.snapshot(now)?;
            self.recording.tick(now)?;
            self.tell_step(now);
            self.post(now);
            self.watch_clock(now)?;
            if !taken {
                self.wait(still_open, inputs, is_complete);
            }
        }
    }

    fn open_stream(&mut self, outlet: Outlet, now: Timestamp) -> Result<(), RuntimeError> {
        let resumed = self.pipeline.covered().contains_key(&*outlet.partition);
        let ix = self.pipeline.partition(&outlet.partition);
        let past = match (resumed, self.pipeline.partition_newest(ix).is_known()) {
            (false, _) => Past::Unknown,
            (true, false) => Past::Empty,
            (true, true) => Past::Brought,
        };
        if self.liveness.open(ix, outlet.reads, past, now) {
            self.pipeline.keep_watermark(ix);
        }
        if resumed && self.how.was_killed && outlet.reads == Reads::Push {
            self.gap(ix, &outlet.partition, now);
        }
        self.recording.opened(&outlet.partition, now)?;
        self.streams.push(Stream::new(ix, outlet, self.settings.allowed_lateness));
        Ok(())
    }

    /// Takes from every partition that is not too far ahead; whether there was anything.
    fn drain(&mut self, now: Timestamp, watch: &mut dyn Watch) -> Result<bool, RuntimeError> {
        let limit = self.limit();
        let mut taken = false;
        for i in 0..self.streams.len() {
            let ix = self.streams[i].ix;
            self.streams[i].held = limit.is_some_and(|limit| self.pipeline.partition_watermark(ix) > limit);
            if self.streams[i].held {
                self.liveness.held_back(ix, now);
                continue;
            }
            for _ in 0..QUANTUM {
                match self.streams[i].outlet.take() {
                    Next::Delivery(delivery) => {
                        taken = true;
                        self.deliver(i, delivery, now)?;
                        self.pipeline.run(watch)?;
                    }
                    Next::Empty => break,
                    Next::Closed => {
                        self.streams[i].closed = true;
                        break;
                    }
                }
            }
        }
        self.close_streams()?;
        Ok(taken)
    }

    fn limit(&self) -> Option<Timestamp> {
        self.liveness.limit(&|ix| self.pipeline.partition_watermark(ix))
    }

    /// Sources that have let go of a partition: it holds nothing up any more.
    fn close_streams(&mut self) -> Result<(), RuntimeError> {
        for stream in self.streams.iter().filter(|stream| stream.closed) {
            self.liveness.close(stream.ix);
            self.pipeline.advance(stream.ix, Timestamp::MAX)?;
        }
        self.streams.retain(|stream| !stream.closed);
        Ok(())
    }

    fn deliver(&mut self, i: usize, delivery: Delivery, now: Timestamp) -> Result<(), RuntimeError> {
        let stream = &mut self.streams[i];
        let ix = stream.ix;
        let Delivery { offset, received, load, answer } = delivery;
        match load {
            Load::CaughtUp => {
                self.liveness.caught_up(ix, received, now);
                return Ok(());
            }
            Load::Unreachable(why) => {
                if self.liveness.unreachable(ix, now) {
                    let partition = Arc::clone(&stream.outlet.partition);
                    self.source_down((ix, &partition), &why, now)?;
                }
                return Ok(());
            }
            Load::Started => self.liveness.started(ix, now),
            Load::Metrics(_) | Load::Record(_) | Load::Nothing => {}
        }
        let offset = offset.unwrap_or_else(|| self.pipeline.next_offset(&stream.outlet.partition));
        let into = (&mut self.pipeline, &mut self.recording);
        let verdict = stream.take(into, &mut self.record, offset, received, load)?;
        let has_points = !self.record.points.is_empty();
        let has_brought = self.pipeline.partition_newest(ix).is_known();
        self.liveness.record(ix, has_points, has_brought, self.pipeline.partition_watermark(ix), now);
        self.tell_refused(i, &verdict, now);
        if let Some(answer) = answer {
            answer(verdict);
        }
        Ok(())
    }

    /// Deadlines of Control that are due by the clock.
    fn deadlines(&mut self, now: Timestamp) -> Result<(), RuntimeError> {
        while self.pipeline.control_timeout().is_some_and(|at| at <= now) {
            self.pipeline.control(ControlInput::Timeout, now)?;
        }
        Ok(())
    }

    /// What is queued is taken, all turns that are due are run, and a snapshot is cut.
    fn stop(&mut self, watch: &mut dyn Watch) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        for i in 0..self.streams.len() {
            while let Next::Delivery(delivery) = self.streams[i].outlet.take() {
                self.deliver(i, delivery, now)?;
                self.pipeline.run(watch)?;
            }
        }
        self.recording.finish()?;
        self.tell_panics(now)?;
        self.tell_news(Timestamp::MAX);
        let is_cut = self.cut_now(now)?;
        self.kept()?;
        if is_cut { Ok(()) } else { Err(RuntimeError::NotCut) }
    }

    /// Waits for the first of: a delivery, a partition, an input, a written snapshot, a tick.
    fn wait(&self, opened: Option<&Receiver<Outlet>>, inputs: &Receiver<LiveInput>, is_complete: bool) {
        let mut select = Select::new();
        if let Some(opened) = opened {
            select.recv(opened);
        }
        select.recv(inputs);
        select.recv(&self.cuts);
        for stream in self.streams.iter().filter(|stream| is_complete && !stream.held) {
            stream.outlet.wait_in(&mut select);
        }
        let _ = select.ready_timeout(TICK);
    }

    fn post(&mut self, now: Timestamp) {
        if now < self.next_post {
            return;
        }
        self.next_post = now.plus(POST_EVERY);
        for i in 0..self.streams.len() {
            if self.streams[i].lateness.look(now) {
                let late = self.streams[i].late().unwrap_or_default();
                self.notice(&format!("late: {late}"));
            }
        }
        let stalled = &|ix| self.liveness.is_stalled(ix);
        match self.figures.posted(&mut self.pipeline, &self.streams, stalled, &self.settings, now) {
            Ok(mut posted) => {
                self.show_memory(&mut posted);
                self.show_closing(&mut posted, now);
                posted.samples.extend(self.more.iter().flat_map(|more| more()));
                self.board.post(posted);
            }
            Err(error) => self.notice(&format!("failed to read the figures: {error}")),
        }
    }

    fn notice(&mut self, notice: &str) {
        (self.tell)(notice);
        self.figures.note(self.clock.now(), notice);
    }

    /// The engine, to read what it holds.
    pub const fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The stores are let go of with their last write done, so that they can be opened again at once.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
