//! Incidents and actions: what the ledger keeps, what people read.
//!
//! Plain data. What moves them from state to state is Control, in the engine.

mod bits;
mod evidence;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::record::Event;
use crate::responder::{EffectKind, NotSent, Plan};
use crate::series::{Labels, key_of};
use crate::time::{Span, Timestamp};

pub use evidence::Evidence;

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// The condition holds, but not yet for long enough.
    Pending,
    /// It has held for long enough.
    Open,
    /// A step of the ladder is under way.
    Responding,
    /// A step was verified to have helped.
    Mitigated,
    /// The condition no longer holds; waiting for it to stay so.
    Recovering,
    /// Over.
    Resolved,
    /// A human has to look: the ladder is exhausted, it flaps, or it cannot be told.
    Escalated,
}

/// Why an incident is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// An action of ours was verified.
    VerifiedAction,
    /// It went away by itself.
    SelfRecovered,
    /// The row learned the new level: not a recovery.
    NewNormal,
    /// A human said so.
    Human,
    /// Its rule is gone.
    RuleRemoved,
    /// Its rows have been silent for too long to be kept.
    Gone,
}

/// One line of an incident's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Event or control time.
    pub at: Timestamp,
    /// What happened: a stable word.
    pub what: String,
    /// The details, for people.
    pub detail: String,
}

/// Findings of one rule and one group of labels, from onset to resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// ULID, derived; see [`incident_id`].
    pub id: String,
    /// Rule's name.
    pub rule: String,
    /// The group.
    pub group: Labels,
    /// Where it stands.
    pub state: IncidentState,
    /// Which opening this is, from 1.
    pub episode: u32,
    /// Its rows have no data at present.
    pub stale: bool,
    /// Bin of the first finding of this episode.
    pub first_finding: Timestamp,
    /// Estimated begin of the trouble, this episode.
    pub onset: Timestamp,
    /// When it opened, this episode.
    pub detected: Option<Timestamp>,
    /// When the first action started, this episode.
    pub acted: Option<Timestamp>,
    /// When an action was verified, this episode.
    pub mitigated: Option<Timestamp>,
    /// From this time on the condition has been false: when the system was well again.
    pub recovered: Option<Timestamp>,
    /// When it was resolved.
    pub resolved: Option<Timestamp>,
    /// Why.
    pub resolution: Option<Resolution>,
    /// How long the condition has held, over turns with data.
    pub held_for: Span,
    /// In how many turns with data it has held.
    pub held_turns: u32,
    /// How long the condition has been false, over turns with data.
    pub calm_for: Span,
    /// It waits for a human, and has been calm for so long that trouble of its group is news again.
    #[serde(default)]
    pub rested: bool,
    /// The last turn with data.
    pub last_data: Timestamp,
    /// How many findings it has collected.
    pub findings: u64,
    /// Of them, rows that re-learned.
    pub relearned: u64,
    /// The largest score.
    #[serde(with = "bits")]
    pub worst_score: f64,
    /// The rows that spoke first, at most [`MAX_EVIDENCE`].
    pub evidence: Vec<Evidence>,
    /// What happened about the time of its onset, this episode, as known when it opened: changes and log records that
    /// agree with the group, oldest first, at most [`MAX_CONTEXT`], cut to what a page has room for.
    #[serde(default)]
    pub context: Vec<Event>,
    /// How many groups its rule knew when it opened, this episode, as far as the fleet limit counts them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub groups_known: u64,
    /// The rung of the ladder that is next.
    pub next_step: u32,
    /// What happened, oldest first, at most [`MAX_MOMENTS`].
    pub timeline: Vec<Moment>,
    /// Moments that the timeline has no room for: those before its last one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moments_cut: u64,
}

/// Rows of evidence kept of one incident.
pub const MAX_EVIDENCE: usize = 8;
/// Events kept of one incident.
pub const MAX_CONTEXT: usize = 16;
/// Moments kept of one incident; later ones replace the last.
pub const MAX_MOMENTS: usize = 256;

impl Incident {
    /// One that begins in the bin at `at`, of which nothing else is known.
    pub fn new(rule: &str, group: Labels, at: Timestamp) -> Self {
        Self {
            id: incident_id(rule, &group, at),
            rule: rule.to_owned(),
            group,
            state: IncidentState::Pending,
            episode: 1,
            stale: false,
            first_finding: at,
            onset: at,
            detected: None,
            acted: None,
            mitigated: None,
            recovered: None,
            resolved: None,
            resolution: None,
            held_for: Span::ZERO,
            held_turns: 0,
            calm_for: Span::ZERO,
            rested: false,
            last_data: at,
            findings: 0,
            relearned: 0,
            worst_score: 0.0,
            evidence: Vec::new(),
            context: Vec::new(),
            groups_known: 0,
            next_step: 0,
            timeline: Vec::new(),
            moments_cut: 0,
        }
    }

    /// Whether it still needs looking after.
    pub const fn is_live(&self) -> bool {
        !matches!(self.state, IncidentState::Resolved)
    }

    /// The deduplication key for the outside world: every one carries the episode.
    pub fn external_key(&self) -> String {
        format!("relight/{}/{}", self.id, self.episode)
    }

    /// Adds a line to the story.
    pub fn note(&mut self, at: Timestamp, what: &str, detail: impl Into<String>) {
        if self.timeline.len() >= MAX_MOMENTS {
            self.timeline.pop();
            self.moments_cut += 1;
        }
        self.timeline.push(Moment { at, what: what.to_owned(), detail: detail.into() });
    }
}

/// Where an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// Wanted.
    Planned,
    /// A gate said no.
    Blocked,
    /// A human must agree.
    AwaitingApproval,
    /// The intent is in the ledger; nothing has been sent.
    Pending,
    /// An attempt is under way, or was when the process died.
    Running,
    /// It may have happened: its target is being asked.
    Unknown,
    /// Done; whether it helped is being watched.
    Verifying,
    /// It helped, or it needed no proof.
    Succeeded,
    /// It did not help.
    Ineffective,
    /// Whether it helped cannot be told.
    Inconclusive,
    /// It could not be carried out.
    Failed,
}

impl ActionState {
    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Blocked | Self::Succeeded | Self::Ineffective | Self::Inconclusive | Self::Failed
        )
    }
}

/// One step that a rule wants done about an incident.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the ledger keeps it")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Derived from incident, episode and step: a rewind yields the same one.
    pub id: String,
    /// Incident's id.
    pub incident: String,
    /// Episode.
    pub episode: u32,
    /// Rule's name.
    pub rule: String,
    /// Its incident's group.
    #[serde(default)]
    pub group: Labels,
    /// Rung of the ladder, from 0.
    pub step: u32,
    /// The verb.
    #[serde(rename = "do")]
    pub action: String,
    /// The responder's name.
    pub with: String,
    /// Whether it changes the world.
    pub mutates: bool,
    /// What sending it twice would mean. In doubt: never twice.
    #[serde(default = "fire_once")]
    pub effect: EffectKind,
    /// Arguments, as written.
    pub args: serde_json::Value,
    /// The target's lock.
    pub lock: String,
    /// How long the lock cools down once it is over, as its step had it when it was planned.
    #[serde(default)]
    pub cooldown: Span,
    /// Where it stands.
    pub state: ActionState,
    /// A human has agreed to it.
    #[serde(default)]
    pub approved: bool,
    /// What is sent, on every attempt: set once, before the first.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// How many attempts have begun.
    #[serde(default)]
    pub attempts: u32,
    /// Not before this time is it offered to its responder again. Control time.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// The ladder has gone on without waiting for it any longer.
    #[serde(default)]
    pub handed_on: bool,
    /// When it was planned.
    pub planned: Timestamp,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When its verification is over. Control time.
    pub verify_until: Option<Timestamp>,
    /// For how long the requirement has held so far.
    pub verified_for: Span,
    /// Whether a sample from after the action has been seen.
    pub sampled: bool,
    /// Until when, in event time, the last of those samples counts as current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<Timestamp>,
    /// An attempt has reached the target.
    #[serde(default)]
    pub reached: bool,
    /// Why nothing was sent, by the last attempt or at all. Of a failed action: it was never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_sent: Option<NotSent>,
    /// A human has lifted the fleet limit since it started, so it does not count towards that limit any more.
    #[serde(default)]
    pub limit_lifted: bool,
    /// The gate that blocked it, with value and limit; or what the responder said.
    pub detail: String,
}

impl Action {
    /// Whether it ended without anything having left for its target: it says nothing about whether the step helps.
    pub const fn was_never_sent(&self) -> bool {
        match self.state {
            ActionState::Failed => self.not_sent.is_some(),
            ActionState::Blocked => !self.reached,
            _ => false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

// An action without the field was recorded by a release that sent nothing.
const fn fire_once() -> EffectKind {
    EffectKind::FireOnce
}

/// Why nothing may be changed for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When it ends by itself, in control time; `None` waits for a human's `resume`.
    pub until: Option<Timestamp>,
    /// The reason, for people.
    pub why: String,
}

/// Everything Control remembers: it lives in the ledger and nowhere else.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LedgerState {
    /// The last turn that was applied; `None` before the first.
    pub applied_through: Option<Applied>,
    /// Incidents, by id.
    pub incidents: Vec<Incident>,
    /// Actions, by id.
    pub actions: Vec<Action>,
    /// Locks and the control time until which they cool down.
    pub cooldowns: Vec<(String, Timestamp)>,
    /// Change events that rules may still ask for, oldest first.
    pub changes: Vec<Event>,
    /// Per rule, actions in a row that did not help.
    pub breakers: Vec<(String, u32)>,
    /// What keeps relight from changing anything, by name: `paused`, `warm_up` and the like.
    pub holds: Vec<(String, Hold)>,
    /// Advances of silent partitions that a rewind may need again, by (partition, offset).
    pub advances: Vec<RecordedAdvance>,
}

/// A partition was silent after an offset, and its watermark moved: journalled, so that a rewind moves
/// it at the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAdvance {
    /// The partition's name.
    pub partition: String,
    /// The first offset that came after the advance.
    pub before_offset: u64,
    /// The watermark.
    pub to: Timestamp,
}

/// How far Control has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// End of the last bin turn. Bin turns at or before it are not applied again.
    pub turn: Timestamp,
    /// Number of bin turns so far.
    pub count: u64,
    /// Digest of that turn's findings: after a rewind the same turn must have the same findings.
    pub digest: u64,
    /// The last control time.
    pub control: Timestamp,
}

/// One change of the ledger. A turn's changes are one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerWrite {
    /// Inserts or replaces an incident.
    Incident(Box<Incident>),
    /// Removes a pending incident that came to nothing.
    ForgetIncident(String),
    /// Inserts or replaces an action.
    Action(Box<Action>),
    /// Sets a cooldown.
    Cooldown(String, Timestamp),
    /// Remembers a change event.
    Change(Event),
    /// Drops change events before this time.
    ForgetChanges(Timestamp),
    /// Sets a rule's breaker count.
    Breaker(String, u32),
    /// Remembers an advance; replaces an earlier one of the same partition and offset.
    Advance(RecordedAdvance),
    /// Drops a partition's advances before this offset: every snapshot that is kept has them.
    ForgetAdvances {
        /// The partition's name.
        partition: String,
        /// Offsets below this.
        before_offset: u64,
    },
    /// Sets or lifts a hold.
    Hold(String, Option<Hold>),
    /// A line for the audit chain: what, about which incident or action, details.
    Audit {
        /// Control time.
        at: Timestamp,
        /// A stable word.
        what: String,
        /// Incident or action id.
        subject: String,
        /// Details.
        detail: String,
    },
    /// Moves `applied_through`. The last write of a turn.
    Applied(Applied),
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A ULID as text: 48 bits of milliseconds and 80 bits of payload, Crockford base 32.
fn ulid(ms: u64, payload: &[u8; 10]) -> String {
    let mut bits = u128::from(ms & 0xFFFF_FFFF_FFFF) << 80;
    for (i, byte) in payload.iter().enumerate() {
        bits |= u128::from(*byte) << (72 - 8 * i);
    }
    (0..26).map(|i| char::from(CROCKFORD[(bits >> (125 - 5 * i) & 31) as usize])).collect()
}

/// The id of the incident that a rule opens for a group at the bin of its first finding. Made, not
/// drawn, so that a rewind yields the same id.
pub fn incident_id(rule: &str, group: &Labels, bin: Timestamp) -> String {
    let mut hash = Sha256::new();
    hash.update((rule.len() as u64).to_le_bytes());
    hash.update(rule.as_bytes());
    hash.update(key_of("", group));
    hash.update(bin.ns().to_le_bytes());
    let digest = hash.finalize();
    let payload: [u8; 10] = digest[..10].try_into().expect("SHA-256 has 32 bytes");
    ulid(u64::try_from(bin.ns() / 1_000_000).unwrap_or(0), &payload)
}

/// The id of a step's action, from incident, episode and rung.
pub fn action_id(incident: &str, episode: u32, step: u32) -> String {
    format!("{incident}-{episode}-{step}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_derived_and_sort_by_time() {
        let group = Labels::new([("service".to_owned(), "shop".to_owned())]);
        let early = incident_id("r", &group, Timestamp::from_secs(1_700_000_000));
        let late = incident_id("r", &group, Timestamp::from_secs(1_700_000_010));
        assert_eq!(early.len(), 26);
        assert!(early < late);
        assert_eq!(early, incident_id("r", &group, Timestamp::from_secs(1_700_000_000)));
        assert_ne!(early[10..], incident_id("q", &group, Timestamp::from_secs(1_700_000_000))[10..]);
        // The same rule and bin: only the group tells them apart, by key, by value and by how many there are.
        for pairs in
            [&[("service", "cart")][..], &[("svc", "shop")], &[("service", "shop"), ("zone", "b")], &[]]
        {
            let other =
                Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            let id = incident_id("r", &other, Timestamp::from_secs(1_700_000_000));
            assert_eq!(id[..10], early[..10], "the time part");
            assert_ne!(id[10..], early[10..], "{other}");
        }
    }

    #[test]
    fn ulid_text_matches_the_specification() {
        // The specification's own example of the largest one.
        assert_eq!(ulid(0xFFFF_FFFF_FFFF, &[0xFF; 10]), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(ulid(0, &[0; 10]), "00000000000000000000000000");
    }
}
