//! Starts of a listener with a journal: what is sent again is not late, and kills change nothing of what came of it.

use super::time::{Hand, NOON, late, skewed};
use super::*;

/// What the journal itself hands on.
fn own(offset: Option<u64>, load: Load) -> Delivery {
    Delivery { offset, received: Timestamp::MIN, load, answer: None }
}

/// What befalls a listener, in order; times in seconds.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A point at this time comes.
    Point(i64),
    /// relight was started.
    Start,
    /// Time goes on.
    Pass(u64),
    /// It does, and relight is down.
    Down(u64),
}
use Step::{Down, Pass, Point, Start};

/// Two starts, each with a point of now before older ones that were sent again, and older ones again when it is over.
/// Of those the last two come when the watermark is at 220 and 290.
const STEPS: [Step; 20] = [
    Point(0),
    Pass(30),
    Point(30),
    Down(150),
    Start,
    Point(180),
    Point(100),
    Point(60),
    Pass(31),
    Point(190),
    Pass(20),
    Point(231),
    Point(200),
    Down(60),
    Start,
    Point(290),
    Point(230),
    Pass(31),
    Point(322),
    Point(250),
];

/// What a listener's journal has.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When it came, and its time; the mark of a start has none.
    point: Option<(i64, i64)>,
}

/// All that outlives a process.
struct Listener {
    settings: Arc<Settings>,
    disk: Disk,
    hand: Hand,
    journal: Vec<Entry>,
    /// The time by which things come; the clock is far ahead, so that it bounds nothing.
    now: i64,
}

/// How a process ends, and after how many steps of it a snapshot is cut.
#[derive(Debug, Clone, Copy)]
struct End {
    is_killed: bool,
    cut: Option<usize>,
}

const STOPPED: End = End { is_killed: false, cut: None };

/// A process that runs.
struct Running<'a> {
    push: Inlet,
    inputs: Sender<LiveInput>,
    board: &'a Board,
}

impl Running<'_> {
    fn offer(&self, delivery: Delivery) {
        assert!(self.push.offer(delivery).is_ok(), "the queue is empty");
        self.settle();
    }

    /// The engine has gone round, from its start to its end, since what was done before.
    fn settle(&self) {
        let before = self.board.beats();
        while self.board.beats() < before + 2 {
            if self.inputs.is_empty() {
                self.inputs.send(LiveInput::Control(ControlInput::Timeout)).expect("the engine runs");
            }
            std::thread::yield_now();
        }
    }

    /// A reload cuts a snapshot, and this one changes nothing else.
    fn cut(&self, settings: &Arc<Settings>) {
        let (done, told) = bounded(1);
        let (settings, swapped) = (Arc::clone(settings), Box::new(|| ()));
        let reload = Reload { settings, live: seldom(), outbox: None, heartbeat: None, swapped, done };
        self.inputs.send(LiveInput::Reload(Box::new(reload))).expect("the engine runs");
        told.recv().expect("it is told").expect("memory does not fail");
    }
}

/// Without snapshots but those that are asked for.
fn seldom() -> LiveSettings {
    LiveSettings { snapshot_every: Span::from_secs(1_000_000), ..how() }
}

impl Listener {
    fn new() -> Self {
        let (disk, hand) = (Disk::default(), Hand::at(NOON + 10_000));
        Self { settings: skewed(120), disk, hand, journal: Vec::new(), now: NOON }
    }

    /// A process that reads again what its state does not hold, slowly, and then sees some steps.
    fn process(&mut self, steps: &[Step], end: End) -> Option<(Came, u64)> {
        let Disk { baselines, ledger } = self.disk.clone();
        let (fuse, board) = (Fuse::default(), Board::default());
        let stores = Stores {
            baselines: Box::new(FaultyBaselines { inner: baselines, fuse: fuse.clone() }),
            ledger: Box::new(FaultyLedger { inner: ledger, fuse: fuse.clone() }),
        };
        let clock = Box::new(self.hand.clone());
        let mut live = shown(clock, &self.settings, seldom(), stores, board.clone());
        let (hub, opened) = Hub::new(live.resume());
        let (inputs, asked) = unbounded();
        let ended = std::thread::scope(|scope| {
            let engine = scope.spawn(|| live.run(&opened, &{ asked }, &mut ()));
            let push = hub.open("push", Reads::Journalled, &Budget::new(1 << 20));
            let running = Running { push, inputs, board: &board };
            self.live(&running, steps, end.cut);
            if end.is_killed {
                fuse.light(Crash { step: CommitStep::Ledger, spared: 0, after: true });
            }
            running.inputs.send(LiveInput::Stop).expect("the engine runs");
            engine.join().expect("no panic")
        });
        assert_eq!(ended.is_err(), end.is_killed, "{ended:?}");
        ended.ok()?;
        let late = late(&mut live);
        let pipeline = live.pipeline();
        pipeline.end_others(&[]).expect("memory does not fail");
        pipeline.run(&mut ()).expect("memory does not fail");
        let (points, digest) = (pipeline.points(), pipeline.digest().expect("memory does not fail"));
        let (state, _) = self.disk.ledger.clone().load().expect("memory does not fail");
        let incidents = state.incidents.iter().map(|incident| format!("{incident:?}")).collect();
        Some((Came { incidents, points, digest }, late))
    }

    fn live(&mut self, running: &Running<'_>, steps: &[Step], cut: Option<usize>) {
        for offset in running.push.covered()..self.journal.len() as u64 {
            running.offer(self.entry(offset));
            self.hand.pass(100);
            running.settle();
        }
        running.offer(own(None, Load::CaughtUp));
        for i in 0..=steps.len() {
            if cut == Some(i) {
                running.cut(&self.settings);
            }
            if let Some(step) = steps.get(i) {
                self.see(*step, running);
            }
        }
    }

    fn see(&mut self, step: Step, running: &Running<'_>) {
        let point = match step {
            Down(secs) => {
                self.now += secs.cast_signed();
                return;
            }
            Pass(secs) => {
                self.now += secs.cast_signed();
                self.hand.pass(secs);
                return running.settle();
            }
            Point(at) => Some((self.now, NOON + at)),
            Start => None,
        };
        self.journal.push(Entry { point });
        running.offer(self.entry(self.journal.len() as u64 - 1));
    }

    fn entry(&self, offset: u64) -> Delivery {
        let Some((received, at)) = self.journal[offset as usize].point else {
            return own(Some(offset), Load::Started);
        };
        let received = Timestamp::from_secs(received);
        Delivery { received, ..self.hand.point(offset, at, b"a") }
    }
}

/// Scenario: relight is down for two minutes. After its start a sender brings what is of now, and then what it could not
/// bring meanwhile; half a minute after the start somebody brings more of that.
/// Guarantee: what was brought again in time is not late, and later it is.
#[test]
fn what_is_sent_again_after_a_start_is_not_late() {
    let mut listener = Listener::new();
    listener.process(&[Point(0)], STOPPED).expect("it was not killed");
    let after = [Down(120), Start, Point(120), Pass(29), Point(15), Pass(1), Point(30)];
    let (came, late) = listener.process(&after, STOPPED).expect("it was not killed");
    assert_eq!((came.points, late), (3, 1));
}

/// Scenario: a listener with a journal is killed at any moment, with its snapshot cut at any moment before: before and behind
/// the marks of two starts, what was sent again, and the moment when its watermark is let go. To read again takes
/// longer than a watermark is kept.
/// Guarantee: state, points and late ones are those of one process that saw all of it, with the start in its place.
#[test]
fn a_kill_changes_nothing_of_what_a_start_kept() {
    for kill in 0..=STEPS.len() {
        let whole = [&STEPS[..kill], &[Start], &STEPS[kill..]].concat();
        let calm = Listener::new().process(&whole, STOPPED);
        let (came, late) = calm.expect("it was not killed");
        assert_eq!(came.points + late, 12, "a start before step {kill}");
        for cut in 0..=kill {
            let mut listener = Listener::new();
            assert!(listener.process(&whole[..kill], End { is_killed: true, cut: Some(cut) }).is_none());
            let again = listener.process(&whole[kill..], STOPPED);
            let (stormy, late_again) = again.expect("it was not killed");
            let what = format!("killed before step {kill}, snapshot before {cut}");
            assert_eq!((stormy.points, late_again), (came.points, late), "{what}");
            assert!(stormy == came, "{what}: the state");
        }
    }
}
