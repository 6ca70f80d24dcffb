//! kill -9 at random moments, while records keep coming.

use std::collections::BTreeSet;

use crate::daemon::{Member, text};
use crate::load::{BATCH, Load};
use crate::state::Left;
use crate::{pause, switch};

const POINTS: &str = "relight_points_total";

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// Scenario: `RELIGHT_KILLS` times (6, if it is not set) a daemon under steady load is killed with SIGKILL, up to
/// three seconds after it was started: before, while and after it reads, snapshots, pages. Then another reads the
/// same topic from the start without being disturbed.
/// Guarantee: offsets, watermarks, turns, every count and every byte that was learned are the same in both, and so
/// is all of an incident that the stream decides; points are those that were written, none missing and none twice;
/// every page went out, under the key that it has in both.
#[test]
fn b01_mid_batch_kill9() {
    let kills: u64 = switch("RELIGHT_KILLS").map_or(6, |n| n.parse().expect("a number"));
    let seed: u64 = switch("RELIGHT_SEED").map_or(1, |n| n.parse().expect("a number"));
    println!("{kills} kills, seed {seed}");
    let mut random = Random(seed);
    let shared = tempfile::tempdir().expect("a folder");
    let load = Load::start("kills");
    let stormy = Member::telling(shared.path(), "stormy", &load.topic);
    for _ in 0..kills {
        let daemon = stormy.start();
        pause(random.below(3_000));
        daemon.kill();
    }
    let daemon = stormy.start();
    load.wait_for_faults(2);
    let topic = load.topic.clone();
    let written = load.stop();
    daemon.wait_for(POINTS, |n| n >= written as f64);
    daemon.stop();

    let calm = Member::telling(shared.path(), "calm", &topic);
    let daemon = calm.start();
    daemon.wait_for(POINTS, |n| n >= written as f64);
    daemon.stop();

    let what = format!("seed {seed}, {kills} kills");
    let (calm, stormy) = (Left::read(&calm.state()), Left::read(&stormy.state()));
    let records: u64 = stormy.partitions.values().map(|(next, _)| next).sum();
    assert_eq!(records * BATCH, written, "{what}: records");
    same(&calm, &stormy, &what);
    assert!(stormy.incidents.len() >= 2, "{what}: {} incidents", stormy.incidents.len());
    pages(&stormy, &text(&shared.path().join("page")), &what);
}

fn same(calm: &Left, stormy: &Left, what: &str) {
    assert_eq!(calm.partitions, stormy.partitions, "{what}: partitions");
    let none = BTreeSet::new();
    assert_eq!(calm.findings(&none), stormy.findings(&none), "{what}: incidents");
    assert_eq!(calm.turns, stormy.turns, "{what}: turns");
    let differ = |name: &&String| calm.learned.get(*name) != stormy.learned.get(*name);
    let names: BTreeSet<&String> = calm.learned.keys().chain(stormy.learned.keys()).collect();
    let differing: Vec<&String> = names.into_iter().filter(differ).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
    let keys = |left: &Left| left.actions.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(calm), keys(stormy), "{what}: actions");
}

fn pages(stormy: &Left, paged: &str, what: &str) {
    let paged: BTreeSet<&str> = paged.lines().filter_map(|line| line.strip_suffix(" stormy")).collect();
    let planned: BTreeSet<&str> = stormy.actions.keys().map(String::as_str).collect();
    assert_eq!(paged, planned, "{what}: pages");
}
