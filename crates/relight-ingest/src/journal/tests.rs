//! Journals that are killed, cut short, damaged, full, and on a disk that fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use relight_core::Timestamp;
use relight_core::record::{Event, Histogram, Kind, Reason, Record};
use relight_core::series::Labels;
use tokio::time::Instant;

use super::{Damage, Journal, Keeping, entry};
use crate::live::{Budget, Delivery, Hub, Load, Next, Outlet, Reads, Verdict};

/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_mins(1);

/// One life of a source with a journal, and the engine's end of it.
struct Life {
    journal: Journal,
    outlet: Outlet,
    /// What was lost.
    damage: Vec<String>,
    mended: Vec<String>,
    answers: (Sender<Verdict>, Receiver<Verdict>),
}

fn open(dir: &Path, max_bytes: u64, resume: u64) -> Life {
    let (hub, opened) = Hub::new(BTreeMap::from([("s".to_owned(), resume)]));
    let keeping = Keeping { dir: dir.to_owned(), max_bytes, max_waiting_bytes: 1 << 20 };
    let inlet = hub.open("s", Reads::Journalled, &Budget::new(1 << 20));
    let (journal, Damage { lost, mended }) = Journal::open(&keeping, inlet).unwrap_or_else(|e| panic!("{e}"));
    let outlet = opened.recv().expect("it is open");
    Life { journal, outlet, damage: lost, mended, answers: unbounded() }
}

impl Life {
    fn offer(&self, load: Load) {
        let answers = self.answers.0.clone();
        let answer = Box::new(move |verdict| answers.send(verdict).expect("the test listens"));
        let delivery =
            Delivery { offset: None, received: Timestamp::from_secs(7), load, answer: Some(answer) };
        assert!(self.journal.offer_weighed(delivery.load.weight(), delivery).is_ok());
    }

    /// The next so many deliveries that have a place, answered as an engine would.
    fn take(&self, n: usize) -> Vec<(u64, Load)> {
        let until = Instant::now() + BOUND;
        let mut all = Vec::new();
        while all.len() < n {
            assert!(Instant::now() < until, "{} of {n} came", all.len());
            let Some(Delivery { offset, received, load, answer }) = self.next() else {
                std::thread::yield_now();
                continue;
            };
            let is_own = matches!(load, Load::Started);
            assert_eq!(received, if is_own { Timestamp::MIN } else { Timestamp::from_secs(7) });
            all.push((offset.expect("it has one"), load));
            if let Some(answer) = answer {
                answer(Verdict::Taken(Vec::new()));
            }
        }
        all
    }

    /// What waits, but for the word that the journal was read to its end.
    fn next(&self) -> Option<Delivery> {
        match self.outlet.take() {
            Next::Delivery(Delivery { offset: None, load: Load::CaughtUp, .. }) => self.next(),
            Next::Delivery(delivery) => Some(delivery),
            Next::Empty | Next::Closed => None,
        }
    }

    /// Has two snapshots after another hold all there is, until it is gone.
    fn forget(&self, dir: &Path) {
        let until = Instant::now() + BOUND;
        let mut snapshots = 1_000..;
        let bytes = || -> u64 {
            let files = fs::read_dir(dir).expect("a folder").map_while(Result::ok);
            files.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
        };
        // One file without entries is left.
        while bytes() > 8 {
            assert!(Instant::now() < until, "nothing was dropped");
            self.outlet.cover(snapshots.next().expect("without end"));
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn verdict(&self) -> Verdict {
        self.answers.1.recv_timeout(BOUND).expect("an answer")
    }
}

/// What [`what`] calls the mark of a start.
const STARTED: &str = "started";

fn metrics(n: u8) -> Load {
    Load::Metrics(Bytes::from(vec![n; 100]))
}

/// A record with one of everything.
fn record() -> Record {
    let mut record = Record::default();
    let (at, start) = (Timestamp::from_secs(5), Timestamp::MIN);
    record.push_point(b"key", at, start, Kind::Cumulative, f64::INFINITY);
    let histogram = Histogram { bounds: vec![0.5], counts: vec![1, u64::MAX] };
    record.push_histogram(b"other", at, at, Kind::DeltaHistogram, histogram);
    let labels = Labels::new(vec![("service".to_owned(), "cart".to_owned())]);
    record.events.push(Event { at, kind: "deploy".to_owned(), labels, body: "v2".to_owned() });
    record.refuse(Reason::NonFinite);
    record
}

fn what(delivered: &[(u64, Load)]) -> Vec<(u64, String)> {
    let of = |load: &Load| match load {
        Load::Metrics(body) => format!("{:?}", &body[..]),
        Load::Record(record) => format!("{:?}", Record { offset: 0, received: None, ..(**record).clone() }),
        Load::Started => STARTED.to_owned(),
        _ => String::new(),
    };
    delivered.iter().map(|(offset, load)| (*offset, of(load))).collect()
}

/// Scenario: deliveries of every kind are taken; the process is killed, and its snapshot holds the first of them.
/// Guarantee: the others come again as they were, under the same offsets, before anything new.
#[test]
fn a_kill_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let before = open(dir.path(), 1 << 20, 0);
    for load in [metrics(1), Load::Record(Box::new(record())), metrics(3)] {
        before.offer(load);
    }
    let first = what(&before.take(3));
    assert_eq!(first.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(before.verdict(), Verdict::Taken(Vec::new()));

    let after = open(dir.path(), 1 << 20, 1);
    after.offer(metrics(4));
    let again = what(&after.take(4));
    assert_eq!(again[..2], first[1..]);
    assert_eq!(again[2..], [(3, STARTED.to_owned()), (4, format!("{:?}", [4_u8; 100]))]);
    assert_eq!(after.damage, [""; 0]);
}

/// Scenario: a journal is opened four times, with snapshots that hold nothing, its first entry, and all of it.
/// Guarantee: each start but the very first stands behind what was there before it, and is read again at its place; that
/// all was read again is told before it.
#[test]
fn a_start_stands_at_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let of = |n: u8| format!("{:?}", [n; 100]);
    let started = || STARTED.to_owned();
    let all = [(0, of(0)), (1, of(1)), (2, started()), (3, of(3)), (4, started()), (5, started())];
    for (resume, new, expected) in
        [(0, &[0, 1][..], &all[..2]), (0, &[3], &all[..4]), (1, &[], &all[1..5]), (5, &[], &all[5..])]
    {
        let life = open(dir.path(), 1 << 20, resume);
        for n in new {
            life.offer(metrics(*n));
        }
        assert_eq!(what(&life.take(expected.len())), expected, "from {resume}");
    }
    let life = open(dir.path(), 1 << 20, 4);
    let (until, mut order) = (Instant::now() + BOUND, Vec::new());
    while order.len() < 4 {
        assert!(Instant::now() < until, "{order:?} came");
        if let Next::Delivery(delivery) = life.outlet.take() {
            order.push((delivery.offset, matches!(delivery.load, Load::CaughtUp)));
        }
    }
    assert_eq!(order, [(Some(4), false), (Some(5), false), (None, true), (Some(6), false)]);
}

/// Scenario: a journal is full when it is opened; what it has is sent again, and then two snapshots hold it.
/// Guarantee: nothing is taken before the mark of the start could be written, and the mark comes as soon as it could.
#[test]
fn a_start_waits_for_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 300, 0);
    for n in [0, 1] {
        life.offer(metrics(n));
        life.take(1);
    }
    drop(life);
    let life = open(dir.path(), 200, 0);
    life.offer(metrics(2));
    assert_eq!(life.take(2).len(), 2);
    assert!(matches!(life.verdict(), Verdict::Busy(_)));
    assert!(life.next().is_none());
    life.forget(dir.path());
    assert_eq!(what(&life.take(1)), [(2, STARTED.to_owned())]);
    life.offer(metrics(3));
    assert_eq!(what(&life.take(1)), [(3, format!("{:?}", [3_u8; 100]))]);
}

/// Scenario: a kill while the last entry is written leaves any number of its bytes.
/// Guarantee: all before it is there, nothing is called damaged, and the next entry has its offset.
#[test]
fn an_entry_cut_short_was_never_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 1 << 20, 0);
    for n in [1, 2] {
        life.offer(metrics(n));
        life.take(1);
    }
    let path = dir.path().join(format!("{:020}.journal", 0));
    let whole = fs::read(&path).expect("it is there");
    let frame = (whole.len() - 8) / 2;
    for cut in [1, 7, 8, 50, frame - 1, frame] {
        let again = tempfile::tempdir().expect("a folder");
        let path = again.path().join(path.file_name().expect("it has one"));
        fs::write(&path, &whole[..whole.len() - cut]).expect("written");
        let life = open(again.path(), 1 << 20, 0);
        assert_eq!(life.damage, [""; 0], "cut by {cut}");
        life.offer(metrics(9));
        let came = what(&life.take(3));
        let of = |n: u8| format!("{:?}", [n; 100]);
        let expected = [(0, of(1)), (1, STARTED.to_owned()), (2, of(9))];
        assert_eq!(came, expected, "cut by {cut}");
        // The cut end must not hide what was written after it, and nothing that was answered is lost with it.
        let life = open(again.path(), 1 << 20, 0);
        assert_eq!(life.damage, [""; 0], "cut by {cut}, next start");
        assert_eq!(what(&life.take(3)), expected, "cut by {cut}, next start");
        assert_eq!(fs::read(&path).expect("it is there"), whole[..8 + frame], "cut by {cut}: it is cut off");
    }
}

/// Scenario: a kill while several entries are written, the last of which is made of the heads of entries; a release
/// that left the end as it was, and entries that followed it in another file.
/// Guarantee: nothing is called damaged, at no start.
#[test]
fn an_entry_cut_short_is_never_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 64 << 20, 0);
    life.offer(metrics(1));
    // Each as long as a few of them, and of an offset that could be the next one's.
    let head = [&100_u32.to_le_bytes()[..], &[0; 4], &2_u64.to_le_bytes(), &[0; 9]].concat();
    life.offer(Load::Metrics(Bytes::from(head.repeat(1_000))));
    life.take(2);
    let path = dir.path().join(format!("{:020}.journal", 0));
    let mut torn = fs::read(&path).expect("it is there");
    torn.truncate(torn.len() - 1);
    fs::write(&path, &torn).expect("written");
    let life = open(dir.path(), 64 << 20, 0);
    life.offer(metrics(2));
    assert_eq!(life.take(3).len(), 3);
    fs::write(&path, &torn).expect("written");
    for _ in 0..2 {
        let life = open(dir.path(), 64 << 20, 0);
        assert_eq!(life.damage, [""; 0]);
        assert_eq!(life.take(3).len(), 3);
    }
}

/// Scenario: an entry cut short of which every 25 bytes look like the head of one that has half of them.
/// Guarantee: the search ends long before all of those were summed up, which would take hours, and it is not passed over in
/// silence.
#[test]
fn a_search_for_entries_is_bounded() {
    let n = 16 << 20;
    let head = [&(n as u32 / 2).to_le_bytes()[..], &[0; 4], &2_u64.to_le_bytes(), &[0; 9]].concat();
    let torn = [&u32::MAX.to_le_bytes()[..], &head.repeat(n / head.len())].concat();
    assert!(entry::is_damaged(&torn, 1));
}

/// Scenario: a flipped bit in each byte of a newest file of three entries.
/// Guarantee: it is told from where on entries are lost, and those before it come; only of the last one's length it cannot be
/// told whether it was written to its end.
#[test]
fn damage_of_the_newest_file_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 1 << 20, 0);
    for n in 0..3 {
        life.offer(metrics(n));
        life.take(1);
    }
    let name = format!("{:020}.journal", 0);
    let whole = fs::read(dir.path().join(&name)).expect("it is there");
    let frame = (whole.len() - 8) / 3;
    for at in 8..whole.len() {
        let again = tempfile::tempdir().expect("a folder");
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(again.path().join(&name), &bytes).expect("written");
        let life = open(again.path(), 1 << 20, 0);
        let hit = (at - 8) / frame;
        let is_longer = (at - 8) % frame < 4 && hit == 2;
        let told = format!("what it held from offset {hit} on is lost");
        let is_told = life.damage.iter().any(|what| what.ends_with(&told));
        assert!(is_told || is_longer, "byte {at}: {:?}", life.damage);
        let before = life.take(hit).iter().map(|(offset, _)| *offset).collect::<Vec<_>>();
        assert_eq!(before, (0..hit as u64).collect::<Vec<_>>());
    }
}

/// Scenario: a flipped bit in a file that others follow; a file of a newer release.
/// Guarantee: what is lost is said, what follows is read; the newer file is refused and left alone.
#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    for resume in [0, 1] {
        let life = open(dir.path(), 1 << 20, resume);
        life.offer(metrics(resume as u8));
        life.take(1 + resume as usize);
    }
    let path = dir.path().join(format!("{:020}.journal", 0));
    let mut bytes = fs::read(&path).expect("it is there");
    bytes[30] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let life = open(dir.path(), 1 << 20, 0);
    assert!(
        life.damage[0].contains("is damaged after byte 8: what it held from offset 0 on"),
        "{:?}",
        life.damage
    );
    assert_eq!(what(&life.take(2)), [(1, STARTED.to_owned()), (2, format!("{:?}", [1_u8; 100]))]);
    drop(life);

    bytes[6] = 9;
    fs::write(&path, &bytes).expect("written");
    let keeping = Keeping { dir: dir.path().to_owned(), max_bytes: 1, max_waiting_bytes: 1 };
    let (hub, _opened) = Hub::new(BTreeMap::new());
    let inlet = hub.open("s", Reads::Journalled, &Budget::new(1));
    let error = Journal::open(&keeping, inlet).err().expect("refused");
    assert!(error.to_string().contains("newer than this release's 1"), "{error}");
    assert_eq!(fs::read(&path).expect("it is there"), bytes);
}

/// Scenario: each bit of the head of each of two files is flipped; then the whole head, and the first entry with it.
/// Guarantee: no start is refused. While the entries are whole all of them come, the head is mended, and the next start finds
/// nothing; else what is lost is named, the file is put aside, and the entries of the other file come.
#[test]
fn a_damaged_head_refuses_no_start() {
    let dir = tempfile::tempdir().expect("a folder");
    for (resume, n) in [(0, 1), (1, 2)] {
        let life = open(dir.path(), 1 << 20, resume);
        life.offer(metrics(n));
        life.take(1 + usize::from(n == 2));
    }
    let names = [0, 1].map(|first| format!("{first:020}.journal"));
    let whole = names.clone().map(|name| fs::read(dir.path().join(name)).expect("it is there"));
    let harm = |file: usize, change: &dyn Fn(&mut [u8])| {
        let again = tempfile::tempdir().expect("a folder");
        for (i, bytes) in whole.iter().enumerate() {
            let mut bytes = bytes.clone();
            if i == file {
                change(&mut bytes);
            }
            fs::write(again.path().join(&names[i]), bytes).expect("written");
        }
        again
    };
    for file in 0..2 {
        for bit in 0..64 {
            let again = harm(file, &|bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let life = open(again.path(), 1 << 20, 0);
            assert_eq!((life.damage.len(), life.mended.len()), (0, 1), "bit {bit} of file {file}");
            assert_eq!(life.take(3).len(), 3, "bit {bit} of file {file}");
            drop(life);
            let life = open(again.path(), 1 << 20, 0);
            assert_eq!(
                (life.damage.len(), life.mended.len()),
                (0, 0),
                "bit {bit} of file {file}, next start"
            );
        }
        let again = harm(file, &|bytes| bytes[..30].fill(0xa5));
        let life = open(again.path(), 1 << 20, 0);
        let told = format!("what it held from offset {file} on is lost");
        assert!(life.damage.len() == 1 && life.damage[0].ends_with(&told), "{:?}", life.damage);
        let left: Vec<u64> =
            life.take(if file == 0 { 2 } else { 1 }).iter().map(|(offset, _)| *offset).collect();
        assert_eq!(left, if file == 0 { vec![1, 2] } else { vec![0] });
        let aside = again.path().join(format!("{}.damaged", names[file]));
        assert_eq!(fs::read(aside).expect("it is put aside").len(), whole[file].len());
    }
}

/// Scenario: a snapshot holds two of three entries, and then the journal is removed, cut between two entries, or lacks the file
/// of the last one; beside it one whose entries are all in snapshots and dropped.
/// Guarantee: each loss is told, once; that all was dropped is none, and neither is a journal that the state knows nothing of.
#[test]
fn a_journal_that_ends_early_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 1 << 20, 0);
    for n in 0..3 {
        life.offer(metrics(n));
        life.take(1);
    }
    drop(life);
    let name = format!("{:020}.journal", 0);
    let whole = fs::read(dir.path().join(&name)).expect("it is there");
    let frame = (whole.len() - 8) / 3;
    let told = |bytes: Option<&[u8]>, resume: u64| {
        let again = tempfile::tempdir().expect("a folder");
        if let Some(bytes) = bytes {
            fs::write(again.path().join(&name), bytes).expect("written");
        }
        let life = open(again.path(), 1 << 20, resume);
        let first = life.damage.clone();
        // The mark of the start.
        life.take(1);
        drop(life);
        assert_eq!(open(again.path(), 1 << 20, resume).damage, [""; 0], "the next start");
        first.join(", ")
    };
    assert_eq!(told(Some(&whole), 2), "");
    assert!(told(Some(&whole[..8 + frame]), 2).contains("ends early: it holds entries up to offset 1"));
    assert!(told(None, 2).contains("is missing or empty"));
    assert!(told(Some(&whole[..8]), 2).contains("ends early: it holds entries up to offset 0"));

    let life = open(dir.path(), 1 << 20, 3);
    assert_eq!(what(&life.take(1)), [(3, STARTED.to_owned())]);
    life.offer(metrics(4));
    life.take(1);
    drop(life);
    fs::remove_file(dir.path().join(format!("{:020}.journal", 3))).expect("it is there");
    let damage = open(dir.path(), 1 << 20, 5).damage;
    assert!(damage.len() == 1 && damage[0].contains("ends early"), "{damage:?}");

    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 1 << 20, 0);
    life.offer(metrics(1));
    life.take(1);
    life.forget(dir.path());
    drop(life);
    for resume in [1, 0] {
        assert_eq!(open(dir.path(), 1 << 20, resume).damage, [""; 0]);
    }
}

/// Scenario: a journal's file is removed while it is open, and the folder with it; then the folder is there again.
/// Guarantee: what is written to no file is not taken; it is, once there is a folder.
#[test]
fn a_journal_that_is_removed_is_busy() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("j");
    let life = open(&folder, 1 << 20, 0);
    life.offer(metrics(1));
    life.take(1);
    assert_eq!(life.verdict(), Verdict::Taken(Vec::new()));
    fs::remove_dir_all(&folder).expect("it is ours");
    life.offer(metrics(2));
    assert!(matches!(life.verdict(), Verdict::Busy(why) if why.contains("No such file")));
    assert!(life.next().is_none());
    fs::create_dir(&folder).expect("it was removed");
    life.offer(metrics(3));
    assert_eq!(what(&life.take(1)), [(1, format!("{:?}", [3_u8; 100]))]);
    fs::remove_file(folder.join(format!("{:020}.journal", 1))).expect("it is there");
    life.offer(metrics(4));
    assert_eq!(what(&life.take(1)), [(2, format!("{:?}", [4_u8; 100]))]);
    drop(life);
    assert_eq!(what(&open(&folder, 1 << 20, 2).take(1)), [(2, format!("{:?}", [4_u8; 100]))]);
}

/// Scenario: a journal without room; then two snapshots hold what it has.
/// Guarantee: what does not fit is given back as busy and never folded; the room comes back.
#[test]
fn a_full_journal_is_busy() {
    let dir = tempfile::tempdir().expect("a folder");
    let life = open(dir.path(), 300, 0);
    for n in [0, 1] {
        life.offer(metrics(n));
        life.take(1);
        assert_eq!(life.verdict(), Verdict::Taken(Vec::new()));
    }
    life.offer(metrics(2));
    assert_eq!(life.verdict(), Verdict::Busy("the journal is full until the next snapshot".to_owned()));
    life.forget(dir.path());
    life.offer(metrics(3));
    assert_eq!(what(&life.take(1)), [(2, format!("{:?}", [3_u8; 100]))]);
}

/// Scenario: the folder goes away, and comes back.
/// Guarantee: what could not be written is not folded, and its sender is told to come again.
#[test]
fn a_disk_that_fails_is_busy() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("j");
    let life = open(&folder, 1 << 20, 0);
    fs::remove_dir(&folder).expect("it is empty");
    life.offer(metrics(1));
    assert!(matches!(life.verdict(), Verdict::Busy(why) if why.contains("No such file")));
    assert!(life.next().is_none());
    fs::create_dir(&folder).expect("it was removed");
    life.offer(metrics(2));
    assert_eq!(what(&life.take(1)), [(0, format!("{:?}", [2_u8; 100]))]);
}
