//! A state folder with a known past, and ways to copy and compare it. Shared by the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use relight_core::incident::{
    Action, ActionState, Applied, Evidence, Hold, Incident, IncidentState, LedgerState, LedgerWrite, Moment,
    RecordedAdvance,
};
use relight_core::record::Event;
use relight_core::responder::EffectKind;
use relight_core::{KeyGroup, Labels, Span, Timestamp};
use relight_store::{
    Baselines, ImageKind, LedgerHealth, Manifest, PartitionCut, Snapshot, StateDir, StoreError,
};

/// A small generator, so that every run harms the same bytes.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n.max(1) as u64) as usize
    }
}

pub(crate) fn labels(service: &str) -> Labels {
    Labels::new([("service".to_owned(), service.to_owned())])
}

/// An incident with every awkward float there is.
pub(crate) fn incident(id: &str, nth: u32) -> Incident {
    let at = Timestamp::from_ns(1_763_884_800_123_456_789 + i64::from(nth));
    let odd =
        [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, f64::MIN_POSITIVE / 3.0, 0.1 + 0.2, f64::MAX];
    let pick = |n: u32| odd[((nth + n) % 7) as usize];
    let evidence = Evidence {
        detector: "err_ewma".to_owned(),
        signal: "checkout_errors".to_owned(),
        labels: labels("checkout \u{1F525}\n"),
        at,
        value: pick(0),
        score: pick(1).abs(),
        expected: pick(2),
        lower: pick(3),
        upper: pick(4),
    };
    Incident {
        id: id.to_owned(),
        rule: "checkout-bad-deploy".to_owned(),
        group: labels("checkout"),
        state: IncidentState::Open,
        episode: nth,
        stale: nth.is_multiple_of(2),
        first_finding: at,
        onset: Timestamp::MIN,
        detected: Some(at),
        acted: None,
        mitigated: None,
        recovered: Some(Timestamp::MAX),
        resolved: None,
        resolution: None,
        held_for: Span::from_secs(20),
        held_turns: 2,
        calm_for: Span::ZERO,
        rested: false,
        last_data: at,
        findings: u64::MAX,
        relearned: 0,
        worst_score: pick(5).abs(),
        evidence: vec![evidence; 3],
        context: vec![
            Event {
                at,
                kind: "deploy".to_owned(),
                labels: labels("checkout"),
                body: "v7".to_owned()
            };
            2
        ],
        groups_known: 0,
        next_step: 1,
        moments_cut: 0,
        timeline: vec![Moment { at, what: "opened".to_owned(), detail: "x".repeat(200) }; 5],
    }
}

pub(crate) fn action(id: &str, nth: u32) -> Action {
    let at = Timestamp::from_secs(1_763_884_800);
    Action {
        id: id.to_owned(),
        incident: "i".to_owned(),
        episode: nth,
        rule: "checkout-bad-deploy".to_owned(),
        group: Labels::default(),
        step: 0,
        action: "rollback".to_owned(),
        with: "k8s-prod".to_owned(),
        mutates: true,
        effect: EffectKind::FireOnce,
        args: serde_json::json!({"z": 0.1, "a": [1, -2, u64::MAX], "n": null}),
        lock: "deploy/shop/checkout".to_owned(),
        cooldown: Span::ZERO,
        state: ActionState::Pending,
        approved: false,
        plan: None,
        attempts: 0,
        retry_at: None,
        handed_on: false,
        planned: at,
        started: Some(at),
        ended: None,
        verify_until: None,
        verified_for: Span::ZERO,
        sampled: false,
        fresh_until: None,
        reached: false,
        not_sent: None,
        limit_lifted: false,
        detail: String::new(),
    }
}

pub(crate) fn event(at: i64, build: u32) -> Event {
    let body = format!("v{build}");
    Event { at: Timestamp::from_secs(at), kind: "deploy".to_owned(), labels: labels("checkout"), body }
}

fn hold(n: u32) -> Hold {
    let until = (!n.is_multiple_of(2)).then(|| Timestamp::from_secs(i64::from(n)));
    Hold { until, why: format!("reason {n}") }
}

/// What one turn writes.
pub(crate) fn turn(n: u32) -> Vec<LedgerWrite> {
    let at = Timestamp::from_secs(1_763_884_800 + i64::from(n) * 10);
    vec![
        LedgerWrite::Incident(Box::new(incident(&format!("incident-{}", n % 13), n))),
        LedgerWrite::Action(Box::new(action(&format!("action-{}", n % 5), n))),
        LedgerWrite::Cooldown(format!("lock-{}", n % 3), at),
        LedgerWrite::Change(event(i64::from(n), n)),
        LedgerWrite::ForgetChanges(Timestamp::from_secs(i64::from(n) - 10)),
        LedgerWrite::Breaker("checkout-bad-deploy".to_owned(), n),
        LedgerWrite::Advance(RecordedAdvance {
            partition: format!("topic/{}", n % 2),
            before_offset: u64::from(n),
            to: at,
        }),
        LedgerWrite::ForgetAdvances {
            partition: "topic/0".to_owned(),
            before_offset: u64::from(n).saturating_sub(7),
        },
        LedgerWrite::Hold(format!("hold-{}", n % 2), (!n.is_multiple_of(3)).then(|| hold(n))),
        LedgerWrite::Audit {
            at,
            what: "opened".into(),
            subject: format!("incident-{n}"),
            detail: "d".into(),
        },
        LedgerWrite::Applied(Applied {
            turn: at,
            count: u64::from(n),
            digest: u64::MAX - u64::from(n),
            control: at,
        }),
    ]
}

/// Puts and commits one generation; every byte of it depends on its number.
pub(crate) fn put_generation(baselines: &mut dyn Baselines, generation: u64) -> Result<Snapshot, StoreError> {
    let mut dice = Dice(generation);
    let mut manifest = Manifest {
        generation,
        turn: Some(Timestamp::from_secs(1_763_884_800 + generation as i64)),
        turns: generation,
        config_hash: !generation,
        partitions: vec![PartitionCut {
            name: "topic/0".to_owned(),
            next_offset: generation * 1000,
            highest: Timestamp::from_secs(generation as i64),
            watermark: Timestamp::MIN,
        }],
        intake: vec![generation as u8; 300],
        images: Vec::new(),
    };
    let mut images = Vec::new();
    for (nth, kind) in [ImageKind::Series, ImageKind::Rows, ImageKind::Rows].into_iter().enumerate() {
        let group = KeyGroup::nth(17 + nth);
        let payload: Vec<u8> = (0..2000 * nth).map(|_| dice.below(256) as u8).collect();
        manifest.images.push(baselines.put_image(generation, kind, group, &payload)?);
        images.push((kind, group, payload));
    }
    baselines.put_fact("expected", &generation.to_le_bytes());
    baselines.commit(&manifest)?;
    Ok(Snapshot { manifest, images })
}

/// A folder with two generations and thirty turns, and what a load of it must give.
pub(crate) struct Past {
    pub(crate) older: Snapshot,
    pub(crate) newest: Snapshot,
    pub(crate) ledger: LedgerState,
    folder: tempfile::TempDir,
}

impl Past {
    /// `closed`: the process ended in order. Else the folder is as a kill leaves it.
    pub(crate) fn new(closed: bool) -> Self {
        quiet_sled();
        let live = tempfile::tempdir().expect("a temporary folder");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut baselines, mut ledger) = StateDir::open(live.path()).expect("opens");
        baselines.load().expect("loads");
        assert_eq!(ledger.load().expect("loads").1, LedgerHealth::New);
        for n in 1..=30 {
            ledger.commit(&turn(n)).expect("commits");
        }
        put_generation(&mut *baselines, 1).expect("commits");
        let older = put_generation(&mut *baselines, 2).expect("commits");
        let newest = put_generation(&mut *baselines, 3).expect("commits");
        baselines.prune(2).expect("prunes");
        let state = ledger.load().expect("loads").0;
        ledger.commit(&turn(31)).expect("commits");
        ledger.commit(&[LedgerWrite::ForgetIncident("nobody".to_owned())]).expect("commits");
        assert_eq!(state.incidents.len(), 13);
        if closed {
            drop((baselines, ledger));
            copy(live.path(), folder.path());
        } else {
            copy(live.path(), folder.path());
            drop((baselines, ledger));
        }
        let (_again, mut ledger) = StateDir::open(live.path()).expect("opens");
        let ledger = ledger.load().expect("loads").0;
        Self { older, newest, ledger, folder }
    }

    /// A fresh copy to harm.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let target = tempfile::tempdir().expect("a temporary folder");
        copy(self.folder.path(), target.path());
        target
    }

    /// Its files, relative, but for the lock and SQLite's shared memory, which nobody reads back.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        let relative =
            found.iter().map(|path| path.strip_prefix(self.folder.path()).expect("below").to_owned());
        relative.filter(|path| !path.ends_with("lock") && !path.to_string_lossy().ends_with("-shm")).collect()
    }
}

pub(crate) fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let mut found = Vec::new();
    walk(from, &mut found);
    for path in found {
        let target = to.join(path.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("has a folder")).expect("creates");
        fs::copy(&path, &target).expect("copies");
    }
}

/// NaN is not equal to itself, but prints the same; every other float prints as its own bits.
pub(crate) fn text(state: &LedgerState) -> String {
    format!("{state:?}")
}

/// Keeps sled's panics on damaged files, hundreds of which are provoked here, off the screen.
fn quiet_sled() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some("relight-sled-open") {
                print(info);
            }
        }));
    });
}
