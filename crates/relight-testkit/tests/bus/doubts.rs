//! What keeps relight from changing anything: a cold start, a lost ledger, a clock that jumped, a human.

use relight_core::incident::ActionState;
use relight_core::{Span, Timestamp};
use relight_engine::control::ControlInput;
use relight_runtime::{Clock, LiveInput};

use super::rig::{Rig, story};

/// Short enough for a test, long enough to be within it and beyond it.
const WARM_UP: Span = Span::from_secs(120);
const LADDER: &str = "{do: rollback, with: deployer}, {do: page, with: duty}";

fn cold() -> Rig {
    let mut rig = Rig::with_ladder(LADDER);
    rig.warm_up = WARM_UP;
    rig.start();
    rig
}

/// Scenario: `mode: auto`, no state; a fault at once, then one that begins when it is warm.
/// Guarantee: first only people are told, and the timeline says why; then it acts by itself.
#[test]
fn f14_c24_a_cold_start_changes_nothing() {
    let mut rig = cold();
    rig.seconds(3, 50.0);
    let page = &rig.journal.wait_sent(1)[0];
    assert_eq!(page.with, "duty");
    let incident = rig.journal.wait_incident("an incident", |incident| incident.next_step == 2);
    assert!(
        story(&incident).contains("blocked rollback with deployer: warm-up: nothing was learned"),
        "{}",
        story(&incident)
    );
    rig.clock.pass(120);
    rig.load(&[("shop", 1.0), ("cart", 50.0)]);
    rig.load(&[("shop", 1.0), ("cart", 50.0)]);
    let calls = rig.journal.wait_calls("deployer", 1);
    assert!(calls[0].in_ledger, "{calls:?}");
    rig.stop();
}

/// Scenario: it is stopped and started again while it warms up, and once more when it is warm.
/// Guarantee: the hold is neither forgotten nor begun anew.
#[test]
fn a_restart_does_not_end_the_warm_up() {
    let mut rig = cold();
    rig.seconds(2, 1.0);
    let began = rig.clock.wall();
    rig.stop();
    rig.clock.pass(60);
    rig.start();
    rig.seconds(2, 50.0);
    rig.journal.wait_incident("a hold", |incident| story(incident).contains("warm-up"));
    rig.stop();
    let holds = rig.on_disk().holds;
    let until = holds.iter().find(|(name, _)| name == "warm_up").and_then(|(_, hold)| hold.until);
    assert!(until.is_some_and(|until| until <= began.plus(WARM_UP)), "{holds:?}");
}

/// Scenario: what was learned is damaged; then the ledger is.
/// Guarantee: it starts all the same, and changes nothing: until it is warm, and until a human says so.
#[test]
fn damage_is_no_ground_to_act_on() {
    for (file, hold) in [("images", "warm_up"), ("ledger.sqlite", "ledger_lost")] {
        let mut rig = Rig::with_ladder(LADDER);
        rig.start();
        rig.seconds(20, 1.0);
        rig.stop();
        rig.warm_up = WARM_UP;
        let path = rig.state().join(file);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .expect("it is there");
        rig.start();
        rig.journal.wait_notice("moved to");
        rig.seconds(3, 50.0);
        assert_eq!(rig.journal.wait_sent(1)[0].with, "duty", "{file}");
        rig.stop();
        assert!(
            rig.on_disk().holds.iter().any(|(name, _)| name == hold),
            "{file}: {:?}",
            rig.on_disk().holds
        );
        assert!(rig.journal.sent().iter().all(|sent| sent.with == "duty"));
    }
}

/// Scenario: the wall clock is set an hour back, or two days ahead, while a cooldown runs.
/// Guarantee: nothing is changed from then on until a human has looked, pages go out, the cooldown is as long as it was.
#[test]
fn c08_c09_clock_step() {
    for step in [-3_600, 2 * 86_400] {
        let mut rig = Rig::with_ladder(LADDER);
        rig.start();
        rig.seconds(3, 50.0);
        rig.journal.wait_action("a rollback", |a| a.mutates && a.state == ActionState::Succeeded);
        rig.clock.step(step);
        rig.journal.wait_notice("clock_jump");
        let held = |rig: &Rig| rig.board.read().held.iter().any(|held| held.starts_with("clock_jump"));
        rig.journal.change(|_| ());
        rig.clock.pass(2);
        rig.wait_board("the hold", |_| held(&rig));
        rig.tell(LiveInput::Control(ControlInput::Command {
            at: Timestamp::MAX,
            verb: "resume".to_owned(),
            target: String::new(),
        }));
        rig.wait_board("the end of the hold", |_| !held(&rig));
        rig.stop();
        let cooldown = rig.on_disk().cooldowns[0].1;
        assert!(cooldown.secs_f64() < 1_700_001_000.0, "{cooldown}");
    }
}
