//! Time where nothing comes, or comes late: idle and slow sources, clocks that jump, restarts.

use relight_core::record::Reason;

use super::*;

pub(crate) const NOON: i64 = 1_764_000_000;

/// Set by hand, in seconds.
#[derive(Clone, Default)]
pub(crate) struct Hand {
    wall: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
}

impl Clock for Hand {
    fn wall(&self) -> Timestamp {
        Timestamp::from_secs(self.wall.load(Ordering::Relaxed).cast_signed())
    }
    fn monotonic(&self) -> Span {
        Span::from_secs(self.monotonic.load(Ordering::Relaxed).cast_signed())
    }
}

impl Hand {
    pub(crate) fn at(wall: i64) -> Self {
        let hand = Self::default();
        hand.wall.store(wall.cast_unsigned(), Ordering::Relaxed);
        hand
    }

    pub(crate) fn pass(&self, secs: u64) {
        self.wall.fetch_add(secs, Ordering::Relaxed);
        self.monotonic.fetch_add(secs, Ordering::Relaxed);
    }

    fn start(&self, disk: &Disk, settings: &Arc<Settings>) -> Live {
        let Disk { baselines, ledger } = disk.clone();
        let stores = Stores { baselines: Box::new(baselines), ledger: Box::new(ledger) };
        by_clock(Box::new(self.clone()), settings, how(), stores)
    }

    /// A point at a time, received now.
    pub(crate) fn point(&self, offset: u64, secs: i64, key: &[u8]) -> Delivery {
        let mut record = Record::default();
        record.push_point(key, Timestamp::from_secs(secs), Timestamp::MIN, Kind::Gauge, 1.0);
        let (received, load) = (self.wall(), Load::Record(Box::new(record)));
        Delivery { offset: Some(offset), received, load, answer: None }
    }
}

pub(crate) fn skewed(secs: i64) -> Arc<Settings> {
    Arc::new(Settings { max_skew: Span::from_secs(secs), ..rules::simulated() })
}

/// A point a minute.
fn minute(i: u64, key: &[u8]) -> Delivery {
    let at = Timestamp::from_secs(NOON + 60 * i as i64);
    let mut record = Record::default();
    record.push_point(key, at, Timestamp::MIN, Kind::Gauge, 1.0);
    Delivery { offset: Some(i), received: at, load: Load::Record(Box::new(record)), answer: None }
}

/// Scenario: a listener brings an hour while the partitions of a log are looked up; that log turns out to hold the
/// same hour.
/// Guarantee: nothing of it is late.
#[test]
fn a_log_that_takes_its_time_is_waited_for() {
    let mut live = live(&Disk::default(), &settings(), &Fuse::default());
    let (hub, opened) = Hub::new(live.resume());
    live.wait_for(hub.awaited());
    let looking = hub.look_up();
    let (inputs, asked) = unbounded();
    let budget = Budget::new(1 << 20);
    let push = hub.open("push", Reads::Push, &budget);
    assert!((0..60).all(|i| push.offer(minute(i, b"a")).is_ok()));
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| live.run(&opened, &asked, &mut ()));
        go_round(&inputs);
        let log = hub.open("log", Reads::Pull, &budget);
        drop(looking);
        assert!((0..60).all(|i| log.offer(minute(i, b"b")).is_ok()));
        inputs.send(LiveInput::Stop).expect("the engine runs");
        engine.join().expect("no panic").expect("memory does not fail");
    });
    assert_eq!(live.pipeline().points(), 120);
}

/// Scenario: the records of a log are an hour old. A listener's are of now, so what it brings waits; it goes on waiting when
/// a listener without a request would long be idle. Then the log is read to its end.
/// Guarantee: nothing that waited is late.
#[test]
fn what_waits_for_a_slow_log_is_not_late() {
    let settings = skewed(120);
    let hand = Hand::at(NOON + 60 * 60);
    let mut live = hand.start(&Disk::default(), &settings);
    let (hub, opened) = Hub::new(live.resume());
    let ((inputs, asked), budget) = (unbounded(), Budget::new(1 << 20));
    let (log, push) = (hub.open("log", Reads::Pull, &budget), hub.open("push", Reads::Push, &budget));
    assert!((0..2).all(|i| log.offer(minute(i, b"a")).is_ok()));
    assert!(push.offer(minute(60, b"b")).is_ok());
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| live.run(&opened, &asked, &mut ()));
        go_round(&inputs);
        assert!(push.offer(minute(61, b"b")).is_ok());
        go_round(&inputs);
        assert_eq!(push.waiting(), 1, "it is not held back");
        hand.pass(600);
        go_round(&inputs);
        assert!((2..62).all(|i| log.offer(minute(i, b"a")).is_ok()));
        inputs.send(LiveInput::Stop).expect("the engine runs");
        engine.join().expect("no panic").expect("memory does not fail");
    });
    assert_eq!(live.pipeline().points(), 64);
}

/// Runs until `feed` is done and all of it is taken.
fn run(live: &mut Live, feed: impl FnOnce(&Hub, &Sender<LiveInput>)) {
    let (hub, opened) = Hub::new(live.resume());
    let (inputs, asked) = unbounded();
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| live.run(&opened, &asked, &mut ()));
        // One that panics must not leave the engine running.
        let fed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| feed(&hub, &inputs)));
        let _ = inputs.send(LiveInput::Stop);
        engine.join().expect("no panic").expect("memory does not fail");
        fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Has the engine take what an inlet was offered, and go round after that.
fn taken(inlet: &Inlet, inputs: &Sender<LiveInput>) {
    // One that is held back never is.
    for _ in 0..1_000 {
        if inlet.waiting() == 0 {
            break;
        }
        go_round(inputs);
    }
    assert_eq!(inlet.waiting(), 0, "it is held back");
    go_round(inputs);
}

pub(crate) fn late(live: &mut Live) -> u64 {
    live.pipeline().refused()[Reason::Late as usize]
}

/// Scenario: one sender's clock is five minutes fast. relight is restarted, and half a minute later others bring what is of now.
/// Guarantee: nothing of theirs is late.
#[test]
fn a_fast_clock_makes_nobody_late_after_a_start() {
    let (settings, disk, hand) = (skewed(120), Disk::default(), Hand::at(NOON));
    let budget = Budget::new(1 << 20);
    let mut live = hand.start(&disk, &settings);
    run(&mut live, |hub, inputs| {
        let push = hub.open("push", Reads::Push, &budget);
        assert!(push.offer(hand.point(0, NOON, b"a")).is_ok());
        assert!(push.offer(hand.point(1, NOON + 300, b"fast")).is_ok());
        go_round(inputs);
        inputs.send(LiveInput::Stop).expect("the engine runs");
        while !inputs.is_empty() {
            std::thread::yield_now();
        }
    });
    drop(live);
    let mut live = hand.start(&disk, &settings);
    run(&mut live, |hub, inputs| {
        let push = hub.open("push", Reads::Push, &budget);
        go_round(inputs);
        hand.pass(31);
        go_round(inputs);
        assert!(push.offer(hand.point(2, NOON + 31, b"a")).is_ok());
        go_round(inputs);
    });
    assert_eq!((late(&mut live), live.pipeline().points()), (0, 3));
}

/// Scenario: the machine sleeps for five minutes, which its monotonic clock does not count; of two listeners one is quiet.
/// Guarantee: what the other brings then is taken at once: silence is told by the clock that records are received by.
#[test]
fn a_clock_that_slept_holds_nobody_back() {
    let (settings, hand) = (skewed(120), Hand::at(NOON));
    let budget = Budget::new(1 << 20);
    let mut live = hand.start(&Disk::default(), &settings);
    run(&mut live, |hub, inputs| {
        let (push, quiet) = (hub.open("push", Reads::Push, &budget), hub.open("quiet", Reads::Push, &budget));
        assert!(push.offer(hand.point(0, NOON, b"a")).is_ok());
        assert!(quiet.offer(hand.point(0, NOON, b"b")).is_ok());
        taken(&push, inputs);
        taken(&quiet, inputs);
        hand.pass(61);
        go_round(inputs);
        hand.wall.fetch_add(300, Ordering::Relaxed);
        go_round(inputs);
        for i in 1..4 {
            assert!(push.offer(hand.point(i, hand.wall().ns() / 1_000_000_000, b"a")).is_ok());
            taken(&push, inputs);
        }
    });
    assert_eq!((late(&mut live), live.pipeline().points()), (0, 5));
}

/// Scenario: two partitions of a log are empty; later a producer writes what it gathered in five minutes, one partition behind
/// the other. relight is started before that by no time, by minutes, by an hour, or is restarted meanwhile.
/// Guarantee: every record counts, whenever relight was started.
#[test]
fn an_empty_log_counts_its_first_records_whenever_relight_was_started() {
    for (earlier, restarts) in [(0, false), (90, false), (3_600, false), (3_600, true)] {
        let (settings, disk, hand) = (skewed(1_000), Disk::default(), Hand::at(NOON - earlier));
        let budget = Budget::new(1 << 20);
        let open = |hub: &Hub| ["log/0", "log/1"].map(|name| hub.open(name, Reads::Pull, &budget));
        let empty = |logs: &[Inlet], inputs: &Sender<LiveInput>| {
            for log in logs {
                let delivery =
                    Delivery { offset: None, received: hand.wall(), load: Load::CaughtUp, answer: None };
                assert!(log.offer(delivery).is_ok());
            }
            go_round(inputs);
        };
        let mut live = hand.start(&disk, &settings);
        if restarts {
            run(&mut live, |hub, inputs| {
                let logs = open(hub);
                empty(&logs, inputs);
                hand.pass(600);
                empty(&logs, inputs);
            });
            live = hand.start(&disk, &settings);
        }
        run(&mut live, |hub, inputs| {
            let logs = open(hub);
            while hand.wall() < Timestamp::from_secs(NOON) {
                empty(&logs, inputs);
                hand.pass(30);
            }
            for (log, key) in logs.iter().zip([b"a", b"b"]) {
                for i in 0..300 {
                    assert!(log.offer(hand.point(i, NOON - 300 + i as i64, key)).is_ok());
                    taken(log, inputs);
                }
                hand.pass(1);
            }
        });
        let came = (late(&mut live), live.pipeline().points());
        assert_eq!(came, (0, 600), "{earlier} s earlier, restarted: {restarts}");
    }
}

/// A listener's delivery, stamped as the process does.
fn received(live: &ReceivedClock, offset: u64, secs: i64) -> Delivery {
    let mut record = Record::default();
    record.push_point(b"a", Timestamp::from_secs(secs), Timestamp::MIN, Kind::Gauge, 1.0);
    Delivery {
        offset: Some(offset),
        received: live.now(),
        load: Load::Record(Box::new(record)),
        answer: None,
    }
}

/// Why a run is not ready, by the second round from now at the latest.
fn unready(board: &Board, inputs: &Sender<LiveInput>) -> Vec<String> {
    go_round(inputs);
    board.read().unready
}

/// A run whose wall clock is set back, with a listener that is fed and one that is quiet.
struct SetBack {
    hand: Hand,
    board: Board,
    live: Live,
    settings: Arc<Settings>,
}

impl SetBack {
    fn new() -> Self {
        let (hand, board, settings) = (Hand::at(NOON), Board::default(), skewed(120));
        let Disk { baselines, ledger } = Disk::default();
        let stores = Stores { baselines: Box::new(baselines), ledger: Box::new(ledger) };
        let live = shown(Box::new(hand.clone()), &settings, how(), stores, board.clone());
        Self { hand, board, live, settings }
    }
}

/// Scenario: the wall clock of relight's machine is set back by 2, 5 and 20 minutes, while a sender elsewhere goes on and
/// another listener is quiet.
/// Guarantee: bins close as before and no point is refused; the step is told at once, and readiness is back with the next bin.
#[test]
fn a_clock_set_back_stops_no_bin() {
    for back in [82, 300, 1_200] {
        let SetBack { hand, board, mut live, settings } = SetBack::new();
        let (budget, clock) = (Budget::new(1 << 20), live.received_clock());
        run(&mut live, |hub, inputs| {
            let (push, quiet) =
                (hub.open("push", Reads::Push, &budget), hub.open("quiet", Reads::Push, &budget));
            assert!(quiet.offer(received(&clock, 0, NOON)).is_ok());
            for second in 0..100 {
                assert!(push.offer(received(&clock, second, NOON + second.cast_signed())).is_ok());
                taken(&push, inputs);
                hand.pass(1);
            }
            assert_eq!(unready(&board, inputs), Vec::<String>::new());
            hand.wall.fetch_sub(back, Ordering::Relaxed);
            let told = unready(&board, inputs);
            assert!(told.len() == 1 && told[0].contains("set back by"), "{told:?}");
            for second in 100..200 {
                assert!(push.offer(received(&clock, second, NOON + second.cast_signed())).is_ok());
                taken(&push, inputs);
                hand.pass(1);
            }
            assert_eq!(unready(&board, inputs), Vec::<String>::new(), "set back by {back} s");
        });
        let closed = live.pipeline().bins_closed_through();
        let lags = Timestamp::from_secs(NOON + 200).since(closed);
        // What is quiet is a tenth of the time behind, and a bin.
        let most = settings.interval().times(2).ns() + settings.allowed_lateness.ns() + 10_000_000_000;
        assert!(lags.ns() <= most, "set back by {back} s: {lags} behind");
        let refused = live.pipeline().refused();
        assert_eq!(refused.iter().sum::<u64>(), 0, "set back by {back} s: {refused:?}");
    }
}

/// Scenario: senders on the same machine are set back with it, by 82 s: what they say is of a time whose bins have closed.
/// Guarantee: readiness is false for as long as that lasts, and comes back by itself.
#[test]
fn it_is_not_ready_while_a_clock_set_back_makes_it_blind() {
    let SetBack { hand, board, mut live, .. } = SetBack::new();
    let (budget, clock) = (Budget::new(1 << 20), live.received_clock());
    run(&mut live, |hub, inputs| {
        let push = hub.open("push", Reads::Push, &budget);
        let mut offset = 0;
        let mut second = |is_ready: Option<bool>| {
            assert!(push.offer(received(&clock, offset, hand.wall().ns() / 1_000_000_000)).is_ok());
            offset += 1;
            taken(&push, inputs);
            hand.pass(1);
            let why = unready(&board, inputs);
            assert!(is_ready.is_none_or(|is| is == why.is_empty()), "{offset}: {why:?}");
        };
        (0..100).for_each(|_| second(Some(true)));
        hand.wall.fetch_sub(82, Ordering::Relaxed);
        (0..82).for_each(|_| second(Some(false)));
        (0..40).for_each(|_| second(None));
        (0..10).for_each(|_| second(Some(true)));
    });
}

/// Scenario: an old snapshot cannot be removed, once; then it can.
/// Guarantee: the new one stands, people are told, and the next is cut as ever.
#[test]
fn what_cannot_be_removed_stops_no_snapshot() {
    let (disk, fuse) = (Disk::default(), Fuse::default());
    let mut live = live(&disk, &settings(), &fuse);
    let pipeline = live.pipeline();
    assert!(pipeline.snapshot().expect("memory does not fail").is_none());
    fuse.light(Crash { step: CommitStep::Prune, spared: 0, after: false });
    assert!(pipeline.snapshot().expect("it is cut").is_some());
    assert_eq!(pipeline.generation(), 2);
    fuse.douse();
    assert!(pipeline.snapshot().expect("memory does not fail").is_none());
    assert_eq!(pipeline.generation(), 3);
}
