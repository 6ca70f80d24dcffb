//! People in a world: they acknowledge incidents, answer actions that wait, reset breakers, say things
//! twice, too late, and things that mean nothing; and responders that take their time and fail.
//!
//! What is there to speak of is known from a run without them.

use std::collections::BTreeMap;

use relight_core::record::ControlRecord;
use relight_core::{Span, Timestamp};
use relight_runtime::SimulatedOutcome;

use crate::rng::Rng;
use crate::sim::Outcome;
use crate::world::World;

/// What people say about what happened in `calm`, a run of `world`; and how the actions ended.
#[must_use]
pub fn with_people(world: &World, calm: &Outcome, seed: u64) -> (World, BTreeMap<String, SimulatedOutcome>) {
    let mut crowd = Crowd { world: world.clone(), rng: Rng::new(seed ^ 0x9E0_91E) };
    let mut outcomes = BTreeMap::new();
    for incident in calm.incidents.iter().filter_map(|incident| Some((incident.detected?, &incident.id))) {
        crowd.say(incident.0, "ack", incident.1);
    }
    for action in &calm.actions {
        let verb = if crowd.rng.one_in(4) { "reject" } else { "approve" };
        crowd.say(action.planned, verb, &action.id);
        let at = crowd.soon(action.planned.plus(Span::from_secs(40)));
        let ok = !crowd.rng.one_in(4);
        outcomes.insert(action.id.clone(), SimulatedOutcome { at, ok, detail: "as it was".to_owned() });
        if crowd.rng.one_in(2) {
            crowd.say(at, "reset", "errors");
        }
        if crowd.rng.one_in(3) {
            crowd.say(action.planned, "resume", "");
        }
        crowd.say(action.planned, "dance", &action.id);
    }
    (crowd.world, outcomes)
}

struct Crowd {
    world: World,
    rng: Rng,
}

impl Crowd {
    /// Within a minute, half of the time at a whole second, which may be the end of a bin.
    fn soon(&mut self, at: Timestamp) -> Timestamp {
        let grain = if self.rng.one_in(2) { 1_000_000_000 } else { 1 };
        at.plus(Span::from_ns((self.rng.below(60_000_000_000) / grain * grain) as i64))
    }

    /// Once, or twice at the same instant in different partitions; now and then it is told late.
    fn say(&mut self, after: Timestamp, verb: &str, target: &str) {
        let at = self.soon(after);
        for _ in 0..=self.rng.below(2) {
            let told = if self.rng.one_in(4) { at.plus(Span::from_secs(200)) } else { at };
            let partition = self.rng.below(self.world.partitions.len() as u64) as usize;
            let (verb, target) = (verb.to_owned(), target.to_owned());
            let command = ControlRecord::Command { at, verb, target };
            if let Some(record) = self.world.record_at(partition, told) {
                record.controls.push(command);
            }
        }
    }
}
