//! Trouble with relight itself and with what it reads: who is told, and what is held back for it.

use relight_core::incident::Incident;
use relight_core::responder::EffectKind;
use relight_core::rule::ITSELF;
use relight_core::{Labels, Span};
use relight_engine::control::SOURCE_DOWN;
use relight_ingest::live::{Inlet, Load};
use relight_runtime::{LiveInput, Trouble};
use relight_testkit::fragile;

use super::fake::Reply;
use super::rig::{Rig, rule, yaml};

/// With a responder that is told of trouble, and this instead of the detector's type.
fn rig(detector: &str) -> Rig {
    let rules = rule("hot", "{do: page, with: duty}");
    let text =
        format!("{}trouble: {{with: human}}\n", yaml(&[("duty", "notify"), ("human", "notify")], &rules));
    let mut rig = Rig::new(&text.replace("type: threshold, signal: load, above: 10", detector));
    for name in ["duty", "human"] {
        rig.fake(name, EffectKind::Idempotent, &[Reply::Done]);
    }
    rig
}

fn threshold() -> Rig {
    rig("type: threshold, signal: load, above: 10")
}

/// Waits until a human was told, once, of a trouble of this kind.
fn told(rig: &Rig, kind: &str) -> Incident {
    let is_it = |incident: &Incident| {
        incident.rule == ITSELF && incident.group.iter().any(|label| label == ("trouble", kind))
    };
    let incident = rig.journal.wait_incident(kind, is_it);
    let action =
        rig.journal.wait_action(kind, |action| action.incident == incident.id && action.state.is_final());
    let calls = rig.journal.wait_calls("human", 1);
    let of_it: Vec<_> = calls.iter().filter(|call| call.key == action.id).collect();
    assert!(matches!(&of_it[..], [call] if call.in_ledger), "{calls:?}");
    incident
}

fn of(group: &Labels, label: &str) -> String {
    group.iter().find(|(key, _)| *key == label).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// Scenario: a detector panics on each value of one service, and not on the other's.
/// Guarantee: the process goes on, the other service is watched and paged about, and a human is told once which
/// detector sees which row no more.
#[test]
fn b06_poison_panics_detector() {
    let mut rig = threshold();
    rig.config.settings.detectors[0].source = fragile::fragile();
    rig.start();
    (0..5).for_each(|_| rig.load(&[("shop", fragile::JUDGED), ("cart", 1.0)]));
    let incident = told(&rig, "detector_quarantined");
    assert_eq!(of(&incident.group, "about"), "high");
    let why = of(&incident.group, "why");
    assert!(why.contains(r#"load{service="shop"}"#) && why.contains("does not like 666"), "{why}");
    (0..3).for_each(|_| rig.load(&[("shop", fragile::JUDGED), ("cart", 50.0)]));
    assert_eq!(rig.journal.wait_calls("duty", 1).len(), 1);
    rig.stop();
}

/// Feeds a partition of a log one second of load of a service.
fn feed(rig: &Rig, inlet: &Inlet, service: &str) {
    rig.offer(inlet, rig.delivery(&[(service, 1.0)]));
}

/// Scenario: of two sources one goes down, with both of its partitions, for longer than it is waited for; a detector
/// waits for missing data. It comes back, and one of its series later than the other; in the end one stays away.
/// Guarantee: people are told of the source once, and of none of its series while it is down or coming back; then of
/// the series that is missing.
#[test]
fn b15_c17_a_source_that_is_down_is_told_once() {
    let mut rig = rig("type: absence, signal: load, patience: 3");
    rig.config.settings.max_skew = Span::from_secs(10);
    rig.start();
    let queue = ["queue/t/0", "queue/t/1"].map(|partition| rig.open(partition));
    let second = |services: &[Option<&str>; 2]| {
        rig.load(&[("cart", 1.0)]);
        for (inlet, service) in queue.iter().zip(services) {
            if let Some(service) = service {
                feed(&rig, inlet, service);
            }
        }
        rig.settle();
    };
    (0..10).for_each(|_| second(&[Some("shop"), Some("bank")]));
    for inlet in &queue {
        rig.say(inlet, Load::Unreachable("no broker".to_owned()));
    }
    (0..60).for_each(|_| second(&[None, None]));
    let incident = told(&rig, SOURCE_DOWN);
    assert_eq!(of(&incident.group, "about"), "queue");
    assert!(rig.board.read().held.iter().any(|held| held.starts_with(SOURCE_DOWN)));
    (0..10).for_each(|_| second(&[Some("shop"), None]));
    (0..10).for_each(|_| second(&[Some("shop"), Some("bank")]));
    assert_eq!(rig.journal.sent().len(), 1, "{:?}", rig.journal.sent());
    for _ in 0..90 {
        rig.say(&queue[1], Load::CaughtUp);
        second(&[Some("shop"), None]);
    }
    rig.pass_until("a page about the bank", |rig| {
        !rig.journal.sent().iter().all(|sent| sent.with == "human")
    });
    assert_eq!(rig.journal.wait_calls("human", 1).len(), 1);
    rig.stop();
}

/// Scenario: records are gone before they were read, while a ladder would change the world.
/// Guarantee: a human is told, and nothing is changed before what was learned is warm again.
#[test]
fn b03_b17_missing_records_are_no_ground_to_act_on() {
    let rules = rule("hot", "{do: rollback, with: deployer}, {do: page, with: human}");
    let text = yaml(&[("deployer", "mutate"), ("human", "notify")], &rules);
    let mut rig = Rig::new(&format!("{text}trouble: {{with: human}}\n"));
    rig.fake("deployer", EffectKind::FireOnce, &[Reply::Done]);
    rig.fake("human", EffectKind::Idempotent, &[Reply::Done]);
    rig.start();
    rig.seconds(3, 1.0);
    rig.settle();
    rig.stop();
    rig.warm_up = Span::from_secs(60);
    rig.start();
    let why = "queue/t/0: offsets 1 to 40 were gone before they were read".to_owned();
    rig.tell(LiveInput::Trouble(Trouble { kind: "gap", about: "queue".to_owned(), why, is_loss: true }));
    assert!(of(&told(&rig, "gap").group, "why").contains("offsets 1 to 40"));
    rig.seconds(3, 50.0);
    let incident = rig.journal.wait_incident("an incident", |incident| incident.next_step == 2);
    let story = super::rig::story(&incident);
    assert!(story.contains("blocked rollback with deployer: warm-up: queue: queue/t/0: offsets"), "{story}");
    rig.clock.pass(61);
    (0..3).for_each(|_| rig.load(&[("shop", 1.0), ("cart", 50.0)]));
    assert_eq!(rig.journal.wait_calls("deployer", 1).len(), 1);
    rig.stop();
}

/// Scenario: what was learned is damaged; then the ledger is; then the wall clock jumps.
/// Guarantee: each is told to a human.
#[test]
fn damage_and_a_clock_that_jumps_are_told() {
    let mut rig = threshold();
    rig.start();
    rig.seconds(20, 1.0);
    rig.stop();
    for (file, kind) in [("images", "baselines_quarantined"), ("ledger.sqlite", "ledger_quarantined")] {
        let path = rig.state().join(file);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .expect("it is there");
        rig.start();
        told(&rig, kind);
        rig.seconds(20, 1.0);
        rig.stop();
    }
    rig.start();
    rig.clock.step(7_200);
    told(&rig, "clock_jump");
    rig.stop();
}
