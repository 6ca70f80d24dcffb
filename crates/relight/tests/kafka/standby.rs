//! Two members that read the same and one lock: who acts, and what happens when that one is gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use relight_core::incident::{Action, ActionState};

use crate::daemon::{Daemon, Member, text, until};
use crate::load::{LONG, Load, create};
use crate::state::Left;

const POINTS: &str = "relight_points_total";
const ACTS: &str = "relight_acts";
/// How soon a standby acts after the one that did was killed.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Two members that read the load's topic, and a lock of their own between them.
fn pair(dir: &Path, load: &Load) -> [Member; 2] {
    let lock = create("lock", 1);
    let lock = format!("lock: {{topic: {lock}, group: {lock}}}");
    ["a", "b"].map(|name| Member::acting(dir, name, &load.topic, &lock))
}

/// Which member did what, by action.
fn done(shared: &Path, what: &str) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text(&shared.join(what)).lines() {
        let (action, member) = line.split_once(' ').expect("an action and a member");
        all.entry(action.to_owned()).or_default().push(member.to_owned());
    }
    all
}

/// Waits until a member has acted once more, and nobody else; returns how many acts there are now.
fn wait_for_act(shared: &Path, member: &str, before: usize) -> usize {
    until(&format!("{member} acts"), || done(shared, "act").len() > before);
    let all = done(shared, "act");
    let mine = all.values().filter(|by| by.contains(&member.to_owned())).count();
    assert!(mine >= all.len() - before, "not by {member} alone: {all:?}");
    all.len()
}

fn kill_and_take_over(load: &Load, holder: Daemon, next: &Daemon) {
    load.wait_for_quiet();
    assert_eq!(next.metric(ACTS), Some(0.0), "two act");
    holder.kill();
    let took = until("the standby takes over", || next.metric(ACTS) == Some(1.0));
    println!("takeover after {:.1} s", took.as_secs_f64());
    assert!(took <= TAKEOVER, "{took:?}");
}

/// Scenario: two members under steady load; the one that acts is killed, the other takes over; the first comes back
/// on its state, and the other is killed. Faults come before, between and after.
/// Guarantee: each takeover within 30 s; both have the incidents that an undisturbed reader of the topic has, under
/// the same ids; each action is started at most once by anybody, and only by who held the lock; a fault after a
/// takeover is acted on by the new holder.
#[test]
fn a_standby_takes_over_and_back() {
    let shared = tempfile::tempdir().expect("a folder");
    let (dir, load) = (shared.path(), Load::start("standby"));
    let [a, b] = pair(dir, &load);
    let first = a.start();
    first.wait_for(ACTS, |acts| acts > 0.0);
    let second = b.start();
    let mut acts = wait_for_act(dir, "a", 0);

    kill_and_take_over(&load, first, &second);
    acts = wait_for_act(dir, "b", acts);

    let first = a.start();
    first.wait_for(POINTS, |n| n > 0.0);
    kill_and_take_over(&load, second, &first);
    acts = wait_for_act(dir, "a", acts);
    assert!(acts >= 3);

    // The killed one reads on: what it has is held against the others', too.
    let second = b.start();
    same_as_undisturbed(dir, load, [(&a, first), (&b, second)]);
}

/// Scenario: the member that acts leaves while an incident is open, after it has acted on it.
/// Guarantee: the other does not act on it again, says why, tells people, and leaves the incident to them; it acts on the
/// next one.
#[test]
fn a_takeover_within_an_incident_acts_on_nothing_again() {
    let shared = tempfile::tempdir().expect("a folder");
    let (dir, load) = (shared.path(), Load::with(LONG, "within"));
    let [a, b] = pair(dir, &load);
    let first = a.start();
    first.wait_for(ACTS, |acts| acts > 0.0);
    let second = b.start();
    let acts = wait_for_act(dir, "a", 0);
    first.stop();
    second.wait_for(ACTS, |acts| acts > 0.0);
    wait_for_act(dir, "b", acts);
    load.stop();
    second.stop();
    let left = Left::read(&b.state());
    let acted: Vec<String> =
        done(dir, "act").into_iter().filter(|(_, by)| by == &["a"]).map(|(id, _)| id).collect();
    assert!(!acted.is_empty());
    for id in acted {
        let action = &left.actions[&id];
        let Action { detail, state, .. } = action;
        assert_eq!(*state, ActionState::Blocked, "{detail}");
        assert!(detail.starts_with("standby: ") || detail.starts_with("takeover: "), "{detail}");
        assert!(left.latched().contains(&action.incident), "{:?}", left.incidents[&action.incident]);
    }
}

/// Ends the load, and holds what both members came to, and did, against an undisturbed reader of the same topic.
fn same_as_undisturbed(dir: &Path, load: Load, members: [(&Member, Daemon); 2]) {
    let topic = load.topic.clone();
    let written = load.stop() as f64;
    let calm = Member::telling(dir, "calm", &topic);
    let reader = calm.start();
    let [(a, first), (b, second)] = members;
    for daemon in [first, second, reader] {
        daemon.wait_for(POINTS, |n| n >= written);
        daemon.stop();
    }
    let calm = Left::read(&calm.state());
    for member in [a, b] {
        let left = Left::read(&member.state());
        // One that was open when its reader took over is escalated there: what the other did about it is not known.
        let latched = left.latched();
        assert_eq!(left.findings(&latched), calm.findings(&latched), "{}", member.name);
        assert_eq!(left.partitions, calm.partitions, "{}", member.name);
    }
    for (action, by) in done(dir, "act") {
        assert_eq!(by.len(), 1, "{action} was started by {by:?}");
    }
    let paged = done(dir, "page");
    let first_steps = calm.actions.values().filter(|action| action.step == 0);
    for action in first_steps {
        assert!(paged.contains_key(&action.id), "nobody was told of {}", action.incident);
    }
}

/// Scenario: under steady load a member leaves and comes back, twenty times: the one that stands by, and every fifth
/// time the one that acts, which comes back once the other has taken over.
/// Guarantee: the lock moves each time it is left, two never act, and both come to what an undisturbed reader comes
/// to: nothing is lost, nothing is done twice, and people are told of everything.
#[test]
fn b08_rebalance_add_remove_under_load() {
    let shared = tempfile::tempdir().expect("a folder");
    let (dir, load) = (shared.path(), Load::start("moves"));
    let members = pair(dir, &load);
    let mut running = [None, None];
    for (member, running) in members.iter().zip(&mut running) {
        *running = Some(member.start());
    }
    let [Some(first), Some(second)] = &running else { unreachable!("both were started") };
    let acts = |daemon: &Daemon| daemon.metric(ACTS) == Some(1.0);
    until("one acts", || acts(first) || acts(second));
    let mut holder = usize::from(acts(second));
    for round in 1..=20 {
        let leaves = if round % 5 == 0 { holder } else { 1 - holder };
        running[leaves].take().expect("it runs").stop();
        let other = running[1 - leaves].as_ref().expect("it runs");
        other.wait_for(ACTS, |acts| acts > 0.0);
        holder = 1 - leaves;
        let back = members[leaves].start();
        back.wait_for(POINTS, |n| n > 0.0);
        assert_eq!(back.metric(ACTS), Some(0.0), "two act in round {round}");
        running[leaves] = Some(back);
    }
    let [a, b] = running.map(|daemon| daemon.expect("it runs"));
    same_as_undisturbed(dir, load, [(&members[0], a), (&members[1], b)]);
}

/// Scenario: the member that acts is stopped (SIGSTOP) for longer than its session, and goes on once the other has
/// taken over.
/// Guarantee: it starts nothing more, stands by, and reads along; the other acts.
#[test]
fn b11_zombie_owner_process() {
    let shared = tempfile::tempdir().expect("a folder");
    let (dir, load) = (shared.path(), Load::start("zombie"));
    let [a, b] = pair(dir, &load);
    let first = a.start();
    first.wait_for(ACTS, |acts| acts > 0.0);
    let second = b.start();
    let acts = wait_for_act(dir, "a", 0);
    load.wait_for_quiet();
    first.signal("-STOP");
    second.wait_for(ACTS, |acts| acts > 0.0);
    first.signal("-CONT");
    first.wait_for(ACTS, |acts| acts == 0.0);
    wait_for_act(dir, "b", acts);
    let by_a = |all: BTreeMap<String, Vec<String>>| all.values().flatten().filter(|by| *by == "a").count();
    assert_eq!(by_a(done(dir, "act")), acts, "the zombie acted");
    load.stop();
    first.stop();
    second.stop();
}

/// Scenario: a second process has the name of the first in the lock's group: its state folder was copied.
/// Guarantee: one of them says so and ends with 1; it lets nothing out.
#[test]
fn b19_static_member_fenced() {
    let shared = tempfile::tempdir().expect("a folder");
    let (dir, load) = (shared.path(), Load::start("fenced"));
    let [a, b] = pair(dir, &load);
    for member in [&a, &b] {
        std::fs::create_dir_all(member.state()).expect("a folder of our own");
        std::fs::write(member.state().join("member"), "twin").expect("a folder of our own");
    }
    let first = a.start();
    first.wait_for(ACTS, |acts| acts > 0.0);
    let second = b.start();
    let status = first.end();
    assert_eq!(status.code(), Some(1));
    let said = text(&dir.join("a").join("said"));
    assert!(said.contains("another process joined the lock under this one's name"), "{said}");
    second.wait_for(ACTS, |acts| acts > 0.0);
    load.stop();
    second.stop();
}
